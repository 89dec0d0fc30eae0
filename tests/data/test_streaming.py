"""Images read from files: the same whatever the processes, equal to torchvision, and one clear line when they fail."""

from __future__ import annotations

import dataclasses
import io
import os
import signal
import struct
import subprocess
import sys
import textwrap
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import v2

from harness.api import Batch, Method, Stage, StepContext, StepModel, View
from harness.base.errors import RunFailed, UserError
from harness.base.progress import Reporter
from harness.engine.loop import StageRun
from harness.feed import streaming
from harness.feed.image_pool import ImagePool, Reading, default_workers
from harness.feed.image_reader import ImageReader, Request
from harness.feed.parts import closing, make_parts
from harness.feed.plans import EpochPlan, plan_epoch
from harness.feed.resize import as_files, from_users_files, resized
from harness.feed.streaming import StreamingPart
from harness.reading.dataset import AnyImages, Encoded, ImageFiles, Images
from harness.reading.decoding import MAX_PIXELS, decode_image, decode_resized
from harness.spec.registry import get_method
from harness.spec.stage_recipe import Augment
from harness.splits.splits import Part, Split, take
from harness.toolbox.samplers import ClassAwareSampler
from tests.data.pictures import oriented
from tests.engine.toys import Everything, Killed, job, results

CPU = torch.device("cpu")
EVERYTHING = Augment(resized_crop=True, flip=True, color_jitter=0.4, lighting=0.1)
LIT = Augment(flip=True, lighting=0.1)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIDE = 32


