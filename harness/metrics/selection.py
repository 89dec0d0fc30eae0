"""Which epoch of a run is reported: a result without its selection rule has no meaning."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from harness.metrics.shots import shot_accuracy

Predictions = npt.NDArray[np.integer]


def _last(test: Predictions, test_targets: Predictions, val: Predictions, val_targets: Predictions) -> int | None:
    return len(test) - 1


def _best_val(test: Predictions, test_targets: Predictions, val: Predictions, val_targets: Predictions) -> int | None:
    return _best(val, val_targets) if len(val_targets) else None


def _best_test(test: Predictions, test_targets: Predictions, val: Predictions, val_targets: Predictions) -> int | None:
    return _best(test, test_targets)


def _best(predictions: Predictions, targets: Predictions) -> int:
    """Row with the highest class-mean accuracy, the earliest one on a tie."""
    counts = np.ones(int(targets.max()) + 1, dtype=np.int64)
    scores = [shot_accuracy(row, targets, counts)["macro"] for row in predictions]
    return int(np.argmax(np.array(scores, dtype=np.float64)))


SELECTION_RULES: dict[str, tuple[str, Callable[[Predictions, Predictions, Predictions, Predictions], int | None]]] = {
    "last": ("the last epoch: no choice is made", _last),
    "best_val": ("the epoch with the best class-mean accuracy on the validation part", _best_val),
    "best_test": ("the epoch that is best on the test set itself: an oracle, as many papers report it", _best_test),
}
"""Each rule gets predictions (evaluated epochs x images) and targets of test and validation part, and returns a row.

None means that the rule does not apply (no validation part)."""
