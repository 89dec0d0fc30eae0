"""Turns image files into uint8 pixels of the network's size: what the processes that read ahead do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms import v2

from harness.base.errors import UserError
from harness.feed.augment import apply_operations
from harness.reading.decoding import MAX_PIXELS, read_image
from harness.reading.pixels import Pixels, orientation, to_pixels, turned
from harness.spec.stage_recipe import Augment

SHORT_SIDE = 256 / 224  # of a test image before its centre is cut out, for an output side of 1


@dataclass(frozen=True)
class Request:
    """Images to be read together, and what is done to each of them where they are read.

    Arrays, because tensors are slow to send to another process when they are small.
    """

    paths: Sequence[str]  # (n,) image files
    seed: npt.NDArray[np.int64] | None  # (n,) of crop and flip; None: the images as they are in tests
    code: npt.NDArray[np.int64]  # (n, steps) and
    value: npt.NDArray[np.float32]  # (n, steps): operations as in `AugmentPlan`; no steps where the device does them
    upright: bool = False  # turn each image as its EXIF orientation says

    def chunks(self, size: int) -> Iterator[Request]:
        """The same in pieces for one process each."""
        for start in range(0, len(self.paths), size):
            where = slice(start, start + size)
            seed = None if self.seed is None else self.seed[where]
            yield Request(self.paths[where], seed, self.code[where], self.value[where], self.upright)


class ImageReader:
    """Reads and transforms single images of any size; all that it needs to know of a run.

    Args:
        shape: height, width (equal) and channels (1 or 3) of what comes out.
        augment: whose crop and flip training images get.
        interpolation: how images are resized, antialiased.

    Raises:
        UserError: images of another shape.
    """

    def __init__(self, shape: Sequence[int], augment: Augment, interpolation: str = "bilinear") -> None:
        height, width, self.channels = shape
        if height != width or self.channels not in (1, 3):
            raise UserError(f"image files become square images of 1 or 3 channels, not {height}x{width}x{shape[2]}")
        self.side, self.short_side = height, round(height * SHORT_SIDE)
        how = v2.InterpolationMode(interpolation)
        resized = v2.Compose([v2.Resize(self.short_side, how, antialias=True), v2.CenterCrop(self.side)])
        self.test: v2.Transform = resized
        steps: list[v2.Transform] = [resized]
        if augment.resized_crop:
            steps = [v2.RandomResizedCrop(self.side, interpolation=how, antialias=True)]
        if augment.crop_padding:
            steps.append(v2.RandomCrop(self.side, padding=augment.crop_padding))
        if augment.flip:
            steps.append(v2.RandomHorizontalFlip())
        self.train = v2.Compose(steps)

    def read(self, request: Request) -> Pixels:
        """What becomes of each file, shape (n, channels, side, side).

        Raises:
            UserError: a file that is missing, damaged, or too large; one line that names it.
        """
        images = []
        with torch.random.fork_rng(devices=[]):  # the transforms draw from torch's own generator
            for row, path in enumerate(request.paths):
                image = self._decoded(path, request.upright)
                if request.seed is not None:
                    torch.default_generator.manual_seed(int(request.seed[row]))
                images.append(self.test(image) if request.seed is None else self.train(image))
        code, value = torch.from_numpy(request.code), torch.from_numpy(request.value)
        return apply_operations(torch.stack(images), code, value, code).numpy()

    def _decoded(self, path: str, upright: bool) -> Tensor:
        """Pixels (channels, height, width)."""
        try:
            data = np.fromfile(path, np.uint8)
            pixels = read_image(data.data, lambda image: self._pixels(image, data, upright))
        except FileNotFoundError:
            raise UserError(f"{path}: missing") from None
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: cannot be read as an image: {error}") from None
        return torch.from_numpy(pixels).permute(2, 0, 1)

    def _pixels(self, image: Image.Image, data: Pixels, upright: bool) -> Pixels:
        """Pillow has judged the file by its header; torchvision gives a JPEG's same bits sooner."""
        width, height = image.size
        if self.short_side**2 * max(width, height) > MAX_PIXELS * min(width, height):
            raise ValueError(f"it has {width} x {height} pixels; the limit is {MAX_PIXELS}, also once it is resized")
        if image.format == "JPEG" and image.mode in ("L", "RGB") and self.channels == 3:
            with contextlib.suppress(RuntimeError):  # Pillow says below what is wrong, in words
                decoded: Tensor = decode_jpeg(torch.from_numpy(data), ImageReadMode.RGB)
                pixels = decoded.permute(1, 2, 0).numpy()
                return turned(pixels, orientation(image)) if upright else pixels
        return to_pixels(image, self.channels, upright=upright)