def picture(width: int, height: int, seed: int) -> Image.Image:
    """A smooth field with some noise, as photographs have."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8))
    coarse = coarse.resize((width, height), Image.Resampling.BICUBIC)
    noisy = np.asarray(coarse) + rng.normal(0, 8, (height, width, 3))
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> ImageFiles:
    """21 images of several sizes and formats, in a folder for each of three classes."""
    root, names = tmp_path_factory.mktemp("images"), []
    for i in range(21):
        name = f"{i % 3}/{i}{'.webp' if i == 5 else '.png' if i == 6 else '.JPEG'}"
        (root / name).parent.mkdir(exist_ok=True)
        image = picture(60 + 7 * i, 50 + 40 * (i % 4), seed=i)
        image.convert({2: "L", 3: "CMYK", 6: "P"}.get(i, "RGB")).save(root / name)
        names.append(name)
    return ImageFiles(root, tuple(names), np.arange(21) % 3)


def split_of(train: AnyImages, test: AnyImages, side: int = SIDE) -> Split:
    """A split of three classes with these training and test images."""
    counts, test_counts = (np.bincount(part.labels, minlength=3).tolist() for part in (train, test))
    return Split(
        schema=1,
        id="made",
        dataset="made",
        profile="given",
        imbalance_factor=1.0,
        subset_rule="given",
        split_seed=0,
        class_names=["a", "b", "c"],
        image_shape=[side, side, 3],
        mean=list(MEAN),
        std=list(STD),
        class_counts=counts,
        train=[[""] * count for count in counts],
        val=Part([0, 0, 0], ""),
        test=Part(test_counts, ""),
    )


@contextmanager
def part_of(files: ImageFiles, workers: int, augment: Augment = EVERYTHING) -> Iterator[StreamingPart]:
    """The files as a part, read by so many processes."""
    pool = ImagePool(ImageReader((SIDE, SIDE, 3), augment), workers, batch_size=4)
    try:
        yield StreamingPart(files, split_of(files, files), CPU, pool)
    finally:
        pool.close()


def planned(
    part: StreamingPart, size: int = 8, augment: Augment = EVERYTHING, order: np.ndarray | None = None
) -> EpochPlan:
    """A plan of an epoch, always the same."""
    order = np.random.default_rng(1).permutation(len(part)) if order is None else order
    options: dict[str, Any] = {"augment": augment, "image_shape": (SIDE, SIDE, 3), "mixup_alpha": 0.0, "device": CPU}
    return plan_epoch(order, size, np.random.default_rng(2), **options, from_files=True)


def noted(found: list[Any], one: Any) -> Any:
    """The same, once it is noted."""
    found.append(one)
    return one


def epoch(part: StreamingPart, start: int = 0, size: int = 8) -> list[Tensor]:
    """The batches of an epoch from the given step on."""
    plan = planned(part, size)
    batches = [slice(first, first + size) for first in range(start * size, len(part), size)]
    part.start_epoch(plan, batches)
    return [part.batch(plan.order[where], plan.augment[where]) for where in batches]


# ---- the same images ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_images_do_not_depend_on_the_number_of_processes(files: ImageFiles, workers: int) -> None:
    with part_of(files, 0) as alone, part_of(files, workers) as together:
        for one, other in zip(
            [*epoch(alone), *alone.in_order(5, range(len(alone)))],
            [*epoch(together), *together.in_order(5, range(len(together)))],
            strict=True,
        ):
            assert torch.equal(one, other)
        assert len(one) == 1
        assert one.is_contiguous(memory_format=torch.channels_last)
        assert one.dtype == torch.float32


def test_a_resumed_epoch_goes_on_with_the_same_batches(files: ImageFiles) -> None:
    with part_of(files, 2) as part:
        whole, rest = epoch(part), epoch(part, start=1)
    assert [len(batch) for batch in rest] == [8, 5]
    assert all(torch.equal(one, other) for one, other in zip(whole[1:], rest, strict=True))


def test_a_plan_is_read_ahead_and_other_images_in_between(files: ImageFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """Held-out batches and evaluation come from the same processes; the plan goes on where it was."""
    with part_of(files, 2) as part:
        expected = epoch(part)
        asked: list[Request] = []
        submit = part._pool.submit
        monkeypatch.setattr(part._pool, "submit", lambda request: submit(noted(asked, request)))
        plan, batches = planned(part), [slice(0, 8), slice(8, 16), slice(16, 21)]
        part.start_epoch(plan, batches)
        assert len(asked) == 3  # all of it, before a batch is asked for
        held_out = part.batch(torch.tensor([4, 4, 2]), plan.augment[:3])
        assert len(asked) == 4
        tests = list(part.in_order(21, range(len(part))))
        found = [part.batch(plan.order[where].clone(), plan.augment[where]) for where in batches]
        assert len(asked) == 4 + 3
    assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))
    assert not torch.equal(held_out[0], held_out[1])  # one image, two seeds
    assert len(tests) == 1


def test_many_passes_at_once(files: ImageFiles) -> None:
    """Each goes on where it was, and none waits for another."""
    with part_of(files, 1, Augment()) as part:
        expected = torch.cat(list(part.in_order(21, range(len(part)))))
        plan = planned(part, augment=Augment(), order=np.tile(np.arange(21), 20))
        part.start_epoch(plan, [slice(0, len(plan.order))])
        passes = [part.in_order(21, range(len(part))) for _ in range(6)]
        for one in passes:
            assert torch.equal(next(one), expected)
        assert torch.equal(part.batch(torch.arange(21)), expected)
        assert torch.equal(part.batch(plan.order, plan.augment)[-21:], expected)
        del passes
        part.start_epoch(plan, [])
        next(part.in_order(21, range(len(part))))
        deadline = time.monotonic() + 10
        while len(part._pool._free) < len(part._pool._places):  # what was given up gives its memory back
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_the_global_generator_is_left_alone(files: ImageFiles) -> None:
    with part_of(files, 0) as part:
        before = torch.get_rng_state()
        epoch(part)
        assert torch.equal(torch.get_rng_state(), before)


# ---- equal to torchvision -------------------------------------------------------------------------------------------


def test_test_images_equal_resize_and_centre_crop(files: ImageFiles) -> None:
    """Of the same decoded images bit for bit; through Pillow's resize, as published code has it, but for rounding."""
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (MEAN, STD))
    with part_of(files, 1) as part:
        found = torch.cat(list(part.in_order(6, range(len(part)))))
    short = round(SIDE * 256 / 224)
    by_tensor = v2.Compose([v2.Resize(short, antialias=True), v2.CenterCrop(SIDE)])
    by_pillow = transforms.Compose([transforms.Resize(short), transforms.CenterCrop(SIDE), transforms.PILToTensor()])
    for name, image in zip(files.names, found, strict=True):
        rgb = Image.open(files.root / name).convert("RGB")
        expected = by_tensor(torch.from_numpy(np.array(rgb)).permute(2, 0, 1))
        assert torch.equal(image, (expected.float() - 255 * mean) * (1 / (255 * std)))
        pixels = (image * std + mean) * 255
        assert float((pixels - by_pillow(rgb)).abs().max()) < 1.01


