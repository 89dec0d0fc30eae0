"""Reads records, wherever they lie; a damaged file stops nothing."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.base.errors import UserError
from harness.base.files import read_json, unstamped
from harness.records.schema import Record, costs_path, read_record, record_paths

ROOTS = (Path("results/records"), Path("results/imported"))  # of a checkout: measured here, and elsewhere


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
            named = re.fullmatch(r"seed(\d+)", path.stem)
            if named and int(named[1]) != record.seed:
                raise UserError(f"{path}: this is the record of seed {record.seed}; it lies under another name")
            collected.records.append((path, record))
        except UserError as error:
            collected.left_out.append((path, str(error)))
            print(f"left out: {error}", file=sys.stderr)
    return collected
