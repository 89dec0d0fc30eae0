"""Image files of many modes and formats, and what each of them shows, computed with numpy from what was put into it.

Nothing here converts a mode by Pillow: `shown` is what a person who opens the file sees, over white.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Values = npt.NDArray[Any]
Rng = np.random.Generator


@dataclass(frozen=True)
class Picture:
    """An image file and its truth.

    Attributes:
        shown: (height, width, 3) as float64, 0 to 255; None where the file must be refused.
        tolerance: how far each value may be off: 0.5 is correct rounding, more is for lossy formats.
        refusal: a part of the reason why it must be refused.
    """

    data: bytes
    shown: Values | None = None
    tolerance: float = 0.5
    refusal: str = ""


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    """As a file in memory."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def rgb(grey: Values) -> Values:
    """A grey image (height, width) as colours."""
    return np.repeat(np.asarray(grey, np.float64)[..., None], 3, axis=2)


def over_white(colour: Values, alpha: Values) -> Values:
    """Colours (h, w, 3) of which `alpha` (h, w) of 255 is opaque."""
    part = alpha[..., None].astype(np.float64) / 255
    return colour * part + 255 * (1 - part)


def png(values: Values, bits: int, colour: int, *, chunks: dict[bytes, bytes] | None = None) -> bytes:
    """A PNG by the standard alone. `values` (h, w) or (h, w, samples), `colour` its colour type (0, 2, 3, 4, 6)."""
    height, width = values.shape[:2]
    if bits < 8:
        flat = np.unpackbits(values.astype(np.uint8)[..., None], axis=-1)[..., 8 - bits :]
        rows = np.packbits(flat.reshape(height, -1), axis=1)
    else:
        rows = values.reshape(height, -1).astype(">u2" if bits == 16 else np.uint8)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    parts = {b"IHDR": header} | (chunks or {}) | {b"IDAT": zlib.compress(raw), b"IEND": b""}
    pieces = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts.items()
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(pieces)


SIDES = {1: "tl", 2: "tr", 3: "br", 4: "bl", 5: "lt", 6: "rt", 7: "rb", 8: "lb"}  # EXIF: where row 0 and column 0 are


def upright(stored: Values, orientation: int) -> Values:
    """An image (h, w, 3) stored with that EXIF orientation, pixel by pixel where the standard says that it belongs."""
    rows, columns = stored.shape[:2]
    first, second = tuple(SIDES[orientation])
    height, width = (rows, columns) if first in "tb" else (columns, rows)
    shown = np.empty((height, width, 3))
    for i in range(rows):
        for j in range(columns):
            place = {"t": (0, i, j), "b": (0, height - 1 - i, height - 1 - j), "l": (1, i, j)}
            place["r"] = (1, width - 1 - i, width - 1 - j)
            at = [0, 0]
            at[place[first][0]], at[place[second][0]] = place[first][1], place[second][2]
            shown[tuple(at)] = stored[i, j]
    return shown


def oriented(data: bytes, orientation: int) -> bytes:
    """A JPEG, PNG or plain WebP file with that EXIF orientation; others as they are."""
    exif = b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 274, 3, 1, orientation, 0, 0)
    if data[:2] == b"\xff\xd8":
        body = b"Exif\0\0" + exif
        return data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]
    if data[:4] == b"\x89PNG":
        chunk = struct.pack(">I", len(exif)) + b"eXIf" + exif + struct.pack(">I", zlib.crc32(b"eXIf" + exif))
        return data[:33] + chunk + data[33:]
    if data[:4] == b"RIFF" and data[12:16] != b"VP8X":
        width, height = Image.open(io.BytesIO(data)).size
        alpha = 0x10 if data[12:16] == b"VP8L" else 0
        sizes = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
        body = b"WEBPVP8X" + struct.pack("<IBxxx", 10, 0x08 | alpha) + sizes + data[12:]
        body += b"EXIF" + struct.pack("<I", len(exif)) + exif
        return b"RIFF" + struct.pack("<I", len(body)) + body
    return data


def bilevel(rng: Rng, h: int, w: int, kind: str) -> Picture:
    bits = rng.integers(0, 2, (h, w), dtype=np.uint8)
    return Picture(saved(Image.fromarray(bits.astype(bool)), kind), rgb(bits * 255))


def grey(rng: Rng, h: int, w: int, kind: str) -> Picture:
    values = rng.integers(0, 256, (h, w), dtype=np.uint8)
    return Picture(saved(Image.fromarray(values), kind), rgb(values))


def colours(rng: Rng, h: int, w: int, kind: str) -> Picture:
    values = rng.integers(0, 256, (h, w, 3), dtype=np.uint8)
    options = {"lossless": True} if kind == "WEBP" else {}
    return Picture(saved(Image.fromarray(values), kind, **options), values.astype(np.float64))


