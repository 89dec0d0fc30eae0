"""Array files (`.npz`): equal arrays give equal bytes, and a damaged file is one clear line."""

from __future__ import annotations

import contextlib
import io
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.base.errors import UserError, reason
from harness.base.files import write_bytes

Arrays = dict[str, npt.NDArray[Any]]
Classes = npt.NDArray[np.integer]


def write_arrays(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Writes the file atomically; equal arrays give equal bytes."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    write_bytes(path, buffer.getvalue())


def are_classes(values: npt.NDArray[Any]) -> bool:
    """Whether these are numbers of classes, of a type that can be counted."""
    whole = np.issubdtype(values.dtype, np.integer) and np.can_cast(values.dtype, np.int64)
    return bool(whole and values.min(initial=0) >= 0)


@contextlib.contextmanager
def read_arrays(path: Path, what: str, remedy: str) -> Iterator[Arrays]:
    """The arrays of a file, every byte checked against the file's own checksums.

    Whatever the block raises while it reads them also means that the file is damaged.

    Args:
        what: what the file should hold, for the message.
        remedy: how to make it again; ends the message.

    Raises:
        UserError: damaged.
    """
    try:
        _check_archive(path)
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        yield arrays
    except Exception as error:  # damaged bytes raise whatever the reader happens to stumble on
        raise UserError(f"{path}: damaged {what} ({reason(error)}); {remedy}") from None


def _check_archive(path: Path) -> None:
    """Checks what numpy does not when it reads a zip archive: every checksum, and that no entry is missing."""
    with zipfile.ZipFile(path) as archive:
        end_of_directory = path.read_bytes()[-22:]
        if int.from_bytes(end_of_directory[10:12], "little") != len(archive.infolist()):
            raise ValueError("entries are missing")
        if damaged := archive.testzip():
            raise ValueError(f"checksum of {damaged} is wrong")
