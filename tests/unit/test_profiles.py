"""Long-tail profiles: how many images each class keeps."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.reading.profiles import PROFILES, exponential_class_counts, step_class_counts, zipf_class_counts

TABLE = json.loads((Path(__file__).parents[1] / "golden" / "exponential_class_counts.json").read_text())
Profile = Callable[[int, int, float], list[int]]


@pytest.mark.parametrize("name", sorted(TABLE))
def test_golden_class_counts(name: str) -> None:
    match = re.fullmatch(r"n(\d+)_total(\d+)_if(\d+)", name)
    assert match
    classes, total, factor = map(int, match.groups())
    assert exponential_class_counts(total // classes, classes, factor) == TABLE[name]


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
@given(max_count=st.integers(1, 10_000), classes=st.integers(1, 300), factor=st.floats(1, 1e6))
def test_profile_falls_from_max_to_max_over_factor(
    profile: Profile, max_count: int, classes: int, factor: float
) -> None:
    counts = profile(max_count, classes, factor)
    assert len(counts) == classes
    assert counts[0] == max_count
    assert all(a >= b for a, b in pairwise(counts))
    assert counts[-1] >= 1
    if classes > 1:
        assert counts[-1] == pytest.approx(max(1, max_count / factor), abs=1 + 1e-6)


def test_factor_one_is_balanced() -> None:
    assert exponential_class_counts(7, 4, 1) == [7, 7, 7, 7]


@pytest.mark.parametrize("factor", [0.99, 0, -3, float("nan"), float("inf")])
def test_impossible_factor(factor: float) -> None:
    with pytest.raises(ValueError, match="imbalance_factor"):
        exponential_class_counts(100, 10, factor)


@pytest.mark.parametrize(("max_count", "classes"), [(0, 10), (-1, 10), (10, 0)])
def test_impossible_sizes(max_count: int, classes: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        exponential_class_counts(max_count, classes, 10)


def test_step() -> None:
    assert step_class_counts(100, 4, 8) == [100, 100, 12, 12]
    assert step_class_counts(100, 5, 8) == [100, 100, 100, 12, 12]  # the first half, rounded up
    assert step_class_counts(3, 2, 100) == [3, 1]


def test_zipf() -> None:
    assert zipf_class_counts(1000, 4, 4) == [1000, 500, 333, 250]  # exponent 1
    assert zipf_class_counts(1000, 1, 4) == [1000]


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_impossible_arguments(profile: Profile) -> None:
    for arguments in ((0, 10, 10), (10, 0, 10), (10, 10, 0.5)):
        with pytest.raises(ValueError, match="at least 1"):
            profile(*arguments)