def colours_alpha(rng: Rng, h: int, w: int, kind: str) -> Picture:
    values = rng.integers(0, 256, (h, w, 4), dtype=np.uint8)
    if rng.random() < 0.3:  # black glyphs on a transparent ground: every colour is (0, 0, 0)
        values[..., :3] = 0
        values[..., 3] = np.where(values[..., 3] > 127, 255, 0)
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    return Picture(saved(Image.fromarray(values), kind, **options), over_white(values[..., :3], values[..., 3]))


def bmp_alpha(rng: Rng, h: int, w: int, kind: str) -> Picture:
    """32 bits a pixel: alpha where the header says so; elsewhere nobody knows what the fourth byte is."""
    values = rng.integers(0, 256, (h, w, 4), dtype=np.uint8)
    values[0, 0, 3] = 7  # neither clear nor opaque
    stated = bool(rng.random() < 0.5)
    bgra = values[::-1][..., [2, 1, 0, 3]].tobytes()
    size = 108 if stated else 40
    header = struct.pack("<IiiHHIIiiII", size, w, h, 1, 32, 3 if stated else 0, len(bgra), 2835, 2835, 0, 0)
    if stated:
        header += struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + b"sRGB"[::-1] + bytes(48)
    data = b"BM" + struct.pack("<IHHI", 14 + size + len(bgra), 0, 0, 14 + size) + header + bgra
    if stated:
        return Picture(data, over_white(values[..., :3], values[..., 3]))
    return Picture(data, refusal="fourth channel")


def grey_alpha(rng: Rng, h: int, w: int, kind: str) -> Picture:
    values = rng.integers(0, 256, (h, w, 2), dtype=np.uint8)
    return Picture(saved(Image.fromarray(values, "LA"), kind), over_white(rgb(values[..., 0]), values[..., 1]))


def _palette(rng: Rng, h: int, w: int, entries: int) -> tuple[Values, Values, Image.Image]:
    table = rng.integers(0, 256, (entries, 3), dtype=np.uint8)
    index = rng.integers(0, entries, (h, w), dtype=np.uint8)
    image = Image.fromarray(index, "P")
    image.putpalette(table.tobytes())
    return table, index, image


def palette(rng: Rng, h: int, w: int, kind: str) -> Picture:
    table, index, image = _palette(rng, h, w, int(rng.choice([2, 4, 16, 256])))
    return Picture(saved(image, kind), table[index].astype(np.float64))


def palette_one_clear(rng: Rng, h: int, w: int, kind: str) -> Picture:
    table, index, image = _palette(rng, h, w, 16)
    clear = int(rng.integers(16))
    index[0, 0] = clear
    image = Image.fromarray(index, "P")
    image.putpalette(table.tobytes())
    alpha = np.where(index == clear, 0, 255)
    return Picture(saved(image, kind, transparency=clear), over_white(table[index], alpha))


def palette_alpha_png(rng: Rng, h: int, w: int, kind: str) -> Picture:
    bits = int(rng.choice([1, 2, 4, 8]))
    table = rng.integers(0, 256, (2**bits, 4), dtype=np.uint8)
    index = rng.integers(0, 2**bits, (h, w), dtype=np.uint8)
    chunks = {b"PLTE": table[:, :3].tobytes(), b"tRNS": table[:, 3].tobytes()}
    return Picture(png(index, bits, 3, chunks=chunks), over_white(table[index][..., :3], table[index][..., 3]))


def grey_bits_png(rng: Rng, h: int, w: int, kind: str) -> Picture:
    """Grey of 1 to 16 bits, with or without one transparent value."""
    bits = int(rng.choice([1, 2, 4, 8, 16]))
    values = rng.integers(0, 2**bits, (h, w))
    eight = values // 256 if bits == 16 else values * (255 // (2**bits - 1))
    if rng.random() < 0.5:
        return Picture(png(values, bits, 0), rgb(eight))
    clear = int(values[0, 0])
    shown = np.where(values == clear, 255, eight)
    return Picture(png(values, bits, 0, chunks={b"tRNS": struct.pack(">H", clear)}), rgb(shown))


def colour_key_png(rng: Rng, h: int, w: int, kind: str) -> Picture:
    values = rng.integers(0, 3, (h, w, 3)) * 100
    clear = values[0, 0]
    hidden = (values == clear).all(axis=2, keepdims=True)
    return Picture(png(values, 8, 2, chunks={b"tRNS": struct.pack(">HHH", *clear)}), np.where(hidden, 255.0, values))


