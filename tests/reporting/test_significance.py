"""Paired tests, tie groups, intervals and ranks over data sets, against scipy, brute force and cases by hand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike
from scipy import stats

from harness.reporting import significance
from harness.reporting.significance import (
    CriticalDifference,
    RunsOfRow,
    critical_difference,
    holm,
    mcnemar_one_sided,
    pair_matrix,
    tie_groups,
)


def paired_p(wins: ArrayLike, losses: ArrayLike) -> float:
    """Two-sided p-value of one pair of rows; wins and losses over the seeds that both have."""
    return float(paired_p_many(np.asarray(wins)[:, None], np.asarray(losses)[:, None])[0])


def paired_p_many(won: ArrayLike, lost: ArrayLike, common: np.ndarray | None = None) -> np.ndarray:
    """The same of several pairs; wins, losses and common of shape (seeds, pairs)."""
    counted = np.ones(np.shape(won), dtype=bool) if common is None else common
    better, worse = (np.where(counted, mcnemar_one_sided(*way), 0.0).sum(axis=0) for way in ((won, lost), (lost, won)))
    return significance._two_sided(better, worse, counted.sum(axis=0))


COUNTS = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 400)), min_size=1, max_size=6)
P_VALUES = st.lists(st.floats(0, 1) | st.just(float("nan")), max_size=12)


def run(right: int | Iterable[int], images: int = 200) -> np.ndarray:
    """A run with the given images right: a number means the first so many."""
    bits = np.zeros(images, dtype=bool)
    bits[slice(right) if isinstance(right, int) else list(right)] = True
    return bits


def rows_from(seed: int, rows: int, seeds: int = 3, images: int = 300) -> list[RunsOfRow]:
    """Rows of different strength on shared image difficulties, best first; some lack seeds, some have none."""
    rng = np.random.default_rng(seed)
    difficulty = rng.random(images)
    made = []
    for strength in rng.uniform(0.2, 0.9, rows):
        kept = [s for s in range(seeds) if rng.random() < 0.8]
        made.append({s: rng.random(images) < 0.5 * strength + 0.5 * (difficulty < strength) for s in kept})
    return sorted(made, key=lambda runs: -np.mean([run.mean() for run in runs.values()] or [0]))


def p_of_pair(one: RunsOfRow, other: RunsOfRow) -> float:
    """The same p-value, written out with scipy's binomial test."""
    common = sorted(one.keys() & other.keys())
    if not common:
        return float("nan")
    sides = []
    for a, b in ((one, other), (other, one)):
        each = []
        for seed in common:
            wins, losses = int((a[seed] & ~b[seed]).sum()), int((b[seed] & ~a[seed]).sum())
            n = wins + losses
            each.append(stats.binomtest(wins, n, alternative="greater").pvalue if n else 1.0)
        sides.append(each[0] if len(each) == 1 else min(1, 2 * np.mean(each)))
    return min(1, 2 * min(sides))


def test_runs_over_different_images_are_refused() -> None:
    with pytest.raises(ValueError, match="shapes"):
        tie_groups([{0: run(3, 10)}, {0: run(3, 11)}])
    with pytest.raises(ValueError, match="shapes"):
        pair_matrix([{0: run(3, 10)}, {0: run(3, 11)}])


# Tests


@given(COUNTS)
def test_the_one_sided_test_is_the_binomial_tail(counts: list[tuple[int, int]]) -> None:
    wins, losses = np.array(counts).T
    expected = stats.binom.sf(wins - 1, wins + losses, 0.5)
    np.testing.assert_allclose(mcnemar_one_sided(wins, losses), expected, rtol=1e-9)


def test_the_one_sided_test_at_its_ends() -> None:
    np.testing.assert_allclose(mcnemar_one_sided([0, 0, 5, 3], [0, 7, 0, 1]), [1, 1, 1 / 32, 5 / 16])
    assert 0 < mcnemar_one_sided(1000, 0) < 1e-300


@given(st.integers(0, 300), st.integers(0, 300))
def test_one_seed_is_the_exact_two_sided_test(wins: int, losses: int) -> None:
    expected = stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert paired_p([wins], [losses]) == pytest.approx(expected, rel=1e-9)


