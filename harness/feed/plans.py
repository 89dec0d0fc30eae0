"""The randomness of one epoch's input."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from harness.feed.augment import AugmentPlan, draw_augment, joined_augment
from harness.spec.stage_recipe import Augment
from harness.toolbox.schedules import batch_sizes


@dataclass(frozen=True)
class EpochPlan:
    """All the randomness of one epoch's input, drawn before its first step, in the order of its positions."""

    order: Tensor  # (positions,) image index
    augment: AugmentPlan  # of each position
    mixup: Tensor  # (positions,) mixup weight lambda, one value for each batch
    partner: Tensor  # (positions,) position *in the batch* of the mixup partner
    cut: Tensor | None = None  # (positions, 4) CutMix: top, left, bottom, right of what comes from the partner

    def __getitem__(self, where: slice) -> EpochPlan:
        """The plan of these positions."""
        return self._map(self.augment[where], lambda tensor: tensor[where])

    def to(self, device: torch.device) -> EpochPlan:
        """The plan on the device, except what the host works with."""
        return self._map(self.augment.to(device), lambda tensor: tensor.to(device))

    def copied(self) -> EpochPlan:
        """The plan in memory of its own."""
        return self._map(self.augment.copied(), torch.clone)

    def on_device(self) -> list[Tensor]:
        """Its tensors that lie on the device, always in the same order."""
        own = [self.order, self.mixup, self.partner, *([] if self.cut is None else [self.cut])]
        return [*own, *self.augment.on_device()]

    def _map(self, augment: AugmentPlan, change: Callable[[Tensor], Tensor]) -> EpochPlan:
        cut = self.cut if self.cut is None else change(self.cut)
        return EpochPlan(change(self.order), augment, change(self.mixup), change(self.partner), cut)


def joined(plans: Sequence[EpochPlan]) -> EpochPlan:
    """Plans of one recipe one after the other; partners stand within their own batch. Without CutMix."""
    order, mixup, partner = (torch.cat([getattr(p, name) for p in plans]) for name in ("order", "mixup", "partner"))
    return EpochPlan(order, joined_augment([plan.augment for plan in plans]), mixup, partner)


def plan_epoch(
    order: np.ndarray,
    batch_size: int,
    rng: np.random.Generator,
    *,
    augment: Augment,
    image_shape: Sequence[int],
    mixup_alpha: float,
    cutmix_alpha: float = 0.0,
    device: torch.device,
    from_files: bool = False,
    drop_last: bool = False,
) -> EpochPlan:
    """Draws an epoch's augmentation and mixup for the given order of images.

    Mixup: lambda ~ Beta(alpha, alpha), one value a batch, partner = a random permutation of the same batch
    (Zhang et al., ICLR 2018); alpha 0 means none. CutMix has draws of its own.

    Args:
        image_shape: height, width, channels.
        drop_last: as `batch_sizes` takes it.
        from_files: the images are read from files, where a seed for each position decides crop and flip.
    """
    if from_files:
        augment = dataclasses.replace(augment, crop_padding=0, flip=False, resized_crop=False, crop_area=0.08)
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
    cut = None
    if cutmix_alpha > 0:
        mixup, partner, cut = _draw_cutmix(sizes, cutmix_alpha, mixup, partner, image_shape, rng.spawn(1)[0])
    there = [torch.from_numpy(np.ascontiguousarray(array)) for array in (order, mixup, partner)]
    return EpochPlan(there[0], drawn, mixup=there[1], partner=there[2], cut=cut).to(device)


def _draw_cutmix(
    sizes: Sequence[int],
    alpha: float,
    mixup: npt.NDArray[np.float32],
    partner: npt.NDArray[np.int64],
    image_shape: Sequence[int],
    rng: np.random.Generator,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], Tensor]:
    """Shares, partners and boxes where batches get CutMix (Yun et al., ICCV 2019), by coin where they have mixup.

    A box has 1 - lambda of the area, lambda ~ Beta(alpha, alpha), around a random centre; what sticks out is cut off,
    and the share is corrected by it.
    """
    size, chosen = np.array(image_shape[:2]), np.ones(len(sizes), dtype=bool)
    if bool((mixup < 1).any()):
        chosen = rng.random(len(sizes)) < 0.5
    half = size * np.sqrt(1 - rng.beta(alpha, alpha, len(sizes)))[:, None] / 2
    centre = rng.integers(0, size, (len(sizes), 2))
    start, end = (np.clip(np.rint(edge), 0, size).astype(np.int64) for edge in (centre - half, centre + half))
    box = np.where(chosen[:, None], np.concatenate([start, end], 1), 0)
    share = 1 - (end - start).prod(1) / size.prod()
    others = np.concatenate([rng.permutation(count) for count in sizes])
    where = np.repeat(chosen, sizes)
    shares = np.where(where, np.repeat(share, sizes), mixup).astype(np.float32)
    return shares, np.where(where, others, partner), torch.from_numpy(np.repeat(box, sizes, axis=0))
