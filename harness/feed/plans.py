"""The randomness of one epoch's input."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from harness.feed.augment import AugmentPlan, draw_augment
from harness.spec.stage_recipe import Augment
from harness.toolbox.schedules import batch_sizes


@dataclass(frozen=True)
class EpochPlan:
    """All the randomness of one epoch's input, drawn before its first step, in the order of its positions."""

    order: Tensor  # (positions,) image index
    augment: AugmentPlan  # of each position
    mixup: Tensor  # (positions,) mixup weight lambda, one value for each batch
    partner: Tensor  # (positions,) position *in the batch* of the mixup partner


def plan_epoch(
    order: np.ndarray,
    batch_size: int,
    rng: np.random.Generator,
    *,
    augment: Augment,
    image_shape: Sequence[int],
    mixup_alpha: float,
    device: torch.device,
    from_files: bool = False,
    drop_last: bool = False,
) -> EpochPlan:
    """Draws an epoch's augmentation and mixup for the given order of images.

    Mixup: lambda ~ Beta(alpha, alpha), one value a batch, partner = a random permutation of the same batch
    (Zhang et al., ICLR 2018); alpha 0 means none.

    Args:
        image_shape: height, width, channels.
        drop_last: as `batch_sizes` takes it.
        from_files: the images are read from files, where a seed for each position decides crop and flip.
    """
    if from_files:
        augment = dataclasses.replace(augment, crop_padding=0, flip=False, resized_crop=False)
    count = len(order)
    sizes = batch_sizes(count, batch_size, drop_last=drop_last)
    drawn = draw_augment(augment, count, image_shape, rng)
    if mixup_alpha > 0:
        mixup = np.repeat(rng.beta(mixup_alpha, mixup_alpha, len(sizes)), sizes).astype(np.float32)
        partner = np.concatenate([rng.permutation(size) for size in sizes])
    else:
        mixup, partner = np.ones(count, dtype=np.float32), np.concatenate([np.arange(size) for size in sizes])
    if from_files:
        drawn = dataclasses.replace(drawn, seed=torch.from_numpy(rng.integers(0, 2**63 - 1, count)))
    there = [torch.from_numpy(np.ascontiguousarray(array)).to(device) for array in (order, mixup, partner)]
    return EpochPlan(there[0], drawn.to(device), *there[1:])