def colours_16_png(rng: Rng, h: int, w: int, kind: str) -> Picture:
    """Colour types with 16 bits a sample; alpha is reduced as the colours are."""
    colour = int(rng.choice([2, 4, 6]))
    samples = {2: 3, 4: 2, 6: 4}[colour]
    values = rng.integers(0, 2**16, (h, w, samples))
    eight = values // 256
    if colour == 2:
        return Picture(png(values, 16, 2), eight.astype(np.float64))
    seen = rgb(eight[..., 0]) if colour == 4 else eight[..., :3]
    return Picture(png(values, 16, colour), over_white(seen, eight[..., -1]))


def colours_16_key_png(rng: Rng, h: int, w: int, kind: str) -> Picture:
    values = rng.integers(0, 2**16, (h, w, 3))
    return Picture(png(values, 16, 2, chunks={b"tRNS": struct.pack(">HHH", *values[0, 0])}), refusal="transparent")


def grey_16(rng: Rng, h: int, w: int, kind: str) -> Picture:
    values = rng.integers(0, 2**16, (h, w), dtype=np.uint16)
    if kind == "TIFF":
        return _tiff_16(rng, values)
    return Picture(saved(Image.fromarray(values), kind), rgb(values // 256))


def _tiff_16(rng: Rng, values: Values) -> Picture:
    order, inverted = str(rng.choice(["<", ">"])), bool(rng.random() < 0.3)
    seen = values // 256
    tags = {258: 16, 262: 0 if inverted else 1, 277: 1}
    data = tiff(values.astype(order + "u2"), order, tags)
    if inverted and order == ">":  # Pillow does not know it
        return Picture(data, refusal="rare kind")
    return Picture(data, rgb(255 - seen if inverted else seen))


def tiff(values: Values, order: str, tags: dict[int, int]) -> bytes:
    """An uncompressed TIFF of one strip by the standard alone."""
    height, width = values.shape[:2]
    data = values.tobytes()
    entries = {256: width, 257: height, 259: 1, 273: 8, 278: height, 279: len(data)} | tags
    table = b"".join(struct.pack(order + "HHII", tag, 4, 1, value) for tag, value in sorted(entries.items()))
    mark = b"II*\0" if order == "<" else b"MM\0*"
    directory = struct.pack(order + "H", len(entries)) + table + struct.pack(order + "I", 0)
    return mark + struct.pack(order + "I", 8 + len(data)) + data + directory


def grey_12_tiff(rng: Rng, h: int, w: int, kind: str) -> Picture:
    w += w % 2  # two values share three bytes
    values = rng.integers(0, 2**12, (h, w))
    first, second = values[:, 0::2], values[:, 1::2]
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], axis=2).astype(np.uint8)
    data = tiff(packed.reshape(h, -1), "<", {256: w, 258: 12, 262: 1, 277: 1})
    return Picture(data, rgb(values // 16))


def signed_tiff(rng: Rng, h: int, w: int, kind: str) -> Picture:
    bits = int(rng.choice([8, 16]))
    values = rng.integers(-100, 100, (h, w)).astype(f"<i{bits // 8}")
    return Picture(tiff(values, "<", {258: bits, 262: 1, 277: 1, 339: 2}), refusal="range is not known")


def long_tiff(rng: Rng, h: int, w: int, kind: str) -> Picture:
    values = rng.integers(0, 2**31, (h, w)).astype(np.int32)
    return Picture(saved(Image.fromarray(values), "TIFF"), refusal="32-bit whole numbers")


def float_tiff(rng: Rng, h: int, w: int, kind: str) -> Picture:
    return Picture(saved(Image.fromarray(rng.random((h, w), np.float32)), "TIFF"), refusal="floating-point")


def lab_tiff(rng: Rng, h: int, w: int, kind: str) -> Picture:
    values = rng.integers(0, 256, (h, w, 3), dtype=np.uint8)
    return Picture(saved(Image.frombytes("LAB", (w, h), values.tobytes()), "TIFF"), refusal="LAB")


def cmyk_tiff(rng: Rng, h: int, w: int, kind: str) -> Picture:
    ink = rng.integers(0, 256, (h, w, 4), dtype=np.uint8)
    left = 255 - ink.astype(np.float64)
    return Picture(
        saved(Image.frombytes("CMYK", (w, h), ink.tobytes()), "TIFF"), left[..., :3] * left[..., 3:] / 255, 1
    )


def ycc_to_rgb(ycc: Values) -> Values:
    """JFIF: YCbCr of full range to RGB, clipped."""
    y, cb, cr = (ycc[..., i].astype(np.float64) - (128 if i else 0) for i in range(3))
    return np.clip(np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], axis=2), 0, 255)


def ycc_tiff(rng: Rng, h: int, w: int, kind: str) -> Picture:
    ycc = rng.integers(0, 256, (h, w, 3), dtype=np.uint8)
    return Picture(saved(Image.frombytes("YCbCr", (w, h), ycc.tobytes()), "TIFF"), ycc_to_rgb(ycc), 1.5)