def test_224_pixels_are_cut_from_256(files: ImageFiles) -> None:
    assert ImageReader((224, 224, 3), Augment()).short_side == 256


def crops_of(paths: list[str]) -> Request:
    """Files with a seed each, and no operations."""
    count = len(paths)
    return Request(paths, np.arange(count), np.zeros((count, 0), np.int64), np.zeros((count, 0), np.float32))


def test_crops_have_torchvisions_distribution(tmp_path: Path) -> None:
    """An image whose colours are its coordinates shows what was cut out: place, size and mirror image."""
    y, x = np.mgrid[0:90, 0:120]
    ramp = np.stack([x * 255 / 119, y * 255 / 89, np.zeros_like(x)], axis=2).round().astype(np.uint8)
    Image.fromarray(ramp).save(tmp_path / "ramp.png")

    def facts(image: Tensor) -> Tensor:
        red, green = image[0].float(), image[1].float()
        width, height = red[:, -1].mean() - red[:, 0].mean(), green[-1].mean() - green[0].mean()
        return torch.stack([red.mean(), green.mean(), width, width.abs(), height])

    reader = ImageReader((SIDE, SIDE, 3), Augment(resized_crop=True, flip=True))
    published = transforms.Compose(
        [transforms.RandomResizedCrop(SIDE), transforms.RandomHorizontalFlip(), transforms.PILToTensor()]
    )
    pixels = reader.read(crops_of(600 * [str(tmp_path / "ramp.png")]))
    ours = torch.stack([facts(image) for image in torch.from_numpy(pixels).permute(0, 3, 1, 2)])
    torch.manual_seed(0)
    theirs = torch.stack([facts(published(Image.fromarray(ramp))) for _ in range(600)])
    for column in range(ours.shape[1]):
        assert kolmogorov_smirnov(ours[:, column], theirs[:, column]) < 1.95 * (2 / 600) ** 0.5  # p = 0.001


def kolmogorov_smirnov(one: Tensor, other: Tensor) -> float:
    """Largest distance of the two samples' distribution functions."""
    at = torch.cat([one, other]).sort().values
    shares = [torch.searchsorted(sample.sort().values, at, right=True) / len(sample) for sample in (one, other)]
    return float((shares[0] - shares[1]).abs().max())


def test_jitter_has_torchvisions_distribution(files: ImageFiles) -> None:
    """The batched jitter of images in memory is that of files too."""
    one = ImageFiles(files.root, 400 * files.names[:1], np.zeros(400, np.int64))
    with part_of(one, 0, Augment(color_jitter=0.4)) as part:
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (MEAN, STD))
        ours = (
            part.batch(torch.arange(400), planned(part, augment=Augment(color_jitter=0.4)).augment) * std + mean
        ) * 255
    cut = transforms.Compose([transforms.Resize(round(SIDE * 256 / 224)), transforms.CenterCrop(SIDE)])
    image = cut(Image.open(files.root / files.names[0]))
    published = transforms.Compose([transforms.ColorJitter(0.4, 0.4, 0.4), transforms.PILToTensor()])
    torch.manual_seed(0)
    theirs = torch.stack([published(image) for _ in range(400)])
    for fact in (torch.mean, torch.std):
        found, expected = (torch.stack([fact(image.float()) for image in images]) for images in (ours, theirs))
        assert kolmogorov_smirnov(found, expected) < 1.95 * (2 / 400) ** 0.5  # p = 0.001


