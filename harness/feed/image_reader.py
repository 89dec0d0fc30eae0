"""An image file to uint8 pixels of the size that the network wants: the work of the processes that read ahead."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms import v2

from harness.base.errors import UserError
from harness.feed.augment import AugmentPlan, apply_operations
from harness.reading.decoding import FORMATS, MAX_PIXELS
from harness.spec.stage_recipe import Augment

SHORT_SIDE = 256 / 224  # of a test image before its centre is cut out, for an output side of 1


@dataclass(frozen=True)
class ReadPlan:
    """What is done to each of n training images where they are read. A slice of a plan is the plan of those images.

    Arrays, because tensors are sent to another process by a way that is slow for small ones.
    """

    seed: npt.NDArray[np.int64]  # (n,) of crop and flip
    code: npt.NDArray[np.int64]  # (n, steps) and
    value: npt.NDArray[np.float32]  # (n, steps): operations as in `AugmentPlan`; no steps where the device does them

    def __getitem__(self, where: slice) -> ReadPlan:
        return ReadPlan(self.seed[where], self.code[where], self.value[where])

    def operations(self) -> AugmentPlan:
        """The operations alone."""
        code, none = torch.from_numpy(self.code), torch.zeros(len(self.code))
        value = torch.from_numpy(self.value)
        return AugmentPlan(none, none, None, code=code, host_code=code, value=value, light=None, centre=None, cutout=0)


class ImageReader:
    """Reads and transforms single images of any size; all that it needs to know of a run.

    Args:
        shape: height, width (equal) and channels (1 or 3) of what comes out.
        augment: whose crop and flip training images get.

    Raises:
        UserError: images of another shape.
    """

    def __init__(self, shape: Sequence[int], augment: Augment) -> None:
        height, width, self.channels = shape
        if height != width or self.channels not in (1, 3):
            raise UserError(f"image files become square images of 1 or 3 channels, not {height}x{width}x{shape[2]}")
        self.side, self.short_side = height, round(height * SHORT_SIDE)
        resized = v2.Compose([v2.Resize(self.short_side, antialias=True), v2.CenterCrop(self.side)])
        self.test: v2.Transform = resized
        self.train = v2.Compose(self._training_steps(augment, resized))

    def _training_steps(self, augment: Augment, resized: v2.Transform) -> list[v2.Transform]:
        steps = [v2.RandomResizedCrop(self.side, antialias=True) if augment.resized_crop else resized]
        if augment.crop_padding:
            steps.append(v2.RandomCrop(self.side, padding=augment.crop_padding))
        if augment.flip:
            steps.append(v2.RandomHorizontalFlip())
        return steps

    def read(self, paths: Sequence[str], plan: ReadPlan | None, pixels: Tensor) -> None:
        """Fills in what becomes of each file.

        Args:
            paths: B image files.
            plan: of these B images; None for test images.
            pixels: uint8, shape (B, channels, side, side).

        Raises:
            UserError: a file that is missing, damaged, or too large; one line that names it.
        """
        with torch.random.fork_rng(devices=[]):  # the transforms draw from torch's own generator
            for row, path in enumerate(paths):
                image = self._decoded(path)
                if plan is not None:
                    torch.default_generator.manual_seed(int(plan.seed[row]))
                pixels[row] = self.test(image) if plan is None else self.train(image)
        if plan is not None and plan.code.shape[1]:
            pixels.copy_(apply_operations(pixels, plan.operations()))

    def _decoded(self, path: str) -> Tensor:
        try:
            return self._decode(np.fromfile(path, np.uint8))
        except FileNotFoundError:
            raise UserError(f"{path}: missing") from None
        except UnidentifiedImageError:  # its own message shows the address of a Python object
            reason = f"it is in none of the formats {', '.join(FORMATS)}"
        except Exception as error:  # damaged files leave Pillow as whatever Python raised on them
            reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path}: cannot be read as an image: {reason}")

    def _decode(self, data: npt.NDArray[np.uint8]) -> Tensor:
        """Pixels (channels, height, width). Pillow judges the file; torchvision gives a JPEG's same bits sooner."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data.tobytes()), formats=FORMATS)
        self._check_size(*image.size)
        if image.format == "JPEG" and image.mode in ("L", "RGB") and self.channels == 3:
            try:
                decoded: Tensor = decode_jpeg(torch.from_numpy(data), ImageReadMode.RGB)
                return decoded
            except RuntimeError:  # Pillow says below what is wrong, in words
                pass
        pixels = np.array(image.convert("RGB" if self.channels == 3 else "L"))
        return torch.from_numpy(pixels.reshape(image.height, image.width, self.channels)).permute(2, 0, 1)

    def _check_size(self, width: int, height: int) -> None:
        """Looks at the header alone: neither the pixels nor a thin strip, resized, may take the machine's memory."""
        resized = self.short_side**2 * max(width, height) / max(1, min(width, height))
        if max(width * height, resized) > MAX_PIXELS:
            raise ValueError(f"it has {width} x {height} pixels; the limit is {MAX_PIXELS}, also once it is resized")
