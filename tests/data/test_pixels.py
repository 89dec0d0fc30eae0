"""Image files of every mode and format become what they show, wherever they are read, or are refused by name."""

from __future__ import annotations

import io
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from harness.base import progress
from harness.base.errors import UserError
from harness.feed.image_reader import ImageReader, Request
from harness.feed.resize import from_users_files, resized
from harness.reading.dataset import Images
from harness.reading.decoding import FORMATS, decode_image, decode_resized, inspect, read_image
from harness.reading.pixels import to_pixels
from harness.spec.stage_recipe import Augment
from harness.splits import store
from harness.splits.split_names import name_split
from harness.splits.splits import build_split, select
from harness.splits.verify import verify
from tests.data.pictures import KINDS, Picture, oriented, saved, upright

kinds = st.sampled_from(sorted(KINDS))
seeds = st.integers(0, 2**32 - 1)
sides = st.integers(1, 20)


def requests(paths: list[Path], *, turn: bool) -> Request:
    """As they are in tests."""
    nothing = np.empty((len(paths), 0), np.int64), np.empty((len(paths), 0), np.float32)
    return Request([str(path) for path in paths], None, *nothing, turn)


def made(kind: str, seed: int, height: int, width: int) -> Picture:
    return KINDS[kind](np.random.default_rng(seed), height, width)


@settings(deadline=None, max_examples=300)
@given(kinds, seeds, sides, sides, st.integers(1, 8), st.booleans())
def test_case_a_and_r_pixels_are_what_the_file_shows(
    kind: str, seed: int, height: int, width: int, orientation: int, turn: bool
) -> None:
    picture = made(kind, seed, height, width)
    data = oriented(picture.data, orientation)
    if picture.shown is None:
        with pytest.raises(ValueError, match=picture.refusal):
            read_image(data, lambda image: to_pixels(image, 3, upright=turn))
        return
    found = read_image(data, lambda image: to_pixels(image, 3, upright=turn))
    lies = turn and data != picture.data
    expected = upright(picture.shown, orientation) if lies else picture.shown
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= picture.tolerance


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_case_a_every_reader_agrees(kind: str, tmp_path: Path) -> None:
    """verify, archives, folders and the streaming reader; the last two crop nothing but what is known of 16 pixels."""
    for seed in range(6):
        picture = made(kind, seed, 16, 16)
        (tmp_path / "x").write_bytes(picture.data)
        stream = ImageReader((14, 14, 3), Augment())
        if picture.shown is None:
            assert picture.refusal in inspect(picture.data).fault
            for read in (lambda data: decode_image(data, (16, 16, 3)), lambda data: decode_resized(data, 16)):
                with pytest.raises(ValueError, match=picture.refusal):
                    read(picture.data)
            with pytest.raises(UserError, match=f"x: cannot be read as an image: .*{picture.refusal}"):
                stream.read(requests([tmp_path / "x"], turn=True))
            continue
        assert inspect(picture.data).fault == ""
        expected = decode_image(picture.data, (16, 16, 3))
        assert np.abs(expected - picture.shown).max() <= picture.tolerance
        np.testing.assert_array_equal(decode_resized(picture.data, 16), expected)
        streamed = stream.read(requests([tmp_path / "x"], turn=True))[0]
        np.testing.assert_array_equal(streamed, expected[1:15, 1:15])


@settings(deadline=None, max_examples=60)
@given(kinds, seeds, sides)
def test_grey_images_keep_their_brightness(kind: str, seed: int, side: int) -> None:
    """As ITU-R 601 weighs the colours that are shown."""
    picture = made(kind, seed, side, side)
    if picture.shown is None:
        return
    found = read_image(picture.data, lambda image: to_pixels(image, 1))[..., 0]
    assert np.abs(found - picture.shown @ [0.299, 0.587, 0.114]).max() <= picture.tolerance + 1


def test_case_a_black_glyphs_on_a_transparent_ground_are_seen() -> None:
    glyphs = np.zeros((8, 8, 4), np.uint8)
    glyphs[2:5, 3] = [0, 0, 0, 255]
    expected = np.full((8, 8, 3), 255)
    expected[2:5, 3] = 0
    np.testing.assert_array_equal(decode_image(saved(Image.fromarray(glyphs), "PNG"), (8, 8, 3)), expected)


@pytest.mark.parametrize(("brand", "name"), [(b"heic", "HEIC"), (b"mif1", "HEIF"), (b"avif", "AVIF")])
def test_case_b_formats_that_are_not_supported_say_what_to_do(brand: bytes, name: str) -> None:
    data = b"\0\0\0\x18ftyp" + brand + bytes(100)
    assert inspect(data).fault == f"it is {name}, which is not supported; save it as JPEG"


def test_case_b_bmp_tiff_gif_and_what_is_not_supported_in_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LTBENCH_DATA", str(tmp_path / "data"))
    rng = np.random.default_rng(0)
    suffixes = {"PNG": "png", "BMP": "bmp", "TIFF": "tif", "GIF": "gif"}
    truth = {}
    for i, (kind, suffix) in enumerate(suffixes.items()):
        for part in ("train", "test"):
            for name in "ab":
                path = tmp_path / "mine" / part / name / f"{i}.{suffix}"
                path.parent.mkdir(parents=True, exist_ok=True)
                picture = KINDS[f"grey {kind}"](rng, 32, 32)
                path.write_bytes(picture.data)
                truth[picture.data] = picture.shown
    images = store.load(store.get_dataset(f"folder:{tmp_path / 'mine'}"))
    for part in ("train", "test"):
        some = images[part]
        assert len(some.labels) == 8
        for i in range(8):
            np.testing.assert_array_equal(some.pixels[i], truth[some.encoded.file(i).tobytes()])


