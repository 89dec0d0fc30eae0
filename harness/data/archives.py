"""Image archives (tar, compressed or not), read in memory. Nothing is ever extracted; a hostile member is refused."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import tarfile
import zlib
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from harness.datasets.base import PARTS, Images
from harness.errors import UserError

MAX_MEMBER = 16 * 2**20  # bytes of one member; an encoded image of these data sets has a few thousand
FORMATS = ("WEBP", "JPEG", "PNG")  # what Pillow may try; its rarer readers never see foreign bytes
DECOMPRESSORS: dict[str, Callable[[Path], Any]] = {".xz": lzma.open, ".gz": gzip.open, ".bz2": bz2.open}
BUFFER = 2**20  # bytes decompressed at a time
WORKERS = 2  # decoding threads: Pillow holds the interpreter lock for most of the work, so more gain nothing
BATCH = 256  # images decoded by one task of the thread pool
DAMAGE = (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, OSError, ValueError)

Pixels = npt.NDArray[np.uint8]


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


def read_members(path: Path) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Path and content of each file of a tar archive, in its order. Folders are passed over.

    Raises:
        UserError: the archive is damaged or truncated, or has a member that does not belong in a data set: a link, a
            device, a path that is absolute or leads upwards, a file that stands twice or is too large.
    """
    seen = set()
    with _damage_reported(path), _opened(path) as archive:
        for header in archive:
            if fault := _fault(header):
                raise UserError(f"{path}: member {header.name!r} is refused: {fault}")
            if header.isdir():
                continue
            name = PurePosixPath(header.name)
            if name in seen:
                raise UserError(f"{path}: member {header.name!r} is refused: it stands twice")
            seen.add(name)
            file = archive.extractfile(header)
            assert file is not None  # it is a regular file
            yield name, file.read()


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


def _fault(header: tarfile.TarInfo) -> str:
    """Why a member is refused; empty for one that is not."""
    if header.issym() or header.islnk():
        return "it is a link"
    if not header.isdir() and not header.isreg():
        return "it is neither a file nor a folder"
    if header.issparse():
        return "it is a sparse file"
    if header.name.startswith("/") or PureWindowsPath(header.name).anchor:
        return "its path is absolute"
    if ".." in header.name.replace("\\", "/").split("/"):
        return "its path leads upwards"
    if header.size > MAX_MEMBER:  # once more: an extended header may have given it another size
        return f"it has {header.size} bytes, {MAX_MEMBER} are allowed"
    return ""


def read_images(path: Path, class_names: Sequence[str]) -> Iterator[EncodedImage]:
    """The image files of an archive with the layout `<top>/<part>/<class>/<file>`.

    Args:
        path: the archive.
        class_names: names of the class folders; an image's label is its folder's index in them.

    Raises:
        UserError: as `read_members`, or a file that does not fit the layout.
    """
    labels = {name: label for label, name in enumerate(class_names)}
    for name, data in read_members(path):
        match name.parts:
            case (_, part, class_name, _) if part in PARTS and class_name in labels:
                yield EncodedImage(str(name), part, labels[class_name], data)
            case _:
                raise UserError(f"{path}: member '{name}' is not <folder>/<{'|'.join(PARTS)}>/<known class>/<file>")


def decode_image(data: bytes, shape: tuple[int, int, int]) -> Pixels:
    """Pixels of an encoded image, in the given shape (height, width, channels); 1 channel is grey, 3 are RGB.

    Raises:
        ValueError: the bytes are no readable image, or one of another size. The size is checked before the pixels are
            decoded, so a small file cannot ask for much memory.
    """
    height, width, channels = shape
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.size != (width, height):
                raise ValueError(f"it has {image.width} x {image.height} pixels, expected {width} x {height}")
            return np.asarray(image.convert("L" if channels == 1 else "RGB"), dtype=np.uint8).reshape(shape)
    except UnidentifiedImageError:  # its own message shows the address of a Python object
        raise ValueError(f"it is in none of the formats {', '.join(FORMATS)}") from None
    except Exception as error:  # damaged files leave Pillow as whatever Python raised on them
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from None


def decode_archive(path: Path, class_names: Sequence[str], shape: tuple[int, int, int]) -> dict[str, Images]:
    """Decoded images of each part that the archive holds, in the archive's order.

    Images are decoded by threads while the next ones are decompressed.

    Args:
        path: an archive as `read_images` takes it.
        class_names: names of the class folders in label order.
        shape: height, width and channels that every image must have.

    Raises:
        UserError: as `read_images`, a damaged image, or no images of `train` or `test`.
    """
    chunks: dict[str, list[Images]] = defaultdict(list)
    for part, images in _decoded_batches(path, class_names, shape):
        chunks[part].append(images)
    for part in ("train", "test"):
        if part not in chunks:
            raise UserError(f"{path}: holds no images of the part '{part}'")
    parts = {}
    for part in PARTS:
        if part in chunks:
            pieces = chunks.pop(part)  # freed before the next part needs its memory
            labels = np.concatenate([piece.labels for piece in pieces])
            parts[part] = Images(np.concatenate([piece.pixels for piece in pieces]), labels)
    return parts


def _decoded_batches(
    path: Path, class_names: Sequence[str], shape: tuple[int, int, int]
) -> Iterator[tuple[str, Images]]:
    """Parts and their decoded batches; of each part in the archive's order."""
    pending: deque[tuple[str, Future[Images]]] = deque()
    with ThreadPoolExecutor(WORKERS) as pool:
        for batch in _batches(read_images(path, class_names)):
            pending.append((batch[0].part, pool.submit(_decode_batch, path, batch, shape)))
            if len(pending) > 2 * WORKERS:  # encoded images must not pile up where decoding is slow
                part, future = pending.popleft()
                yield part, future.result()
        for part, future in pending:
            yield part, future.result()


def _batches(images: Iterable[EncodedImage]) -> Iterator[list[EncodedImage]]:
    """Lists of at most `BATCH` images of one part."""
    waiting: dict[str, list[EncodedImage]] = defaultdict(list)
    for image in images:
        waiting[image.part].append(image)
        if len(waiting[image.part]) == BATCH:
            yield waiting.pop(image.part)
    yield from waiting.values()


def _decode_batch(path: Path, batch: Sequence[EncodedImage], shape: tuple[int, int, int]) -> Images:
    pixels = np.empty((len(batch), *shape), dtype=np.uint8)
    for row, image in zip(pixels, batch, strict=True):
        try:
            row[:] = decode_image(image.data, shape)
        except ValueError as error:
            raise UserError(f"{path}: image '{image.member}' cannot be read: {error}") from None
    return Images(pixels, np.array([image.label for image in batch], dtype=np.int64))
