"""Reads records, wherever they lie; a damaged file stops nothing."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from harness.base.errors import UserError
from harness.base.files import read_json, unstamped
from harness.records.check import VERDICT, Tier, faults
from harness.records.evidence import evidence_path, read_evidence
from harness.records.imports import IMPORTED
from harness.records.schema import Record, read_record, record_paths
from harness.spec.suites import RECORDS, SPLITS
from harness.splits.splits import Split, read_split

ROOTS = (RECORDS, IMPORTED)  # of a checkout: measured here, and elsewhere


@dataclass(frozen=True)
class Collected:
    """Records that could be read and agree with their evidence and split; the other files, each with its reason.

    `unchecked`: the finished runs among them whose evidence or split is missing, each with the reason.
    """

    records: list[tuple[Path, Record]]
    left_out: list[tuple[Path, str]]
    unchecked: list[tuple[Path, str]] = field(default_factory=list)

    def tier(self, path: Path) -> Tier:
        """How far a record was checked; `validation.json` above it may say that its run was measured again."""
        if any(path == other for other, _ in self.unchecked):
            return "reported"
        verdict = next((folder / VERDICT for folder in path.parents[:5] if (folder / VERDICT).is_file()), None)
        try:
            tiers = _tiers(verdict, verdict.stat().st_mtime_ns) if verdict else {}
            return "re-run" if tiers and tiers.get(read_json(path, "record")["sha256"]) == "re-run" else "recomputed"
        except (UserError, KeyError, TypeError):
            return "recomputed"


@cache
def _tiers(verdict: Path, _changed: int) -> dict[str, str]:
    """What a validation found, by the hash of a record's content."""
    content = unstamped(read_json(verdict, "verdict"), verdict)
    return {str(one["sha256"]): str(one["tier"]) for one in content["records"]}


def collect(*roots: Path) -> Collected:
    """Reads every record under the roots. A file that is damaged or contradicts itself is reported and left out.

    A record is compared with its split where `results/splits` has that, or a folder `splits` beside the records.
    """
    collected = Collected([], [])
    for path in record_paths(*roots):
        try:
            record = read_record(path)
            named = re.fullmatch(r"seed(\d+)", path.stem)
            if named and int(named[1]) != record.seed:
                raise UserError(f"{path}: this is the record of seed {record.seed}; it lies under another name")
            if lacking := _checked(path, record):
                collected.unchecked.append((path, lacking))
            collected.records.append((path, record))
        except UserError as error:
            collected.left_out.append((path, str(error)))
            print(f"left out: {error}", file=sys.stderr)
    return collected


def find_split(record: Record, path: Path) -> Split | None:
    """The split that a record at `path` was measured on: this checkout's, or one that lies beside the records."""
    for folder in (SPLITS, *(parent / "splits" for parent in [*path.parents][:6])):
        file = folder / f"{record.split}.json"
        if file.is_file() and (split := _split(file, file.stat().st_mtime_ns)).sha256 == record.split_sha256:
            return split
    return None


@cache
def _split(file: Path, _changed: int) -> Split:
    return read_split(file)


def _checked(path: Path, record: Record) -> str:
    """What is missing to check a finished run; empty if nothing is."""
    split = find_split(record, path)
    evidence = read_evidence(evidence_path(path), record)
    for fault in faults(record, evidence, split):
        raise UserError(f"{path}: {fault}")
    if record.status != "ok" or (evidence and split):
        return ""
    if evidence is None:
        return "its evidence is missing, so no score could be computed anew"
    return f"its split {record.split_sha256[:8]} is not here to compare its labels with"
