"""Paired differences with intervals: what they are in simple cases, and how often they hold the truth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.reporting.html import _minus
from harness.reporting.significance import Effect, effect, interval, pair_effects
from harness.reporting.studies import number
from harness.reporting.tables import points

TARGETS = np.repeat(np.arange(4), 50)


def runs(generator: np.random.Generator, chance: float, seeds: int) -> dict[int, np.ndarray]:
    """Runs that are right with probability `chance` at each image."""
    return {seed: generator.random(len(TARGETS)) < chance for seed in range(seeds)}


def lucky_runs(
    generator: np.random.Generator, chance: float, seeds: int, luck: float, ease: np.ndarray
) -> dict[int, np.ndarray]:
    """The same, give or take a seed's own luck and what the images have in common to all seeds."""
    of_seed = np.clip(generator.normal(0, luck, seeds), -0.25, 0.25)
    return {seed: generator.random(len(ease)) < chance + of_seed[seed] + ease for seed in range(seeds)}


def test_difference_by_hand() -> None:
    """Class 0 is all wrong in one row, class 1 in one seed of the other."""
    everything = np.ones(len(TARGETS), bool)
    row = dict.fromkeys(range(5), TARGETS != 0)
    against = dict.fromkeys(range(8), everything) | {1: TARGETS != 1}
    over_all, few = effect(row, against, TARGETS), effect(row, against, TARGETS, [0, 1])
    assert over_all is not None
    assert few is not None
    assert (over_all.mean, over_all.n) == (pytest.approx(-0.2), 5)  # the others are in one row only
    assert few.mean == pytest.approx(-0.4)
    assert few.high - few.mean == pytest.approx(2.776445 * 0.1)  # images vary nowhere; t with four degrees, s / sqrt(5)
    two = effect({0: row[0], 1: row[1]}, against, TARGETS, [0, 1])
    assert two is not None
    assert (two.mean, two.low, two.high) == (pytest.approx(-0.25), -1, 1)  # 12.7 * 0.25 to either side is impossible


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 5))
def test_swapping_rows_turns_the_sign_and_equal_rows_give_zero(seed: int, seeds: int) -> None:
    generator = np.random.default_rng(seed)
    one, other = runs(generator, 0.6, seeds), runs(generator, 0.7, seeds)
    there, back, none = effect(one, other, TARGETS), effect(other, one, TARGETS), effect(one, one, TARGETS)
    assert there is not None
    assert back is not None
    assert none is not None
    assert (there.mean, there.low, there.high) == pytest.approx((-back.mean, -back.high, -back.low))
    assert (none.mean, none.low, none.high, none.verdict) == (0, 0, 0, "same")


@pytest.mark.parametrize("seeds", [2, 3])
@pytest.mark.parametrize("luck", [0.0, 0.03, 0.1])
@pytest.mark.parametrize("classes", [None, [1, 2]], ids=["all", "group"])
def test_interval_holds_the_true_difference_as_often_as_it_says(
    seeds: int, luck: float, classes: list[int] | None
) -> None:
    """Whether the seeds, the images or both decide; a new test set is drawn each time."""
    generator = np.random.default_rng(1)
    held, draws = 0, 1500
    for _ in range(draws):
        ease, other_ease = generator.uniform(-0.1, 0.1, (2, len(TARGETS)))
        one = lucky_runs(generator, 0.6, seeds, luck, ease)
        other = lucky_runs(generator, 0.5, seeds, luck, other_ease)
        found = effect(one, other, TARGETS, classes)
        assert found is not None
        held += found.low <= 0.1 <= found.high
    assert 0.94 <= held / draws <= 0.999  # rather too long than too short: without luck the images count twice


def test_a_lucky_spread_of_seeds_does_not_shorten_the_interval() -> None:
    """Images that vary add to what the seeds leave open."""
    everything, generator = np.ones(len(TARGETS), bool), np.random.default_rng(0)
    seeds = {seed: generator.random(len(TARGETS)) < chance for seed, chance in enumerate((0.70, 0.71, 0.75))}
    found = effect(seeds, dict.fromkeys(seeds, everything), TARGETS)
    assert found is not None
    by_seed = [bits.mean() for bits in seeds.values()]
    assert found.high - found.mean > 4.3026 * np.std(by_seed, ddof=1) / np.sqrt(3)


def test_what_cancels_over_seeds_is_not_the_same() -> None:
    everything = np.ones(len(TARGETS), bool)
    one = {0: TARGETS != 0, 1: everything}
    found = effect(one, {0: everything, 1: TARGETS != 0}, TARGETS)
    assert found is not None
    assert (found.mean, found.verdict) == (0, "not resolved")


