"""All records as one tidy table: a row for each run and selection rule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from harness.base.errors import UserError
from harness.base.files import write_text
from harness.metrics.selection import SELECTION_RULES
from harness.records.collect import ROOTS, Collected, collect

COLUMNS = (
    "dataset", "split", "imbalance_factor", "track", "method", "variant", "backbone", "seed", "selection", "status",
    "epoch", "all", "macro", "many", "medium", "few", "macro_f1", "ece", "top5", "shot_policy", "profile",
    "subset_rule", "stages", "stage1_selection", "reason", "split_sha256", "recipe_sha256", "stage1_key", "run_key",
    "code_version", "notes", "record",
)  # fmt: skip


COSTS = ("wall_seconds", "train_seconds", "images_per_second", "peak_memory_mb", "device", "processor")


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
    cells = [[_cell(row[column]) for column in COLUMNS] for row in table]
    write_text(path, pd.DataFrame(cells, columns=COLUMNS).to_csv(index=False, lineterminator="\n"))


def load_results(path: Path | str | None = None) -> pd.DataFrame:
    """Every record that can be read: a row for each run and selection rule, scores as fractions, with what it cost.

    Args:
        path: folder with records; default those of this checkout, measured here and imported.

    Raises:
        UserError: no such folder.
    """
    roots = [Path(path)] if path is not None else [root for root in ROOTS if root.is_dir()]
    if not roots or not all(root.is_dir() for root in roots):
        raise UserError(f"{path or ROOTS[0]}: no such folder; call this in a checkout, or name a folder with records")
    collected = collect(*roots)
    costs = {record.as_posix(): collected.costs(record) for record, _ in collected.records}
    table = [row | {name: costs[row["record"]].get(name) for name in COSTS} for row in rows(collected)]
    return pd.DataFrame(table, columns=[*COLUMNS, *COSTS])


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
