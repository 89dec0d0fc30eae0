"""Small archives made for tests, good ones and hostile ones."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from harness.base.files import sha256_file
from harness.reading.dataset import Dataset
from harness.reading.decoding import decode_archive

CLASSES = ("cat", "dog")
SHAPE = (8, 6, 3)  # height, width, channels
ARCHIVE = "small.tar.xz"


def pixels(seed: int, shape: tuple[int, int, int] = SHAPE) -> npt.NDArray[np.uint8]:
    """A random image."""
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encoded(array: npt.NDArray[np.uint8], kind: str = "WEBP") -> bytes:
    """The image as the bytes of a lossless file."""
    buffer = io.BytesIO()
    grey = array.shape[2] == 1
    Image.fromarray(array[:, :, 0] if grey else array).save(
        buffer, kind, **({"lossless": True} if kind == "WEBP" else {})
    )
    return buffer.getvalue()


def contents() -> dict[str, bytes]:
    """Members of a good archive: of each class three training images and one test image."""
    return {
        f"small/{part}/{name}/{i}.webp": encoded(pixels(1000 * label + 10 * i + (part == "test")))
        for part, count in (("train", 3), ("test", 1))
        for label, name in enumerate(CLASSES)
        for i in range(count)
    }


def write_archive(
    path: Path, members: Mapping[str, bytes], extra: Callable[[tarfile.TarFile], Any] | None = None
) -> Path:
    """Writes the members and whatever `extra` adds after them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = {".xz": "w:xz", ".gz": "w:gz", ".bz2": "w:bz2", ".tar": "w:"}[path.suffix]
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, data in members.items():
            add(tar, name, data)
        if extra:
            extra(tar)
    return path


def add(tar: tarfile.TarFile, name: str, data: bytes = b"", **attributes: Any) -> None:
    """Adds one member; `attributes` are those of its header."""
    header = tarfile.TarInfo(name)
    header.size = len(data)
    for key, value in attributes.items():
        setattr(header, key, value)
    tar.addfile(header, io.BytesIO(data))


def make_dataset(archive: Path, **overrides: Any) -> Dataset:
    """A cached data set whose one file is the archive."""

    def no_source() -> Path:
        return archive.parent

    values: dict[str, Any] = {
        "name": "small",
        "title": "Small",
        "citation": "",
        "class_names": CLASSES,
        "image_shape": SHAPE,
        "mean": (0.5, 0.5, 0.5),
        "std": (0.25, 0.25, 0.25),
        "train_class_size": 3,
        "default_imbalance_factor": 10,
        "files": {archive.name: sha256_file(archive)},
        "source": no_source,
        "decode": lambda folder: decode_archive(folder / archive.name, CLASSES, SHAPE),
        "decoder_version": 1,
        "pool_min_imbalance_factor": 10,
    }
    return Dataset(**(values | overrides))
