"""Small data sets live on the device as uint8 tensors; augmentation is a batched gather, not a worker process."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from harness.data.splits import Split
from harness.datasets.base import Images


@dataclass(frozen=True)
class EpochPlan:
    """All the randomness of one epoch's input, drawn before its first step, in the order of its positions."""

    order: Tensor  # (positions,) image index
    shift: Tensor  # (positions, 2) row and column where the crop starts in the padded image
    flip: Tensor  # (positions,) whether the image is mirrored
    mixup: Tensor  # (positions,) mixup weight lambda, one value for each batch
    partner: Tensor  # (positions,) position *in the batch* of the mixup partner


class ResidentPart:
    """One part of a split on the device, with zero padding for random crops already around each image."""

    def __init__(self, images: Images, split: Split, device: torch.device, padding: int = 0) -> None:
        self.device, self.padding = device, padding
        self.height, self.width, _ = split.image_shape
        pad = ((0, 0), (padding, padding), (padding, padding), (0, 0))
        self.pixels = torch.from_numpy(np.pad(images.pixels, pad)).to(device)  # (N, H + 2p, W + 2p, channels)
        self.labels = torch.from_numpy(images.labels).to(device)
        self.host_labels = images.labels
        self._mean = 255 * torch.tensor(split.mean, device=device).view(1, -1, 1, 1)
        self._scale = 1 / (255 * torch.tensor(split.std, device=device).view(1, -1, 1, 1))
        self._rows = torch.arange(self.height, device=device)
        self._cols = torch.arange(self.width, device=device)

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, index: Tensor, shift: Tensor | None = None, flip: Tensor | None = None) -> Tensor:
        """Normalised float32 images, shape (B, channels, height, width), channels last in memory.

        Args:
            index: image indices, shape (B,).
            shift: where each crop starts in the padded image, shape (B, 2); default the centre (no shift).
            flip: whether each image is mirrored, shape (B,); default no.
        """
        rows = self._rows + (self.padding if shift is None else shift[:, :1])
        cols = self._cols if flip is None else torch.where(flip[:, None], self._cols.flip(0), self._cols)
        cols = cols + (self.padding if shift is None else shift[:, 1:])
        pixels = self.pixels[
            index[:, None, None], rows.expand(len(index), -1)[:, :, None], cols.expand(len(index), -1)[:, None, :]
        ]
        return pixels.permute(0, 3, 1, 2).float().sub_(self._mean).mul_(self._scale)


def plan_epoch(
    order: np.ndarray,
    batch_size: int,
    rng: np.random.Generator,
    *,
    padding: int,
    flip: bool,
    mixup_alpha: float,
    device: torch.device,
) -> EpochPlan:
    """Draws an epoch's crops, flips and mixup for the given order of images.

    Mixup: lambda ~ Beta(alpha, alpha), one value a batch, partner = a random permutation of the same batch
    (Zhang et al., ICLR 2018); alpha 0 means none.
    """
    count = len(order)
    starts = range(0, count, batch_size)
    sizes = [min(batch_size, count - start) for start in starts]
    shift = rng.integers(0, 2 * padding + 1, (count, 2))
    mirrored = rng.random(count) < 0.5 if flip else np.zeros(count, dtype=bool)
    if mixup_alpha > 0:
        mixup = np.repeat(rng.beta(mixup_alpha, mixup_alpha, len(sizes)), sizes).astype(np.float32)
        partner = np.concatenate([rng.permutation(size) for size in sizes])
    else:
        mixup, partner = np.ones(count, dtype=np.float32), np.concatenate([np.arange(size) for size in sizes])
    arrays = (order, shift, mirrored, mixup, partner)
    return EpochPlan(*(torch.from_numpy(np.ascontiguousarray(array)).to(device) for array in arrays))
