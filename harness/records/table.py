"""All records as one tidy table: a row for each run and selection rule."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from harness.base.errors import UserError
from harness.base.files import write_text
from harness.metrics.selection import SELECTION_RULES
from harness.records.collect import ROOTS, Collected, collect
from harness.records.schema import Record, read_costs

COLUMNS = (
    "dataset", "split", "imbalance_factor", "track", "method", "variant", "backbone", "seed", "selection", "status",
    "epoch", "all", "macro", "many", "medium", "few", "macro_f1", "ece", "top5", "shot_policy", "profile",
    "subset_rule", "stages", "stage1_selection", "reason", "split_sha256", "recipe_sha256", "stage1_key", "run_key",
    "code_version", "notes", "record",
)  # fmt: skip

COSTS = (
    "wall_seconds", "train_seconds", "eval_seconds", "images_per_second", "peak_memory_mb", "trained_parameters",
    "runs_at_once", "device", "processor", "precision",
)  # fmt: skip
"""What `load_results` adds from the file beside a record, for both stages together."""
NUMBERS = ("all", "macro", "many", "medium", "few", "macro_f1", "ece", "top5", *COSTS[:7])


def rows(collected: Collected) -> list[dict[str, Any]]:
    """The tidy rows, in the order of the files and of the selection rules. A run without a result has one row."""
    table = []
    for path, record in collected.records:
        common = {column: getattr(record, column, None) for column in COLUMNS}
        common |= {"stages": "+".join(record.stages), "notes": "; ".join(record.notes), "record": path.as_posix()}
        common["reason"] = record.failure.reason if record.failure else None
        applicable = [(rule, scores) for rule in SELECTION_RULES if (scores := record.results.get(rule))]
        for rule, scores in applicable:
            own = {column: getattr(scores, column) for column in COLUMNS if hasattr(scores, column)}
            table.append(common | own | {"selection": rule})
        if not applicable:
            table.append(common)
    return table


def write_table(table: list[dict[str, Any]], path: Path) -> None:
    """Writes the table as CSV: empty cells for what does not apply, floats with six decimals."""
    frame = pd.DataFrame(table, columns=COLUMNS)
    write_text(path, frame.to_csv(index=False, lineterminator="\n", float_format=_short))


def load_results(path: Path | str | None = None) -> pd.DataFrame:
    """Every record that can be read and agrees with its evidence: a row for each run and selection rule, with costs.

    Scores are fractions, times seconds, `peak_memory_mb` is in 1e6 bytes; NaN is what does not exist: a group without a
    class, the scores of a run that failed (one row, with the `reason`), a cost that was not noted. A record that lies
    in two folders counts once. The columns are `COLUMNS`, those of results/table.csv, then `COSTS`.

    Args:
        path: folder with records; default those of this checkout, measured here and imported.

    Raises:
        UserError: no such folder.
    """
    roots = [Path(path)] if path is not None else [root for root in ROOTS if root.is_dir()]
    if not roots or not all(root.is_dir() for root in roots):
        raise UserError(f"{path or ROOTS[0]}: no such folder; call this in a checkout, or name a folder with records")
    collected = collect(*roots)
    once = dict[bytes, tuple[Path, Record]]()
    for file, record in collected.records:
        once.setdefault(file.read_bytes(), (file, record))  # equal records have equal bytes
    collected = replace(collected, records=list(once.values()))
    costs = {file.as_posix(): read_costs(file) for file, _ in collected.records}
    table = [row | {name: costs[row["record"]].get(name) for name in COSTS} for row in rows(collected)]
    frame = pd.DataFrame(table, columns=[*COLUMNS, *COSTS])
    return frame.assign(**{name: frame[name].map(_number).astype(float) for name in NUMBERS})


def _number(value: Any) -> float:
    """A cost as it was noted; NaN for what is no number: other versions and other people write those files."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _short(value: Any) -> str:
    return f"{value:.6f}".rstrip("0").rstrip(".")
