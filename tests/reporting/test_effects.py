"""Paired differences with intervals: what they are in simple cases, and how often they hold the truth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.reporting.effects import effect

TARGETS = np.repeat(np.arange(4), 50)


def runs(generator: np.random.Generator, chance: float, seeds: int, spread: float = 0.0) -> dict[int, np.ndarray]:
    """Runs whose true accuracy is `chance`, give or take a seed's own luck."""
    luck = generator.normal(0, spread, seeds)
    return {seed: generator.random(len(TARGETS)) < chance + luck[seed] for seed in range(seeds)}


def test_difference_by_hand() -> None:
    """Class 0 is all wrong in one row, class 1 in one seed of the other."""
    everything = np.ones(len(TARGETS), bool)
    row = dict.fromkeys((0, 1), TARGETS != 0)
    against = {0: everything, 1: TARGETS != 1, 7: everything}
    over_all, few = effect(row, against, TARGETS), effect(row, against, TARGETS, [0, 1])
    assert over_all is not None
    assert few is not None
    assert (over_all.mean, over_all.n) == (pytest.approx(-0.125), 2)  # seed 7 is in one row only
    assert few.mean == pytest.approx(-0.25)
    assert few.high - few.mean == pytest.approx(12.7062 * 0.25)  # images vary nowhere; t with one degree, s / sqrt(2)


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


@pytest.mark.parametrize("spread", [0.0, 0.05])
def test_interval_holds_the_true_difference_as_often_as_it_says(spread: float) -> None:
    generator = np.random.default_rng(1)
    held = 0
    for _ in range(400):
        found = effect(runs(generator, 0.7, 3, spread), runs(generator, 0.6, 3, spread), TARGETS)
        assert found is not None
        held += found.low <= 0.1 <= found.high
    assert 0.93 <= held / 400 <= 1  # too long rather than too short


def test_no_interval_without_two_common_seeds_or_classes() -> None:
    one = runs(np.random.default_rng(0), 0.5, 1)
    two = runs(np.random.default_rng(0), 0.5, 2)
    assert effect(one, one, TARGETS) is None
    assert effect(two, two, TARGETS, []) is None
