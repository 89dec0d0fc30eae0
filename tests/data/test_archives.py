"""Archives are read in memory, and nothing that they hold raises anything but one clear line."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.base.errors import UserError
from harness.reading import archives, decoding
from harness.reading.archives import read_members
from harness.reading.decoding import decode_archive, decode_image
from tests.data import made


def refused(path: Path, match: str) -> None:
    """Decoding is refused with one line that names the archive."""
    with pytest.raises(UserError, match=match) as caught:
        decode_archive(path, made.CLASSES, made.SHAPE)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message


def failure(act: Callable[[], object]) -> str:
    """The message of the refusal; empty if there was none."""
    try:
        act()
    except (UserError, ValueError) as error:
        return str(error)
    return ""


@pytest.mark.parametrize("suffix", [".tar.xz", ".tar.gz", ".tar.bz2", ".tar"])
def test_pixels_labels_and_order(tmp_path: Path, suffix: str) -> None:
    path = made.write_archive(tmp_path / f"small{suffix}", made.contents())
    parts = decode_archive(path, made.CLASSES, made.SHAPE)
    assert list(parts) == ["train", "test"]
    assert parts["train"].labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert parts["test"].labels.tolist() == [0, 1]
    expected = [made.pixels(1000 * label + 10 * i) for label in (0, 1) for i in range(3)]
    np.testing.assert_array_equal(parts["train"].pixels, np.stack(expected))
    np.testing.assert_array_equal(parts["test"].pixels, np.stack([made.pixels(1), made.pixels(1001)]))


def test_many_batches_keep_the_order_of_the_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members = dict(sorted(made.contents().items(), key=lambda item: item[0][::-1]))  # parts and classes mixed
    path = made.write_archive(tmp_path / made.ARCHIVE, members)
    expected = decode_archive(path, made.CLASSES, made.SHAPE)
    monkeypatch.setattr(decoding, "BATCH", 1)
    for part, images in decode_archive(path, made.CLASSES, made.SHAPE).items():
        np.testing.assert_array_equal(images.pixels, expected[part].pixels)
        np.testing.assert_array_equal(images.labels, expected[part].labels)


@pytest.mark.parametrize("name", ["small/train/cow/a.webp", "small/holdout/cat/a.webp", "class_names.tsv"])
def test_what_lies_elsewhere_is_passed_over(tmp_path: Path, name: str) -> None:
    path = made.write_archive(tmp_path / made.ARCHIVE, made.contents() | {name: b"x"})
    parts = decode_archive(path, made.CLASSES, made.SHAPE)
    assert sum(len(images.labels) for images in parts.values()) == 8


def test_folders_are_passed_over(tmp_path: Path) -> None:
    path = made.write_archive(
        tmp_path / made.ARCHIVE, made.contents(), lambda tar: made.add(tar, "small/train", type=tarfile.DIRTYPE)
    )
    assert len(list(read_members(path))) == len(made.contents())


def put(name: str, data: bytes = b"x", **attributes: Any) -> Callable[[tarfile.TarFile], None]:
    return lambda tar: made.add(tar, name, data, **attributes)


@pytest.mark.parametrize(
    ("extra", "match"),
    [
        (
            put("small/train/cat/a.webp", b"no image"),
            "image 'small/train/cat/a.webp' cannot be read: .*none of the form",
        ),
        (put("small/train/cat/a.webp", b""), "image 'small/train/cat/a.webp' cannot be read"),
    ],
)
def test_members_that_are_no_images(tmp_path: Path, extra: Callable[[tarfile.TarFile], None], match: str) -> None:
    refused(made.write_archive(tmp_path / made.ARCHIVE, made.contents(), extra), match)
    assert [path.name for path in tmp_path.iterdir()] == [made.ARCHIVE]  # nothing was extracted


def test_a_member_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = made.write_archive(tmp_path / made.ARCHIVE, made.contents(), put("small/train/cat/a.webp", bytes(5000)))
    monkeypatch.setattr(archives, "MAX_MEMBER", 4096)
    refused(path, r"member 'small/train/cat/a.webp' has 5000 bytes, 4096 are allowed")


def test_a_size_from_an_extended_header(tmp_path: Path) -> None:
    refused(
        made.write_archive(
            tmp_path / made.ARCHIVE, made.contents(), put("small/train/cat/a.webp", pax_headers={"size": str(2**40)})
        ),
        "are allowed",
    )


@pytest.mark.parametrize("size", [(6, 8), (5, 8), (4000, 4000), (1, 1)])
def test_images_of_another_size(tmp_path: Path, size: tuple[int, int]) -> None:
    image = made.encoded(np.zeros((*size, 3), np.uint8))
    path = made.write_archive(tmp_path / made.ARCHIVE, made.contents(), put("small/train/dog/a.webp", image))
    refused(path, rf"dog/a.webp' cannot be read: it has {size[1]} x {size[0]} pixels, expected 6 x 8")


@pytest.mark.parametrize("kind", ["WEBP", "PNG"])
def test_corrupt_images_never_leave_as_anything_but_a_value_error(kind: str) -> None:
    good, rng = made.encoded(made.pixels(0), kind), np.random.default_rng(0)
    np.testing.assert_array_equal(decode_image(good, made.SHAPE), made.pixels(0))
    for _ in range(300):
        bad = bytearray(good)
        for place in rng.integers(0, len(bad), 3):
            bad[place] ^= int(rng.integers(1, 256))
        message = failure(partial(decode_image, bytes(bad[: rng.integers(1, len(bad) + 1)]), made.SHAPE))
        assert "\n" not in message
        assert "object at" not in message


def test_a_truncated_image(tmp_path: Path) -> None:
    image = made.encoded(made.pixels(0))
    path = made.write_archive(tmp_path / made.ARCHIVE, made.contents(), put("small/test/dog/a.webp", image[:-20]))
    refused(path, "image 'small/test/dog/a.webp' cannot be read")


def test_other_formats_are_not_even_tried() -> None:
    with pytest.raises(ValueError, match="none of the formats WEBP, JPEG, PNG"):
        decode_image(made.encoded(made.pixels(0), "PPM"), made.SHAPE)


def test_grey_and_colour() -> None:
    grey = made.pixels(0, (8, 6, 1))
    np.testing.assert_array_equal(decode_image(made.encoded(grey, "PNG"), (8, 6, 1)), grey)
    np.testing.assert_array_equal(decode_image(made.encoded(grey, "PNG"), (8, 6, 3)), np.repeat(grey, 3, axis=2))


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_part_without_images(tmp_path: Path, part: str) -> None:
    members = {name: data for name, data in made.contents().items() if f"/{part}/" not in name}
    refused(made.write_archive(tmp_path / made.ARCHIVE, members), f"no images of the part '{part}'")


@pytest.mark.parametrize("suffix", [".tar.xz", ".tar.gz"])
def test_truncated_at_any_point(tmp_path: Path, suffix: str) -> None:
    path = made.write_archive(tmp_path / f"small{suffix}", made.contents())
    whole = path.read_bytes()
    for length in np.linspace(0, len(whole) - 1, 25).astype(int):
        path.write_bytes(whole[:length])
        if message := failure(lambda: decode_archive(path, made.CLASSES, made.SHAPE)):
            assert message.startswith(f"{path}: damaged or truncated archive: ")
            assert "\n" not in message
        else:  # only what stands behind the last image may be missing
            assert len(list(read_members(path))) == len(made.contents())


def test_what_is_no_archive_at_all(tmp_path: Path) -> None:
    for name in ("a.tar.xz", "a.tar.gz", "a.tar.bz2", "a.tar"):
        (tmp_path / name).write_bytes(b"something else, and longer than one would think" * 30)
        refused(tmp_path / name, "damaged or truncated archive")


# ---- zip -------------------------------------------------------------------------------------------------------------


def zipped(path: Path, members: dict[str, bytes], **attributes: int) -> Path:
    """A zip archive; `attributes` are those of the last member's entry."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for i, (name, data) in enumerate(members.items()):
            entry = zipfile.ZipInfo(name)
            for key, value in attributes.items() if i == len(members) - 1 else ():
                setattr(entry, key, value)
            archive.writestr(entry, data)
    return path


