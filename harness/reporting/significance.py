"""Whether a difference between rows is more than chance: paired tests, tie groups, intervals, ranks over data sets.

A run is a bool vector over the N images of one fixed test set, in the same order for all runs of a section: True where
the prediction is right. Nothing here reads files.

What the tests can say: McNemar's test takes the trained models as given and the images as the sample, so a small
p-value says that *these* models differ on images like these. Averaging over seeds guards against one lucky seed, but no
test here measures how much a method varies from seed to seed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Bits: TypeAlias = NDArray[np.bool_]
Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]
RunsOfRow: TypeAlias = Mapping[int, Bits]
"""Seed -> which of the N test images are right; empty where nothing per image was kept."""

BLOCK_BYTES: Final = 48 * 2**20
BLOCK_WORDS: Final = 2**16
MIN_BLOCKS: Final = 6
MIN_METHODS: Final = 3


# Discordant images


def discordant_counts(correct: Bits) -> Ints:
    """Entry [i, j]: images that run i has right and run j wrong; correct of shape (R, N), the result (R, R).

    A matrix product in blocks of images, each exact in float32 (counts below 2**24) and added up as integers.
    """
    runs, images = correct.shape
    both = np.zeros((runs, runs), dtype=np.int64)
    for block in _slices(images, min(BLOCK_BYTES // (4 * max(runs, 1)), 2**24 - 1)):
        part = correct[:, block].astype(np.float32)
        both += (part @ part.T).astype(np.int64)
    counts: Ints = both.diagonal()[:, None] - both
    return counts


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

    rank: from 1; rows of one group share it.
    leader: index of the first row of the row's group (its own for a leader), -1 where not tested.
    p: adjusted two-sided p-value against that leader; for a leader, against the leader of the group above, which is the
        test that ended that group; nan where there was no test.
    tested: whether a test is behind the place; False means "by order only".
    ties_with: index of the highest leader that the row is not significantly worse than; above `leader` where the row
        stands in a lower group only because a row above it does. -1 where there is none.
    """

    rank: Ints
    leader: Ints
    p: Floats
    tested: Bits
    ties_with: Ints


def tie_groups(rows: Sequence[RunsOfRow], alpha: float = 0.05) -> Ties:
    """Groups of rows that the test set cannot tell from their leader; rows in order of falling mean accuracy.

    The first row leads the first group. All rows below a leader that share a seed with it are tested against it
    (twice the mean p-value over seeds, `holm` over these tests). The group goes down to the first row that is
    significantly worse, which leads the next group with rank 1 + number of rows above it. So groups are runs of the
    order shown, and ranks never improve downwards: a row further down that ties with an earlier leader (it has fewer
    seeds, or fewer discordant images) still belongs to the lower group, and `ties_with` names the earlier leader. A row
    that is significantly *better* than its leader on the seeds they share is not worse, and stays.

    A row without evidence, or without a seed in common with the leader it would be tested against, gets the rank of its
    place and `tested` False. It neither ends a group nor leads one, so ranks are monotone over the tested rows. A
    leader that no lower row shares a seed with hands over to the next row that has evidence.

    The leader is picked by the data that it is then tested on. Hence a group reads "not shown to be worse than the
    best": it is a subset selection (Gupta, Technometrics 7 (1965)), made to keep the truly best row in the first group.
    It is not a simultaneous test that all rows are equal: with one seed, the luckiest of many equal rows parts from the
    unluckiest more often than alpha (about every fourth time among 30), though each row is parted less often than that.

    Costs one pass over the packed bits per leader, not per pair. Raises ValueError where runs differ in length.
    """
    number = len(rows)
    rank = np.arange(1, number + 1, dtype=np.int64)
    leader, ties_with = np.full(number, -1, dtype=np.int64), np.full(number, -1, dtype=np.int64)
    p, tested = np.full(number, np.nan), np.zeros(number, dtype=np.bool_)
    seeds = _pack(rows)
    first = _next_with_evidence(rows, 0)
    while first < number:
        raw, is_lower = _against(first, rows[first], seeds, number)
        adjusted = holm(raw)
        compared = ~np.isnan(adjusted)
        tested[first] |= compared.any()
        if tested[first]:
            leader[first] = first
            ties_with[first] = first if ties_with[first] < 0 else ties_with[first]
        worse = compared & (adjusted <= alpha) & is_lower
        end = int(np.argmax(worse)) if worse.any() else number
        inside = np.flatnonzero(compared[:end])
        rank[inside], leader[inside] = first + 1, first
        upto = np.flatnonzero(compared[: end + 1])
        p[upto], tested[upto] = adjusted[upto], True
        ties_with[compared & ~worse & (ties_with < 0)] = first
        if not compared.any():
            end = _next_with_evidence(rows, first + 1)
        first = end
    return Ties(rank, leader, p, tested, ties_with)


