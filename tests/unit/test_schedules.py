"""Learning-rate schedules against the published formulas and hand-computed values."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.engine.schedules import SCHEDULES, learning_rate
from harness.errors import UserError


@pytest.mark.parametrize(
    ("schedule", "base", "epochs", "warmup", "e", "expected"),
    [
        *[("warm_cos", 0.1, 591, 37, e, lr) for e, lr in [
            (1, 0.05), (2, 0.0513889), (36, 0.0986111), (37, 0.1), (300, 0.0539654), (590, 8e-7), (591, 0),
        ]],
        *[("cos_start1", 0.01, 320, 0, e, lr) for e, lr in [(1, 0.00999976), (160, 0.005), (320, 0)]],
        *[("cos_start1", 0.01, 10, 0, e, lr) for e, lr in [(1, 0.0097553), (5, 0.005), (9, 0.00024472)]],
        *[("cos_start0", 0.2, 90, 0, e0 + 1, lr) for e0, lr in [(0, 0.2), (45, 0.1), (89, 6.0917e-5)]],
        *[("cos_gcl2", 0.1, 30, 0, e0 + 1, lr) for e0, lr in [(0, 0.002), (15, 0.001), (29, 5.478e-6)]],
    ],
)  # fmt: skip
def test_published_values(schedule: str, base: float, epochs: int, warmup: int, e: int, expected: float) -> None:
    """`e` counts from 1, as the papers do."""
    found = learning_rate(schedule, base, epoch=e - 1, epochs=epochs, warmup=warmup)
    assert found == pytest.approx(expected, rel=1e-4, abs=5e-8)


@pytest.mark.parametrize(("schedule", "factors"), [("step_gcl", (0.1, 0.01)), ("step_ldam", (0.01, 0.0001))])
def test_steps_at_200_epochs(schedule: str, factors: tuple[float, float]) -> None:
    expected = {1: 0.2, 4: 0.8, 5: 1, 6: 1, 160: 1, 161: factors[0], 180: factors[0], 181: factors[1], 200: factors[1]}
    found = {e: learning_rate(schedule, 1.0, epoch=e - 1, epochs=200) for e in expected}
    assert found == pytest.approx(expected)


def test_steps_scale_with_the_number_of_epochs() -> None:
    """All lengths up to 400, with exact marks: rounding must not move a decay by an epoch."""
    wrong = []
    for epochs in range(1, 401):
        unit = Fraction(epochs, 200)
        for e in range(1, epochs + 1):
            late = Fraction(1, 10) if e <= 180 * unit else Fraction(1, 100)
            expected = e / (5 * unit) if e <= 5 * unit else 1 if e <= 160 * unit else late
            found = learning_rate("step_gcl", 1.0, epoch=e - 1, epochs=epochs)
            if found != pytest.approx(float(expected)):
                wrong.append((epochs, e, found, float(expected)))
    assert not wrong


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


@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
@pytest.mark.parametrize("epochs", [1, 2, 7, 200])
@pytest.mark.parametrize("warmup", [0, 1, 5])
def test_every_schedule_stays_between_zero_and_the_base(schedule: str, epochs: int, warmup: int) -> None:
    for epoch in range(epochs):
        for step in range(3):
            rate = learning_rate(schedule, 0.1, epoch=epoch, epochs=epochs, step=step, steps=3, warmup=warmup)
            assert 0 <= rate <= 0.1 + 1e-12


@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
def test_proportional_to_the_base(schedule: str) -> None:
    where = {"epoch": 3, "epochs": 10, "step": 1, "steps": 4, "warmup": 2}
    assert learning_rate(schedule, 0.4, **where) == pytest.approx(4 * learning_rate(schedule, 0.1, **where))


def test_unknown_schedule_names_the_near_ones() -> None:
    with pytest.raises(UserError, match="cosine"):
        learning_rate("cosin", 0.1, epoch=0, epochs=1)
