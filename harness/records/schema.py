"""The record of a run: one typed, versioned JSON file, the same bytes for the same run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.base import config
from harness.base.errors import UserError
from harness.base.files import read_json, stamped, unstamped, write_json
from harness.metrics.selection import SELECTION_RULES
from harness.records.runs import RunInfo

SCHEMA = 1
HEADLINE = "last"  # the selection rule that every finished run has, and that tables lead with
COSTS_SUFFIX = ".run.json"
OTHER_FOLDERS = {"splits", "work"}  # that `ltbench run` and `campaign` leave beside `records`


@dataclass(frozen=True)
class Scores:
    """One selected epoch, scored on the whole test part. All but `epoch` are fractions; None means "no such class"."""

    epoch: int
    all: float
    macro: float
    many: float | None
    medium: float | None
    few: float | None
    macro_f1: float
    ece: float
    per_class: list[float | None]
    top5: float | None = config.later(None)  # the class is among the five likeliest; measured from 100 classes on

    def __post_init__(self) -> None:
        plain = (self.all, self.macro, self.many, self.medium, self.few, self.macro_f1, self.ece)
        for value in (*plain, *self.per_class, self.top5):
            if value is not None and not 0 <= value <= 1 + 1e-9:
                raise ValueError(f"a score must be a fraction from 0 to 1, found {value}")


@dataclass(frozen=True, kw_only=True)
class Record(RunInfo):
    """Everything that a number in a table rests on."""

    schema: int
    dataset: str
    profile: str
    imbalance_factor: float
    subset_rule: str
    class_counts: list[int]  # training images of each class
    test_images: int
    val_images: int
    backbone: str
    stage1_selection: str | None  # which epoch of stage 1 the second stage started from; None with one stage
    shot_policy: str
    groups: dict[str, int]  # number of classes in many, medium, few
    results: dict[str, Scores | None] = field(default_factory=dict)  # selection rule -> scores; None: not applicable
    evaluated_epochs: str = ""  # those that best_val and best_test chose among, e.g. "10-160 by 10, 161-200"

    def __post_init__(self) -> None:
        if not 1 <= self.imbalance_factor < float("inf"):
            raise ValueError(f"imbalance_factor must be a number of at least 1, found {self.imbalance_factor}")
        if min(self.class_counts, default=-1) < 0 or not any(self.class_counts):
            raise ValueError(f"class_counts must be numbers of images, found {self.class_counts[:5]}")
        if self.status == "ok" and self.results.get(HEADLINE) is None:
            raise ValueError(f"status is ok, but there are no scores for '{HEADLINE}'")
        for rule, scores in self.results.items():
            if rule not in SELECTION_RULES:
                raise ValueError(f"results has an unknown selection rule '{rule}'")
            if scores is not None and len(scores.per_class) != len(self.class_counts):
                found = len(scores.per_class)
                raise ValueError(f"{rule} has {found} class accuracies for {len(self.class_counts)} classes")


def read_record(path: Path) -> Record:
    """A record from its file.

    Raises:
        UserError: damaged, of a later schema than this version knows, or not of the schema.
    """
    stored = read_json(path, "record")
    if not isinstance(stored, dict) or not isinstance(stored.get("schema"), int):
        raise UserError(f"{path}: not a record (no schema number)")
    value = {key: item for key, item in stored.items() if key != "sha256"}
    if value["schema"] != SCHEMA:
        raise UserError(f"{path}: written by another version (schema {value['schema']}, this one knows {SCHEMA})")
    record = config.build(Record, value, str(path))
    if "sha256" not in stored:
        raise UserError(f"{path}: has no sha256 over its content, so nobody can tell whether it was edited")
    unstamped(stored, path)  # last: what is wrong with a value says more than that something is
    return record


def write_record(path: Path, record: Record) -> None:
    """Writes the record atomically, with a hash over its content; equal records give equal bytes."""
    write_json(path, stamped(config.as_dict(record)))


def record_paths(*roots: Path) -> Iterator[Path]:
    """Every record file under the roots, once and sorted; cost files beside them are passed over."""
    seen = set[Path]()  # roots may lie in each other
    for root in roots:
        for path in sorted(root.rglob("*.json")):
            others = OTHER_FOLDERS.intersection(path.relative_to(root).parts)
            of_a_run = not others and not path.name.endswith(COSTS_SUFFIX) and path.name != "validation.json"
            if of_a_run and (real := path.resolve()) not in seen:
                seen.add(real)
                yield path


def costs_path(record: Path) -> Path:
    """The file beside a record that holds what varies between runs of the same thing: time, memory, machine."""
    return record.with_name(record.name.removesuffix(".json") + COSTS_SUFFIX)


def read_costs(record: Path) -> dict[str, Any]:
    """What a run cost, from the file beside its record; empty when there is none or it is damaged."""
    path = costs_path(record)
    try:
        return unstamped(read_json(path, "cost file"), path)
    except UserError:
        return {}
