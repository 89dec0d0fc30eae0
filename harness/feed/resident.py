"""Small data sets live on the device as uint8 tensors; augmentation is batched work there, not a worker process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from harness.feed.augment import AugmentPlan, apply_plan, check_channels, resized_crop
from harness.feed.plans import EpochPlan
from harness.reading.dataset import Images
from harness.spec.stage_recipe import Augment
from harness.splits.splits import Split


class ResidentPart:
    """One part of a split on the device, with zero padding for random crops already around each image.

    Args:
        images: the part's decoded images and classes.
        split: whose mean and standard deviation normalise them.
        augment: what plans for `batch` are drawn from; `Augment()` for images that are never augmented.

    Raises:
        UserError: an augmentation that images of so many channels cannot have.
    """

    seeded = False  # crop and flip are the plan's

    def __init__(self, images: Images, split: Split, device: torch.device, augment: Augment) -> None:
        self._height, self._width, channels = split.image_shape
        check_channels(augment, channels)
        self._padding = padding = augment.crop_padding
        pad = ((0, 0), (padding, padding), (padding, padding), (0, 0))
        self._pixels = torch.from_numpy(np.pad(images.pixels, pad)).to(device).flatten(0, 2)  # (all pixels, channels)
        self.labels = torch.from_numpy(images.labels).to(device)
        self.host_labels = images.labels
        # One value for each value of an image: CPUs are slow at repeating a short row.
        self._mean = (255 * torch.tensor(split.mean, device=device)).repeat(self._height * self._width)
        self._scale = (1 / (255 * torch.tensor(split.std, device=device))).repeat(self._height * self._width)
        self._rows = torch.arange(self._height, device=device)
        self._cols = torch.arange(self._width, device=device)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def source(self) -> dict[str, Tensor]:
        """What its images are made from."""
        return {"pixels": self._pixels, "mean": self._mean, "scale": self._scale}

    @property
    def fixed_shapes(self) -> bool:
        """Whether no shape may hang on what a plan has drawn: where steps may be replayed from a graph."""
        return self.labels.device.type == "cuda"

    def batch(self, index: Tensor, plan: AugmentPlan | None = None) -> Tensor:
        """Normalised float32 images, shape (B, channels, height, width), channels last in memory.

        Cropped, mirrored, changed by AutoAugment and colour jitter, lit, cut out (black), and only then normalised.

        Args:
            index: image indices, shape (B,).
            plan: of these B images, on their device; default images as they are.
        """
        images = self._crop(index, plan)
        return self._normalised(images if plan is None else apply_plan(images, plan, fixed_shapes=self.fixed_shapes))

    def in_order(self, size: int, which: range) -> Iterator[Tensor]:
        """Those images as they are in tests, in batches of `size`."""
        for index in torch.split(torch.arange(which.start, which.stop, device=self.labels.device), size):
            yield self.batch(index)

    def start_epoch(self, plan: EpochPlan, batches: Sequence[slice], *others: object) -> None:
        """Nothing to read ahead."""

    def close(self) -> None:
        """Nothing to end."""

    def _crop(self, index: Tensor, plan: AugmentPlan | None) -> Tensor:
        """Cropped and mirrored uint8 images, shape (B, channels, height, width)."""
        if plan is None:
            return self._window(index, None, None)
        if plan.box is None:
            return self._window(index, plan.shift, plan.flip)
        return resized_crop(self._window(index, None, None), plan.box, plan.flip)

    def _window(self, index: Tensor, shift: Tensor | None, flip: Tensor | None) -> Tensor:
        rows = self._rows + (self._padding if shift is None else shift[:, :1])
        cols = self._cols if flip is None else torch.where(flip[:, None], self._cols.flip(0), self._cols)
        cols = cols + (self._padding if shift is None else shift[:, 1:])
        rows = rows + index[:, None] * (self._height + 2 * self._padding)
        pixels = rows[:, :, None] * (self._width + 2 * self._padding) + cols.expand(len(index), -1)[:, None]
        found = self._pixels.index_select(0, pixels.flatten())
        return found.view(*pixels.shape, self._pixels.shape[1]).permute(0, 3, 1, 2)

    def _normalised(self, images: Tensor) -> Tensor:
        by_pixel = images.permute(0, 2, 3, 1)
        found = by_pixel.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
        found.flatten(1).sub_(self._mean).mul_(self._scale)
        return found.permute(0, 3, 1, 2)
