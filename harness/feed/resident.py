"""Small data sets live on the device as uint8 tensors; augmentation is batched work there, not a worker process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from harness.feed.augment import AugmentPlan, apply_plan, check_channels, draw_augment, resized_crop
from harness.reading.dataset import Images
from harness.spec.stage_recipe import Augment
from harness.splits.splits import Split


@dataclass(frozen=True)
class EpochPlan:
    """All the randomness of one epoch's input, drawn before its first step, in the order of its positions."""

    order: Tensor  # (positions,) image index
    augment: AugmentPlan  # of each position
    mixup: Tensor  # (positions,) mixup weight lambda, one value for each batch
    partner: Tensor  # (positions,) position *in the batch* of the mixup partner


class ResidentPart:
    """One part of a split on the device, with zero padding for random crops already around each image.

    Args:
        images: the part's decoded images and classes.
        split: whose mean and standard deviation normalise them.
        augment: what plans for `batch` are drawn from; `Augment()` for images that are never augmented.

    Raises:
        UserError: an augmentation that images of so many channels cannot have.
    """

    def __init__(self, images: Images, split: Split, device: torch.device, augment: Augment) -> None:
        self._height, self._width, channels = split.image_shape
        check_channels(augment, channels)
        self._padding = padding = augment.crop_padding
        pad = ((0, 0), (padding, padding), (padding, padding), (0, 0))
        self._pixels = torch.from_numpy(np.pad(images.pixels, pad)).to(device).flatten(0, 2)  # (all pixels, channels)
        self.labels = torch.from_numpy(images.labels).to(device)
        self.host_labels = images.labels
        # One value for each value of an image: a processor is slow at repeating a short row.
        self._mean = (255 * torch.tensor(split.mean, device=device)).repeat(self._height * self._width)
        self._scale = (1 / (255 * torch.tensor(split.std, device=device))).repeat(self._height * self._width)
        self._rows = torch.arange(self._height, device=device)
        self._cols = torch.arange(self._width, device=device)

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, index: Tensor, plan: AugmentPlan | None = None) -> Tensor:
        """Normalised float32 images, shape (B, channels, height, width), channels last in memory.

        Cropped, mirrored, changed by AutoAugment and colour jitter, lit, cut out (black), and only then normalised.

        Args:
            index: image indices, shape (B,).
            plan: of these B images, on their device; default images as they are.
        """
        images = self._crop(index, plan)
        return self._normalised(images if plan is None else apply_plan(images, plan))

    def _crop(self, index: Tensor, plan: AugmentPlan | None) -> Tensor:
        """Cropped and mirrored uint8 images, shape (B, channels, height, width)."""
        if plan is None:
            return self._window(index, None, None)
        if plan.box is None:
            return self._window(index, plan.shift, plan.flip)
        return resized_crop(self._window(index, plan.shift, None), plan.box, plan.flip)

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


def plan_epoch(
    order: np.ndarray,
    batch_size: int,
    rng: np.random.Generator,
    *,
    augment: Augment,
    image_shape: Sequence[int],
    mixup_alpha: float,
    device: torch.device,
) -> EpochPlan:
    """Draws an epoch's augmentation and mixup for the given order of images.

    Mixup: lambda ~ Beta(alpha, alpha), one value a batch, partner = a random permutation of the same batch
    (Zhang et al., ICLR 2018); alpha 0 means none.

    Args:
        image_shape: height, width, channels.
    """
    count = len(order)
    starts = range(0, count, batch_size)
    sizes = [min(batch_size, count - start) for start in starts]
    drawn = draw_augment(augment, count, image_shape, rng)
    if mixup_alpha > 0:
        mixup = np.repeat(rng.beta(mixup_alpha, mixup_alpha, len(sizes)), sizes).astype(np.float32)
        partner = np.concatenate([rng.permutation(size) for size in sizes])
    else:
        mixup, partner = np.ones(count, dtype=np.float32), np.concatenate([np.arange(size) for size in sizes])
    there = [torch.from_numpy(np.ascontiguousarray(array)).to(device) for array in (order, mixup, partner)]
    return EpochPlan(there[0], drawn.to(device), *there[1:])
