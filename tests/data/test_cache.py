"""Decoded images on disk: used only when they are exactly what was written, however many read them."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.base.errors import UserError
from harness.reading import cache
from harness.reading.cache import cached
from harness.reading.dataset import Encoded, Images
from harness.splits import store
from tests.data import made


def make_parts() -> dict[str, Images]:
    pixels = np.stack([made.pixels(seed) for seed in range(5)])
    return {"train": Images(pixels[:3], np.arange(3)), "test": Images(pixels[3:], np.arange(2))}


class Decoder:
    """Counts how often it is asked."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> dict[str, Images]:
        self.calls += 1
        return make_parts()


@pytest.fixture
def decode() -> Decoder:
    return Decoder()


def check(parts: Mapping[str, Images]) -> None:
    assert list(parts) == ["train", "test"]
    for part, images in make_parts().items():
        np.testing.assert_array_equal(parts[part].pixels, images.pixels)
        np.testing.assert_array_equal(parts[part].labels, images.labels)
        assert parts[part].labels.dtype == np.int64


def test_decoded_once_and_mapped_read_only(tmp_path: Path, decode: Decoder, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(3):
        parts = cached(tmp_path / "c", "key", decode)
        check(parts)
        assert not parts["train"].pixels.flags.writeable
        assert type(parts["train"].pixels) is np.ndarray
        assert isinstance(parts["train"].pixels.base, np.memmap)
    assert decode.calls == 1
    assert capsys.readouterr().err == ""
    assert not list((tmp_path / "c").glob("*.tmp"))


def test_the_files_of_images_are_kept_too(tmp_path: Path) -> None:
    files = [b"first", b"", b"the third"]
    encoded = Encoded(np.frombuffer(b"".join(files), np.uint8), np.cumsum([len(file) for file in files]))
    parts = make_parts()
    parts["train"] = Images(parts["train"].pixels, parts["train"].labels, encoded)
    for _ in range(2):
        found = cached(tmp_path, "key", lambda: parts)["train"].encoded
        assert found is not None
        assert [found.file(i).tobytes() for i in range(3)] == files
        assert not found.data.flags.writeable
    flip(tmp_path / "train.files.npy", -1)
    again = cached(tmp_path, "key", lambda: parts)["train"].encoded
    assert again is not None
    assert again.file(2).tobytes() == b"the third"


def test_an_empty_part(tmp_path: Path) -> None:
    parts = make_parts() | {"val": Images(np.empty((0, *made.SHAPE), np.uint8), np.empty(0, np.int64))}
    cached(tmp_path, "key", lambda: parts)
    assert cached(tmp_path, "key", Decoder())["val"].pixels.shape == (0, *made.SHAPE)


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(bytes(data))


def edit(change: Callable[[dict[str, object]], object]) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        manifest = json.loads((folder / cache.MANIFEST).read_text())
        change(manifest)
        (folder / cache.MANIFEST).write_text(json.dumps(manifest))

    return damage


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a pixel": lambda folder: flip(folder / "train.pixels.npy", -1),
    "a label": lambda folder: flip(folder / "test.labels.npy", -8),
    "magic number": lambda folder: flip(folder / "train.pixels.npy", 0),
    "array header": lambda folder: flip(folder / "train.pixels.npy", 12),
    "truncated": lambda folder: os.truncate(folder / "train.pixels.npy", 200),
    "header alone": lambda folder: os.truncate(folder / "train.pixels.npy", 128),
    "empty": lambda folder: os.truncate(folder / "train.labels.npy", 0),
    "missing": lambda folder: (folder / "test.pixels.npy").unlink(),
    "swapped": lambda folder: (folder / "test.pixels.npy").write_bytes((folder / "train.pixels.npy").read_bytes()),
    "pickled": lambda folder: np.save(folder / "test.labels.npy", np.array([{}, {}]), allow_pickle=True),
    "not JSON": lambda folder: (folder / cache.MANIFEST).write_text("{"),
    "another JSON": lambda folder: (folder / cache.MANIFEST).write_text("[1]"),
    "null": lambda folder: (folder / cache.MANIFEST).write_text('{"parts": null}'),
    "part left out": edit(lambda manifest: manifest["parts"].pop("test")),  # type: ignore[attr-defined]
    "unknown part": edit(lambda manifest: manifest["parts"].update(more={})),  # type: ignore[attr-defined]
    "another schema": edit(lambda manifest: manifest.update(schema=0)),
    "another key": edit(lambda manifest: manifest.update(key="other")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_noticed_and_mended(
    tmp_path: Path, decode: Decoder, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "c"
    cached(folder, "key", decode)
    DAMAGES[damage](folder)
    check(cached(folder, "key", decode))
    note = capsys.readouterr().err
    assert note.startswith("decoding anew: ")
    assert note.count("\n") == 1
    check(cached(folder, "key", decode))
    assert decode.calls == 2
    assert capsys.readouterr().err == ""


def test_killed_before_the_manifest_was_written(tmp_path: Path, decode: Decoder) -> None:
    cached(tmp_path, "key", decode)
    (tmp_path / cache.MANIFEST).unlink()
    check(cached(tmp_path, "key", decode))
    assert decode.calls == 2


def test_a_folder_that_cannot_be_written_costs_only_time(
    tmp_path: Path, decode: Decoder, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    check(cached(tmp_path / "file" / "c", "key", decode))
    assert "decoded images could not be kept: " in capsys.readouterr().err


def test_errors_of_the_decoder_leave_no_cache(tmp_path: Path) -> None:
    def fail() -> dict[str, Images]:
        raise UserError("the archive is damaged")

    with pytest.raises(UserError, match="the archive is damaged"):
        cached(tmp_path / "c", "key", fail)
    assert not (tmp_path / "c").exists()


def _read_often(folder: Path, times: int) -> None:
    for _ in range(times):
        check(cached(folder, "key", make_parts))


def test_readers_beside_each_other_and_beside_one_that_rebuilds(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")  # as separate commands are
    readers = [context.Process(target=_read_often, args=(tmp_path / "c", 150)) for _ in range(3)]
    for reader in readers:
        reader.start()
    while any(reader.is_alive() for reader in readers):
        (tmp_path / "c" / cache.MANIFEST).unlink(missing_ok=True)
        check(cached(tmp_path / "c", "key", make_parts))
    for reader in readers:
        reader.join()
    assert [reader.exitcode for reader in readers] == [0, 0, 0]
    check(cached(tmp_path / "c", "key", Decoder()))


# ---- where the cache is ---------------------------------------------------------------------------------------------


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LTBENCH_MIRROR", raising=False)
    monkeypatch.delenv("LTBENCH_DATA", raising=False)
    return made.write_archive(tmp_path / "mirror" / made.ARCHIVE, made.contents())


def test_load_keeps_decoded_images_in_the_data_root(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = made.make_dataset(archive)
    store.fetch(dataset, Path("datasets"), archive.parent)
    first = store.load(dataset)
    assert [path.name for path in Path("datasets").rglob("*")] == ["small", made.ARCHIVE]  # DVC's own folder
    (folder,) = Path("data/.cache").iterdir()
    assert (folder / cache.MANIFEST).is_file()
    broken = made.make_dataset(archive, decode=lambda folder: pytest.fail("decoded again"))
    np.testing.assert_array_equal(store.load(broken)["train"].pixels, first["train"].pixels)
    monkeypatch.setenv("LTBENCH_DATA", "elsewhere")
    store.load(dataset)
    assert list(Path("elsewhere/.cache").glob("small-*"))


def test_another_archive_decoder_or_class_order_has_its_own_cache(archive: Path) -> None:
    store.fetch(made.make_dataset(archive), Path("data"), archive.parent)
    changes: list[dict[str, Any]] = [{}, {"decoder_version": 2}, {"class_names": ("dog", "cat")}]
    for count, change in enumerate(changes, start=1):
        store.load(made.make_dataset(archive, **change))
        assert len(list(Path("data/.cache").iterdir())) == count


def test_a_cache_does_not_hide_a_damaged_archive(archive: Path) -> None:
    dataset = made.make_dataset(archive)
    store.fetch(dataset, Path("data"), archive.parent)
    store.load(dataset)
    flip(Path("data/small") / made.ARCHIVE, 100)
    with pytest.raises(UserError, match="wrong content: expected sha256"):
        store.load(dataset)


def test_what_decodes_quickly_is_not_cached(archive: Path) -> None:
    dataset = made.make_dataset(archive, decoder_version=None)
    store.fetch(dataset, Path("data"), archive.parent)
    assert store.load(dataset)["train"].pixels.flags.writeable
    assert not Path("data/.cache").exists()


def test_a_cached_image_of_another_shape_is_refused(archive: Path) -> None:
    dataset = made.make_dataset(archive, image_shape=(4, 4, 3))
    store.fetch(dataset, Path("data"), archive.parent)
    with pytest.raises(UserError, match=r"images are \(8, 6, 3\), expected \(4, 4, 3\)"):
        store.load(dataset)
