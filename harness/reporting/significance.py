"""Whether a difference between rows is more than chance, and how large it is, with its interval.

Paired tests, tie groups, intervals of rows and of paired differences, ranks over data sets.

A run is a bool vector over the N images of one fixed test set, in the same order for all runs of a section: True where
the prediction is right. Nothing here reads files.

What the tests can say: McNemar's test takes the trained models as given and the images as the sample, so a small
p-value says that *these* models differ on images like these. Averaging over seeds guards against one lucky seed, but no
test here measures how much a method varies from seed to seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Bits: TypeAlias = NDArray[np.bool_]
Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]
Classes: TypeAlias = NDArray[np.integer[Any]]
RunsOfRow: TypeAlias = Mapping[int, Bits]
"""Seed -> which of the N test images are right; empty where nothing per image was kept."""

Verdict = Literal["better", "worse", "same", "not resolved", "observed"]
CONFIDENCE: Final = 0.95
ENOUGH: Final = 3  # seeds; with fewer an interval is shown, and supports no finding and no status
MIN_BLOCKS: Final = 6
MIN_METHODS: Final = 3


# Tests


def mcnemar_one_sided(wins: ArrayLike, losses: ArrayLike) -> Floats:
    """Exact P(X >= wins) for X ~ Bin(wins + losses, 1/2), elementwise; 1 where no image is discordant.

    McNemar, Psychometrika 12 (1947), in its exact form. P(X >= w) is the regularised incomplete beta function
    I_{1/2}(w, losses + 1) for w >= 1.
    """
    won, lost = np.asarray(wins, dtype=np.float64), np.asarray(losses, dtype=np.float64)
    tail: Floats = np.where(won > 0, special.betainc(np.maximum(won, 1.0), lost + 1.0, 0.5), 1.0)
    return tail


def holm(p: ArrayLike) -> Floats:
    """Step-down adjusted p-values of one family, shape (M,) to (M,); nan stays nan and does not count.

    Holm, Scand. J. Statist. 6 (1979): the k-th smallest of m is multiplied by m - k + 1, then made non-decreasing and
    at most 1. Rejecting where the result is <= alpha keeps the family-wise error at alpha under any dependence.
    """
    raw = np.asarray(p, dtype=np.float64)
    adjusted = np.full(raw.shape, np.nan)
    kept = np.flatnonzero(~np.isnan(raw))
    order = kept[np.argsort(raw[kept], kind="stable")]
    scaled = raw[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return adjusted


# Tie groups


@dataclass(frozen=True)
class Ties:
    """Ranks of R rows, in the order given; every array has shape (R,). `tie_groups` says how they come about.

    rank: from 1; rows of one group share that of its leader, which stands at row `rank - 1`.
    p: adjusted two-sided p-value against that leader; for a leader, against the leader of the group above, which is the
        test that ended that group; nan where there was no test.
    tested: whether a test is behind the place; False means "by order only".
    """

    rank: Ints
    p: Floats
    tested: Bits


def tie_groups(rows: Sequence[RunsOfRow], alpha: float = 0.05) -> Ties:
    """Groups of rows that the test set cannot tell from their leader; rows in order of falling mean accuracy.

    The first row leads the first group. All rows below a leader that share a seed with it are tested against it
    (twice the mean p-value over seeds, `holm` over these tests). The group goes down to the first row that is
    significantly worse, which leads the next group with rank 1 + number of rows above it. So groups are runs of the
    order shown, and ranks never improve downwards: a row further down that ties with an earlier leader (it has fewer
    seeds, or fewer discordant images) still belongs to the lower group. A row that is significantly *better* than its
    leader on the seeds they share is not worse, and stays.

    A row without evidence, or without a seed in common with the leader it would be tested against, gets the rank of its
    place and `tested` False. It neither ends a group nor leads one, so ranks are monotone over the tested rows. A
    leader that no lower row shares a seed with hands over to the next row that has evidence.

    The leader is picked by the data that it is then tested on. Hence a group reads "not shown to be worse than the
    best": it is a subset selection (Gupta, Technometrics 7 (1965)), made to keep the truly best row in the first group.
    It is not a simultaneous test that all rows are equal: with one seed, the luckiest of many equal rows parts from the
    unluckiest more often than alpha (about every fourth time among 30), though each row is parted less often than that.

    Costs one pass over the rows below each leader, not over all pairs. Raises ValueError where runs differ in length.
    """
    number = len(rows)
    rank, p = np.arange(1, number + 1, dtype=np.int64), np.full(number, np.nan)
    tested = np.zeros(number, dtype=np.bool_)
    first = 0
    while first < number:
        raw, is_lower = _against(rows[first], rows[first + 1 :])
        below = holm(raw)
        compared = np.flatnonzero(~np.isnan(below))
        worse = np.flatnonzero(is_lower & (below <= alpha))  # nan is not
        end = int(worse[0]) if len(worse) else len(below)
        upto = first + 1 + compared[compared <= end]
        p[upto] = below[upto - first - 1]
        tested[upto], tested[first] = True, tested[first] or len(compared) > 0
        rank[first + 1 + compared[compared < end]] = first + 1
        first += 1 + (end if len(compared) else 0)
    return Ties(rank, p, tested)


def pair_matrix(rows: Sequence[RunsOfRow]) -> Floats:
    """Every row against every other, for a view that compares a few: two-sided p-values, not adjusted.

    Shape (R, R), symmetric, 1 on the diagonal, nan where the two have no seed in common. Quadratic in the rows.
    """
    return np.array([_against(row, rows)[0] for row in rows]).reshape(len(rows), len(rows))


# Differences between two rows of one table: measured on the same test images and, seed by seed, under the same splits


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
    row: RunsOfRow,
    against: RunsOfRow,
    targets: Classes,
    classes: Sequence[int] | None = None,
    *,
    infer: bool = True,
) -> Effect | None:
    """The row's score minus that of the other, over the seeds that both have.

    The difference D of two rows has two sources of chance: the seeds, of which there are few, and the test images, of
    which there are many. With D_s the difference at seed s, S seeds, and d_i the difference at image i averaged over
    seeds,

        Var(D) = var_s(D_s) / S  +  sum_c w_c^2 var_{i in c}(d_i) / n_c

    where class c weighs w_c in the score (n_c / N in accuracy over all images, 1 / K in the mean over a group's K
    classes). Each source has its own quantile, and the half-widths add up like standard deviations:

        D +- sqrt(t^2 var_s(D_s) / S  +  z^2 sum_c ...),    t of Student's distribution with S - 1 degrees of freedom

    Degrees of freedom pooled after Welch and Satterthwaite would lean on a variance of three seeds: by chance a small
    one, it would count as known, and the interval would come out shorter than that of the seeds alone. Simulated
    coverage of this one is 95 % or a little more (a test says so). It says nothing about another draw of the training
    data.

    Where a row is held against itself at the epoch that is best on the test set, the difference over all images is
    above or at zero by construction. Nothing is inferred then: such an `Effect` is the range over seeds, `observed`.

    None without a seed in common. An interval takes two, and two test images of each class: else it is None, too.

    Args:
        row, against: seed -> which of the N test images are right.
        targets: class of each test image, shape (N,).
        classes: the score is the mean accuracy of these classes; None: the accuracy over all images.
        infer: an interval; else the range over seeds.
    """
    seeds = sorted(row.keys() & against.keys())
    weights = _class_weights(targets, classes)
    if len(seeds) < (2 if infer else 1) or not weights:
        return None
    wins = np.stack([row[seed].astype(np.float64) - against[seed] for seed in seeds])
    by_class = {c: wins[:, targets == c] for c in weights}
    if infer and any(part.shape[1] < 2 for part in by_class.values()):
        return None
    differ = any(bool(part.any()) for part in by_class.values())
    by_seed = np.sum([weights[c] * part.mean(1) for c, part in by_class.items()], axis=0)
    mean = float(by_seed.mean())
    if not infer:
        return Effect(mean, float(by_seed.min()), float(by_seed.max()), len(seeds), differ, inferred=False)
    of_images = sum(weights[c] ** 2 * float(part.mean(0).var(ddof=1)) / part.shape[1] for c, part in by_class.items())
    half = float(_half_width(by_seed, np.asarray(of_images)))
    return Effect(mean, max(mean - half, -1.0), min(mean + half, 1.0), len(seeds), differ)


def pair_effects(
    rows: Sequence[RunsOfRow], targets: Classes, classes: Sequence[int] | None = None
) -> tuple[Floats, Floats]:
    """The mean of each pair's `effect`, and how far its interval reaches to either side; all pairs at once.

    Shape (R, R), row minus column; nan where `effect` is None, and between rows that do not have the same seeds.

    Args:
        rows, targets, classes: as for `effect`.
    """
    means, halves = (np.full((len(rows), len(rows)), np.nan) for _ in range(2))
    weights = _class_weights(targets, classes)
    if not weights or any(np.count_nonzero(targets == c) < 2 for c in weights):
        return means, halves
    for seeds in {frozenset(row) for row in rows if len(row) > 1}:
        having = [i for i, row in enumerate(rows) if row.keys() == seeds]
        right = np.stack([[rows[i][seed] for seed in sorted(seeds)] for i in having]).astype(np.float64)
        by_seed, of_images = np.zeros(right.shape[:2]), np.zeros((len(having), len(having)))
        for c, weight in weights.items():
            part = right[:, :, targets == c]
            by_seed += weight * part.mean(2)
            spread = np.atleast_2d(np.cov(part.mean(1)))
            own = np.diag(spread)
            of_images += weight**2 * (own[:, None] + own - 2 * spread) / part.shape[2]
        wins = by_seed[:, None] - by_seed
        at = np.ix_(having, having)
        means[at], halves[at] = wins.mean(2), _half_width(wins, of_images.clip(0))
    return means, halves


def _half_width(by_seed: Floats, of_images: Floats) -> Floats:
    """Of an interval; `by_seed` (..., S) are the differences, `of_images` (...) the variance that images add."""
    seeds = by_seed.shape[-1]
    of_few, of_many = t_quantile(seeds), special.ndtri((1 + CONFIDENCE) / 2)
    half: Floats = np.sqrt(of_few**2 * (by_seed.var(-1, ddof=1) / seeds) + of_many**2 * of_images)
    return half


def interval(row: RunsOfRow, targets: Classes) -> tuple[float, float] | None:
    """The 95 % interval of a row's accuracy over all images, in [0, 1]: the one of `effect`, against a row of no hit.

    None where `effect` is: it takes two seeds to know how much they differ.
    """
    found = effect(row, {seed: np.zeros_like(bits) for seed, bits in row.items()}, targets)
    return (max(found.low, 0.0), found.high) if found else None


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


# Several data sets


@dataclass(frozen=True)
class CriticalDifference:
    """Friedman's test and Nemenyi's critical difference of M methods on B blocks.

    average_ranks: each method's mean rank over the blocks, best first; 1 is best, ties share their mean rank.
    p: of Friedman's chi-square test that all methods are equal.
    difference: average ranks that differ by at least this are significantly different; only of use where p <= 0.05.
    """

    average_ranks: list[tuple[str, float]]
    p: float
    difference: float
    blocks: int


def critical_difference(blocks: Sequence[Mapping[str, float]]) -> CriticalDifference | None:
    """Comparison of the methods that all data sets have; None with too few data sets or methods for one.

    Demšar, Statistical Comparisons of Classifiers over Multiple Data Sets, JMLR 7 (2006), section 3.2.2:
    CD = q_alpha sqrt(M (M + 1) / (6 B)), q_alpha the studentised range with infinite degrees of freedom over sqrt(2).
    Blocks must be independent (data sets, not seeds or imbalance factors of one), which is up to the caller.

    Args:
        blocks: the accuracy of each method, one mapping for each data set.
    """
    names = sorted(set.intersection(*map(set, blocks)))
    methods = len(names)
    if len(blocks) < MIN_BLOCKS or methods < MIN_METHODS:
        return None
    from scipy import stats  # slow to import, and rarely needed

    accuracies = np.array([[block[name] for name in names] for block in blocks])
    ranks = zip(names, stats.rankdata(-accuracies, axis=1).mean(axis=0).tolist(), strict=True)
    alike = (accuracies == accuracies[:, :1]).all()  # the chi-square is 0 / 0 where every block is one tie
    p = 1.0 if alike else float(stats.friedmanchisquare(*accuracies.T).pvalue)
    quantile = float(stats.studentized_range.ppf(CONFIDENCE, methods, np.inf)) / np.sqrt(2)
    difference = float(quantile * np.sqrt(methods * (methods + 1) / (6 * len(blocks))))
    return CriticalDifference(sorted(ranks, key=lambda pair: pair[1]), p, difference, len(blocks))


# Parts


def _two_sided(better: Floats, worse: Floats, seeds: Ints) -> Floats:
    """Two-sided p-values; better and worse are sums of one-sided ones over so many seeds, nan where there is none.

    The null hypothesis is that in no seed one of the two is better. All seeds are tested on the same images, so their
    p-values are dependent in an unknown way. Twice their mean is a p-value whatever the dependence: Rüschendorf, Adv.
    Appl. Prob. 14 (1982); Vovk & Wang, Combining p-values via averaging, Biometrika 107 (2020). It is formed for each
    direction, and the smaller of the two is doubled. With one seed it is the exact two-sided McNemar test.
    """
    counted = np.maximum(seeds, 1)
    factor = np.where(seeds > 1, 2.0, 1.0)
    one_sided = np.minimum(1.0, factor * np.minimum(better, worse) / counted)
    return np.where(seeds > 0, np.minimum(1.0, 2 * one_sided), np.nan)


def _against(row: RunsOfRow, others: Sequence[RunsOfRow]) -> tuple[Floats, Bits]:
    """P-values of the others against a row, nan where not tested, and which of them lean to being worse."""
    better, worse = np.zeros(len(others)), np.zeros(len(others))
    common = np.zeros(len(others), dtype=np.int64)
    for seed, right in sorted(row.items()):
        having = [i for i, other in enumerate(others) if seed in other]
        wins = np.array([np.count_nonzero(right & ~others[i][seed]) for i in having])
        losses = np.array([np.count_nonzero(others[i][seed] & ~right) for i in having])
        better[having] += mcnemar_one_sided(wins, losses)
        worse[having] += mcnemar_one_sided(losses, wins)
        common[having] += 1
    return _two_sided(better, worse, common), better < worse
