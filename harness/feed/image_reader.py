"""Turns image files into uint8 pixels of the network's size: what the processes that read ahead do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as kernels

from harness.base.errors import UserError
from harness.feed.augment import apply_operations
from harness.feed.resize import as_in_memory
from harness.reading.decoding import MAX_PIXELS, read_image
from harness.reading.pieces import Source, read_bytes
from harness.reading.pixels import Pixels, orientation, to_pixels, turned
from harness.spec.stage_recipe import Augment

Box = tuple[int, int, int, int]  # top, left, height, width
Decoded = tuple[Pixels, Box | None]  # pixels (height, width, channels), and what is cut out of them; None: nothing

FAST_NOTE = "read by the fast reader, whose pixels differ a little from those of the exact one"
SHORT_SIDE = 256 / 224  # of a test image before its centre is cut out, for an output side of 1


@dataclass(frozen=True)
class Request:
    """Images to be read together, and what is done to each of them where they are read.

    Arrays, because tensors are slow to send to another process when they are small.
    """

    places: Sequence[Source]  # (n,) of image files, or the files themselves
    seed: npt.NDArray[np.int64] | None  # (n,) of crop and flip; None: the images as they are in tests
    code: npt.NDArray[np.int64]  # (n, steps) and
    value: npt.NDArray[np.float32]  # (n, steps): operations as in `AugmentPlan`; no steps where the device does them
    upright: bool = False  # turn each image as its EXIF orientation says
    strong: bool = False  # crop and flip are those of a strong view

    def chunks(self, size: int) -> Iterator[Request]:
        """The same in pieces for one process each."""
        for start in range(0, len(self.places), size):
            where = slice(start, start + size)
            seed = None if self.seed is None else self.seed[where]
            yield replace(self, places=self.places[where], seed=seed, code=self.code[where], value=self.value[where])


class ImageReader:
    """Reads and transforms single images of any size; all that it needs to know of a run.

    Args:
        shape: height, width (equal) and channels (1 or 3) of what comes out.
        augment: whose crop and flip training images get.
        interpolation: how images are resized, antialiased.
        strong: whose crop and flip a strong view gets; None: the same.
        stored: make whole images as they would be in memory, with no crop or flip.

    Raises:
        UserError: images of another shape.
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
        height, width, self.channels = shape
        if height != width or self.channels not in (1, 3):
            raise UserError(f"image files become square images of 1 or 3 channels, not {height}x{width}x{shape[2]}")
        self.side, self.short_side = height, height if stored else round(height * SHORT_SIDE)
        self._stored, self._how = stored, v2.InterpolationMode(interpolation)
        self._whole = v2.Compose([v2.Resize(self.short_side, self._how, antialias=True), v2.CenterCrop(self.side)])
        self._augments = {False: augment, True: strong or augment}

    def read(self, request: Request, out: Pixels | None = None) -> Pixels:
        """What becomes of each file, shape (n, side, side, channels).

        Args:
            out: memory for it, of that shape.

        Raises:
            UserError: a file that is missing, damaged, or too large; one line that names it.
        """
        if out is None:
            out = np.empty((len(request.places), self.side, self.side, self.channels), np.uint8)
        code, value = torch.from_numpy(request.code), torch.from_numpy(request.value)
        with torch.random.fork_rng(devices=[]):  # the transforms draw from torch's own generator
            for row, place in enumerate(request.places):
                if request.seed is not None:
                    torch.default_generator.manual_seed(int(request.seed[row]))
                augment = None if request.seed is None else self._augments[request.strong]
                image = self._image(place, request.upright, augment)
                self._finish(image, code[row : row + 1], value[row : row + 1], out[row])
        return out

    def _image(self, place: Source, upright: bool, augment: Augment | None) -> Tensor:
        """Cropped, resized and mirrored: (channels, side, side)."""
        name = "an image in memory" if isinstance(place, bytes) else str(place)
        try:
            pixels, box = self._opened(read_bytes(place), upright, augment)
            if self._stored:
                pixels = as_in_memory(pixels, self.side, self._how.value, upright=upright)
        except FileNotFoundError:
            raise UserError(f"{name}: missing") from None
        except (OSError, ValueError) as error:
            raise UserError(f"{name}: cannot be read as an image: {error}") from None
        image: Tensor = torch.from_numpy(pixels).permute(2, 0, 1)
        if box is None:
            image = image if self._stored else self._whole(image)
        else:
            top, left, height, width = box
            part = image[:, top : top + height, left : left + width]
            image = kernels.resize_image(part, [self.side, self.side], self._how, antialias=True)
        if augment and augment.crop_padding:
            image = v2.RandomCrop(self.side, padding=augment.crop_padding)(image)
        return image.flip(-1) if augment and augment.flip and float(torch.rand(1)) < 0.5 else image

    def _opened(self, data: Pixels, upright: bool, augment: Augment | None) -> Decoded:
        """Pixels (height, width, channels) of a file's bytes, and what is to be cut out."""
        return read_image(data.data, lambda image: self._decoded(image, data, upright, augment))

    def _decoded(self, image: Image.Image, data: Pixels, upright: bool, augment: Augment | None) -> Decoded:
        """The same of a file whose header Pillow has judged."""
        self._check_size(*image.size)
        if image.format == "JPEG" and image.mode in ("L", "RGB") and self.channels == 3:
            return self._decoded_jpeg(image, data, orientation(image) if upright else 1, augment)
        pixels = to_pixels(image, self.channels, upright=upright)
        return pixels, self._box(pixels.shape[0], pixels.shape[1], augment)

    def _decoded_jpeg(self, image: Image.Image, data: Pixels, turn: int, augment: Augment | None) -> Decoded:
        """The same of a plain JPEG: torchvision gives Pillow's bits sooner."""
        try:
            decoded: Tensor = decode_jpeg(torch.from_numpy(data), ImageReadMode.RGB)
            pixels = turned(decoded.permute(1, 2, 0).numpy(), turn)
        except RuntimeError:  # Pillow says what is wrong, in words
            pixels = to_pixels(image, 3, upright=turn != 1)
        return pixels, self._box(pixels.shape[0], pixels.shape[1], augment)

    def _check_size(self, width: int, height: int) -> None:
        if self.short_side**2 * max(width, height) > MAX_PIXELS * min(width, height):
            raise ValueError(f"it has {width} x {height} pixels; the limit is {MAX_PIXELS}, also once it is resized")

    def _box(self, height: int, width: int, augment: Augment | None) -> Box | None:
        """What a random crop enlarges, of an image of that size; None where there is none."""
        if augment is None or not augment.resized_crop:
            return None
        drawn = _random_crop(self.side, augment.crop_area).make_params([torch.empty((1, height, width), device="meta")])
        return drawn["top"], drawn["left"], drawn["height"], drawn["width"]

    def _finish(self, image: Tensor, code: Tensor, value: Tensor, out: Pixels) -> None:
        """Does the operations of its plan to an image, and writes it to `out`, shape (side, side, channels)."""
        image = apply_operations(image[None], code, value, code)[0]
        for channel, plane in enumerate(image.numpy()):
            out[:, :, channel] = plane  # quicker than all of them at once


@cache
def _random_crop(side: int, area: float) -> v2.RandomResizedCrop:
    return v2.RandomResizedCrop(side, scale=(area, 1.0))
