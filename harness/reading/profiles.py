"""Long-tail profiles: how many training images each class keeps. Numbers are rounded toward zero, and at least 1."""

from __future__ import annotations

import math
from collections.abc import Callable


def exponential_class_counts(max_count: int, num_classes: int, imbalance_factor: float) -> list[int]:
    """Training images of each class, n_c = trunc(max_count * IF^(-c/(C-1))), at least 1, class 0 the largest.

    Args:
        max_count: images of the largest class.
        num_classes: C.
        imbalance_factor: IF = n_max / n_min, at least 1.

    Raises:
        ValueError: an argument is out of its domain.
    """
    _check(max_count, num_classes, imbalance_factor)
    ratio = 1.0 / imbalance_factor
    last = max(num_classes - 1, 1)
    return [max(1, int(max_count * ratio ** (c / last))) for c in range(num_classes)]


def step_class_counts(max_count: int, num_classes: int, imbalance_factor: float) -> list[int]:
    """The first half of the classes (rounded up) keeps max_count, the rest trunc(max_count / IF).

    Arguments and errors as `exponential_class_counts`.
    """
    _check(max_count, num_classes, imbalance_factor)
    many = (num_classes + 1) // 2
    return [max_count] * many + [max(1, int(max_count / imbalance_factor))] * (num_classes - many)


def zipf_class_counts(max_count: int, num_classes: int, imbalance_factor: float) -> list[int]:
    """n_c = trunc(max_count * (c+1)^(-a)) with a = log(IF) / log(C).

    Arguments and errors as `exponential_class_counts`.
    """
    _check(max_count, num_classes, imbalance_factor)
    exponent = math.log(imbalance_factor) / math.log(num_classes) if num_classes > 1 else 0.0
    return [max(1, int(max_count * (c + 1) ** -exponent)) for c in range(num_classes)]


PROFILES: dict[str, Callable[[int, int, float], list[int]]] = {
    "exponential": exponential_class_counts,
    "step": step_class_counts,
    "zipf": zipf_class_counts,
}


def _check(max_count: int, num_classes: int, imbalance_factor: float) -> None:
    if max_count < 1 or num_classes < 1:
        raise ValueError(f"max_count {max_count} and num_classes {num_classes} must be at least 1")
    if not imbalance_factor >= 1 or imbalance_factor == float("inf"):
        raise ValueError(f"imbalance_factor must be a number of at least 1, found {imbalance_factor}")
