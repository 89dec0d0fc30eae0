"""Many-, medium- and few-shot classes: named policies, and accuracy by group. The F1 score."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from harness.base.errors import lookup

GROUPS = ("many", "medium", "few")
DEFAULT_POLICY = "strict_100_20"
Counts = npt.NDArray[np.int64]


def _strict(counts: Counts) -> npt.NDArray[np.int64]:
    return np.where(counts > 100, 0, np.where(counts >= 20, 1, 2))


def _inclusive(counts: Counts) -> npt.NDArray[np.int64]:
    return np.where(counts >= 100, 0, np.where(counts > 20, 1, 2))


def _thirds(counts: Counts) -> npt.NDArray[np.int64]:
    groups, by_count = np.empty(len(counts), dtype=np.int64), np.argsort(-counts, kind="stable")
    for group, classes in enumerate(np.split(by_count, [len(counts) // 3, 2 * len(counts) // 3])):
        groups[classes] = group
    return groups


POLICIES: dict[str, tuple[str, Callable[[Counts], npt.NDArray[np.int64]]]] = {
    "strict_100_20": ("many > 100, medium 20 to 100, few < 20 training images", _strict),
    "inclusive_100_20": ("many >= 100, medium 21 to 99, few <= 20 training images", _inclusive),
    "thirds": ("equal thirds of the classes by training images", _thirds),
}


def group_of_class(class_counts: Sequence[int] | npt.ArrayLike, policy: str = DEFAULT_POLICY) -> list[str]:
    """The group name of each class, in class order.

    Raises:
        UserError: no policy has that name.
    """
    _, groups_of = lookup("shot policy", policy, POLICIES)
    return [GROUPS[index] for index in groups_of(np.asarray(class_counts, dtype=np.int64))]


def group_sizes(class_counts: Sequence[int], policy: str = DEFAULT_POLICY) -> dict[str, int]:
    """Number of classes in each group."""
    groups = group_of_class(class_counts, policy)
    return {group: groups.count(group) for group in GROUPS}


def per_class_accuracy(predictions: npt.ArrayLike, targets: npt.ArrayLike, num_classes: int) -> list[float | None]:
    """Accuracy of each class as a fraction; None for a class without a test image."""
    predicted, target = np.asarray(predictions), np.asarray(targets)
    if target.size == 0:  # an empty list has no integer type of its own
        predicted, target = predicted.astype(np.int64), target.astype(np.int64)
    if predicted.shape != target.shape or target.ndim != 1:
        raise ValueError(f"predictions {predicted.shape} and targets {target.shape} must be two lists of one length")
    totals = np.bincount(target, minlength=num_classes)
    hits = np.bincount(target[predicted == target], minlength=num_classes)
    return [int(hit) / int(total) if total else None for hit, total in zip(hits, totals, strict=True)]


def _mean(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return float(np.mean(present)) if present else None


def shot_accuracy(
    predictions: npt.ArrayLike,
    targets: npt.ArrayLike,
    class_counts: Sequence[int] | npt.ArrayLike,
    policy: str = DEFAULT_POLICY,
) -> dict[str, float | None]:
    """Top-1 accuracy over all images and by group, as fractions.

    Args:
        predictions: predicted class of each test image, shape (N,).
        targets: true class of each test image, shape (N,).
        class_counts: **training** images of each class, shape (C,).
        policy: a name in `POLICIES`.

    Returns:
        `all` (micro: share of images), `macro` (mean over classes), `many`, `medium`, `few` (mean over the classes
        of the group). A group without a class is None, never 0.
    """
    counts = np.asarray(class_counts, dtype=np.int64)
    groups = group_of_class(counts, policy)
    accuracies = per_class_accuracy(predictions, targets, len(counts))
    predicted, target = np.asarray(predictions), np.asarray(targets)
    result: dict[str, float | None] = {
        "all": float(np.mean(predicted == target)) if len(target) else None,
        "macro": _mean(accuracies),
    }
    for group in GROUPS:
        result[group] = _mean([a for a, g in zip(accuracies, groups, strict=True) if g == group])
    return result


def macro_f1(predictions: npt.ArrayLike, targets: npt.ArrayLike, num_classes: int) -> float:
    """Mean over the classes that have a test image of 2 TP / (2 TP + FP + FN), as a fraction."""
    predicted, target = np.asarray(predictions), np.asarray(targets)
    hits = np.bincount(target[predicted == target], minlength=num_classes)
    chosen = np.bincount(predicted, minlength=num_classes)
    truth = np.bincount(target, minlength=num_classes)
    present = truth > 0
    return float(np.mean(2 * hits[present] / (chosen + truth)[present]))