def grey_jpeg(rng: Rng, h: int, w: int, kind: str) -> Picture:
    value = int(rng.integers(256))
    image = Image.fromarray(np.full((h, w), value, np.uint8))
    return Picture(saved(image, "JPEG", quality=100), rgb(np.full((h, w), value)), 3)


def colour_jpeg(rng: Rng, h: int, w: int, kind: str) -> Picture:
    value = rng.integers(0, 256, 3, dtype=np.uint8)
    image = Image.fromarray(np.broadcast_to(value, (h, w, 3)).copy())
    others = {"save_all": True, "append_images": [Image.new("RGB", (w, h), "red")]} if kind == "MPO" else {}
    data = saved(image, kind, quality=100, subsampling=0, **others)
    return Picture(data, np.broadcast_to(value, (h, w, 3)).astype(np.float64), 5)


def cmyk_jpeg(rng: Rng, h: int, w: int, kind: str) -> Picture:
    """As Adobe's programs write it: inverted, which Pillow's writer does too."""
    ink = rng.integers(0, 256, 4, dtype=np.uint8)
    data = saved(Image.frombytes("CMYK", (w, h), np.broadcast_to(ink, (h, w, 4)).tobytes()), "JPEG", quality=100)
    left = 255 - ink.astype(np.float64)
    return Picture(data, np.broadcast_to(left[:3] * left[3] / 255, (h, w, 3)), 5)


def flat_webp(rng: Rng, h: int, w: int, kind: str) -> Picture:
    value = rng.integers(0, 256, 3, dtype=np.uint8)
    data = saved(Image.fromarray(np.broadcast_to(value, (h, w, 3)).copy()), "WEBP", quality=100)
    return Picture(data, np.broadcast_to(value, (h, w, 3)).astype(np.float64), 8)


def animated(rng: Rng, h: int, w: int, kind: str) -> Picture:
    """The first frame is the truth."""
    entries = rng.integers(0, 256, (4, 3), dtype=np.uint8)
    first, second = (entries[rng.integers(0, 4, (h, w))] for _ in range(2))
    second[0, 0] = 255 - first[0, 0]  # equal frames would be merged
    if kind == "GIF":
        index = np.array([[[*map(int, colour)] for colour in row] for row in first])
        table, where = np.unique(index.reshape(-1, 3), axis=0, return_inverse=True)
        image = Image.fromarray(where.reshape(h, w).astype(np.uint8), "P")
        image.putpalette(table.astype(np.uint8).tobytes())
    else:
        image = Image.fromarray(first)
    options = {"lossless": True} if kind == "WEBP" else {}
    data = saved(image, kind, save_all=True, append_images=[Image.fromarray(second)], **options)
    return Picture(data, first.astype(np.float64))


Maker = Callable[[Rng, int, int, str], Picture]
MAKERS: tuple[tuple[Maker, tuple[str, ...]], ...] = (
    (bilevel, ("PNG", "BMP", "TIFF", "GIF")),
    (grey, ("PNG", "BMP", "TIFF", "GIF")),
    (colours, ("PNG", "BMP", "TIFF", "WEBP")),
    (colours_alpha, ("PNG", "TIFF", "WEBP")),
    (bmp_alpha, ("BMP",)),
    (grey_alpha, ("PNG", "TIFF")),
    (palette, ("PNG", "BMP", "TIFF", "GIF")),
    (palette_one_clear, ("PNG", "GIF")),
    (palette_alpha_png, ("PNG",)),
    (grey_bits_png, ("PNG",)),
    (colour_key_png, ("PNG",)),
    (colours_16_png, ("PNG",)),
    (colours_16_key_png, ("PNG",)),
    (grey_16, ("PNG", "TIFF")),
    (grey_12_tiff, ("TIFF",)),
    (signed_tiff, ("TIFF",)),
    (long_tiff, ("TIFF",)),
    (float_tiff, ("TIFF",)),
    (lab_tiff, ("TIFF",)),
    (cmyk_tiff, ("TIFF",)),
    (ycc_tiff, ("TIFF",)),
    (grey_jpeg, ("JPEG",)),
    (colour_jpeg, ("JPEG", "MPO")),
    (cmyk_jpeg, ("JPEG",)),
    (flat_webp, ("WEBP",)),
    (animated, ("GIF", "PNG", "WEBP")),
)
KINDS: dict[str, Callable[[Rng, int, int], Picture]] = {
    f"{maker.__name__} {kind}": lambda rng, h, w, maker=maker, kind=kind: maker(rng, h, w, kind)  # type: ignore[misc]
    for maker, kinds in MAKERS
    for kind in kinds
}
