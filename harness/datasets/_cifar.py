"""What CIFAR-10 and CIFAR-100 share. The underscore keeps this module out of the list of data sets."""

from __future__ import annotations

import dataclasses
import io
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.base.errors import UserError, reason
from harness.reading.archives import read_members
from harness.reading.dataset import Dataset, Images
from harness.reading.decoding import decode_archive

SHAPE = (32, 32, 3)
# The statistics of CIFAR-10, for CIFAR-100 too: every published long-tailed code base normalises both with these.
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2023, 0.1994, 0.2010)
SITE = "https://www.cs.toronto.edu/~kriz"


@dataclass(frozen=True)
class Official:
    """The archive of the data set's own site, as torchvision knows it."""

    archive: str
    md5: str
    train: tuple[str, ...]  # its batches of the training set, in the official order
    test: str
    labels: str  # key of a batch's labels


def cifar_dataset(
    name: str, title: str, class_names: tuple[str, ...], train_class_size: int, official: Official, pool_sha256: str
) -> Dataset:
    """A CIFAR data set from its official archive, or from its pool: losslessly, the test set and those training images
    that imbalance factors from 10 on select under the subset rule `hash:0`. Splits of either have the same sha256.

    Args:
        name: name in the registry; the pool archive is `<name>-lt-pool.tar.xz`.
        title: name in the report.
        class_names: in alphabetical order: the official label order, and that of the pool's folders.
        train_class_size: images of one class in the official training set.
        official, pool_sha256: the two archives.
    """
    pool_archive = f"{name}-lt-pool.tar.xz"

    def decode_pool(folder: Path) -> dict[str, Images]:
        return decode_archive(folder / pool_archive, class_names, SHAPE)

    def decode_official(folder: Path) -> dict[str, Images]:
        return read_official(folder / official.archive, official)

    full = Dataset(
        name=name,
        title=title,
        citation="Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
        class_names=class_names,
        image_shape=SHAPE,
        mean=MEAN,
        std=STD,
        train_class_size=train_class_size,
        default_imbalance_factor=100,
        files={official.archive: f"md5:{official.md5}"},
        urls={official.archive: f"{SITE}/{official.archive}"},
        source=None,
        decode=decode_official,
        decoder_version=1,
    )
    pool = dataclasses.replace(
        full, files={pool_archive: pool_sha256}, urls={}, decode=decode_pool, pool_min_imbalance_factor=10
    )
    return dataclasses.replace(full, forms=(pool,))


def read_official(path: Path, official: Official) -> dict[str, Images]:
    """The images of an official archive, in the official order.

    Raises:
        UserError: the archive is damaged.
    """
    wanted = (*official.train, official.test)
    members = read_members(path, only=lambda name: len(name.parts) == 2 and name.name in wanted)
    batches = {name.name: _batch(_unpickled(path, name.name, data), official.labels) for name, data in members}
    train = [batches[name] for name in official.train]
    pixels = np.concatenate([images.pixels for images in train])
    return {
        "train": Images(pixels, np.concatenate([images.labels for images in train])),
        "test": batches[official.test],
    }


def _batch(content: dict[str, Any], key: str) -> Images:
    """Images of a batch: rows of 3072 bytes, one colour after the other."""
    pixels = content["data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return Images(np.ascontiguousarray(pixels), np.array(content[key], dtype=np.int64))


class _Unpickler(pickle.Unpickler):
    """Reads what the official files are made of: plain values and numpy arrays. Any other name is refused.

    A pickle can name any function to be called with any arguments; the names below can only build arrays.
    """

    ALLOWED = {
        "numpy.ndarray": np.ndarray,
        "numpy.dtype": np.dtype,
        "numpy.core.multiarray._reconstruct": np.zeros(0).__reduce__()[0],  # wherever this numpy keeps it
    }

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no official file does")
        return self.ALLOWED[f"{module}.{name}"]


def _unpickled(path: Path, name: str, data: bytes) -> dict[str, Any]:
    try:
        content: dict[str, Any] = _Unpickler(io.BytesIO(data), encoding="latin1").load()  # written by Python 2
    except Exception as error:  # damaged pickles raise nearly anything
        raise UserError(f"{path}: '{name}' cannot be read: {reason(error)}") from None
    return content
