"""Learning-rate schedules: factor on the recipe's learning rate, as a pure function of time."""

from __future__ import annotations

import math
from collections.abc import Callable

from harness.errors import unknown


def _cosine(epoch: int, epochs: int, warmup: int, progress: float) -> float:
    """Per step: linear warm-up, then cosine to 0. `progress` counts epochs and falls within them."""
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / max(epochs - warmup, 1e-9)))


def _cos_start0(epoch: int, epochs: int, warmup: int, progress: float) -> float:
    """Per epoch, the first one at the full rate (t-vMF, WCDAS)."""
    return 0.5 * (1 + math.cos(math.pi * epoch / epochs))


def _cos_start1(epoch: int, epochs: int, warmup: int, progress: float) -> float:
    """Per epoch, stepped before the epoch: the last one runs at rate 0 (BALMS, cRT, weight balancing)."""
    return 0.5 * (1 + math.cos(math.pi * (epoch + 1) / epochs))


def _warm_cos(epoch: int, epochs: int, warmup: int, progress: float) -> float:
    """Per epoch: from half the rate to the full one, then cosine to 0 in the last epoch (BALMS, CIFAR)."""
    e = epoch + 1
    if e < warmup:
        return 0.5 + 0.5 * (e - 1) / (warmup - 1)
    return 0.5 * (1 + math.cos(math.pi * (e - warmup) / max(epochs - warmup, 1)))


def _steps(epoch: int, epochs: int, factors: tuple[float, float]) -> float:
    """Warm-up over 5 of 200 epochs, decays after 160 and 180 of 200; the marks scale with the number of epochs."""
    e = 200 * (epoch + 1)  # whole numbers: a mark must not slip by rounding
    if e <= 5 * epochs:
        return e / (5 * epochs)
    return 1.0 if e <= 160 * epochs else factors[0] if e <= 180 * epochs else factors[1]


def _step_gcl(epoch: int, epochs: int, warmup: int, progress: float) -> float:
    """Factors 0.1 and 0.01 (GCL, MiSLAS)."""
    return _steps(epoch, epochs, (0.1, 0.01))


def _step_ldam(epoch: int, epochs: int, warmup: int, progress: float) -> float:
    """Factors 0.01 and 0.0001 (LDAM-DRW)."""
    return _steps(epoch, epochs, (0.01, 0.0001))


def _cos_gcl2(epoch: int, epochs: int, warmup: int, progress: float) -> float:
    """Per epoch, 0.01 (1 + cos): GCL's second stage starts at 0.02 of its nominal rate."""
    return 0.01 * (1 + math.cos(math.pi * epoch / epochs))


def _constant(epoch: int, epochs: int, warmup: int, progress: float) -> float:
    """Always the recipe's rate."""
    return 1.0


SCHEDULES: dict[str, Callable[[int, int, int, float], float]] = {
    "cosine": _cosine, "cos_start0": _cos_start0, "cos_start1": _cos_start1, "warm_cos": _warm_cos,
    "step_gcl": _step_gcl, "step_ldam": _step_ldam, "cos_gcl2": _cos_gcl2, "constant": _constant,
}  # fmt: skip


def whole_epochs(iterations: int, images: int, batch_size: int, *, count_partial_batch: bool) -> int:
    """Epochs that a published number of steps makes, rounded up (Balanced Softmax's code).

    Args:
        count_partial_batch: whether an epoch's last batch counts when it is not full.
    """
    batches = -(-images // batch_size) if count_partial_batch else max(1, images // batch_size)
    return -(-iterations // batches)


def learning_rate(
    schedule: str, base: float, *, epoch: int, epochs: int, step: int = 0, steps: int = 1, warmup: int = 0
) -> float:
    """Learning rate of a step.

    Args:
        schedule: a name in `SCHEDULES`.
        base: the recipe's learning rate.
        epoch, step: both from 0; `steps` is the number of steps in an epoch.
        warmup: warm-up epochs (schedules `cosine` and `warm_cos`).
    """
    if schedule not in SCHEDULES:
        raise unknown("schedule", schedule, SCHEDULES)
    # Warm-up ends *at* the full rate: the first step already has 1/(warm-up steps) of it, not 0.
    progress = epoch + step / steps if epoch >= warmup else epoch + (step + 1) / steps
    return base * SCHEDULES[schedule](epoch, epochs, warmup, progress)
