"""Small archives with the layout of the official ones."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from harness.reading.dataset import Images
from tests.data import made


class Python2Pickler(pickle._Pickler):
    """Writes what Python 2 wrote: text and bytes are both its `str`, and numpy has its old module names."""

    dispatch: ClassVar[dict[Any, Any]] = dict(pickle._Pickler.dispatch)

    def _save_str(self: Any, value: bytes | str) -> None:
        data = value.encode("latin1") if isinstance(value, str) else value
        self.write(pickle.BINSTRING + len(data).to_bytes(4, "little") + data)
        self.memoize(value)

    dispatch[bytes] = dispatch[str] = _save_str


def python2_pickle(value: Any) -> bytes:
    """The value as an official file has it."""
    buffer = io.BytesIO()
    Python2Pickler(buffer, protocol=2).dump(value)
    return buffer.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def batch(images: Images, key: str) -> dict[str, Any]:
    """A CIFAR batch: rows of 3072 bytes, one colour after the other."""
    rows = np.ascontiguousarray(images.pixels.transpose(0, 3, 1, 2)).reshape(len(images.pixels), -1)
    return {"batch_label": "a batch", key: images.labels.tolist(), "data": rows, "filenames": ["x.png"] * len(rows)}


def cifar10_members(train: Images, test: Images, class_names: Sequence[str], **replaced: bytes) -> dict[str, bytes]:
    """Members of cifar-10-python.tar.gz, in an order that is not that of the batches, as in the real one."""
    pieces = np.array_split(np.arange(len(train.labels)), 5)
    members = {
        f"data_batch_{i + 1}": python2_pickle(batch(Images(train.pixels[piece], train.labels[piece]), "labels"))
        for i, piece in enumerate(pieces)
    }
    members["test_batch"] = python2_pickle(batch(test, "labels"))
    members["batches.meta"] = python2_pickle({"label_names": list(class_names), "num_vis": 3072})
    members["readme.html"] = b"<html></html>"
    members |= replaced
    return {f"cifar-10-batches-py/{name}": members[name] for name in sorted(members, reverse=True)}


def cifar100_members(train: Images, test: Images, class_names: Sequence[str]) -> dict[str, bytes]:
    """Members of cifar-100-python.tar.gz."""
    files = {
        name: batch(images, "fine_labels") | {"coarse_labels": [0] * len(images.labels)}
        for name, images in (("train", train), ("test", test))
    }
    files["meta"] = {"fine_label_names": list(class_names), "coarse_label_names": ["a"]}
    return {f"cifar-100-python/{name}": python2_pickle(value) for name, value in files.items()}


def tiny_imagenet_members(wnids: Sequence[str], per_class: int, val: int) -> dict[str, bytes]:
    """Members of tiny-imagenet-200.zip: JPEG files, every third one grey, validation annotated in a text file."""
    members: dict[str, bytes] = {"wnids.txt": "\n".join(wnids).encode()}
    lines = []
    for c, wnid in enumerate(wnids):
        members[f"train/{wnid}/{wnid}_boxes.txt"] = b"boxes"
        for i in reversed(range(per_class)):
            members[f"train/{wnid}/images/{wnid}_{i}.JPEG"] = jpeg(1000 * c + i)
    for i in range(val):
        members[f"val/images/val_{i}.JPEG"] = jpeg(10**6 + i)
        lines.append(f"val_{i}.JPEG\t{wnids[i % len(wnids)]}\t0\t0\t63\t63")
    members["val/val_annotations.txt"] = "\n".join(lines).encode()
    members["test/images/test_0.JPEG"] = jpeg(2 * 10**6)
    return {f"tiny-imagenet-200/{name}": data for name, data in members.items()}


def jpeg(seed: int, size: int = 64) -> bytes:
    """A JPEG file with a few random patches."""
    grey = seed % 3 == 0
    small = made.pixels(seed, (4, 4, 1 if grey else 3))
    return made.encoded(small.repeat(size // 4, 0).repeat(size // 4, 1), "JPEG")


def write_zip(path: Path, members: Mapping[str, bytes]) -> Path:
    """Writes a zip archive."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path
