"""From a sweep of the default suite to `results/`, file by file as the stages of `dvc.yaml` write it.

`dvc commit` then records it, and `dvc repro` has nothing to do: DVC stays the record of what was made from what, and is
not the one that schedules it.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from harness.base.errors import UserError
from harness.records.collect import ROOTS, collect
from harness.records.table import rows, write_table
from harness.reporting.report import build_report, sources
from harness.running import cells
from harness.running.plans import Settings
from harness.spec.entries import parse_entry
from harness.spec.recipes import resolve
from harness.spec.suites import GRID_FILE, SPLITS, parse_seeds, read_grid, write_recipes
from harness.splits import splits

TABLE, REPORTS = Path("results/table.csv"), Path("reports")
STAGE_FOLDERS = ("checkpoint", "predictions", "costs")
PLACES = {"train": ("first", STAGE_FOLDERS), "finetune": ("last", STAGE_FOLDERS), "evaluate": ("records", (".",))}
"""By part of the grid: which of a cell's folders holds its results, and what lies in there."""


def concerns(suite: str, settings: Settings) -> bool:
    """Whether the sweep is of what the pipeline makes: all of the grid's suite, in a checkout."""
    whole = not settings.only and not settings.overrides
    return whole and suite == "default" and Path("dvc.yaml").is_file() and GRID_FILE.is_file()


def publish(out: Path) -> int:
    """Puts a sweep's results where the pipeline's stages put them, and makes the table and the report; counts records.

    Raises:
        UserError: the grid is stale, or the sweep's splits are not this checkout's.
    """
    grid = read_grid("default")
    for name in grid["splits"]:
        _publish_split(out / "splits" / f"{name}.json", SPLITS / f"{name}.json")
    write_recipes("default")
    for part, (place, inner) in PLACES.items():
        for item in grid[part].values():
            cell = resolve(parse_entry(item["entry"]), item["dataset"])
            source = getattr(cells.folders(cell, item["split"], out), place)
            _replace(Path(item["out"]), source, inner, parse_seeds(item["seeds"]))
    collected = collect(*ROOTS)
    write_table(rows(collected), TABLE)
    build_report(collected, REPORTS, sources())
    return sum(len(parse_seeds(item["seeds"])) for item in grid["evaluate"].values())


def _publish_split(theirs: Path, ours: Path) -> None:
    split = splits.read_split(theirs)
    if ours.is_file() and splits.read_split(ours).sha256 != split.sha256:
        raise UserError(f"{theirs}: not the split in {ours}, which the data here gives; sweep with this data")
    splits.write_split(split, ours)


def _replace(target: Path, source: Path, inner: Sequence[str], seeds: Sequence[int]) -> None:
    """The folder, anew: what the seeds left in these folders of `source`."""
    fresh = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(fresh, ignore_errors=True)
    for folder in inner:
        (fresh / folder).mkdir(parents=True)
        for path in (path for seed in seeds for path in (source / folder).glob(f"seed{seed}.*")):
            shutil.copyfile(path, fresh / folder / path.name)
    shutil.rmtree(target, ignore_errors=True)
    fresh.replace(target)
