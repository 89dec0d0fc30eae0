"""The F1 score."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def macro_f1(predictions: npt.ArrayLike, targets: npt.ArrayLike, num_classes: int) -> float:
    """Mean over the classes that have a test image of 2 TP / (2 TP + FP + FN), as a fraction."""
    predicted, target = np.asarray(predictions), np.asarray(targets)
    hits = np.bincount(target[predicted == target], minlength=num_classes)
    chosen = np.bincount(predicted, minlength=num_classes)
    truth = np.bincount(target, minlength=num_classes)
    present = truth > 0
    return float(np.mean(2 * hits[present] / (chosen + truth)[present]))
