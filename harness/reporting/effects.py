"""How much a choice changes the accuracy: paired differences between two rows, with intervals.

Two rows of one table were measured on the same test images and, seed by seed, under the same splits. Their difference
D has two sources of chance: the seeds, of which there are few, and the test images, of which there are many. With D_s
the difference at seed s, S seeds, and d_i the difference at image i averaged over seeds,

    Var(D) = var_s(D_s) / S  +  sum_c w_c^2 var_{i in c}(d_i) / n_c

where class c weighs w_c in the score (n_c / N in accuracy over all images, 1 / K in the mean over a group's K classes).
The interval is D +- t sqrt(Var(D)), t of Student's distribution with the degrees of freedom of Welch and Satterthwaite,
the images counting as infinitely many (Satterthwaite, Biometrics Bulletin 2 (1946)). What seeds and images share is
counted in both terms, so the interval errs on the long side. It says nothing about another draw of the training data.
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

Verdict = Literal["better", "worse", "same", "not resolved"]
Floats: TypeAlias = npt.NDArray[np.float64]
Classes: TypeAlias = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Effect:
    """A difference of scores, as a share of 1, with its 95 % interval over seeds and test images."""

    mean: float
    low: float
    high: float
    n: int  # seeds that both rows have

    @property
    def verdict(self) -> Verdict:
        """Whether the interval leaves out zero; the same: no image of any seed differs."""
        if self.low == self.high == 0:
            return "same"
        return "better" if self.low > 0 else "worse" if self.high < 0 else "not resolved"


def effect(
    row: Mapping[int, npt.NDArray[np.bool_]],
    against: Mapping[int, npt.NDArray[np.bool_]],
    targets: Classes,
    classes: Sequence[int] | None = None,
) -> Effect | None:
    """The row's score minus that of the other, over the seeds that both have; None with fewer than two of them.

    Args:
        row, against: seed -> which of the N test images are right.
        targets: class of each test image, shape (N,).
        classes: the score is the mean accuracy of these classes; None: the accuracy over all images.
    """
    seeds = sorted(row.keys() & against.keys())
    weights = _class_weights(targets, classes)
    if len(seeds) < 2 or not weights:
        return None
    wins = np.stack([row[seed].astype(np.float64) - against[seed] for seed in seeds])
    by_class = {c: wins[:, targets == c] for c in weights}
    by_seed = np.sum([weights[c] * part.mean(1) for c, part in by_class.items()], axis=0)
    of_seeds = float(by_seed.var(ddof=1)) / len(seeds)
    of_images = sum(weights[c] ** 2 * _variance(part.mean(0)) / part.shape[1] for c, part in by_class.items())
    half = _half_width(of_seeds, of_images, len(seeds))
    mean = float(by_seed.mean())
    return Effect(mean, mean - half, mean + half, len(seeds))


def _class_weights(targets: Classes, classes: Sequence[int] | None) -> dict[int, float]:
    """How much the accuracy of each class counts in the score; classes without test images do not."""
    present, counts = np.unique(targets, return_counts=True)
    shares = dict(zip(present.tolist(), counts.tolist(), strict=True))
    if classes is None:
        return {c: count / len(targets) for c, count in shares.items()}
    kept = [c for c in classes if c in shares]
    return {c: 1 / len(kept) for c in kept}


def _variance(values: Floats) -> float:
    return float(values.var(ddof=1)) if len(values) > 1 else 0.0


def _half_width(of_seeds: float, of_images: float, seeds: int) -> float:
    total = of_seeds + of_images
    if total == 0:
        return 0.0
    freedom = (seeds - 1) * (total / of_seeds) ** 2 if of_seeds else math.inf
    quantile = special.stdtrit(freedom, (1 + CONFIDENCE) / 2) if math.isfinite(freedom) else special.ndtri(0.975)
    return float(quantile) * math.sqrt(total)
