"""The evidence beside a record: the predictions that its numbers rest on, the curves of its run, and class quantities.

`seed<n>.npz` holds, as small arrays,

- `run_key`: of the run, as in the record;
- `targets` (N,): class of each test image, in the order of the split (by class, then by identity);
- `rules` (R,) and `row` (R,): each selection rule that applies, and its row in `predictions`;
- `predictions` (rows, N): predicted classes of the epochs that the rules select, each epoch once;
- `loss`, `learning_rate` (epochs,); `epochs`, `test`, `val` (evaluated epochs,): accuracy over all images of the part;
- `first/loss`, `first/epochs`, `first/test`, `first/val`: the same of stage 1, in a run of two (not in earlier files);
- `class/<name>` (C,): what the method says of each class (`Method.class_quantities`).

With it paired tests, confusions and any other score can be computed again wherever the record goes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from harness.base.errors import UserError
from harness.records.arrays import Arrays, Classes, are_classes, read_arrays
from harness.records.history import CLASS
from harness.records.schema import Record

CURVES = ("loss", "learning_rate", "epochs", "test", "val")
FIRST = "first/"  # before the name of a curve of stage 1


@dataclass(frozen=True)
class Evidence:
    """What is known of a run beyond its record."""

    targets: Classes
    predictions: dict[str, Classes]  # by selection rule, (N,)
    curves: dict[str, npt.NDArray[np.floating]]  # loss, learning_rate, epochs, test, val
    quantities: dict[str, npt.NDArray[np.floating]]  # (C,) each
    first: dict[str, npt.NDArray[np.floating]] = field(default_factory=dict)  # loss, epochs, test, val of stage 1

    def correct(self, rule: str) -> npt.NDArray[np.bool_] | None:
        """Which test images are predicted right at a rule, (N,); None where the rule does not apply."""
        predicted = self.predictions.get(rule)
        return None if predicted is None else predicted == self.targets


def evidence_path(record: Path) -> Path:
    """The file beside a record."""
    return record.with_suffix(".npz")


def gather(history: Arrays, rows: Mapping[str, int], test_targets: Classes, val_targets: Classes) -> Arrays:
    """The arrays of the file.

    Args:
        history: as `harness.records.history.read_history` gives it.
        rows: the evaluated epoch, as a row of the history, of each selection rule that applies.
    """
    chosen = sorted(set(rows.values()))
    dtype = history["test"].dtype
    return {
        "run_key": history["run_key"],
        "targets": test_targets.astype(dtype),
        "rules": np.array(list(rows)),
        "row": np.array([chosen.index(row) for row in rows.values()], np.int64),
        "predictions": history["test"][chosen],
        **_curves(history, test_targets, val_targets),
        **{name: values for name, values in history.items() if name.startswith(CLASS)},
    }


def gather_first(history: Arrays, test_targets: Classes, val_targets: Classes) -> Arrays:
    """The arrays of stage 1, from its history."""
    curves = _curves(history, test_targets, val_targets)
    return {FIRST + name: values for name, values in curves.items() if name != "learning_rate"}


def _curves(history: Arrays, test: Classes, val: Classes) -> Arrays:
    return {
        "loss": history["loss"].astype(np.float32),
        "learning_rate": history["learning_rate"].astype(np.float32),
        "epochs": history["epochs"],
        "test": _accuracies(history["test"], test),
        "val": _accuracies(history["val"], val),
    }


def _accuracies(predictions: Classes, targets: Classes) -> npt.NDArray[np.float32]:
    if not len(targets):
        return np.empty(0, np.float32)
    shares: npt.NDArray[np.float32] = (predictions == targets).mean(1).astype(np.float32)
    return shares


def read_evidence(path: Path, record: Record) -> Evidence | None:
    """The evidence of a record; None where there is none.

    Raises:
        UserError: damaged, of another run, or its predictions are not what the record's numbers were counted from.
    """
    if not path.is_file():
        return None
    with read_arrays(path, "evidence", "run `ltbench evaluate` of its cell again") as arrays:
        found = str(arrays["run_key"])
        rows = dict(zip(arrays["rules"].tolist(), arrays["row"].tolist(), strict=True))
        predictions = {rule: arrays["predictions"][row] for rule, row in rows.items()}
        curves = {name: arrays[name] for name in CURVES}
        quantities = {name.removeprefix(CLASS): of for name, of in arrays.items() if name.startswith(CLASS)}
        first = {name.removeprefix(FIRST): of for name, of in arrays.items() if name.startswith(FIRST)}
        evidence = Evidence(arrays["targets"], predictions, curves, quantities, first)
        _check(evidence)
    if found != record.run_key:
        raise UserError(f"{path}: evidence of run {found}, its record is of run {record.run_key}")
    for rule, scores in record.results.items():
        correct = evidence.correct(rule)
        if scores and (
            correct is None or len(correct) != record.test_images or abs(correct.mean() - scores.all) > 1e-6
        ):
            raise UserError(f"{path}: its predictions do not give the accuracy at {rule} that its record states")
    return evidence


def _check(evidence: Evidence) -> None:
    for name, classes in [("targets", evidence.targets), *evidence.predictions.items()]:
        if classes.shape != evidence.targets.shape:
            raise ValueError("predictions and targets differ in shape")
        if classes.ndim != 1 or not are_classes(classes):
            raise ValueError(f"{name}: not a list of classes")
    for name, values in [*evidence.curves.items(), *evidence.first.items(), *evidence.quantities.items()]:
        real = np.issubdtype(values.dtype, np.number) and np.isrealobj(values)
        if values.ndim != 1 or not real or not np.isfinite(values).all():
            raise ValueError(f"{name} is not a list of numbers")
