"""All records as one tidy table: a row for each run and selection rule."""

from __future__ import annotations

import csv
import io
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.files import read_json, unstamped, write_text
from harness.metrics.selection import SELECTION_RULES
from harness.records.schema import Record, costs_path, read_record, record_paths

COLUMNS = (
    "dataset", "split", "imbalance_factor", "track", "method", "variant", "backbone", "seed", "selection", "status",
    "epoch", "all", "macro", "many", "medium", "few", "macro_f1", "ece", "shot_policy", "profile", "subset_rule",
    "stages", "stage1_selection", "reason", "split_sha256", "recipe_sha256", "stage1_key", "run_key", "code_version",
    "record",
)  # fmt: skip


@dataclass(frozen=True)
class Collected:
    """Records that could be read, and the files that could not, each with its reason."""

    records: list[tuple[Path, Record]]
    left_out: list[tuple[Path, str]]

    def costs(self, path: Path) -> dict[str, Any]:
        """What the run cost, from the file beside its record; empty when there is none or it is damaged."""
        try:
            value = read_json(costs_path(path), "cost file")
            return unstamped(value, costs_path(path)) if isinstance(value, dict) else {}
        except UserError:
            return {}


def collect(*roots: Path) -> Collected:
    """Reads every record under the roots. A damaged file is reported and left out; it stops nothing."""
    collected = Collected([], [])
    for path in record_paths(*roots):
        try:
            record = read_record(path)
            _check_name(path, record)
            collected.records.append((path, record))
        except UserError as error:
            collected.left_out.append((path, str(error)))
            print(f"left out: {error}", file=sys.stderr)
    return collected


def _check_name(path: Path, record: Record) -> None:
    named = re.fullmatch(r"seed(\d+)", path.stem)
    if named and int(named[1]) != record.seed:
        raise UserError(f"{path}: the record of seed {record.seed} lies under the name of another")


def rows(collected: Collected) -> list[dict[str, Any]]:
    """The tidy rows, in the order of the files and of the selection rules. A run without a result has one row."""
    table = []
    for path, record in collected.records:
        common = {column: getattr(record, column, None) for column in COLUMNS}
        common |= {"stages": "+".join(record.stages), "record": path.as_posix()}
        common["reason"] = record.failure.reason if record.failure else None
        applicable = {rule: scores for rule, scores in record.results.items() if scores is not None}
        for rule in SELECTION_RULES if applicable else ():
            if rule in applicable:
                scores = applicable[rule]
                table.append(
                    common
                    | {column: getattr(scores, column) for column in COLUMNS if hasattr(scores, column)}
                    | {"selection": rule}
                )
        if not applicable:
            table.append(common)
    return table


def write_table(table: list[dict[str, Any]], path: Path) -> None:
    """Writes the table as CSV: empty cells for what does not apply, floats with six decimals."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in table:
        writer.writerow({column: _cell(row[column]) for column in COLUMNS})
    write_text(path, text.getvalue())


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