def test_lighting_is_added_before_normalisation(files: ImageFiles) -> None:
    index, std = torch.arange(4), torch.tensor(STD).view(-1, 1, 1)
    with part_of(files, 0, Augment(flip=True)) as plain, part_of(files, 0, LIT) as lit:
        plan, bare = planned(lit, augment=LIT).augment[:4], planned(plain, augment=Augment(flip=True)).augment[:4]
        assert plan.seed is not None
        assert bare.seed is not None
        assert torch.equal(plan.seed, bare.seed)
        difference = (lit.batch(index, plan) - plain.batch(index, bare)) * std
        assert torch.equal(lit.batch(index), plain.batch(index))  # none in tests
    assert float(difference.std(dim=(2, 3)).max()) < 1e-5
    assert 0 < float(difference.abs().max()) < 0.1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_gpu_gives_the_same_images(files: ImageFiles) -> None:
    """There the colours are its own work; read ahead or not, a grey level of rounding is all that may differ."""
    device, step = torch.device("cuda"), 1.01 / (255 * min(STD))
    with part_of(files, 2) as part:
        expected = epoch(part)
        there = StreamingPart(files, split_of(files, files), device, part._pool)
        plan = planned(there)
        plan = dataclasses.replace(plan, order=plan.order.to(device), augment=plan.augment.to(device))
        batches = [slice(0, 8), slice(8, 16), slice(16, 21)]
        there.start_epoch(plan, batches)
        ahead = [there.batch(plan.order[where], plan.augment[where]) for where in batches]
        later = [there.batch(plan.order[where], plan.augment[where]) for where in batches]
    for one, other, again in zip(expected, ahead, later, strict=True):
        assert float((one - other.cpu()).abs().max()) < 3 * step  # one for each step of the jitter
        assert torch.equal(other, again)


def test_grey_images_stay_grey_where_the_split_is(files: ImageFiles) -> None:
    reader = ImageReader((SIDE, SIDE, 1), Augment(resized_crop=True, color_jitter=0.4))
    pixels = reader.read(crops_of([str(files.root / name) for name in files.names]))
    assert pixels.shape == (21, SIDE, SIDE, 1)
    assert all(bool(image.any()) for image in pixels)


@pytest.mark.parametrize(
    ("shape", "augment", "message"),
    [
        ((32, 48, 3), Augment(), "square images of 1 or 3 channels, not 32x48x3"),
        ((32, 32, 2), Augment(), "square images of 1 or 3 channels, not 32x32x2"),
        ((32, 32, 1), Augment(lighting=0.1), "lighting needs RGB"),
    ],
)
def test_what_files_cannot_become(shape: tuple[int, ...], augment: Augment, message: str, files: ImageFiles) -> None:
    split = dataclasses.replace(split_of(files, files), image_shape=list(shape))
    with pytest.raises(UserError, match=message):
        make_parts({"train": files}, split, CPU, augment, batch_size=4)


# ---- failures -------------------------------------------------------------------------------------------------------


