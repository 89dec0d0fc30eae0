"""Archives (tar and zip), read in memory. Nothing is ever extracted; a hostile member is refused."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from harness.base.errors import UserError
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


class _StrictHeader(tarfile.TarInfo):
    """A header that is damaged or too large is an error; `tarfile` takes the first for the end of the archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _StrictHeader:
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if bytes(buf) == bytes(tarfile.BLOCKSIZE):
                raise  # the regular end: a block of zeros
            raise tarfile.ReadError(f"damaged or missing header: {error}") from None
        if header.size > MAX_MEMBER:  # extended headers too: tarfile reads those into memory itself
            raise tarfile.ReadError(f"member {header.name!r} has {header.size} bytes, {MAX_MEMBER} are allowed")
        return header


def read_members(
    path: Path, on_fault: OnFault | None = None, only: Callable[[PurePosixPath], bool] | None = None
) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Path and content of each file of an archive, in its order. Folders are passed over.

    Args:
        path: a tar archive, or a zip one if its name ends with `.zip`.
        on_fault: is told of a member that does not belong in a data set, which is then passed over; without it such a
            member is an error.
        only: whether a file is wanted; the others are checked by their headers, but not read.

    Raises:
        UserError: the archive is damaged or truncated, or has a member that does not belong in a data set: a link, a
            device, a path that is absolute or leads upwards, a file that stands twice or is too large.
    """
    seen: set[PurePosixPath] = set()
    members = _zip_members(path) if path.suffix == ".zip" else _tar_members(path)
    with _damage_reported(path), contextlib.closing(members):
        for raw, fault, read in members:
            name = PurePosixPath(raw)
            fault = fault or _path_fault(raw) or ("it stands twice" if name in seen else "")
            if fault and on_fault is None:
                raise UserError(f"{path}: member {raw!r} is refused: {fault}")
            if fault and on_fault is not None:
                on_fault(f"member {raw!r} is refused: {fault}")
            elif read is not None:
                seen.add(name)
                if (only is None or only(name)) and (data := _read(raw, read, on_fault)) is not None:
                    yield name, data


def _read(name: str, read: Callable[[], bytes], on_fault: OnFault | None) -> bytes | None:
    try:
        return read()
    except zipfile.BadZipFile as error:  # of a zip archive the other members can still be read
        if on_fault is None:
            raise
        on_fault(f"member {name!r} is damaged: {error}")
        return None


Member = tuple[str, str, Callable[[], bytes] | None]  # path, why it is refused, how to read it (None for a folder)


def _tar_members(path: Path) -> Generator[Member]:
    with _opened(path) as archive:
        for header in archive:
            fault = _tar_fault(header)
            yield header.name, fault, None if fault or header.isdir() else _tar_reader(archive, header)


def _tar_reader(archive: tarfile.TarFile, header: tarfile.TarInfo) -> Callable[[], bytes]:
    def read() -> bytes:
        file = archive.extractfile(header)
        assert file is not None  # it is a regular file
        return file.read()

    return read


def _zip_members(path: Path) -> Generator[Member]:
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            fault = _zip_fault(entry)
            yield entry.orig_filename, fault, None if fault or entry.is_dir() else partial(archive.read, entry)


def _zip_fault(entry: zipfile.ZipInfo) -> str:
    if stat.S_ISLNK(entry.external_attr >> 16):
        return "it is a link"
    if entry.flag_bits & 1:
        return "it is encrypted"
    return f"it has {entry.file_size} bytes, {MAX_MEMBER} are allowed" if entry.file_size > MAX_MEMBER else ""


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tarfile.TarFile]:
    """The archive, decompressed in large pieces: each piece lets the decoding threads run while it is made."""
    decompress = DECOMPRESSORS.get(path.suffix, io.FileIO)
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(io.BufferedReader(stack.enter_context(decompress(path)), BUFFER))
        yield stack.enter_context(tarfile.open(fileobj=file, mode="r:", tarinfo=_StrictHeader))


@contextlib.contextmanager
def _damage_reported(path: Path) -> Iterator[None]:
    try:
        yield
    except DAMAGE as error:
        raise UserError(f"{path}: damaged or truncated archive: {' '.join(str(error).split())}") from None


def _tar_fault(header: tarfile.TarInfo) -> str:
    """Why a member is refused; empty for one that is not."""
    if header.issym() or header.islnk():
        return "it is a link"
    if not header.isdir() and not header.isreg():
        return "it is neither a file nor a folder"
    if header.issparse():
        return "it is a sparse file"
    if header.size > MAX_MEMBER:  # once more: an extended header may have given it another size
        return f"it has {header.size} bytes, {MAX_MEMBER} are allowed"
    return ""


def _path_fault(name: str) -> str:
    if name.startswith("/") or PureWindowsPath(name).anchor:
        return "its path is absolute"
    if ".." in name.replace("\\", "/").split("/"):
        return "its path leads upwards"
    return ""


def read_images(path: Path, class_names: Sequence[str], extras: Collection[str] = ()) -> Iterator[EncodedImage]:
    """The image files of an archive with the layout `<top>/<part>/<class>/<file>`.

    Args:
        path: the archive.
        class_names: names of the class folders; an image's label is its folder's index in them.
        extras: names of files beside the parts, which are passed over.

    Raises:
        UserError: as `read_members`, or a file that does not fit the layout.
    """
    labels = {name: label for label, name in enumerate(class_names)}
    for name, data in read_members(path):
        match name.parts:
            case (_, part, class_name, _) if part in PARTS and class_name in labels:
                yield EncodedImage(str(name), part, labels[class_name], data)
            case (_, extra) if extra in extras:
                continue
            case _:
                raise UserError(f"{path}: member '{name}' is not <folder>/<{'|'.join(PARTS)}>/<known class>/<file>")
