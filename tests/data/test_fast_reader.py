"""The fast reader against the exact one: the same crops and flips of the same images, within a stated tolerance."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.base.errors import UserError
from harness.datasets import tiny_imagenet_lt
from harness.feed import fast_reader
from harness.feed.fast_reader import FastReader
from harness.feed.image_operations import CODES
from harness.feed.image_reader import ImageReader, Request
from harness.feed.resize import as_files
from harness.reading.dataset import Encoded, Images
from harness.spec.stage_recipe import Augment
from harness.splits.splits import build_split, select
from tests.data.pictures import KINDS, oriented
from tests.data.test_streaming import picture

CROPS = {
    "test": Augment(),
    "padded": Augment(crop_padding=2, flip=True),
    "resized": Augment(resized_crop=True, flip=True),
}
MEAN, MOST = 4.0, 32  # grey levels that photographs may differ by: on average of an image, and anywhere


def request(files: list[bytes], *, random: bool = True, upright: bool = False, **plan: Any) -> Request:
    """Files with the seed of their place each."""
    count = len(files)
    code, value = plan.get("code", np.zeros((count, 0), np.int64)), plan.get("value", np.zeros((count, 0), np.float32))
    return Request(files, np.arange(count) if random else None, code, value, upright)


def photograph(width: int, height: int, seed: int, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture(width, height, seed).save(buffer, "JPEG", quality=90, **options)
    return buffer.getvalue()


@settings(deadline=None, max_examples=200)
@given(
    st.sampled_from(sorted(KINDS)), st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 40),
    st.integers(1, 8), st.booleans(), st.sampled_from(sorted(CROPS)), st.integers(2, 20),
)  # fmt: skip
def test_files_of_every_mode_and_format(
    kind: str, seed: int, height: int, width: int, orientation: int, upright: bool, crop: str, side: int
) -> None:
    """What is no plain JPEG has the same bits; the JPEGs of the zoo have one colour, which rounds."""
    made = KINDS[kind](np.random.default_rng(seed), height, width)
    files = [oriented(made.data, orientation)]
    readers = [reader((side, side, 3), CROPS[crop]) for reader in (ImageReader, FastReader)]
    asked = request(files, random=crop != "test", upright=upright)
    if made.shown is None:
        for reader in readers:
            with pytest.raises(UserError, match=made.refusal):
                reader.read(asked)
        return
    exact, fast = (reader.read(asked).astype(int) for reader in readers)
    assert np.abs(exact - fast).max() <= (2 if "jpeg" in kind else 0)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(40, 700), st.integers(40, 700), st.integers(0, 2**16), st.sampled_from([0, 1, 2]), st.booleans(),
    st.integers(1, 8), st.sampled_from(sorted(CROPS)), st.sampled_from([48, 64, 96]),
)  # fmt: skip
def test_photographs_of_any_size(
    width: int, height: int, seed: int, subsampling: int, progressive: bool, orientation: int, crop: str, side: int
) -> None:
    data = oriented(photograph(width, height, seed, subsampling=subsampling, progressive=progressive), orientation)
    asked = request([data], random=crop != "test", upright=True)
    exact, fast = (reader((side, side, 3), CROPS[crop]).read(asked).astype(int) for reader in (ImageReader, FastReader))
    assert np.abs(exact - fast).mean() <= MEAN
    assert np.abs(exact - fast).max() <= MOST
    shrinks = FastReader((side, side, 3), CROPS[crop])._shrinks_by(height, width, None)
    if shrinks == 1 and crop != "resized":
        assert np.array_equal(exact, fast)


@pytest.mark.parametrize(("sides", "factor"), [((147, 180), 1), ((148, 180), 2), ((300, 296), 4), ((801, 592), 8)])
def test_large_photographs_are_decoded_small(
    sides: tuple[int, int], factor: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes: list[tuple[int, ...]] = []
    decode = fast_reader.simplejpeg.decode_jpeg

    def noted(*arguments: Any, **options: Any) -> Any:
        found = decode(*arguments, **options)
        shapes.append(found.shape)
        return found

    monkeypatch.setattr(fast_reader.simplejpeg, "decode_jpeg", noted)
    FastReader((32, 32, 3), Augment()).read(request([photograph(*sides, 0)], random=False))  # short side 37
    assert shapes == [(-(-sides[1] // factor), -(-sides[0] // factor), 3)]


def test_damaged_jpegs_are_refused_alike() -> None:
    """A crop that was drawn before the damage was found is drawn again: the exact reader goes on with its own."""
    whole = photograph(300, 200, 1)
    for data in (whole[: len(whole) // 2], whole[:40], b"", whole[:200] + bytes(100) + whole[300:]):
        messages, images = set(), []
        for kind in (ImageReader, FastReader):
            try:
                images.append(kind((16, 16, 3), CROPS["resized"]).read(request([data])))
            except UserError as error:
                messages.add(str(error))
        assert len(messages) + len(images) in (1, 2)
        assert not (messages and images)
        assert not images or np.array_equal(images[0], images[1])


@pytest.mark.parametrize("name", ["brightness", "contrast", "color"])
def test_jitter_differs_by_rounding(name: str) -> None:
    files = [photograph(80, 70, seed) for seed in range(20)]
    plan: dict[str, Any] = {
        "code": np.full((20, 1), CODES[name]),
        "value": np.linspace(0, 2, 20, dtype=np.float32)[:, None],
    }
    exact, fast = (
        reader((48, 48, 3), CROPS["resized"]).read(request(files, **plan)).astype(int)
        for reader in (ImageReader, FastReader)
    )
    assert np.abs(exact - fast).max() <= 2
    assert abs((exact - fast).mean()) <= 0.3


def test_other_operations_have_the_same_bits() -> None:
    files = [photograph(80, 70, seed) for seed in range(4)]
    plan: dict[str, Any] = {"code": np.full((4, 1), CODES["solarize"]), "value": np.full((4, 1), 128, np.float32)}
    for channels in (1, 3):
        shape = (48, 48, channels)
        exact, fast = (
            reader(shape, CROPS["padded"]).read(request(files, **plan)) for reader in (ImageReader, FastReader)
        )
        assert np.array_equal(exact, fast)


def test_without_its_libraries_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_reader, "cv2", None)
    with pytest.raises(UserError, match=r"^reader: fast needs simplejpeg and OpenCV; install .*ltbench\[fast\]'$"):
        FastReader((32, 32, 3), Augment())


def test_a_set_in_memory_is_read_from_its_files() -> None:
    """The split is the same; only sets that are known as pixels alone have no files."""
    files = [photograph(64, 64, seed) for seed in range(8)]
    data = Encoded(np.frombuffer(b"".join(files), np.uint8), np.cumsum([len(file) for file in files]))
    pixels = np.zeros((8, 64, 64, 3), np.uint8)
    parts = {part: Images(pixels, np.arange(8) % 2, data) for part in ("train", "test")}
    read = as_files(parts, "fast", upright=False)
    assert as_files(parts, "", upright=False) is parts
    with pytest.raises(UserError, match="reader: exact: these images are not stored as image files"):
        as_files({"train": Images(pixels, np.arange(8) % 2)}, "exact", upright=False)
    dataset = tiny_imagenet_lt.DATASET
    two = type(dataset)(**{**vars(dataset), "class_names": ("a", "b")})
    split = build_split(dataset.name, two, parts)
    assert split == build_split(dataset.name, two, read)
    chosen: Any = select(split, read)["test"]
    found = FastReader((64, 64, 3), Augment(resized_crop=True)).read(request([chosen.source(i) for i in range(8)]))
    assert [chosen.source(i) for i in range(8)] != files  # by class, then by hash
    assert sorted(chosen.source(i) for i in range(8)) == sorted(files)
    assert found.std() > 10