@given(COUNTS)
def test_a_paired_p_is_symmetric_and_a_probability(counts: list[tuple[int, int]]) -> None:
    wins, losses = np.array(counts).T
    p = paired_p(wins, losses)
    assert 0 <= p <= 1
    assert p == paired_p(losses, wins)
    assert p == pytest.approx(paired_p(wins[::-1], losses[::-1]))


def test_seeds_are_combined_by_twice_the_mean_by_hand() -> None:
    # one-sided 1/32 and 1/8: mean 5/64, twice that 10/64, both directions 20/64
    assert paired_p([5, 3], [0, 0]) == pytest.approx(20 / 64)
    assert paired_p([5, 0], [0, 5]) == 1  # seeds that contradict each other


def test_many_pairs_leave_out_what_is_not_common() -> None:
    wins, losses = np.array([[8, 8, 8], [1, 1, 1]]), np.array([[0, 0, 0], [9, 9, 9]])
    common = np.array([[True, True, False], [True, False, False]])
    p = paired_p_many(wins, losses, common)
    assert p[0] == paired_p([8, 1], [0, 9])
    assert p[1] == paired_p([8], [0])
    assert np.isnan(p[2])
    assert np.isnan(paired_p([], []))
    assert paired_p_many(np.zeros((2, 0)), np.zeros((2, 0))).shape == (0,)


def test_the_level_holds_with_seeds_that_are_the_same_run() -> None:
    """Complete dependence is the case that a product or a sum of logarithms over seeds gets wrong."""
    rng = np.random.default_rng(0)
    wins = rng.binomial(200, 0.5, 4000)
    for seeds in (1, 3):
        repeated = np.tile(wins, (seeds, 1))
        assert (paired_p_many(repeated, 200 - repeated) <= 0.05).mean() <= 0.055
    independent = rng.binomial(200, 0.5, (3, 4000))
    assert (paired_p_many(independent, 200 - independent) <= 0.05).mean() <= 0.055


@pytest.mark.parametrize(
    ("p", "expected"),
    [
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.02, 0.02, 0.02], [0.06, 0.06, 0.06]),
        ([0.9, 0.01], [0.9, 0.02]),
        ([0.6, 0.5, 0.7], [1.0, 1.0, 1.0]),
        ([0.04], [0.04]),
        ([np.nan, 0.02, np.nan, 0.03], [np.nan, 0.04, np.nan, 0.04]),
        ([np.nan], [np.nan]),
        ([], []),
    ],
)
def test_holm_by_hand(p: list[float], expected: list[float]) -> None:
    np.testing.assert_allclose(holm(p), expected)


@given(P_VALUES, st.randoms(use_true_random=False))
def test_holm_lies_between_raw_and_bonferroni_and_keeps_the_order(p: list[float], random: Random) -> None:
    raw = np.array(p, dtype=float)
    adjusted = holm(raw)
    np.testing.assert_array_equal(np.isnan(adjusted), np.isnan(raw))
    kept = ~np.isnan(raw)
    assert (adjusted[kept] >= raw[kept]).all()
    assert (adjusted[kept] <= np.minimum(1, raw[kept] * kept.sum())).all()
    assert (np.diff(adjusted[kept][np.argsort(raw[kept])]) >= 0).all()
    order = list(range(len(p)))
    random.shuffle(order)
    np.testing.assert_array_equal(holm(raw[order]), adjusted[order])


# Tie groups


def test_groups_by_hand() -> None:
    ties = tie_groups([{0: run(n)} for n in (150, 149, 147, 100, 98, 20)])
    assert ties.rank.tolist() == [1, 1, 1, 4, 4, 6]
    assert ties.tested.all()
    assert np.isnan(ties.p[0])
    # five tests against the first: 130, 52 and 50 images lost and none won, then 3 and 1
    assert ties.p[2] == pytest.approx(2 * 2 * 0.5**3)
    assert ties.p[3] == pytest.approx(2 * 0.5**50 * 3)
    assert ties.p[4] == pytest.approx(2 * 0.5**2 * 1)  # 2 images, the larger of two p-values against the second leader
    assert ties.p[5] == pytest.approx(2 * 0.5**78)


