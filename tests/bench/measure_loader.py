"""The data path alone: augmented batches on the device, without a network; from memory and from files."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pytest_benchmark.fixture import BenchmarkFixture

from harness.bench.command import cores
from harness.feed.image_pool import MOST_WORKERS, WORKERS_VARIABLE
from harness.feed.parts import closing, make_parts
from harness.feed.plans import plan_epoch
from harness.reading.dataset import AnyImages, ImageFiles
from harness.spec.stage_recipe import Augment
from harness.splits.splits import Split
from tests.bench.material import CROP_AND_FLIP, material, recipe, split_of
from tests.bench.measure_loop import best_workers
from tests.bench.plain import plain_loader
from tests.bench.sizes import device, sizes
from tests.bench.timing import Work, interleaved, speeds

WIDTH, HEIGHT, SIDE = 500, 375, 224  # ImageNet's most frequent size, and what networks are given
QUALITY = 90  # of the JPEGs: about 75 kB each
FILES = 64  # different ones; a round reads them several times
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
PROCESSES = [count for count in (1, 2, 4, 8, MOST_WORKERS) if count <= cores()]
CASES = {
    "crop, flip": Augment(resized_crop=True, flip=True),
    "crop, flip, jitter": Augment(resized_crop=True, flip=True, color_jitter=0.4),
}


def make_photographs(folder: Path, count: int) -> ImageFiles:
    """Writes JPEGs of smooth colours with some noise, and lists so many of them, some several times."""
    rng = np.random.default_rng(0)
    for i in range(min(FILES, count)):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
        noisy = np.clip(smooth + rng.normal(0, 12, smooth.shape), 0, 255).astype(np.uint8)
        (folder / str(i % 4)).mkdir(exist_ok=True)
        Image.fromarray(noisy).save(folder / str(i % 4) / f"{i}.jpg", quality=QUALITY)
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.jpg"))
    listed = tuple(names[i % len(names)] for i in range(count))
    return ImageFiles(folder, listed, np.array([int(name.partition("/")[0]) for name in listed]))


@contextmanager
def our_epoch(images: AnyImages, split: Split, augment: Augment) -> Iterator[Work]:
    """An epoch's plan and normalised batches on the device, as `StageRun` makes them."""
    size, rng = sizes().batch_size, np.random.default_rng(0)
    parts = make_parts({"train": images}, split, device(), augment, size)
    part = parts["train"]
    batches = [slice(start, start + size) for start in range(0, len(part), size)]

    def epoch() -> None:
        plan = plan_epoch(
            rng.permutation(len(part)),
            size,
            rng,
            augment=augment,
            image_shape=split.image_shape,
            mixup_alpha=0.0,
            device=device(),
            from_files=isinstance(images, ImageFiles),
        )
        part.start_epoch(plan, batches)
        for where in batches:
            part.batch(plan.order[where], plan.augment[where])

    with closing(parts):
        yield epoch


def plain_epoch(images: AnyImages, split: Split, augment: Augment, workers: int) -> Work:
    """The same through torchvision and a DataLoader."""
    loader = plain_loader(images, split, recipe(augment), device(), workers)

    def epoch() -> None:
        for batch, target in loader:
            batch.to(device(), non_blocking=True)
            torch.as_tensor(target).to(device(), non_blocking=True)

    return epoch


def compare(
    benchmark: BenchmarkFixture, case: str, images: AnyImages, split: Split, augment: Augment, workers: int
) -> None:
    """Measures both sides, `plain` with so many processes; keeps the figures for the table and the file."""
    others = {"plain": plain_epoch(images, split, augment, workers)}
    with our_epoch(images, split, augment) as ours:
        seconds = interleaved(benchmark, ours, others, sizes().rounds)
    benchmark.extra_info |= speeds(seconds, len(images.labels)) | {
        "part": "loader",
        "case": case,
        "data": split.id,
        "batch": sizes().batch_size,
        "processes": workers if isinstance(images, ImageFiles) else 0,
        "plain_processes": workers,
    }


def test_resident(benchmark: BenchmarkFixture) -> None:
    """Small images in memory, crop and flip; the plain side with the worker count that serves its loop best."""
    split, images = material()
    case = f"{sizes().pixels} px in memory: crop, flip"
    compare(benchmark, case, images["train"], split, CROP_AND_FLIP, best_workers())


@pytest.mark.parametrize("processes", PROCESSES)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("reader", ["exact", "fast"])
def test_streaming(
    benchmark: BenchmarkFixture, reader: str, case: str, processes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Photographs from files; both sides decode in as many processes."""
    if reader == "fast":
        pytest.importorskip("simplejpeg")
    monkeypatch.setenv(WORKERS_VARIABLE, str(processes))
    files = dataclasses.replace(make_photographs(tmp_path, processes * sizes().photographs), reader=reader)
    split, with_ = split_of(files.labels, SIDE, MEAN, STD), f"{processes} process{'es' if processes > 1 else ''}"
    title = f"{SIDE} px from JPEG: {case}; {reader} reader, {with_}"
    compare(benchmark, title, files, split, CASES[case], processes)