def test_without_inference_the_range_over_seeds_is_given() -> None:
    everything = np.ones(len(TARGETS), bool)
    row = {0: everything, 1: TARGETS != 0, 2: everything}
    found = effect(dict.fromkeys(row, everything), row, TARGETS, infer=False)
    assert found is not None
    assert (found.mean, found.low, found.high) == (pytest.approx(0.25 / 3), 0, 0.25)
    assert found.verdict == "observed"
    none = effect(row, row, TARGETS, infer=False)
    assert none is not None
    assert none.verdict == "same"


def test_no_interval_without_two_common_seeds_or_classes() -> None:
    one = runs(np.random.default_rng(0), 0.5, 1)
    two = runs(np.random.default_rng(0), 0.5, 2)
    assert effect(one, one, TARGETS) is None
    assert effect(two, two, TARGETS, []) is None
    alone = np.append(TARGETS, 4)  # nobody knows how one image's luck spreads
    assert effect({0: alone < 9, 1: alone < 9}, {0: alone < 1, 1: alone < 1}, alone) is None


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([None, [0], [1, 3], []]))
def test_all_pairs_at_once_have_the_effect_of_each_pair(seed: int, classes: list[int] | None) -> None:
    """Rows of three seeds, one of two, one of one, one of none. What is printed is the same to the last digit."""
    generator = np.random.default_rng(seed)
    rows = [
        runs(generator, chance, seeds) for chance, seeds in ((0.5, 3), (0.7, 3), (0.9, 3), (0.6, 2), (0.6, 1), (0, 0))
    ]
    means, halves = pair_effects(rows, TARGETS, classes)
    np.testing.assert_array_equal(halves, halves.T)
    np.testing.assert_array_equal(means, -means.T)
    for i, one in enumerate(rows):
        for j, other in enumerate(rows):
            found = effect(one, other, TARGETS, classes) if one.keys() == other.keys() else None
            expected = (found.high - found.low) / 2 if found else np.nan
            np.testing.assert_allclose(halves[i, j], expected, rtol=1e-6, atol=1e-9)
            if found and found.differ:
                at_once = Effect(means[i, j], means[i, j] - halves[i, j], means[i, j] + halves[i, j], found.n)
                assert points(at_once) == points(found)


def test_no_pair_has_an_interval_where_a_class_has_one_image() -> None:
    alone = np.arange(10)
    assert np.isnan(pair_effects([{0: alone < 9, 1: alone < 5}, {0: alone < 1, 1: alone < 2}], alone)).all()


def test_a_tie_in_the_last_digit_does_not_depend_on_the_order_of_a_sum() -> None:
    """2.25 points, once as it is and once with what adding up leaves."""
    one, other = Effect(0.0225, 0.0125, 0.0325, 3), Effect(0.02250000000000001, 0.012499999999999999, 0.0325, 3)
    assert points(one) == points(other)


def test_the_interval_of_a_row_is_made_as_that_of_a_difference() -> None:
    hit, half = np.ones(len(TARGETS), bool), np.arange(len(TARGETS)) % 2 == 0
    assert interval(dict.fromkeys(range(3), hit), TARGETS) == (1.0, 1.0)
    assert interval({0: half}, TARGETS) is None  # how much seeds differ is not known
    alike, apart = interval(dict.fromkeys(range(3), half), TARGETS), interval({0: half, 1: hit, 2: half}, TARGETS)
    assert alike == pytest.approx((0.5 - 1.96 * 0.0357, 0.5 + 1.96 * 0.0357), abs=1e-3)
    assert alike is not None
    assert apart is not None
    assert apart[1] == 1.0  # an accuracy is at most that
    assert apart[0] < alike[0]


def test_the_interval_of_a_row_holds_its_accuracy_as_often_as_it_says() -> None:
    generator, held = np.random.default_rng(2), 0
    for _ in range(600):
        ease = generator.uniform(-0.1, 0.1, len(TARGETS))
        found = interval(lucky_runs(generator, 0.6, 3, 0.03, ease), TARGETS)
        assert found is not None
        held += found[0] <= 0.6 <= found[1]
    assert 0.94 <= held / 600 <= 0.999


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (-0.0111, -0.0004, "-0.5 (-1.1 to -0.04)"),
        (0.00003, 0.048, "-0.5 (+0.003 to +4.8)"),
        (-0.01, 0.0004, "-0.5 (-1.0 to 0.0)"),
    ],
)
def test_a_bound_of_a_clear_difference_never_reads_as_zero(low: float, high: float, text: str) -> None:
    assert number(Effect(-0.005, low, high, 3)) == text


def test_the_page_has_one_minus_sign() -> None:
    text = "It costs -4.4 (-5.6 to -3.2) on CIFAR-10, crt-9 and 10-20."
    minus = "\N{MINUS SIGN}"
    assert _minus(text) == f"It costs {minus}4.4 ({minus}5.6 to {minus}3.2) on CIFAR-10, crt-9 and 10-20."
