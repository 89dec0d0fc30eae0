"""Decodes image files in threads. A damaged or oversized file is one clear line, whatever Pillow raises on it."""

from __future__ import annotations

import io
import os
import warnings
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from harness.base.errors import UserError, reason
from harness.base.progress import counted
from harness.reading.archives import EncodedImage, read_images
from harness.reading.dataset import PARTS, Encoded, Images
from harness.reading.pieces import Piece, Place, read_bytes
from harness.reading.pixels import Pixels, has_more, orientation, to_pixels

FORMATS = ("WEBP", "JPEG", "PNG", "BMP", "TIFF", "GIF")  # Pillow's rarer readers never see foreign bytes; JPEG has MPO
SUFFIXES = (".jpg", ".jpeg", ".jfif", ".mpo", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif",
            ".heic", ".heif", ".avif")  # fmt: skip  # the last three are refused by name instead of passed over
BRANDS = {b"heic": "HEIC", b"heix": "HEIC", b"hevc": "HEIC", b"mif1": "HEIF", b"msf1": "HEIF", b"avif": "AVIF",
          b"avis": "AVIF"}  # fmt: skip  # of image files that phones write, and Pillow alone does not read
MAX_PIXELS = 90_000_000  # of one image; beyond it, Pillow itself warns of a decompression bomb
WORKERS = min(8, max(2, os.cpu_count() or 1))  # decoding threads; of small images they share Python's lock mostly
BATCH = 256  # images decoded by one task of the thread pool

Decoder = Callable[[bytes], Pixels]
T = TypeVar("T")

warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # `MAX_PIXELS` is the limit here


def decode_image(data: bytes, shape: tuple[int, int, int]) -> Pixels:
    """Pixels of an encoded image, in the given shape (height, width, channels); 1 channel is grey, 3 are RGB.

    Raises:
        ValueError: the bytes are no readable image, or one of another size. The size is checked before the pixels are
            decoded, so a small file cannot ask for much memory.
    """
    height, width, channels = shape

    def convert(image: Image.Image) -> Pixels:
        if image.size != (width, height):
            raise ValueError(f"it has {image.width} x {image.height} pixels, expected {width} x {height}")
        return to_pixels(image, channels)

    return read_image(data, convert)


def decode_resized(data: bytes | memoryview, side: int, interpolation: str = "bilinear") -> Pixels:
    """RGB pixels of a user's image of any size, shape (side, side, 3), turned upright by its EXIF orientation.

    As `fitted` does it.

    Raises:
        ValueError: the bytes are no readable image, or one with more than `MAX_PIXELS`, before or after it is resized.
    """
    return read_image(data, lambda image: fitted(to_pixels(image, 3, upright=True), side, interpolation))


def fitted(pixels: Pixels, side: int, interpolation: str) -> Pixels:
    """RGB pixels of any size as (side, side, 3): the short side is resized (antialiased), and the centre cut out.

    Raises:
        ValueError: more than `MAX_PIXELS`, once it is resized.
    """
    rgb = Image.fromarray(pixels)
    scale = side / min(rgb.size)
    width, height = (max(side, round(length * scale)) for length in rgb.size)
    if width * height > MAX_PIXELS:
        raise ValueError(
            f"it has {rgb.width} x {rgb.height} pixels; the limit is {MAX_PIXELS}, also once it is resized"
        )
    rgb = rgb.resize((width, height), Image.Resampling[interpolation.upper()])
    left, top = (width - side) // 2, (height - side) // 2
    return np.array(rgb.crop((left, top, left + side, top + side)))


@dataclass(frozen=True)
class Inspection:
    """What a look at an image file's bytes finds."""

    fault: str = ""  # why it cannot be read; empty for one that can
    more: bool = False  # it has frames or pages after the first, which is the one that is used
    lying: bool = False  # its EXIF orientation says that it is stored turned or mirrored


def inspect(data: bytes) -> Inspection:
    """Reads an image of any size as the loaders do."""
    facts: list[tuple[bool, bool]] = []

    def convert(image: Image.Image) -> Pixels:
        pixels = to_pixels(image, 3)  # first: to look for EXIF reads a PNG's pixels, and with them how they were stored
        facts.append((has_more(image), orientation(image) != 1))
        return pixels

    try:
        read_image(data, convert)
    except ValueError as error:
        return Inspection(fault=str(error))
    return Inspection("", *facts[0])


def image_size(place: Place) -> tuple[int, int] | None:
    """Width and height by the file's header; None where it cannot be read."""
    try:
        source = io.BytesIO(read_bytes(place).tobytes()) if isinstance(place, Piece) else place
        with Image.open(source, formats=FORMATS) as image:
            return image.size
    except Exception:  # Pillow raises nearly anything on a damaged file
        return None