def test_published_data_stays_as_it_is_stored(tmp_path: Path) -> None:
    """Only users' own images are turned: other tools read published ones as they lie, and so do our records."""
    stored = made("colours PNG", 3, 16, 16)
    assert stored.shown is not None
    data = oriented(stored.data, 6)
    (tmp_path / "x.png").write_bytes(data)
    reader = ImageReader((14, 14, 3), Augment())
    as_stored, as_seen = (reader.read(requests([tmp_path / "x.png"], turn=turn))[0] for turn in (False, True))
    np.testing.assert_array_equal(decode_image(data, (16, 16, 3)), stored.shown)
    np.testing.assert_array_equal(as_stored, stored.shown[1:15, 1:15])
    np.testing.assert_array_equal(as_seen, upright(stored.shown, 6)[1:15, 1:15])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_case_r_the_quick_jpeg_path_turns_too(orientation: int, tmp_path: Path) -> None:
    """torchvision decodes plain JPEGs for the streaming reader; halves of two colours tell how they lie."""
    stored = np.zeros((32, 32, 3), np.uint8)
    stored[:16, :16], stored[16:, :16] = [250, 0, 0], [0, 0, 250]
    data = oriented(saved(Image.fromarray(stored), "JPEG", quality=100, subsampling=0), orientation)
    (tmp_path / "x.jpg").write_bytes(data)
    found = ImageReader((28, 28, 3), Augment()).read(requests([tmp_path / "x.jpg"], turn=True))[0]
    np.testing.assert_allclose(found, upright(stored, orientation)[2:30, 2:30], atol=12)
    np.testing.assert_array_equal(found, decode_resized(data, 32)[2:30, 2:30])


def folder(root: Path, side: int, *, lies: bool = False) -> Path:
    """Two classes, three training images and a test image each."""
    for i, name in enumerate("ab"):
        for part, count in (("train", 3), ("test", 1)):
            for j in range(count):
                path = root / part / name / f"{j}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                data = made("colours PNG", 100 * i + 10 * j + count, side, side + j).data
                path.write_bytes(oriented(data, 6) if lies and j == 0 else data)
    return root


@pytest.mark.parametrize("side", [32, 150])
def test_case_r_a_folder_counts_what_it_turns(side: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LTBENCH_DATA", str(tmp_path / "data"))
    dataset = store.get_dataset(f"folder:{folder(tmp_path / 'photos', side, lies=True)}")
    assert dataset.title.endswith("turned upright)")
    report = verify(dataset)
    assert report.sound
    assert report.turned == 4
    assert "4 images are turned upright, as their EXIF orientation says" in report.lines()


def test_case_o_photos_of_any_size_at_the_recipes_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kept in memory at 64 pixels, or left as files: both are read from the files, at the size that was asked for."""
    monkeypatch.setenv("LTBENCH_DATA", str(tmp_path / "data"))
    for side, size in ((80, 100), (80, 20), (200, 64)):
        root = folder(tmp_path / f"photos{side}-{size}", side)
        dataset = store.get_dataset(f"folder:{root}")
        parts = store.load(dataset)
        split = build_split(str(name_split(dataset, None)), dataset, parts)
        shaped, images = resized(split, select(split, from_users_files(parts, size)), size)
        assert shaped.image_shape == [size, size, 3]
        some = images["test"]
        expected = [decode_resized((root / "test" / name / "0.png").read_bytes(), size) for name in "ab"]
        if isinstance(some, Images):
            np.testing.assert_array_equal(some.pixels, np.stack(expected))
        else:
            paths = [some.root / name for name in some.names]
            found = ImageReader(shaped.image_shape, Augment()).read(requests(paths, turn=some.upright))
            assert found.shape == (2, size, size, 3)


def test_animations_and_pages_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LTBENCH_DATA", str(tmp_path / "data"))
    root = folder(tmp_path / "photos", 32)
    assert verify(store.get_dataset(f"folder:{root}")).as_dict().keys().isdisjoint({"turned", "with_more_frames"})
    for kind in ("GIF", "PNG", "WEBP"):
        assert inspect(made(f"animated {kind}", 0, 8, 8).data).more, kind
    pages = [Image.new("L", (8, 8), value) for value in (10, 20)]
    buffer = io.BytesIO()
    pages[0].save(buffer, "TIFF", save_all=True, append_images=pages[1:])
    assert inspect(buffer.getvalue()).more
    assert (decode_image(buffer.getvalue(), (8, 8, 1)) == 10).all()
    assert not inspect(made("colour_jpeg MPO", 0, 8, 8).data).more


def test_a_wide_image_cannot_ask_for_much_memory() -> None:
    with pytest.raises(ValueError, match="also once it is resized"):
        decode_resized(saved(Image.new("1", (60_000, 1)), "PNG"), 64)


def test_case_n_reading_many_files_shows_how_far_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter(range(10**6))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(now)))
    assert list(progress.counted(range(400), "decoding photos")) == list(range(400))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "decoding photos: 3/400 images"
    assert 2 <= len(lines) < 40
    assert all(line.startswith("decoding photos: ") for line in lines)


def test_case_n_quick_reading_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress.counted(iter("abc"), "decoding photos")) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""


def test_formats_are_those_that_are_documented() -> None:
    assert set(FORMATS) == {"JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"}