def png_of_size(width: int, height: int) -> bytes:
    """A PNG whose header declares that size, and that holds no pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def jpeg_of_size(width: int, height: int) -> bytes:
    """A JPEG whose header declares that size, whatever it holds."""
    buffer = io.BytesIO()
    picture(64, 48, 0).save(buffer, "JPEG")
    data = bytearray(buffer.getvalue())
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = struct.pack(">HH", height, width)
    return bytes(data)


DAMAGES: dict[str, tuple[Callable[[bytes], bytes] | None, str]] = {
    "missing": (None, "missing"),
    "empty": (lambda data: b"", "none of the formats"),
    "text": (lambda data: b"<html>404</html>", "none of the formats"),
    "truncated": (lambda data: data[: len(data) // 2], "truncated"),
    "cut_in_header": (lambda data: data[:30], "cannot be read as an image"),
    "scribbled": (lambda data: data[:700] + b"\xff" * 60 + data[760:], "cannot be read as an image"),
    "bomb_png": (lambda data: png_of_size(60_000, 60_000), "exceeds limit|the limit is"),
    "bomb_jpeg": (lambda data: jpeg_of_size(12_000, 12_000), "12000 x 12000 pixels; the limit is"),
    "strip": (lambda data: jpeg_of_size(65_000, 1), "65000 x 1 pixels; the limit is"),
    "png_without_pixels": (lambda data: png_of_size(50, 50), "cannot be read as an image"),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_file_is_one_line_that_names_it(damage: str, workers: int, tmp_path: Path) -> None:
    for i in range(10):
        picture(64, 48, i).save(tmp_path / f"{i}.jpg", quality=95)
    make, message = DAMAGES[damage]
    bad = tmp_path / "7.jpg"
    data = bad.read_bytes()
    bad.unlink()
    if make is not None:
        bad.write_bytes(make(data))
    files = ImageFiles(tmp_path, tuple(f"{i}.jpg" for i in range(10)), np.arange(10) % 3)
    reader = ImageReader((224, 224, 3), Augment())
    pool = ImagePool(reader, workers, batch_size=2)
    try:
        part = StreamingPart(files, split_of(files, files, 224), CPU, pool)
        batches = part.in_order(2, range(len(part)))
        for _ in range(3):
            next(batches)  # those before it are right
        with pytest.raises(UserError, match=message) as caught:
            next(batches)
    finally:
        pool.close()
    assert str(caught.value).startswith(f"{bad}: ")
    assert "\n" not in str(caught.value)
    assert "0x" not in str(caught.value)
    assert caught.value.__cause__ is None  # nothing of another process's traceback


def test_a_dead_process_is_one_clear_error(files: ImageFiles) -> None:
    with part_of(files, 2) as part:
        next(part.in_order(4, range(len(part))))
        assert part._pool._executor is not None
        for process in list(part._pool._executor._processes.values()):
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            process.join()
        with pytest.raises(RunFailed, match=r"process that reads images was killed.*LTBENCH_LOADER_WORKERS"):
            part.batch(torch.arange(21))


def children(pid: int) -> set[int]:
    """Processes whose parent is `pid`."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.add(int(stat.parent.name))
    return found


def test_processes_end_with_the_run(files: ImageFiles) -> None:
    def failing() -> None:
        with part_of(files, 2) as part:
            part.start_epoch(planned(part, order=np.tile(np.arange(21), 9)), [slice(0, 189)])
            assert len(children(os.getpid()) - before) == 2
            raise ZeroDivisionError

    before = children(os.getpid())
    with pytest.raises(ZeroDivisionError):
        failing()
    assert children(os.getpid()) <= before


