"""What `ltbench bench` measured, from the files that it wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from harness.base.errors import UserError
from harness.base.files import read_json

FOLDER = Path("results/bench")
SCHEMA = 1


class SpeedRow(NamedTuple):
    """One comparison with plain PyTorch in the same run; speeds are images a second."""

    what: str
    precision: str
    ours: float
    plain: float
    floor: float | None  # the kernels alone, where they were measured
    ratio: float  # median over rounds of ours / plain
    low: float
    high: float


class SpeedReport(NamedTuple):
    """One file of figures, and the machine that they are of."""

    name: str
    device: str
    processor: str
    facts: str  # threads, versions, commit
    rows: list[SpeedRow]
    losses: list[tuple[str, dict[int, float]]]  # method and stage, times plain cross-entropy by number of classes
    steps: dict[tuple[str, str], float]  # method and stage -> time for a training image, over cross-entropy's


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
        losses: dict[str, dict[int, float]] = {}
        for row in parts["losses"]:
            of_classes = losses.setdefault(f"{row['method']}, {row['stage']}", {})
            of_classes[int(row["classes"])] = float(row["ratio"]["median"])
        steps = {
            (name, row["stage"]): float(row["ratio"]["median"])
            for row in parts.get("steps", [])
            for name in (row["method"], *row["shared_by"])
        }
        device, processor = str(machine["device"]), str(machine["processor"])
        return SpeedReport(path.name, device, processor, facts, rows, list(losses.items()), steps)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not a benchmark file ({type(error).__name__}: {error})") from None


def _row(row: dict[str, Any]) -> SpeedRow:
    loop, speed = row["part"] == "loop", row["images_per_second"]
    what = f"training, {row['backbone']}, {row['case']}" if loop else f"data alone, {row['case']}"
    ratios = (row["ratio"][key] for key in ("median", "low", "high"))
    return SpeedRow(what, row["precision"] if loop else "", speed["ours"], speed["plain"], speed.get("floor"), *ratios)
