"""Where an image file lies: on its own, or byte for byte inside a larger file (a tar or Arrow shard)."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class Piece(NamedTuple):
    """An image file inside a larger file."""

    root: str  # of the data set, and
    name: str  # how it is called below it: what messages show
    file: str  # the larger file
    start: int  # in bytes
    size: int  # in bytes

    def __str__(self) -> str:
        return f"{self.root}/{self.name}"


Place = str | Path | Piece
Source = Place | bytes  # bytes: the file itself


def read_bytes(place: Source, most: int = -1) -> npt.NDArray[np.uint8]:
    """The bytes of an image file, or its first ones, shape (bytes,).

    Args:
        place: where it lies, or the file itself.
        most: how many bytes; -1: all.

    Raises:
        OSError: it is missing or cannot be read, or the larger file has become shorter.
    """
    if isinstance(place, bytes):
        return np.frombuffer(bytearray(place if most < 0 else place[:most]), np.uint8)
    if not isinstance(place, Piece):
        return np.fromfile(place, np.uint8, most)
    count = place.size if most < 0 else min(most, place.size)
    data = np.fromfile(place.file, np.uint8, count, offset=place.start)
    if len(data) < count:
        raise OSError(errno.EIO, f"{place.file} ends before it: cut off since it was listed", str(place))
    return data
