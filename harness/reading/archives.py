"""Archives (tar and zip), read in memory; nothing is ever extracted.

Loading checks an archive against its pin before it is opened. Only `verify` opens others, to say what is damaged.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from harness.base.errors import UserError, reason
from harness.reading.dataset import PARTS

MAX_MEMBER = 160 * 2**20  # bytes of one member; CIFAR-100's training batch has 155 million
DECOMPRESSORS: dict[str, Callable[[Path], Any]] = {".xz": lzma.open, ".gz": gzip.open, ".bz2": bz2.open}
BUFFER = 2**20  # bytes decompressed at a time
DAMAGE = (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError, OSError, ValueError, RuntimeError)
OnFault = Callable[[str], None]


@dataclass(frozen=True)
class EncodedImage:
    """An image file of an archive, as its path `<top>/<part>/<class>/<file>` describes it."""

    member: str
    part: str
    label: int
    data: bytes


def read_members(
    path: Path, on_fault: OnFault | None = None, only: Callable[[PurePosixPath], bool] | None = None
) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Path and content of each file of an archive, in its order; what is no file is passed over.

    Args:
        path: a tar archive, or a zip one if its name ends with `.zip`.
        on_fault: is told of a damaged member of a zip archive, which is then passed over; without it such a member is
            an error.
        only: whether a file is wanted; the others are not read.

    Raises:
        UserError: the archive is damaged or truncated, or a member is too large.
    """
    members = _zip_members(path) if path.suffix == ".zip" else _tar_members(path)
    try:
        with contextlib.closing(members):
            for name, size, read in members:
                if size > MAX_MEMBER:
                    raise ValueError(f"member '{name}' has {size} bytes, {MAX_MEMBER} are allowed")
                if only is None or only(name):
                    try:
                        yield name, read()
                    except zipfile.BadZipFile as error:  # the other members can still be read
                        if on_fault is None:
                            raise
                        on_fault(f"member '{name}' is damaged: {error}")
    except DAMAGE as error:
        raise UserError(f"{path}: damaged or truncated archive: {reason(error)}") from None


Member = tuple[PurePosixPath, int, Callable[[], bytes]]  # path, bytes, how to read it


def _tar_members(path: Path) -> Generator[Member]:
    opened = DECOMPRESSORS.get(path.suffix, io.FileIO)(path)
    # In large pieces: each lets the decoding threads run while it is decompressed.
    with opened, io.BufferedReader(opened, BUFFER) as file, tarfile.open(fileobj=file, mode="r:") as archive:
        for header in archive:
            if header.isreg() and (content := archive.extractfile(header)):
                yield PurePosixPath(header.name), header.size, content.read


def _zip_members(path: Path) -> Generator[Member]:
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if not entry.is_dir():
                yield PurePosixPath(entry.filename), entry.file_size, partial(archive.read, entry)


def read_images(path: Path, class_names: Sequence[str]) -> Iterator[EncodedImage]:
    """The image files of an archive with the layout `<top>/<part>/<class>/<file>`; what lies elsewhere is passed over.

    Args:
        path: the archive.
        class_names: names of the class folders; an image's label is its folder's index in them.

    Raises:
        UserError: as `read_members`.
    """
    labels = {name: label for label, name in enumerate(class_names)}
    for name, data in read_members(path):
        match name.parts:
            case (_, part, class_name, _) if part in PARTS and class_name in labels:
                yield EncodedImage(str(name), part, labels[class_name], data)
