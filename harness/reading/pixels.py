"""An opened image file as uint8 pixels: one rule for each of Pillow's modes, so that no value range is lost unsaid.

16 bits become 8 by their high byte (v // 256), 12 bits by v // 16; Pillow does the same to 16-bit colours itself. What
is transparent is laid over white. Bilevel, grey, palette, CMYK and YCbCr images become what they show. Modes without a
known range (32-bit whole numbers, floats, signed numbers) and LAB are refused by name. Of an animation, or of several
pages, the first one counts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]

WHITE = 255  # the ground that transparent images are laid over
ORIENTATION = 274  # EXIF tag: which side of the stored image is up, 1 (as stored) to 8
SAMPLE_FORMAT, PHOTOMETRIC = 339, 262  # TIFF tags
UNSIGNED, WHITE_IS_ZERO = 1, 0  # their values
PLAIN = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr")  # Pillow converts these to RGB as they are meant
ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
GREY_STEPS = {"L;2": 85, "L;4": 17}  # what Pillow multiplies a PNG's grey values by, but not its transparent one
REASONS = {
    "I": "32-bit whole numbers, whose range is not known",
    "F": "floating-point numbers, whose range is not known",
    "LAB": "LAB colours, which cannot be converted exactly",
}


def to_pixels(image: Image.Image, channels: int, *, upright: bool = False) -> Pixels:
    """Pixels of an image, shape (height, width, channels); 1 channel is grey (ITU-R 601), 3 are RGB.

    Args:
        image: as Pillow opened it, its pixels not read yet.
        upright: whether to turn it as its EXIF orientation says. TIFF images always are, by Pillow.

    Raises:
        ValueError: a mode that cannot be converted truthfully.
        Exception: nearly anything, on damaged bytes.
    """
    raw = _raw_mode(image)
    _check(image, raw)
    image.load()
    turn = orientation(image) if upright else 1
    if image.mode.startswith("I;16"):
        image = _eight_bits(image, raw)
    elif "transparency" in image.info and image.mode != "P":
        image = _keyed(image, raw)
    elif image.has_transparency_data:
        image = _over_white(image)
    elif image.mode == "YCbCr":  # its own grey would be that of colours that no screen shows
        image = image.convert("RGB")
    pixels = np.array(image.convert("L" if channels == 1 else "RGB")).reshape(image.height, image.width, channels)
    return turned(pixels, turn)


def orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1 where there is none, or none that can be read."""
    try:
        found = image.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged EXIF is no damage of the pixels; Pillow raises nearly anything on it
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def turned(pixels: Pixels, orientation: int) -> Pixels:
    """An image (height, width, channels) stored with that EXIF orientation, as it is to be seen."""
    if orientation == 1:
        return pixels
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels.copy()  # torch takes no view that runs backwards, not even over one pixel


def has_more(image: Image.Image) -> bool:
    """Whether there are frames or pages after the first. Not of an MPO: phones put previews and depth maps there."""
    try:
        return image.format != "MPO" and bool(getattr(image, "is_animated", False))
    except Exception:  # the second frame is damaged, which does the first no harm
        return True


def _raw_mode(image: Image.Image) -> str:
    """How the file stores its values, in Pillow's words; it is forgotten once they are read."""
    arguments: Any = tile[0].args if (tile := getattr(image, "tile", None)) else ""
    if isinstance(arguments, tuple):
        arguments = arguments[0] if arguments else ""
    return arguments if isinstance(arguments, str) else ""


def _check(image: Image.Image, raw: str) -> None:
    """Raises ValueError for what has no truthful uint8 form."""
    mode = image.mode
    if mode not in (*PLAIN, *ALPHA) and not mode.startswith("I;16"):
        reason = REASONS.get(mode, f"Pillow's mode {mode}")
        raise ValueError(f"it holds {reason}; save it as an 8-bit PNG or a JPEG")
    tags = getattr(image, "tag_v2", {})
    formats = tags.get(SAMPLE_FORMAT, UNSIGNED)
    if any(value != UNSIGNED for value in (formats if isinstance(formats, tuple) else (formats,))):
        raise ValueError("it holds signed numbers, whose range is not known; save it as an 8-bit PNG or a JPEG")
    if raw == "BGRX" and _fourth_varies(image):
        raise ValueError("it is a BMP with a fourth channel, which may be transparency or nothing; save it as PNG")
    if "transparency" in image.info and mode == "RGB" and ";16" in raw:
        raise ValueError("it holds 16-bit colours of which one is transparent; save it as an 8-bit PNG")


def _fourth_varies(image: Any) -> bool:
    """Whether the fourth byte of each pixel, which the format calls unused, holds something."""
    image.fp.seek(image.tile[0].offset)
    fourth = np.frombuffer(image.fp.read(4 * image.width * image.height), np.uint8)[3::4]
    return bool((fourth != 0).any() and (fourth != 255).any())


def _eight_bits(image: Image.Image, raw: str) -> Image.Image:
    """A grey image of 12 or 16 bits with 8."""
    values = np.asarray(image).astype(np.uint16)
    clear = values == image.info["transparency"] if "transparency" in image.info else False
    grey = (values >> (4 if "12" in raw else 8)).astype(np.uint8)
    if getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == WHITE_IS_ZERO:
        grey = 255 - grey
    return Image.fromarray(np.where(clear, np.uint8(WHITE), grey))


def _keyed(image: Image.Image, raw: str) -> Image.Image:
    """An image of which one grey value or colour is transparent."""
    key: Any = image.info["transparency"]
    values = np.asarray(image.convert("RGB" if image.mode == "RGB" else "L"))
    clear = values == np.array(key) * GREY_STEPS.get(raw, 1)
    clear = clear if values.ndim == 2 else clear.all(axis=-1, keepdims=True)
    return Image.fromarray(np.where(clear, np.uint8(WHITE), values))


def _over_white(image: Image.Image) -> Image.Image:
    """An image with alpha over a white ground: round(v * a / 255 + 255 * (255 - a) / 255)."""
    rgba = image.convert("RGBA")
    ground = Image.new("RGB", image.size, "white")
    ground.paste(rgba, mask=rgba)  # rounds correctly, and needs no copy with 16 bits a value
    return ground
