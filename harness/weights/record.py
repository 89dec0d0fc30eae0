"""The record of published weights that were scored here, and its evidence. No torch here.

It is not the record of a run and has no split, because nobody knows which images the weights were trained on. Beside
`<name>.json` lies `<name>.npz` with

- `file_sha256`: of the weights, as in the record;
- `targets` (N,): class of each test image, by class, then by identity, as in splits;
- `predictions` (results, N): predicted classes of each result, in the record's order.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.base import config
from harness.base.errors import UserError
from harness.base.files import read_json, stamped, unstamped, write_json
from harness.records.arrays import Classes, are_classes, read_arrays, write_arrays
from harness.records.check import group_faults, score_faults
from harness.records.evidence import evidence_path
from harness.records.history import class_dtype
from harness.records.schema import Scores
from harness.weights.catalogue import Source, Weights

SCHEMA = 1
FOLDER = Path("results/weights")


@dataclass(frozen=True)
class Result:
    """The scores of the weights with one method: the one that trained them, or a post-hoc one on top."""

    method: str
    params: dict[str, Any]
    scores: Scores


@dataclass(frozen=True)
class WeightsRecord:
    """Everything that the scores of published weights rest on."""

    schema: int
    name: str
    weights: Weights
    source: Source
    file_sha256: str  # of the file that was scored
    head_bias: bool
    class_counts: list[int]  # of what it was trained on, as they follow from the imbalance factor
    test_images: int
    test_sha256: str  # over the test images' identities, as in splits
    mean: list[float]  # of each channel, as the pixels were normalised
    std: list[float]
    shot_policy: str
    groups: dict[str, int]  # number of classes in many, medium, few
    results: list[Result]  # the weights as published first; the one epoch there is, chosen by `weights.selection`

    def __post_init__(self) -> None:
        if self.schema != SCHEMA:
            raise ValueError(f"schema must be {SCHEMA}, found {self.schema}")
        if not self.results:
            raise ValueError("results must hold the scores of the weights as published")
        for result in self.results:
            if len(result.scores.per_class) != len(self.class_counts):
                found = len(result.scores.per_class)
                raise ValueError(f"{result.method}: {found} class accuracies for {len(self.class_counts)} classes")

    @property
    def grouped(self) -> bool:
        """Whether the classes fall into more than one of many, medium and few."""
        return sum(count > 0 for count in self.groups.values()) > 1

    def label(self, at: int) -> str:
        """A result in words: the method as published, or a post-hoc one on top with its params."""
        result = self.results[at]
        params = ", ".join(f"{key} {value}" for key, value in result.params.items())
        return f"+ {result.method}{f' ({params})' if params else ''}" if at else f"{result.method}, as published"


def write_weights_record(folder: Path, record: WeightsRecord, targets: Classes, predictions: Sequence[Classes]) -> Path:
    """Writes the record and, before it, its evidence; the same scores give the same bytes."""
    path = folder / f"{record.name}.json"
    path.unlink(missing_ok=True)  # it says that the evidence beside it is there
    dtype = class_dtype(len(record.class_counts))
    arrays = {
        "file_sha256": np.array(record.file_sha256),
        "targets": targets.astype(dtype),
        "predictions": np.stack(predictions).astype(dtype),
    }
    write_arrays(evidence_path(path), arrays)
    write_json(path, stamped(dataclasses.asdict(record)))
    return path


def read_weights_record(path: Path) -> WeightsRecord:
    """A record from its file, held against its evidence.

    Raises:
        UserError: damaged, of another schema, or scores or groups that do not follow from predictions and class counts.
    """
    content = unstamped(read_json(path, "record of published weights"), path)
    record = config.build(WeightsRecord, content, str(path))
    if record.name != path.stem:
        raise UserError(f"{path}: this is the record of {record.name!r}; it lies under another name")
    for fault in group_faults(record.groups, record.class_counts, record.shot_policy):
        raise UserError(f"{path}: {fault}")
    _check_evidence(evidence_path(path), record)
    return record


def _check_evidence(path: Path, record: WeightsRecord) -> None:
    with read_arrays(path, "evidence", "score the weights again") as arrays:
        found, targets, predictions = str(arrays["file_sha256"]), arrays["targets"], arrays["predictions"]
        if found != record.file_sha256:
            raise ValueError(f"of weights {found}")
        if targets.shape != (record.test_images,) or predictions.shape != (len(record.results), record.test_images):
            raise ValueError(f"predictions {predictions.shape} of {record.test_images} images")
        counts, policy = record.class_counts, record.shot_policy
        if not all(are_classes(values) and values.max(initial=0) < len(counts) for values in (targets, predictions)):
            raise ValueError(f"it holds other things than its {len(counts)} classes")
        for result, predicted in zip(record.results, predictions, strict=True):
            for fault in score_faults(result.method, result.scores, predicted, targets, counts, policy):
                raise ValueError(fault)