def read_image(data: bytes | memoryview, convert: Callable[[Image.Image], T]) -> T:
    """What `convert` makes of an image file that its header says is an image, and not too large.

    Raises:
        ValueError: anything is wrong with it, in one line.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"it has {image.width} x {image.height} pixels; the limit is {MAX_PIXELS}")
            return convert(image)
    except UnidentifiedImageError:  # its own message shows the address of a Python object
        raise ValueError(_unidentified(bytes(data[:12]))) from None
    except Exception as error:  # Pillow raises nearly anything on a damaged file
        raise ValueError(reason(error)) from None


def _unidentified(start: bytes) -> str:
    """What to say of a file that begins with these bytes."""
    if start[4:8] == b"ftyp" and (name := BRANDS.get(start[8:12])):
        return f"it is {name}, which is not supported; save it as JPEG"
    return f"it is in none of the formats {', '.join(FORMATS)}, or in a rare kind of one; save it as JPEG or PNG"


def decode_archive(
    path: Path, class_names: Sequence[str], shape: tuple[int, int, int], *, keep_files: bool = False
) -> dict[str, Images]:
    """Decoded images of each part that the archive holds, in the archive's order.

    Images are decoded by threads while the next ones are decompressed.

    Args:
        path: an archive as `read_images` takes it.
        class_names: names of the class folders in label order.
        shape: height, width and channels that every image must have.
        keep_files: keep the files' bytes, by which splits know JPEG images.

    Raises:
        UserError: as `read_images`, a damaged image, or no images of `train` or `test`.
    """
    return decode_images(
        read_images(path, class_names), path, lambda data: decode_image(data, shape), keep_files=keep_files
    )


def decode_images(
    images: Iterable[EncodedImage], where: Path, decode: Decoder, *, keep_files: bool, count: int | None = None
) -> dict[str, Images]:
    """Decoded images of each part, in their order.

    Args:
        images: read one after the other while others are decoded.
        where: the archive or folder that they come from, for messages.
        decode: bytes -> pixels, of the same shape for every image; raises ValueError.
        keep_files: keep the files' bytes, by which splits know JPEG images.
        count: how many images there are, where it is known, for the progress that is shown.

    Raises:
        UserError: a damaged image, or no images of `train` or `test`.
    """
    chunks: dict[str, list[Images]] = defaultdict(list)
    for part, chunk in _decoded_batches(counted(images, f"decoding {where.name}", count), where, decode, keep_files):
        chunks[part].append(chunk)
    for part in ("train", "test"):
        if part not in chunks:
            raise UserError(f"{where}: holds no images of the part '{part}'")
    return {part: _joined(chunks.pop(part)) for part in PARTS if part in chunks}  # freed before the next one is joined


def _joined(pieces: Sequence[Images]) -> Images:
    encoded = None
    if files := [piece.encoded for piece in pieces if piece.encoded is not None]:
        starts = np.cumsum([0, *(len(file.data) for file in files[:-1])])
        ends = np.concatenate([file.ends + start for file, start in zip(files, starts, strict=True)])
        encoded = Encoded(np.concatenate([file.data for file in files]), ends)
    labels = np.concatenate([piece.labels for piece in pieces])
    return Images(np.concatenate([piece.pixels for piece in pieces]), labels, encoded)


def _decoded_batches(
    images: Iterable[EncodedImage], where: Path, decode: Decoder, keep_files: bool
) -> Iterator[tuple[str, Images]]:
    """Parts and their decoded batches; of each part in the given order."""
    pending: deque[tuple[str, Future[Images]]] = deque()
    with ThreadPoolExecutor(WORKERS) as pool:
        for batch in _batches(images):
            pending.append((batch[0].part, pool.submit(_decode_batch, batch, where, decode, keep_files)))
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


def _decode_batch(batch: Sequence[EncodedImage], where: Path, decode: Decoder, keep_files: bool) -> Images:
    pixels: list[Pixels] = []
    for image in batch:
        try:
            pixels.append(decode(image.data))
        except ValueError as error:
            raise UserError(f"{where}: image '{image.member}' cannot be read: {error}") from None
    encoded = None
    if keep_files:
        ends = np.cumsum([len(image.data) for image in batch], dtype=np.int64)
        encoded = Encoded(np.frombuffer(b"".join(image.data for image in batch), dtype=np.uint8), ends)
    return Images(np.stack(pixels), np.array([image.label for image in batch], dtype=np.int64), encoded)
