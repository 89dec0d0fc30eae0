"""Learning-rate schedules against the published formulas and hand-computed values."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.base.errors import UserError
from harness.toolbox.schedules import SCHEDULES, Steps, learning_rate, share


@pytest.mark.parametrize(
    ("schedule", "base", "epochs", "warmup", "e", "expected"),
    [
        *[("cosine_epoch_to_0", 0.1, 591, 37, e, lr) for e, lr in [
            (1, 0.05), (2, 0.0513889), (36, 0.0986111), (37, 0.1), (300, 0.0539654), (590, 8e-7), (591, 0),
        ]],
        *[("cosine_epoch_to_0", 0.01, 320, 0, e, lr) for e, lr in [(1, 0.00999976), (160, 0.005), (320, 0)]],
        *[("cosine_epoch_to_0", 0.01, 10, 0, e, lr) for e, lr in [(1, 0.0097553), (5, 0.005), (9, 0.00024472)]],
        *[("cosine_epoch", 0.2, 90, 0, e0 + 1, lr) for e0, lr in [(0, 0.2), (45, 0.1), (89, 6.0917e-5)]],
        *[("cosine_epoch", 0.002, 30, 0, e0 + 1, lr) for e0, lr in [(0, 0.002), (15, 0.001), (29, 5.478e-6)]],
    ],
)  # fmt: skip
def test_published_values(schedule: str, base: float, epochs: int, warmup: int, e: int, expected: float) -> None:
    """`e` counts from 1, as the papers do."""
    found = learning_rate(schedule, base, epoch=e - 1, epochs=epochs, warmup=warmup)
    assert found == pytest.approx(expected, rel=1e-4, abs=5e-8)


GCL = Steps((0.8, 0.9), (0.1, 0.01))


@pytest.mark.parametrize("factors", [(0.1, 0.01), (0.01, 0.0001)])
def test_steps_at_200_epochs(factors: tuple[float, float]) -> None:
    """GCL's and LDAM-DRW's."""
    expected = {1: 0.2, 4: 0.8, 5: 1, 6: 1, 160: 1, 161: factors[0], 180: factors[0], 181: factors[1], 200: factors[1]}
    steps = Steps((0.8, 0.9), factors)
    found = {e: learning_rate(steps, 1.0, epoch=e - 1, epochs=200, warmup=5) for e in expected}
    assert found == pytest.approx(expected)


def test_steps_whose_warm_up_starts_at_a_third() -> None:
    """BBN's, at 200 epochs and rate 0.2, as De-confound-TDE runs it."""
    steps = Steps((0.595, 0.795), (0.01, 0.0001), warmup_from=1 / 3)
    expected = {1: 0.2 * 7 / 15, 4: 0.2 * 13 / 15, 5: 0.2, 119: 0.2, 120: 2e-3, 159: 2e-3, 160: 2e-5, 200: 2e-5}
    found = {e: learning_rate(steps, 0.2, epoch=e - 1, epochs=200, warmup=5) for e in expected}
    assert found == pytest.approx(expected)
    with pytest.raises(ValueError, match="warmup_from must lie between 0 and 1, found 2"):
        Steps((0.5,), (0.1,), warmup_from=2)


@given(st.integers(1, 400), st.integers(0, 9))
def test_steps_scale_with_the_number_of_epochs(epochs: int, warmup: int) -> None:
    rates = [learning_rate(GCL, 1.0, epoch=epoch, epochs=epochs, warmup=warmup) for epoch in range(epochs)]
    full = range(warmup, share(0.8, epochs))
    assert all(rates[epoch] == 1.0 for epoch in full)
    assert all(rates[epoch] == 0.1 for epoch in range(max(warmup, share(0.8, epochs)), share(0.9, epochs)))
    assert all(rates[epoch] == 0.01 for epoch in range(max(warmup, share(0.9, epochs)), epochs))
    assert abs(share(0.8, epochs) - 0.8 * epochs) <= 0.5


@pytest.mark.parametrize(
    ("milestones", "factors", "reason"),
    [
        ((), (), "0 milestones"),
        ((0.5,), (0.1, 0.2), "1 milestones must have as many factors, found 2"),
        ((0.9, 0.8), (0.1, 0.01), "rising"),
        ((0.5, 1.0), (0.1, 0.01), "between 0 and 1"),
        ((float("nan"),), (0.1,), "between 0 and 1"),
        ((0.5,), (2.0,), "factors must lie"),
        ((0.5,), (float("nan"),), "factors must lie"),
    ],
)
def test_steps_that_make_no_sense(milestones: tuple[float, ...], factors: tuple[float, ...], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Steps(milestones, factors)


def cosine(epochs: int, steps: int, warmup: int) -> list[float]:
    return [
        learning_rate("cosine", 1.0, epoch=epoch, epochs=epochs, step=step, steps=steps, warmup=warmup)
        for epoch in range(epochs)
        for step in range(steps)
    ]


@given(st.integers(2, 40), st.integers(1, 30), st.data())
def test_cosine_is_continuous_starts_above_zero_and_ends_near_it(epochs: int, steps: int, data: st.DataObject) -> None:
    warmup = data.draw(st.integers(0, epochs - 1))
    rates = cosine(epochs, steps, warmup)
    rise = 1 / (warmup * steps) if warmup else 0
    fall = 3.2 / 2 / ((epochs - warmup) * steps)
    assert all(abs(a - b) <= max(rise, fall) + 1e-12 for a, b in pairwise(rates))
    assert rates[0] == pytest.approx(1 / (warmup * steps) if warmup else 1)
    assert 0 < rates[-1] <= (3.2 / 2 / ((epochs - warmup) * steps)) ** 2 + 1e-12 or (epochs - warmup) * steps == 1
    top = warmup * steps
    assert all(a <= b + 1e-12 for a, b in pairwise(rates[:top]))
    assert all(a >= b - 1e-12 for a, b in pairwise(rates[top:]))
    assert max(rates) == pytest.approx(1)


def test_warm_up_ends_at_the_full_rate() -> None:
    rates = cosine(epochs=10, steps=4, warmup=2)
    assert rates[:8] == pytest.approx([i / 8 for i in range(1, 9)])


@pytest.mark.parametrize("schedule", [*sorted(SCHEDULES), GCL])
@pytest.mark.parametrize("epochs", [1, 2, 7, 200])
@pytest.mark.parametrize("warmup", [0, 1, 5])
def test_every_schedule_stays_between_zero_and_the_base(schedule: str | Steps, epochs: int, warmup: int) -> None:
    for epoch in range(epochs):
        for step in range(3):
            rate = learning_rate(schedule, 0.1, epoch=epoch, epochs=epochs, step=step, steps=3, warmup=warmup)
            assert 0 <= rate <= 0.1 + 1e-12


@pytest.mark.parametrize("schedule", [*sorted(SCHEDULES), GCL])
def test_proportional_to_the_base(schedule: str | Steps) -> None:
    where = {"epoch": 3, "epochs": 10, "step": 1, "steps": 4, "warmup": 2}
    assert learning_rate(schedule, 0.4, **where) == pytest.approx(4 * learning_rate(schedule, 0.1, **where))


def test_unknown_schedule_names_the_near_ones() -> None:
    with pytest.raises(UserError, match="cosine"):
        learning_rate("cosin", 0.1, epoch=0, epochs=1)
