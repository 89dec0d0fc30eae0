"""How much a choice changes the accuracy: paired differences between two rows, with intervals.

Two rows of one table were measured on the same test images and, seed by seed, under the same splits. Their difference
D has two sources of chance: the seeds, of which there are few, and the test images, of which there are many. With D_s
the difference at seed s, S seeds, and d_i the difference at image i averaged over seeds,

    Var(D) = var_s(D_s) / S  +  sum_c w_c^2 var_{i in c}(d_i) / n_c

where class c weighs w_c in the score (n_c / N in accuracy over all images, 1 / K in the mean over a group's K classes).
Each source has its own quantile, and the half-widths add up like standard deviations:

    D +- sqrt(t^2 var_s(D_s) / S  +  z^2 sum_c ...),    t of Student's distribution with S - 1 degrees of freedom

Degrees of freedom pooled after Welch and Satterthwaite would lean on a variance of three seeds: by chance a small one,
it would count as known, and the interval would come out shorter than that of the seeds alone. Simulated coverage of
this one is 95 % or a little more (a test says so). It says nothing about another draw of the training data.

Where a row is held against itself at the epoch that is best on the test set, the difference over all images is above
or at zero by construction. Nothing is inferred then: such an `Effect` is the range over seeds, `observed`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import special

CONFIDENCE: Final = 0.95

Verdict = Literal["better", "worse", "same", "not resolved", "observed"]
Floats: TypeAlias = npt.NDArray[np.float64]
Classes: TypeAlias = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Effect:
    """A difference of scores, as a share of 1, with its 95 % interval over seeds and test images."""

    mean: float
    low: float  # where nothing is inferred, the least of the seeds
    high: float
    n: int  # seeds that both rows have
    differ: bool = True  # whether any image of any seed does
    inferred: bool = True

    @property
    def verdict(self) -> Verdict:
        """Whether the interval leaves out zero; the same: no image of any seed differs."""
        if not self.differ:
            return "same"
        if not self.inferred:
            return "observed"
        return "better" if self.low > 0 else "worse" if self.high < 0 else "not resolved"


def effect(
    row: Mapping[int, npt.NDArray[np.bool_]],
    against: Mapping[int, npt.NDArray[np.bool_]],
    targets: Classes,
    classes: Sequence[int] | None = None,
    *,
    infer: bool = True,
) -> Effect | None:
    """The row's score minus that of the other, over the seeds that both have.

    None with fewer than two of them, and where a class has one test image, whose spread nobody knows.

    Args:
        row, against: seed -> which of the N test images are right.
        targets: class of each test image, shape (N,).
        classes: the score is the mean accuracy of these classes; None: the accuracy over all images.
        infer: an interval; else the range over seeds.
    """
    seeds = sorted(row.keys() & against.keys())
    weights = _class_weights(targets, classes)
    if len(seeds) < 2 or not weights:
        return None
    wins = np.stack([row[seed].astype(np.float64) - against[seed] for seed in seeds])
    by_class = {c: wins[:, targets == c] for c in weights}
    if any(part.shape[1] < 2 for part in by_class.values()):
        return None
    differ = any(bool(part.any()) for part in by_class.values())
    by_seed = np.sum([weights[c] * part.mean(1) for c, part in by_class.items()], axis=0)
    mean = float(by_seed.mean())
    if not infer:
        return Effect(mean, float(by_seed.min()), float(by_seed.max()), len(seeds), differ, inferred=False)
    of_seeds = float(by_seed.var(ddof=1)) / len(seeds)
    of_images = sum(weights[c] ** 2 * float(part.mean(0).var(ddof=1)) / part.shape[1] for c, part in by_class.items())
    of_few = t_quantile(len(seeds))
    of_many = float(special.ndtri((1 + CONFIDENCE) / 2))
    half = math.sqrt(of_few**2 * of_seeds + of_many**2 * of_images)
    return Effect(mean, mean - half, mean + half, len(seeds), differ)


def t_quantile(seeds: int) -> float:
    """How many standard errors of a mean over seeds its two-sided interval reaches; at least two seeds."""
    return float(special.stdtrit(seeds - 1, (1 + CONFIDENCE) / 2))


def _class_weights(targets: Classes, classes: Sequence[int] | None) -> dict[int, float]:
    """How much the accuracy of each class counts in the score; classes without test images do not."""
    present, counts = np.unique(targets, return_counts=True)
    shares = dict(zip(present.tolist(), counts.tolist(), strict=True))
    if classes is None:
        return {c: count / len(targets) for c, count in shares.items()}
    kept = [c for c in classes if c in shares]
    return {c: 1 / len(kept) for c in kept}
