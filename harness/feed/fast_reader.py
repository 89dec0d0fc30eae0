"""The fast reader of image files: what `reader: fast` of a recipe means. It needs the extra `fast`.

It cuts out, resizes (antialiased) and mirrors as the exact one does, with the same draws. What differs:

- A plain JPEG that is at least four times as large as the network's images is decoded at 1/2, 1/4 or 1/8 of its size,
  which libjpeg does on the frequencies of its blocks; at least twice their size is left. What is cut out of it moves by
  half a pixel of the network at most.
- On a CPU colour jitter rounds otherwise, by a grey level or two.

All other files are decoded as ever.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from harness.base.errors import UserError
from harness.feed.image_operations import CODES
from harness.feed.image_reader import Box, Decoded, ImageReader
from harness.reading.decoding import MAX_PIXELS
from harness.reading.pixels import Pixels, turned
from harness.spec.stage_recipe import Augment

try:
    cv2: Any = import_module("cv2")
    simplejpeg: Any = import_module("simplejpeg")
except ImportError:
    cv2 = simplejpeg = None

LEVELS = np.arange(256, dtype=np.float32)
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


class FastReader(ImageReader):
    """As `ImageReader`, on simplejpeg and OpenCV.

    Raises:
        UserError: they are not installed.
    """

    def __init__(
        self,
        shape: Sequence[int],
        augment: Augment,
        interpolation: str = "bilinear",
        strong: Augment | None = None,
        *,
        stored: bool = False,
    ) -> None:
        super().__init__(shape, augment, interpolation, strong, stored=stored)
        if cv2 is None:
            raise UserError("reader: fast needs simplejpeg and OpenCV; install the extra: pip install 'ltbench[fast]'")
        cv2.setNumThreads(0)  # as many processes as there are cores read already
        self._memory = np.empty(0, np.uint8)  # of the last JPEG: new memory costs a third of its decoding

    def _opened(self, data: Pixels, upright: bool, augment: Augment | None) -> Decoded:
        if not upright:  # then nothing of a JPEG but its size matters, which libjpeg tells sooner than Pillow
            with contextlib.suppress(ValueError):
                height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
                if colours in ("YCbCr", "Gray") and self.channels == 3 and width * height <= MAX_PIXELS:
                    self._check_size(width, height)
                    return self._shrunk(data, (height, width), 1, augment)
        return super()._opened(data, upright, augment)

    def _decoded_jpeg(self, image: Image.Image, data: Pixels, turn: int, augment: Augment | None) -> Decoded:
        with contextlib.suppress(ValueError):  # then Pillow says what is wrong, in words, or makes the best of it
            return self._shrunk(data, (image.height, image.width), turn, augment)
        return super()._decoded_jpeg(image, data, turn, augment)

    def _shrunk(self, data: Pixels, size: tuple[int, int], turn: int, augment: Augment | None) -> Decoded:
        """A JPEG, `size` high and wide as it is stored, decoded no larger than is needed."""
        height, width = size[::-1] if turn in (5, 6, 7, 8) else size
        box = self._box(height, width, augment)
        factor = self._shrinks_by(height, width, box)
        least = -(-size[0] // factor), -(-size[1] // factor)
        if self._memory.size < 3 * least[0] * least[1]:
            self._memory = np.empty(3 * least[0] * least[1], np.uint8)
        try:
            pixels = simplejpeg.decode_jpeg(data, min_height=least[0], min_width=least[1], buffer=self._memory)
        except ValueError:
            torch.default_generator.manual_seed(torch.default_generator.initial_seed())  # the box is drawn again
            raise
        pixels = turned(pixels, turn)
        if box is None or factor == 1:
            return pixels, box
        top, left = round(box[0] / factor), round(box[1] / factor)
        bottom, right = round((box[0] + box[2]) / factor), round((box[1] + box[3]) / factor)
        return pixels, (top, left, bottom - top, right - left)

    def _shrinks_by(self, height: int, width: int, box: Box | None) -> int:
        """The largest of 1, 2, 4 and 8 that leaves twice as many pixels, down and across, as the network gets."""
        have, need = (min(height, width), self.short_side) if box is None else (min(box[2:]), self.side)
        return next((factor for factor in (8, 4, 2) if have >= 2 * factor * need), 1)

    def _finish(self, image: Tensor, code: Tensor, value: Tensor, out: Pixels) -> None:
        codes = [one for one in code[0].tolist() if one]
        if self.channels == 1 or not all(one in JITTER for one in codes):
            super()._finish(image, code, value, out)
            return
        pixels: Any = cv2.merge(list(image.numpy()))
        for one, factor in zip(code[0].tolist(), value[0].tolist(), strict=True):
            pixels = JITTER[one](pixels, factor) if one else pixels
        out[:] = pixels


def _brightened(pixels: Any, factor: float) -> Any:
    return cv2.LUT(pixels, _table(0, factor))


def _contrasted(pixels: Any, factor: float) -> Any:
    mean = int(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).mean() + 0.5)
    return cv2.LUT(pixels, _table(mean, factor))


def _coloured(pixels: Any, factor: float) -> Any:
    matrix = np.full((3, 4), -0.45, np.float32)  # rounds down, as the exact one does, but for noise
    matrix[:, :3] = factor * np.eye(3, dtype=np.float32) + (1 - factor) * LUMA
    return cv2.transform(pixels, matrix)


def _table(neutral: int, factor: float) -> Pixels:
    """What becomes of each grey level between what is neutral (0) and itself (1), or beyond."""
    levels: Pixels = np.clip(neutral + np.float32(factor) * (LEVELS - neutral), 0, 255).astype(np.uint8)
    return levels


JITTER = {CODES["brightness"]: _brightened, CODES["contrast"]: _contrasted, CODES["color"]: _coloured}