@pytest.mark.parametrize("deadly", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_processes_end_when_the_run_is_killed(deadly: signal.Signals, files: ImageFiles) -> None:
    """Ctrl-C and SIGTERM reach the whole group: one clean exception; after SIGKILL nobody is left to clean up."""
    script = f"""
        from tests.data.test_streaming import *
        for ends in (signal.SIGINT, signal.SIGTERM):
            signal.signal(ends, signal.default_int_handler)  # a shell's background jobs ignore it
        names = sorted(str(path) for path in Path({str(files.root)!r}).rglob("*.JPEG"))
        files = ImageFiles(Path("/"), tuple(names), np.zeros(len(names), np.int64))
        try:
            with part_of(files, 2) as part:
                next(part.in_order(4, range(len(part))))
                print("ready", *children(os.getpid()), flush=True)
                while True:
                    part.batch(torch.arange(len(part)))
        except KeyboardInterrupt:
            print("interrupted", flush=True)
    """
    run = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert run.stdout is not None
    workers = run.stdout.readline().split()[1:]
    assert len(workers) == 2
    try:
        run.kill() if deadly == signal.SIGKILL else os.killpg(run.pid, deadly)
        out, errors = run.communicate(timeout=30)
    finally:
        run.kill()
    if deadly != signal.SIGKILL:
        assert out == "interrupted\n"
        assert errors == ""
    assert not any(alive(int(pid)) for pid in workers)


def alive(pid: int) -> bool:
    """Whether the process is still there after a moment."""
    for _ in range(50):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return False
        except OSError:
            return False
        time.sleep(0.1)
    return True


def test_number_of_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LTBENCH_LOADER_WORKERS", raising=False)
    assert default_workers(CPU) == 1
    assert 1 <= default_workers(torch.device("cuda")) <= 16
    monkeypatch.setenv("LTBENCH_LOADER_WORKERS", "3")
    assert default_workers(CPU) == 3
    monkeypatch.setenv("WORLD_SIZE", "4")  # four processes train the run together, two of them here
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert default_workers(CPU) == 1
    monkeypatch.setenv("LTBENCH_LOADER_WORKERS", "-1")
    with pytest.raises(UserError, match="LTBENCH_LOADER_WORKERS=-1: expected a whole number"):
        default_workers(CPU)


def test_limit_is_the_decoders_own() -> None:
    assert Image.MAX_IMAGE_PIXELS is not None
    assert MAX_PIXELS <= 2 * Image.MAX_IMAGE_PIXELS  # Pillow's own errors begin there


# ---- a whole run ----------------------------------------------------------------------------------------------------


class Plain(Method):
    name = "plain"


class Choosing(Everything):
    """Chooses images as it goes, as BALMS does; and its held-out batches come from validation."""

    name = "choosing"

    def choose(self, index: Tensor, step: StepContext) -> Tensor:
        return torch.randint(14, index.shape, generator=step.generator)

    def views(self, labels: np.ndarray, stage: Stage) -> tuple[View, ...]:
        return *super().views(labels, stage)[:1], View(balanced=5, part="val")


class Seeing(Everything):
    """Sees every kind of view in each step, and keeps what it saw."""

    name = "seeing"
    seen: ClassVar[list[tuple[Batch, ...]]] = []

    def views(self, labels: np.ndarray, stage: Stage) -> tuple[View, ...]:
        own = ClassAwareSampler(labels, self.task.num_classes, k=2)
        further = View(), View(augment="strong"), View(augment="none"), View(own), View(own, augment="none")
        return View(self.sampler(labels, stage)), *further, View(balanced=4)

    def step_loss(self, model: StepModel, views: tuple[Batch, ...], step: StepContext) -> Tensor:
        self.seen.append(views)
        logits = model(torch.cat([view.images for view in views]))
        return F.cross_entropy(logits, torch.cat([view.target for view in views]))


RECIPE: dict[str, Any] = {"epochs": 2, "batch_size": 6, "augment": EVERYTHING}
STRONG = Augment(resized_crop=True, crop_area=0.9, color_jitter=0.2)


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Split, dict[str, ImageFiles]]:
    """40 JPEGs: training and validation 14 and 8, test 18; classes differ in colour."""
    root, parts = tmp_path_factory.mktemp("photographs"), {}
    for part, count in (("train", 14), ("val", 8), ("test", 18)):
        labels = np.sort(np.arange(count) % 3)
        for i, label in enumerate(labels):
            (root / part).mkdir(exist_ok=True)
            channels = list(picture(100 + i, 80, seed=count * 100 + i).split())
            channels[label] = channels[label].point(lambda value: value // 4)
            Image.merge("RGB", channels).save(root / part / f"{i}.jpg")
        parts[part] = ImageFiles(root, tuple(f"{part}/{i}.jpg" for i in range(count)), labels)
    split = split_of(parts["train"], parts["test"], side=64)
    return dataclasses.replace(split, val=Part([3, 3, 2], "")), parts


def run_of(
    method: type[Method], split: Split, parts: Mapping[str, AnyImages], folder: Path, **changes: Any
) -> StageRun:
    stage = changes.pop("stage", "train")
    toy = job(method, stage, **(RECIPE | changes))
    return StageRun(dataclasses.replace(toy, backbone="resnet10"), split, parts, CPU, folder)


@pytest.mark.parametrize("method", [Everything, Choosing, Seeing])
def test_a_run_gives_the_same_bits_twice_and_leaves_no_process(
    method: type[Method],
    photographs: tuple[Split, dict[str, ImageFiles]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Held-out batches and images that a method chooses on its way; one process, two, and none."""
    before = children(os.getpid())
    for workers in "120":
        monkeypatch.setenv("LTBENCH_LOADER_WORKERS", workers)
        run_of(method, *photographs, tmp_path / workers, mixup_alpha=0.3, strong_augment=STRONG).run(Reporter())
        assert children(os.getpid()) <= before
    assert results(tmp_path / "1") == results(tmp_path / "2") == results(tmp_path / "0")


def test_a_killed_run_resumes_to_the_same_bits(
    photographs: tuple[Split, dict[str, ImageFiles]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LTBENCH_CHECKPOINT_SECONDS", "0")
    run_of(Everything, *photographs, tmp_path / "whole").run(Reporter())
    for stop in (2, 2):
        run = run_of(Everything, *photographs, tmp_path / "parts")
        left, step = iter(range(stop)), run._train_step

        def dying(*arguments: Any, left: Iterator[int] = left, step: Callable[..., None] = step) -> None:
            if next(left, None) is None:
                raise Killed
            step(*arguments)

        monkeypatch.setattr(run, "_train_step", dying)
        with pytest.raises(Killed):
            run.run(Reporter())
    run_of(Everything, *photographs, tmp_path / "parts").run(Reporter())
    assert results(tmp_path / "parts") == results(tmp_path / "whole")


def test_batches_of_a_run_are_read_ahead(
    photographs: tuple[Split, dict[str, ImageFiles]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None is loaded at the moment when it is wanted, in training and in evaluation."""
    read: list[Any] = []
    monkeypatch.setattr(streaming, "Reading", lambda pool, some: Reading(pool, noted(read, some)))
    run_of(Plain, *photographs, tmp_path).run(Reporter())
    assert len([some for some in read if isinstance(some, Iterator)]) == 2 * 3  # two epochs; training, test, validation
    assert not [some for some in read if isinstance(some, list)]  # a batch that nobody planned


def test_further_views_are_read_ahead_too(
    photographs: tuple[Split, dict[str, ImageFiles]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same images where they share a sampler, each augmented as its view says; held-out batches are not planned."""
    read: list[Any] = []
    monkeypatch.setattr(streaming, "Reading", lambda pool, some: Reading(pool, noted(read, some)))
    Seeing.seen.clear()
    run = run_of(Seeing, *photographs, tmp_path, strong_augment=STRONG)
    run.run(Reporter())
    unplanned = [some for some in read if isinstance(some, list)]
    assert len(unplanned) == len(Seeing.seen) > 4
    part = run.data["train"]
    for first, again, strong, plain, own, plain_own, held_out in Seeing.seen:
        assert all(torch.equal(view.index, first.index) for view in (again, strong, plain))
        assert torch.equal(own.index, plain_own.index)
        assert len(held_out.index) == 4
        assert not torch.equal(again.images, first.images)
        assert torch.equal(plain.images, part.batch(plain.index))
        assert torch.equal(plain_own.images, part.batch(plain_own.index))
        near = [float((view.images - plain.images).abs().mean()) for view in (strong, first)]
        assert near[0] < near[1]  # of nearly the whole image, without lighting
    part.close()


@pytest.mark.parametrize("name", ["bbn", "bcl", "cmo", "glmc", "gpaco", "hybrid_sc", "paco"])
def test_methods_with_further_views_run_on_files(
    name: str, photographs: tuple[Split, dict[str, ImageFiles]], tmp_path: Path
) -> None:
    method = get_method(name)
    run = run_of(method, *photographs, tmp_path, epochs=1, augment=Augment(resized_crop=True, flip=True))
    run.run(Reporter())
    assert np.isfinite(run.history.loss).all()


def test_a_frozen_backbone_reads_the_training_images_of_a_plan_and_as_they_are(
    photographs: tuple[Split, dict[str, ImageFiles]], tmp_path: Path
) -> None:
    first = run_of(Plain, *photographs, tmp_path / "first")
    first.run(Reporter())
    second = run_of(Plain, *photographs, tmp_path / "second", stage="finetune", augment=Augment())
    second.run(Reporter())
    assert np.isfinite(second.history.loss).all()


def test_a_bad_file_ends_a_run(photographs: tuple[Split, dict[str, ImageFiles]], tmp_path: Path) -> None:
    split, parts = photographs
    gone = dataclasses.replace(parts["test"], names=(*parts["test"].names[:-1], "test/gone.jpg"))
    before = children(os.getpid())
    with pytest.raises(UserError, match=r"/test/gone\.jpg: missing$"):
        run_of(Plain, split, parts | {"test": gone}, tmp_path).run(Reporter())
    assert children(os.getpid()) <= before


# ---- sets that would fit into memory --------------------------------------------------------------------------------


def kept(*, users: bool, side: int = SIDE) -> dict[str, Images]:
    """Parts of 12 images in memory with their files: photographs as they are published, or a user's of any size."""
    parts = {}
    for part, start in (("train", 0), ("test", 20)):
        files, pixels = list[bytes](), list[np.ndarray]()
        for i in range(12):
            shape, buffer = (40 + 9 * i, 100 - 4 * i) if users else (side, side), io.BytesIO()
            picture(*shape, seed=start + i).convert("L" if i == 3 else "RGB").save(buffer, "PNG" if i == 5 else "JPEG")
            files.append(oriented(buffer.getvalue(), 1 + i % 8) if users else buffer.getvalue())
            pixels.append(decode_resized(files[-1], side) if users else decode_image(files[-1], (side, side, 3)))
        data = Encoded(np.frombuffer(b"".join(files), np.uint8), np.cumsum([len(file) for file in files]))
        parts[part] = Images(np.stack(pixels), np.arange(12) % 3, data)
    return parts


def taken(parts: dict[str, Images], reader: str, size: int, *, users: bool) -> tuple[Split, dict[str, AnyImages]]:
    """The parts as a stage takes them for a recipe with this reader and image size."""
    found = as_files(parts, reader, upright=users)
    found = from_users_files(found, size, "bicubic") if users else found
    split, images = resized(split_of(found["train"], found["test"]), found, size, "bicubic")
    return split, {**images, "val": take(images["train"], [])}


def seen(split: Split, images: dict[str, AnyImages], augment: Augment) -> list[Tensor]:
    """All batches of an epoch, and the test images."""
    parts = make_parts(images, split, CPU, augment, 5)
    train, order, rng = parts["train"], np.random.default_rng(1).permutation(12), np.random.default_rng(2)
    options: dict[str, Any] = {"augment": augment, "image_shape": split.image_shape, "mixup_alpha": 0.0}
    plan = plan_epoch(order, 5, rng, **options, device=CPU, from_files=train.seeded)
    where = [slice(0, 5), slice(5, 10), slice(10, 12)]
    with closing(parts):
        train.start_epoch(plan, where)
        found = [train.batch(plan.order[some], plan.augment[some]) for some in where]
        return [*found, train.batch(torch.tensor([3])), *parts["test"].in_order(100, range(12))]


@pytest.mark.parametrize(("users", "size"), [(False, 0), (False, 20), (False, 48), (True, 0), (True, SIDE), (True, 20)])
@pytest.mark.parametrize("augment", [Augment(crop_padding=4, flip=True), EVERYTHING])
def test_a_set_that_fits_into_memory_is_the_same_read_from_its_files(users: bool, size: int, augment: Augment) -> None:
    """Bit for bit by the exact reader; the fast one decodes and resizes otherwise, and cuts out the same."""
    parts = kept(users=users)
    resident, exact, fast = (
        seen(*taken(parts, reader, size, users=users), augment) for reader in ("", "exact", "fast")
    )
    for one, other, third in zip(resident, exact, fast, strict=True):
        assert torch.equal(one, other)
        assert (one - third).abs().mean() < 0.05  # of a standard deviation
        assert other.stride() == one.stride()


def test_a_run_on_such_files_gives_the_bits_of_one_in_memory(tmp_path: Path) -> None:
    for reader in ("", "exact"):
        run = run_of(Plain, *taken(kept(users=True), reader, 0, users=True), tmp_path / reader, mixup_alpha=0.3)
        run.run(Reporter())
    assert results(tmp_path) == results(tmp_path / "exact")
