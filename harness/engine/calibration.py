"""Calibration of the probabilities that inference really uses. It is computed while a run has them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def expected_calibration_error(confidence: npt.ArrayLike, correct: npt.ArrayLike, bins: int = 15) -> float:
    """Expected calibration error with equal-width bins (Guo et al., ICML 2017), as a fraction.

    Args:
        confidence: largest softmax probability of each image, shape (N,).
        correct: whether the prediction was right, shape (N,).
    """
    confident, hit = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    if len(confident) == 0:
        raise ValueError("the calibration error of no images is not defined")
    index = np.clip(np.ceil(confident * bins).astype(np.int64) - 1, 0, bins - 1)
    weight = np.bincount(index, minlength=bins)
    gap = np.abs(np.bincount(index, confident, bins) - np.bincount(index, hit, bins))
    return float(gap[weight > 0].sum() / len(confident))
