"""Learning-rate schedules: factor on the recipe's learning rate, as a pure function of time.

Three families: a cosine (per step or per epoch), steps, and a constant. `Steps` has parameters; the others are names.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from harness.base.config import later
from harness.base.errors import unknown


def _cosine(epoch: int, epochs: int, warmup: int, progress: float) -> float:
    """Per step: linear warm-up, then cosine to 0."""
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / max(epochs - warmup, 1e-9)))


def _cosine_epoch(epoch: int, epochs: int, warmup: int, progress: float) -> float:
    """Cosine per epoch, the first one at the full rate and the last one above 0 (t-vMF, WCDAS, GCL's second stage)."""
    return 0.5 * (1 + math.cos(math.pi * epoch / epochs))


def _cosine_epoch_to_0(epoch: int, epochs: int, warmup: int, progress: float) -> float:
    """Cosine per epoch, stepped before the epoch: the last one runs at rate 0 (cRT, weight balancing). Warm-up starts
    at half the rate (Balanced Softmax and BALMS on CIFAR)."""
    e = epoch + 1
    if e < warmup:
        return 0.5 + 0.5 * (e - 1) / (warmup - 1)
    return 0.5 * (1 + math.cos(math.pi * (e - warmup) / max(epochs - warmup, 1)))


def _constant(epoch: int, epochs: int, warmup: int, progress: float) -> float:
    """Always the recipe's rate."""
    return 1.0


# Arguments: epoch from 0, epochs, warm-up epochs, progress (epochs with the part of the running one that is over).
SCHEDULES: dict[str, Callable[[int, int, int, float], float]] = {
    "cosine": _cosine, "cosine_epoch": _cosine_epoch, "cosine_epoch_to_0": _cosine_epoch_to_0, "constant": _constant,
}  # fmt: skip


@dataclass(frozen=True)
class Steps:
    """Per epoch: linear warm-up, the full rate, and from each milestone on its factor of it (GCL, LDAM-DRW).

    Attributes:
        milestones: shares of the epochs, rising; at 0.8 of 200 epochs the 161st is the first with the new factor.
        factors: one for each milestone, from 0 to 1, each times the recipe's learning rate.
        warmup_from: factor, from 0 to 1, from which the warm-up rises to 1.
    """

    milestones: tuple[float, ...]
    factors: tuple[float, ...]
    warmup_from: float = later(0.0)

    def __post_init__(self) -> None:
        if not self.milestones or len(self.milestones) != len(self.factors):
            raise ValueError(f"{len(self.milestones)} milestones must have as many factors, found {len(self.factors)}")
        if not all(a < b for a, b in pairwise((0.0, *self.milestones, 1.0))):
            raise ValueError(f"milestones must be shares of the epochs between 0 and 1, rising: {self.milestones}")
        if not all(0 <= factor <= 1 for factor in self.factors):
            raise ValueError(f"factors must lie between 0 and 1, found {self.factors}")
        if not 0 <= self.warmup_from <= 1:
            raise ValueError(f"warmup_from must lie between 0 and 1, found {self.warmup_from}")

    def factor(self, epoch: int, epochs: int, warmup: int) -> float:
        """The factor in an epoch, counted from 0."""
        if epoch < warmup:
            return self.warmup_from + (1 - self.warmup_from) * (epoch + 1) / warmup
        passed = [
            factor for at, factor in zip(self.milestones, self.factors, strict=True) if epoch >= share(at, epochs)
        ]
        return passed[-1] if passed else 1.0


def share(of_all: float, epochs: int) -> int:
    """A share of the epochs, as a number of whole ones."""
    return round(of_all * epochs)


def batch_sizes(images: int, size: int, *, drop_last: bool = False) -> list[int]:
    """Images of each batch of an epoch.

    One image that is left over joins the batch before it: BatchNorm cannot work on a single value of each channel.

    Args:
        drop_last: a last batch that is not full is left out, so nothing has to join.
    """
    sizes = [min(size, images - start) for start in range(0, images, size)]
    if len(sizes) > 1 and sizes[-1] == 1 < size and not drop_last:
        sizes[-2:] = [size + 1]
    return sizes


def whole_epochs(iterations: int, images: int, batch_size: int, *, count_partial_batch: bool) -> int:
    """Epochs that a published number of steps makes, rounded up (Balanced Softmax's code).

    Args:
        count_partial_batch: whether an epoch's last batch counts when it is not full.
    """
    batches = len(batch_sizes(images, batch_size)) if count_partial_batch else max(1, images // batch_size)
    return -(-iterations // batches)


def learning_rate(
    schedule: str | Steps, base: float, *, epoch: int, epochs: int, step: int = 0, steps: int = 1, warmup: int = 0
) -> float:
    """Learning rate of a step.

    Args:
        schedule: a name in `SCHEDULES`, or steps.
        base: the recipe's learning rate.
        epoch, step: both from 0; `steps` is the number of steps in an epoch.
        warmup: warm-up epochs (`cosine`, `cosine_epoch_to_0` and steps).
    """
    if isinstance(schedule, Steps):
        return base * schedule.factor(epoch, epochs, warmup)
    if schedule not in SCHEDULES:
        raise unknown("schedule", schedule, SCHEDULES)
    # Warm-up ends *at* the full rate: the first step already has 1/(warm-up steps) of it, not 0.
    progress = epoch + step / steps if epoch >= warmup else epoch + (step + 1) / steps
    return base * SCHEDULES[schedule](epoch, epochs, warmup, progress)
