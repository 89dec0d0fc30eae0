"""Many, medium and few: the borders of each policy, and accuracies whose groups may be empty."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.base.errors import UserError
from harness.metrics.shots import group_of_class, group_sizes, per_class_accuracy, shot_accuracy
from harness.reading.profiles import exponential_class_counts


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("strict_100_20", ["many", "medium", "medium", "medium", "medium", "few"]),
        ("inclusive_100_20", ["many", "many", "medium", "medium", "few", "few"]),
    ],
)
def test_borders(policy: str, expected: list[str]) -> None:
    assert group_of_class([101, 100, 99, 21, 20, 19], policy) == expected


@pytest.mark.parametrize(
    ("classes", "factor", "policy", "sizes"),
    [
        (100, 100, "strict_100_20", (35, 35, 30)),
        (100, 100, "inclusive_100_20", (35, 34, 31)),
        (100, 50, "strict_100_20", (41, 41, 18)),
        (100, 200, "strict_100_20", (30, 31, 39)),
        (100, 10, "strict_100_20", (69, 31, 0)),
        (10, 100, "strict_100_20", (8, 2, 0)),
        (10, 200, "strict_100_20", (7, 3, 0)),
        (10, 10, "strict_100_20", (10, 0, 0)),
        (100, 100, "thirds", (33, 33, 34)),
    ],
)
def test_published_group_sizes(classes: int, factor: float, policy: str, sizes: tuple[int, int, int]) -> None:
    counts = exponential_class_counts(50000 // classes, classes, factor)
    assert tuple(group_sizes(counts, policy).values()) == sizes


def test_empty_group_is_none_never_zero() -> None:
    counts = exponential_class_counts(5000, 10, 10)
    targets = np.repeat(np.arange(10), 3)
    scores = shot_accuracy(np.zeros_like(targets), targets, counts)
    assert scores["few"] is None
    assert scores["medium"] is None
    assert scores["many"] == pytest.approx(0.1)


def test_thirds_go_by_count_not_by_class_index() -> None:
    assert group_of_class([3, 500, 40, 7, 90, 1], "thirds") == ["few", "many", "medium", "medium", "many", "few"]


@given(st.lists(st.integers(1, 1000), min_size=3, max_size=40))
def test_thirds_are_equal_and_ordered(counts: list[int]) -> None:
    groups = group_of_class(counts, "thirds")
    sizes = group_sizes(counts, "thirds")
    assert max(sizes.values()) - min(sizes.values()) <= 1
    members = {group: [n for n, g in zip(counts, groups, strict=True) if g == group] for group in sizes}
    assert min(members["many"]) >= max(members["medium"])
    assert min(members["medium"]) >= max(members["few"])


def test_classes_without_test_images_do_not_count() -> None:
    # class 1 (few) has no test image: it is None, and the mean of its group is over class 2 alone
    scores = shot_accuracy([0, 0, 2, 0], [0, 0, 2, 2], [500, 5, 4])
    assert per_class_accuracy([0, 0, 2, 0], [0, 0, 2, 2], 3) == [1.0, None, 0.5]
    assert scores == {"all": 0.75, "macro": 0.75, "many": 1.0, "medium": None, "few": 0.5}


def test_micro_and_macro_differ_on_an_unbalanced_test_set() -> None:
    scores = shot_accuracy([0, 0, 0, 0], [0, 0, 0, 1], [200, 200])
    assert scores["all"] == 0.75
    assert scores["macro"] == 0.5


def test_a_group_is_the_mean_over_its_classes_not_over_its_images() -> None:
    scores = shot_accuracy([0, 0, 0, 0, 1], [0, 0, 0, 1, 1], [200, 200, 3])
    assert scores["many"] == pytest.approx(0.75)  # class accuracies 1 and 1/2; over images it would be 4/5
    assert scores["few"] is None  # has a class, but no test image of it


@given(st.data())
def test_agrees_with_a_plain_count(data: st.DataObject) -> None:
    counts = data.draw(st.lists(st.integers(1, 200), min_size=1, max_size=8))
    pairs = data.draw(st.lists(st.tuples(*[st.integers(0, len(counts) - 1)] * 2), min_size=1, max_size=40))
    predictions, targets = map(list, zip(*pairs, strict=True))
    scores = shot_accuracy(predictions, targets, counts)
    assert scores["all"] == pytest.approx(sum(p == t for p, t in pairs) / len(pairs))
    groups: dict[str, list[float]] = {"many": [], "medium": [], "few": []}
    for c, count in enumerate(counts):
        mine = [p for p, t in pairs if t == c]
        if mine:
            group = "many" if count > 100 else "few" if count < 20 else "medium"
            groups[group].append(mine.count(c) / len(mine))
    for group, values in groups.items():
        assert scores[group] == (pytest.approx(sum(values) / len(values)) if values else None)
    every = [value for values in groups.values() for value in values]
    assert scores["macro"] == pytest.approx(sum(every) / len(every))


def test_lists_arrays_and_tensors_give_the_same() -> None:
    predictions, targets, counts = [0, 1, 1, 2], [0, 1, 2, 2], [120, 50, 3]
    expected = shot_accuracy(predictions, targets, counts)
    assert shot_accuracy(np.array(predictions), np.array(targets), np.array(counts)) == expected
    assert shot_accuracy(torch.tensor(predictions), torch.tensor(targets), torch.tensor(counts)) == expected
    assert shot_accuracy(np.array(predictions, np.uint8), targets, torch.tensor(counts)) == expected


def test_no_test_images_at_all() -> None:
    assert set(shot_accuracy([], [], [120, 50, 3]).values()) == {None}


def test_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="one length"):
        shot_accuracy([0], [0, 1], [1, 1])


def test_unknown_policy_names_the_near_ones() -> None:
    with pytest.raises(UserError, match="strict_100_20"):
        group_of_class([1], "strict_100_2")
