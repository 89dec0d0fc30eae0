"""Calibration error and F1 against hand counts and plain implementations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.engine.calibration import expected_calibration_error
from harness.metrics.shots import macro_f1


def plain_ece(confidence: list[float], correct: list[bool], bins: int) -> float:
    """Guo et al., eq. 3, bin by bin: (m-1)/M < confidence <= m/M."""
    total = 0.0
    for m in range(1, bins + 1):
        low, high = (m - 1) / bins, m / bins
        inside = [i for i, p in enumerate(confidence) if low < p <= high]
        if inside:
            accuracy = sum(correct[i] for i in inside) / len(inside)
            mean = sum(confidence[i] for i in inside) / len(inside)
            total += len(inside) / len(confidence) * abs(accuracy - mean)
    return total


def test_by_hand() -> None:
    # ten bins: (.8, .9] holds .85 right and .9 wrong, (.9, 1] holds .95 right, (.2, .3] holds .3 wrong
    confidence, correct = [0.85, 0.9, 0.95, 0.3], [True, False, True, False]
    expected = (2 * abs(0.5 - 0.875) + abs(1 - 0.95) + abs(0 - 0.3)) / 4
    assert expected_calibration_error(confidence, correct, bins=10) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("confidence", "correct", "error"), [(1.0, 1, 0.0), (1.0, 0, 1.0), (0.0, 0, 0.0), (0.7, 1, 0.3)]
)
def test_extremes(confidence: float, correct: int, error: float) -> None:
    assert expected_calibration_error([confidence] * 3, [correct] * 3) == pytest.approx(error)


@given(
    st.lists(st.tuples(st.integers(1, 10**6), st.booleans()), min_size=1, max_size=60),
    st.sampled_from([1, 2, 10, 15, 20]),
)
def test_equals_the_plain_one(pairs: list[tuple[int, bool]], bins: int) -> None:
    # bin borders fall between the possible confidences, where rounding cannot decide
    confidence = [(p - 0.5) / 10**6 for p, _ in pairs]
    correct = [hit for _, hit in pairs]
    found = expected_calibration_error(confidence, correct, bins)
    assert found == pytest.approx(plain_ece(confidence, correct, bins), abs=1e-9)
    assert 0 <= found <= 1


@given(st.integers(2, 20), st.integers(0, 19))
def test_borders_belong_to_the_lower_bin(bins: int, index: int) -> None:
    border = (index % (bins - 1) + 1) / bins
    above = math.nextafter(border, 1) + 1e-9
    # wrong on the border, right just above: in two bins the errors add up, in one they would cancel
    expected = (border + (1 - above)) / 2
    assert expected_calibration_error([border, above], [False, True], bins) == pytest.approx(expected, abs=1e-8)


def test_confidence_in_float32_gives_the_same() -> None:
    rng = np.random.default_rng(0)
    confidence, correct = rng.random(500), rng.random(500) < 0.5
    half = expected_calibration_error(confidence.astype(np.float32), correct)
    assert half == pytest.approx(expected_calibration_error(confidence, correct), abs=1e-6)


def test_no_images_is_refused() -> None:
    with pytest.raises(ValueError, match="no images"):
        expected_calibration_error([], [])


def plain_f1(predictions: list[int], targets: list[int]) -> float:
    scores = []
    for c in sorted(set(targets)):
        hits = sum(p == t == c for p, t in zip(predictions, targets, strict=True))
        precision = hits / predictions.count(c) if c in predictions else 0.0
        recall = hits / targets.count(c)
        scores.append(2 * precision * recall / (precision + recall) if hits else 0.0)
    return sum(scores) / len(scores)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=60))
def test_f1_equals_the_plain_one(pairs: list[tuple[int, int]]) -> None:
    predictions, targets = map(list, zip(*pairs, strict=True))
    assert macro_f1(predictions, targets, 6) == pytest.approx(plain_f1(predictions, targets))


def test_f1_of_small_unsigned_predictions_does_not_overflow() -> None:
    predictions, targets = np.full(1000, 1, np.uint8), np.ones(1000, np.int64)
    assert macro_f1(predictions, targets, 2) == 1.0
