"""What `ltbench bench` measured, from the files that it wrote."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.base.errors import UserError
from harness.base.files import read_json

FOLDER = Path("results/bench")
SCHEMA = 1


@dataclass(frozen=True)
class SpeedRow:
    """One comparison with plain PyTorch in the same run; speeds are images a second."""

    what: str
    precision: str
    ours: float
    plain: float
    floor: float | None  # the kernels alone, where they were measured
    ratio: float  # median over rounds of ours / plain
    low: float
    high: float


@dataclass(frozen=True)
class SpeedReport:
    """One file of figures, and the machine that they are of."""

    name: str
    device: str
    processor: str
    facts: str  # threads, versions, commit
    rows: list[SpeedRow]
    losses: list[tuple[str, dict[int, float]]]  # method and stage, times plain cross-entropy by number of classes
    reports: list[tuple[int, float, float, float]]  # records, seconds, peak memory (MB), page (MB)


def read_speed(path: Path) -> SpeedReport:
    """A file that `ltbench bench --json` wrote.

    Raises:
        UserError: damaged, of another schema, or measured with `--quick`, whose figures mean nothing.
    """
    value = read_json(path, "benchmark file")
    try:
        if value["schema"] != SCHEMA or value["quick"]:
            raise UserError(f"{path}: {'measured with --quick' if value['quick'] else 'of another schema'}")
        machine, parts = value["machine"], value["parts"]
        facts = f"{machine['threads']} torch threads, torch {machine['versions']['torch']}, commit {machine['commit']}"
        rows = [_row(row) for row in (*parts["loop"], *parts["loader"])]
        return SpeedReport(
            path.name,
            str(machine["device"]),
            str(machine["processor"]),
            facts,
            rows,
            _losses(parts["losses"]),
            [_report(row) for row in parts.get("report", [])],
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not a benchmark file ({type(error).__name__}: {error})") from None


def _row(row: dict[str, Any]) -> SpeedRow:
    speed, ratio = row["images_per_second"], row["ratio"]
    loop = row["part"] == "loop"
    what = f"training, {row['backbone']}, {row['case']}" if loop else f"data alone, {row['case']}"
    return SpeedRow(
        what, row["precision"] if loop else "", speed["ours"], speed["plain"], speed.get("floor"), ratio["median"],
        ratio["low"], ratio["high"],
    )  # fmt: skip


def _report(row: dict[str, Any]) -> tuple[int, float, float, float]:
    return int(row["records"]), float(row["seconds"]), float(row["peak_memory_mb"]), float(row["page_mb"])


def _losses(rows: Sequence[dict[str, Any]]) -> list[tuple[str, dict[int, float]]]:
    found: dict[str, dict[int, float]] = {}
    for row in rows:
        found.setdefault(f"{row['method']}, {row['stage']}", {})[int(row["classes"])] = float(row["ratio"]["median"])
    return list(found.items())
