"""Which epoch is reported: best means class-mean accuracy, the earliest one on a tie."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.metrics.selection import SELECTION_RULES

NONE = np.empty((2, 0), np.uint8)
NO_TARGETS = np.empty(0, np.int64)


def choose(
    rule: str, test: npt.ArrayLike, targets: npt.ArrayLike, val: npt.ArrayLike, val_targets: npt.ArrayLike
) -> int | None:
    return SELECTION_RULES[rule][1](
        np.asarray(test), np.asarray(targets, np.int64), np.asarray(val), np.asarray(val_targets, np.int64)
    )


def test_three_rules_from_one_run() -> None:
    test = [[0, 0, 0], [0, 1, 1], [0, 1, 0]]
    val = [[0, 1], [0, 0], [1, 0]]
    chosen = {rule: choose(rule, test, [0, 1, 1], val, [0, 1]) for rule in SELECTION_RULES}
    assert chosen == {"last": 2, "best_val": 0, "best_test": 1}


def test_without_a_validation_part_best_val_does_not_apply() -> None:
    assert choose("best_val", [[0], [0]], [0], NONE, NO_TARGETS) is None
    assert choose("best_test", [[1], [0]], [0], NONE, NO_TARGETS) == 1


@pytest.mark.parametrize("rule", ["best_val", "best_test"])
def test_tie_goes_to_the_earliest(rule: str) -> None:
    rows = [[1, 1], [0, 1], [0, 1], [1, 1]]
    assert choose(rule, rows, [0, 1], rows, [0, 1]) == 1


def test_class_mean_counts_not_the_share_of_images() -> None:
    targets = [0, 0, 0, 1]
    right_on_many, right_on_few = [0, 0, 0, 0], [0, 0, 1, 1]  # micro .75 and .75; macro .5 and .83
    most_images = [0, 0, 0, 0]
    assert choose("best_test", [most_images, right_on_many, right_on_few], targets, NONE, NO_TARGETS) == 2


@given(st.lists(st.lists(st.integers(0, 2), min_size=6, max_size=6), min_size=1, max_size=8))
def test_best_is_the_first_maximum(rows: list[list[int]]) -> None:
    targets = [0, 0, 0, 1, 1, 2]

    def macro(row: list[int]) -> float:
        parts = [[p == t for p, t in zip(row, targets, strict=True) if t == c] for c in range(3)]
        return sum(sum(part) / len(part) for part in parts) / 3

    scores = [macro(row) for row in rows]
    best = next(i for i, score in enumerate(scores) if score >= max(scores) - 1e-12)
    assert choose("best_test", rows, targets, NONE, NO_TARGETS) == best
    assert choose("last", rows, targets, NONE, NO_TARGETS) == len(rows) - 1