def test_a_row_that_ties_with_an_earlier_leader_stays_below_the_row_above_it() -> None:
    leader = run(100)
    below = run(88)  # 12 lost, none won
    noisy = run([*range(50), *range(100, 137)])  # 87 right, 50 lost and 37 won: no difference to the first
    last = run(10)
    ties = tie_groups([{0: row} for row in (leader, below, noisy, last)])
    assert ties.rank.tolist() == [1, 2, 2, 4]


def test_a_row_without_evidence_ends_no_group() -> None:
    a, b = {0: run(150)}, {0: run(149)}
    ties = tie_groups([{}, a, {}, b, {7: run(140)}, {0: run(50)}, {}])
    assert ties.rank.tolist() == [1, 2, 3, 2, 5, 6, 7]
    assert ties.tested.tolist() == [False, True, False, True, False, True, False]
    assert np.isnan(ties.p[[0, 1, 2, 4, 6]]).all()


def test_a_leader_that_nobody_shares_a_seed_with_hands_over() -> None:
    ties = tie_groups([{9: run(160)}, {0: run(150)}, {0: run(149)}, {0: run(20)}])
    assert ties.rank.tolist() == [1, 2, 2, 4]
    assert ties.tested.tolist() == [False, True, True, True]


def test_a_row_better_on_the_common_seeds_is_not_worse() -> None:
    first = {0: run(100), 1: run(199), 2: run(199)}
    ties = tie_groups([first, {0: run(150)}])
    assert ties.p[1] < 0.001
    assert ties.rank.tolist() == [1, 1]


def test_nothing_to_test() -> None:
    assert tie_groups([]).rank.shape == (0,)
    several: list[list[RunsOfRow]] = [[{}], [{0: run(10)}], [{}, {}], [{0: run(3, 0)}]]
    for rows in several:
        ties = tie_groups(rows)
        assert ties.rank.tolist() == list(range(1, len(rows) + 1))
        assert not ties.tested.any()


def test_runs_without_images_tie() -> None:
    assert tie_groups([{0: run(0, 0)}, {0: run(0, 0)}]).rank.tolist() == [1, 1]


def test_alpha_is_the_level() -> None:
    rows = [{0: run(150)}, {0: run(144)}]  # 6 lost, none won: p = 2 / 64
    assert tie_groups(rows).rank.tolist() == [1, 2]
    assert tie_groups(rows, alpha=2 / 64).rank.tolist() == [1, 2]
    assert tie_groups(rows, alpha=0.03).rank.tolist() == [1, 1]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 12))
def test_groups_are_those_of_the_definition(seed: int, number: int) -> None:
    rows = rows_from(seed, number)
    ties = tie_groups(rows)
    tested = np.flatnonzero(ties.tested)
    assert (np.diff(ties.rank[tested]) >= 0).all()
    np.testing.assert_array_equal(ties.rank[~ties.tested], np.flatnonzero(~ties.tested) + 1)
    leaders = sorted(set(ties.rank[tested] - 1))
    assert ties.tested[leaders].all()
    for at, leader in enumerate(leaders):
        p = holm([p_of_pair(rows[leader], row) for row in rows[leader + 1 :]])
        members = [row for row in tested if ties.rank[row] == leader + 1 and row != leader]
        np.testing.assert_allclose(ties.p[members], p[[row - leader - 1 for row in members]], rtol=1e-9)
        for row in members:
            common = rows[leader].keys() & rows[row].keys()
            assert ties.p[row] > 0.05 or sum(rows[row][s].sum() for s in common) >= sum(
                rows[leader][s].sum() for s in common
            )
        following = leaders[at + 1] if at + 1 < len(leaders) else None
        if following is not None and not np.isnan(ties.p[following]):
            assert ties.p[following] == pytest.approx(p[following - leader - 1])
            assert ties.p[following] <= 0.05


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32))
def test_groups_do_not_depend_on_seed_names_or_on_the_order_of_images(seed: int) -> None:
    rows = rows_from(seed, 8)
    order = np.random.default_rng(seed).permutation(300)
    renamed = [{10 - s: bits[order] for s, bits in runs.items()} for runs in rows]
    one, other = tie_groups(rows), tie_groups(renamed)
    np.testing.assert_array_equal(one.rank, other.rank)
    np.testing.assert_allclose(one.p, other.p, rtol=1e-9)