@dataclass(frozen=True)
class Pairs:
    """All pairs of R rows, each array of shape (R, R), nan where the two have no seed in common.

    p: two-sided p-value, not adjusted; symmetric, 1 on the diagonal.
    margin: images that only the row has right less those that only the column has right, mean over the common seeds.
    """

    p: Floats
    margin: Floats


def pair_matrix(rows: Sequence[RunsOfRow]) -> Pairs:
    """Every row against every other, for a view that compares a few; quadratic in the number of rows."""
    number = len(rows)
    _images(rows)
    better, margin = np.zeros((number, number)), np.zeros((number, number))
    common = np.zeros((number, number), dtype=np.int64)
    for seed, having in _rows_by_seed(rows).items():
        wins = discordant_counts(np.stack([rows[row][seed] for row in having]))
        square = np.ix_(having, having)
        better[square] += mcnemar_one_sided(wins, wins.T)
        margin[square] += wins - wins.T
        common[square] += 1
    mean = np.divide(margin, common, out=np.full(margin.shape, np.nan), where=common > 0)
    return Pairs(_two_sided(better, better.T, common), mean)


# Intervals


def bootstrap_interval(
    correct: Sequence[Bits], draws: int = 1000, seed: int = 0, level: float = 0.95
) -> list[tuple[float, float]]:
    """Percentile interval of each row's mean accuracy, in [0, 1]; correct[i] of shape (S_i, N), one run per seed.

    Each draw resamples the images, with the same weights for all rows, and the row's seeds, both with replacement
    (Efron & Tibshirani, An Introduction to the Bootstrap (1993), ch. 8 and 13). One seed: images only. No seed or no
    image: nan. A row's interval depends on `seed`, `draws`, N and S_i, not on the other rows.

    Resampling S seeds understates their variance by the factor (S - 1) / S, so with two or three seeds the interval is
    somewhat too short where seeds differ more than images explain. Memory: a few blocks of 48 MiB, and 4 bytes per draw
    and run. Raises ValueError where rows differ in N, or without draws.
    """
    if draws < 1:
        raise ValueError(f"a bootstrap needs at least one draw, found {draws}")
    images = _one_length({runs.shape[1] for runs in correct})
    if images == 0:
        return [(float("nan"), float("nan"))] * len(correct)
    starts = np.concatenate([[0], np.cumsum([len(runs) for runs in correct])]).astype(np.int64)
    hits = _resampled_hits(correct, starts, images, draws, seed)
    groups: dict[int, list[int]] = defaultdict(list)
    for row, runs in enumerate(correct):
        groups[len(runs)].append(row)
    tails = [(1 - level) / 2, (1 + level) / 2]
    bounds = np.full((len(correct), 2), np.nan)
    for size, members in groups.items():
        if size == 0:
            continue
        picks = np.random.default_rng([seed, 1, size]).integers(0, size, (draws, size))
        for block in _slices(len(members), BLOCK_BYTES // (16 * draws)):
            first = starts[members[block]]
            total = np.zeros((draws, len(first)))
            for pick in picks.T:
                total += hits[np.arange(draws)[:, None], first[None, :] + pick[:, None]]
            bounds[members[block]] = np.quantile(total / (images * size), tails, axis=0).T
    return [(float(low), float(high)) for low, high in bounds]


# Several data sets


@dataclass(frozen=True)
class CriticalDifference:
    """Friedman's test and Nemenyi's critical difference of M methods on B blocks.

    average_ranks: shape (M,), 1 is best. statistic, p: of Friedman's chi-square test that all methods are equal.
    difference: average ranks that differ by at least this are significantly different; only of use where p <= alpha.
    cliques: maximal sets of methods, best first, within which no two differ; the bars of the diagram. A method that
        differs from all others is in none.
    """

    average_ranks: Floats
    statistic: float
    p: float
    difference: float
    blocks: int
    cliques: tuple[tuple[int, ...], ...]


def average_ranks(accuracies: NDArray[np.floating]) -> Floats:
    """Mean over the blocks of each method's rank, 1 for the highest accuracy, ties sharing their mean rank.

    accuracies of shape (blocks, methods), at least one block; the result (methods,).
    """
    if len(accuracies) == 0:
        raise ValueError("average ranks need at least one block")
    from scipy import stats  # slow to import, and rarely needed

    ranks: Floats = stats.rankdata(-np.asarray(accuracies, dtype=np.float64), axis=1).mean(axis=0)
    return ranks


def critical_difference(accuracies: NDArray[np.floating], alpha: float = 0.05) -> CriticalDifference | str:
    """Comparison of methods over data sets, or in one line why there is none; accuracies of shape (blocks, methods).

    Demšar, Statistical Comparisons of Classifiers over Multiple Data Sets, JMLR 7 (2006), section 3.2.2:
    CD = q_alpha sqrt(M (M + 1) / (6 B)), q_alpha the studentised range with infinite degrees of freedom over sqrt(2).
    Blocks must be independent (data sets, not seeds or imbalance factors of one), which is up to the caller.
    """
    blocks, methods = accuracies.shape
    needs = "a critical-difference diagram needs"
    if blocks < MIN_BLOCKS:
        return f"{_count(blocks, 'data-set block')}; {needs} at least {MIN_BLOCKS}"
    if methods < MIN_METHODS:
        return f"{_count(methods, 'method')}; {needs} at least {MIN_METHODS}"
    missing = int(np.count_nonzero(~np.isfinite(accuracies)))
    if missing:
        return f"{_count(missing, 'result')} missing; {needs} every method on every data-set block"
    from scipy import stats

    ranks = average_ranks(accuracies)
    statistic, p = 0.0, 1.0
    if (accuracies != accuracies[:, :1]).any():  # the chi-square is 0 / 0 where every block is one tie
        friedman = stats.friedmanchisquare(*accuracies.T)
        statistic, p = float(friedman.statistic), float(friedman.pvalue)
    quantile = float(stats.studentized_range.ppf(1 - alpha, methods, np.inf)) / np.sqrt(2)
    difference = float(quantile * np.sqrt(methods * (methods + 1) / (6 * blocks)))
    return CriticalDifference(ranks, statistic, p, difference, blocks, _cliques(ranks, difference))


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


@dataclass(frozen=True)
class _Packed:
    """The runs of one seed: rows (n,) ascending, their bits in words (n, W), and how many are set (n,)."""

    rows: Ints
    words: NDArray[np.uint64]
    totals: Ints


def _pack(rows: Sequence[RunsOfRow]) -> dict[int, _Packed]:
    length = -(-_images(rows) // 64)
    packed = {}
    for seed, having in _rows_by_seed(rows).items():
        table = np.zeros((len(having), length * 8), dtype=np.uint8)
        for at, row in enumerate(having):
            bits = np.packbits(rows[row][seed])
            table[at, : len(bits)] = bits
        words = table.view(np.uint64)
        everything = np.full(length, ~np.uint64(0))
        packed[seed] = _Packed(np.array(having, dtype=np.int64), words, _shared(words, everything))
    return packed


def _against(first: int, runs: RunsOfRow, seeds: Mapping[int, _Packed], number: int) -> tuple[Floats, Bits]:
    """P-values of the rows below `first` against it, nan where not tested, and which of them lean to being worse."""
    better, worse, common = np.zeros(number), np.zeros(number), np.zeros(number, dtype=np.int64)
    for seed in sorted(runs):
        packed = seeds[seed]
        at = int(np.searchsorted(packed.rows, first))
        both = _shared(packed.words[at + 1 :], packed.words[at])
        wins, losses = packed.totals[at] - both, packed.totals[at + 1 :] - both
        below = packed.rows[at + 1 :]
        better[below] += mcnemar_one_sided(wins, losses)
        worse[below] += mcnemar_one_sided(losses, wins)
        common[below] += 1
    return _two_sided(better, worse, common), better < worse


def _shared(words: NDArray[np.uint64], other: NDArray[np.uint64]) -> Ints:
    """How many bits each row of words (n, W) has in common with other (W,)."""
    counts = np.zeros(len(words), dtype=np.int64)
    for block in _slices(len(words), BLOCK_WORDS // max(len(other), 1)):
        counts[block] = np.bitwise_count(words[block] & other).sum(axis=1, dtype=np.int64)
    return counts


def _resampled_hits(correct: Sequence[Bits], starts: Ints, images: int, draws: int, seed: int) -> NDArray[np.float32]:
    """Right predictions of every run in every draw of images, (draws, runs), exact below 2**24 images."""
    hits = np.empty((draws, int(starts[-1])), dtype=np.float32)
    generator = np.random.default_rng([seed, 0, images])
    per_block = BLOCK_BYTES // (4 * images)
    for drawn in _slices(draws, per_block):
        weights = np.empty((drawn.stop - drawn.start, images), dtype=np.float32)
        for draw in weights:
            draw[:] = np.bincount(generator.integers(0, images, images), minlength=images)
        for runs, columns in _run_blocks(correct, starts, per_block):
            hits[drawn, columns] = weights @ runs.T
    return hits


def _run_blocks(correct: Sequence[Bits], starts: Ints, per_block: int) -> Iterator[tuple[NDArray[np.float32], slice]]:
    """All runs as float32 in blocks of whole rows, as many runs as fit (at least one row), and their columns."""
    low = 0
    while low < len(correct):
        high = max(low + 1, int(np.searchsorted(starts, starts[low] + per_block, side="right")) - 1)
        yield np.concatenate(correct[low:high]).astype(np.float32), slice(int(starts[low]), int(starts[high]))
        low = high


def _cliques(ranks: Floats, difference: float) -> tuple[tuple[int, ...], ...]:
    order = np.argsort(ranks, kind="stable")
    found: list[tuple[int, ...]] = []
    reached = 0
    for low in range(len(order)):
        high = int(np.searchsorted(ranks[order], ranks[order[low]] + difference, side="left"))
        if high > reached and high - low > 1:
            found.append(tuple(int(method) for method in order[low:high]))
            reached = high
    return tuple(found)


def _next_with_evidence(rows: Sequence[RunsOfRow], start: int) -> int:
    return next((row for row in range(start, len(rows)) if rows[row]), len(rows))


def _rows_by_seed(rows: Sequence[RunsOfRow]) -> dict[int, list[int]]:
    having: dict[int, list[int]] = defaultdict(list)
    for row, runs in enumerate(rows):
        for seed in runs:
            having[seed].append(row)
    return dict(sorted(having.items()))


def _images(rows: Sequence[RunsOfRow]) -> int:
    return _one_length({len(run) for runs in rows for run in runs.values()})


def _one_length(lengths: set[int]) -> int:
    """The number of images that all runs have; 0 where there is no run."""
    if len(lengths) > 1:
        raise ValueError(f"runs over different numbers of test images: {sorted(lengths)}")
    return next(iter(lengths), 0)


def _slices(length: int, size: int) -> Iterator[slice]:
    size = max(size, 1)
    return (slice(low, min(low + size, length)) for low in range(0, length, size))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