def test_a_zip_archive_is_read_like_a_tar_archive(tmp_path: Path) -> None:
    path = zipped(tmp_path / "small.zip", {"small/": b""} | made.contents())
    parts = decode_archive(path, made.CLASSES, made.SHAPE)
    expected = decode_archive(
        made.write_archive(tmp_path / made.ARCHIVE, made.contents()), made.CLASSES, made.SHAPE, keep_files=True
    )
    for part, images in expected.items():
        np.testing.assert_array_equal(parts[part].pixels, images.pixels)
    assert parts["train"].encoded is None
    train = expected["train"].encoded
    assert train is not None
    assert [train.file(i).tobytes() for i in range(6)] == [
        data for name, data in made.contents().items() if "/train/" in name
    ]


def test_an_encrypted_or_oversized_zip_member(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zipped(tmp_path / "small.zip", {"small/train/cat/a.webp": bytes(5000)})
    monkeypatch.setattr(archives, "MAX_MEMBER", 4096)
    refused(path, "has 5000 bytes, 4096 are allowed")
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    monkeypatch.undo()
    path.write_bytes(bytes(data))
    refused(path, "is encrypted")


def test_a_zip_that_lies_about_a_size_cannot_take_more_memory(tmp_path: Path) -> None:
    path = zipped(tmp_path / "small.zip", {"small/train/cat/a.webp": bytes(10**6)})
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02") + 24
    data[at : at + 4] = (100).to_bytes(4, "little")
    path.write_bytes(bytes(data))
    refused(path, "damaged or truncated archive|cannot be read")


def test_a_zip_damaged_anywhere(tmp_path: Path) -> None:
    path = zipped(tmp_path / "small.zip", made.contents())
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(150):
        bad = bytearray(whole[: rng.integers(1, len(whole) + 1)])
        for place in rng.integers(0, len(bad), 2):
            bad[place] ^= int(rng.integers(1, 256))
        path.write_bytes(bytes(bad))
        message = failure(lambda: decode_archive(path, made.CLASSES, made.SHAPE))
        assert "\n" not in message
        assert not message or message.startswith(f"{path}: ")