def test_tests_are_only_against_leaders(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    real = significance._against

    def counted(row: RunsOfRow, below: Sequence[RunsOfRow]) -> Any:
        calls.append(len(below))
        return real(row, below)

    monkeypatch.setattr(significance, "_against", counted)
    ties = tie_groups([{s: run(n, 1000) for s in range(3)} for n in range(900, 700, -1)])
    assert [200 - below for below in calls] == sorted(set(ties.rank.tolist()))
    assert len(calls) < 25


@pytest.mark.parametrize("rows", [2, 8])
def test_equal_rows_are_rarely_parted_from_the_best(rows: int) -> None:
    """A given row, equal to all others, leaves the first group with probability at most alpha."""
    rng = np.random.default_rng(1)
    parted = []
    for _ in range(150):
        difficulty = rng.random(500)
        made = [{0: rng.random(500) < difficulty} for _ in range(rows)]
        made.sort(key=lambda runs: -runs[0].mean())
        parted.append((tie_groups(made).rank > 1).mean())
    assert np.mean(parted) <= 0.05


# All pairs


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32))
def test_the_pair_matrix_is_that_of_the_pairs(seed: int) -> None:
    rows = [*rows_from(seed, 4, images=80), {}]
    pairs = pair_matrix(rows)
    np.testing.assert_array_equal(pairs, pairs.T)
    for i, one in enumerate(rows):
        for j, other in enumerate(rows):
            np.testing.assert_allclose(pairs[i, j], p_of_pair(one, other), rtol=1e-9)
    order = np.random.default_rng(seed).permutation(len(rows))
    np.testing.assert_array_equal(pair_matrix([rows[i] for i in order]), pairs[np.ix_(order, order)])


def test_a_pair_matrix_of_nothing() -> None:
    assert pair_matrix([]).shape == (0, 0)
    assert np.isnan(pair_matrix([{}, {}])).all()


# Several data sets


def over(accuracies: np.ndarray) -> CriticalDifference | None:
    """The comparison, from accuracies of shape (blocks, methods)."""
    return critical_difference([{f"m{i}": value for i, value in enumerate(block)} for block in accuracies.tolist()])


@pytest.mark.parametrize(("methods", "q"), [(3, 2.343), (5, 2.728), (10, 3.164)])
def test_the_critical_difference_is_that_of_the_published_table(methods: int, q: float) -> None:
    """Demšar (2006), table 5a."""
    result = over(np.random.default_rng(0).random((8, methods)))
    assert result is not None
    assert result.difference == pytest.approx(q * np.sqrt(methods * (methods + 1) / 48), rel=5e-4)


def test_friedman() -> None:
    # the first always wins; the other three take turns
    rest = [(3, 2, 1), (2, 1, 3), (1, 3, 2)] * 4
    accuracies = np.array([(10, *each) for each in rest], dtype=float)
    result = over(accuracies)
    assert result is not None
    assert result.average_ranks == [("m0", 1), ("m1", 3), ("m2", 3), ("m3", 3)]
    statistic = 12 * 12 / 20 * (1 + 27) - 3 * 12 * 5
    assert result.p == pytest.approx(stats.chi2.sf(statistic, 3))
    assert result.blocks == 12


def test_methods_that_are_all_alike() -> None:
    result = over(np.tile(np.arange(6.0)[:, None], (1, 4)))
    assert result is not None
    assert result.p == 1
    assert [rank for _, rank in result.average_ranks] == [2.5] * 4  # ties share their mean rank


def test_too_few_data_sets_or_methods_for_a_diagram() -> None:
    assert over(np.zeros((5, 5))) is None
    assert over(np.zeros((6, 2))) is None
