"""From a sweep of the default suite to `results/`, file by file as the stages of `dvc.yaml` write it.

`dvc commit` then records it, and `dvc repro` has nothing to do: DVC stays the record of what was made from what, and is
not the one that schedules it.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import cells
from harness.data import splits
from harness.entries import parse_entry
from harness.errors import UserError
from harness.plans import Settings
from harness.recipes import Cell, resolve
from harness.records import collect
from harness.records.schema import read_record
from harness.reporting.checkout import sources
from harness.reporting.report import build_report
from harness.suites import GRID_FILE, RECORDS, SPLITS, parse_seeds, read_grid, write_recipes
from harness.sweep.contract import damaged
from harness.sweep.suite import run_folder

IMPORTED, TABLE, REPORTS = Path("results/imported"), Path("results/table.csv"), Path("reports")
STAGE_FOLDERS = ("checkpoint", "predictions", "costs")


def concerns(suite: str, settings: Settings) -> bool:
    """Whether the sweep was of what the pipeline makes: all of the grid's suite, in a checkout."""
    whole = not settings.only and not settings.overrides
    return whole and suite == "default" and Path("dvc.yaml").is_file() and GRID_FILE.is_file()


def publish(out: Path) -> int:
    """Puts a sweep's results where the pipeline's stages put them, and makes the table and the report; counts records.

    Nothing is written before every record of the grid is known to be there, and this checkout's.

    Raises:
        UserError: a record is missing, damaged, or of another run; the sweep's splits are not this checkout's.
    """
    grid = read_grid("default")
    scored = [(item, *_folders(item, out)) for item in grid["evaluate"].values()]
    for item, cell, folders in scored:
        _check(item, cell, folders, out)
    for name in grid["splits"]:
        _publish_split(name, out)
    write_recipes("default")
    for part in ("train", "finetune"):
        for item in grid[part].values():
            folders = _folders(item, out)[1]
            _publish_stage(folders.first if part == "train" else folders.last, Path(item["out"]), item["seeds"])
    for item, _cell, folders in scored:
        _replace(Path(item["out"]), [(path, path.name) for path in _of_seeds(folders.records, item["seeds"])])
    collected = collect.collect(RECORDS, IMPORTED)
    collect.write_table(collect.rows(collected), TABLE)
    build_report(collected, REPORTS, sources())
    return sum(len(parse_seeds(item["seeds"])) for item, _cell, _folders in scored)


def _folders(item: dict[str, Any], out: Path) -> tuple[Cell, cells.Folders]:
    cell = resolve(parse_entry(item["entry"]), item["dataset"])
    return cell, cells.folders(cell, item["split"], out)


def _check(item: dict[str, Any], cell: Cell, folders: cells.Folders, out: Path) -> None:
    from harness.engine.stages import run_info  # imports torch

    split = splits.read_split(out / "splits" / f"{item['split']}.json")
    for seed in parse_seeds(item["seeds"]):
        path, info = folders.records / f"seed{seed}.json", run_info(cell, split, seed, cell.stages[-1])
        if read_record(path).run_key != info.run_key:
            raise UserError(f"{path}: of another run of {cell.entry} than this checkout's; sweep again")
        for key in (run_folder(info.stage1_key, "train"), run_folder(info.run_key, "finetune", str(cell.entry))):
            for name in damaged(out, key):
                raise UserError(f"{out / name}: damaged since its run ended; delete it and sweep again")


def _publish_split(name: str, out: Path) -> None:
    """Takes the split over if none is here."""
    theirs, ours = out / "splits" / f"{name}.json", SPLITS / f"{name}.json"
    split = splits.read_split(theirs)
    if not ours.is_file():
        splits.write_split(split, ours)
    elif splits.read_split(ours).sha256 != split.sha256:
        raise UserError(f"{theirs}: not the split in {ours}, which the data here gives; sweep with this data")


def _publish_stage(source: Path, target: Path, seeds: str) -> None:
    files = [(path, f"{folder}/{path.name}") for folder in STAGE_FOLDERS for path in _of_seeds(source / folder, seeds)]
    _replace(target, files, STAGE_FOLDERS)


def _of_seeds(folder: Path, seeds: str) -> list[Path]:
    return [path for seed in parse_seeds(seeds) for path in sorted(folder.glob(f"seed{seed}.*"))]


def _replace(target: Path, files: Sequence[tuple[Path, str]], folders: Sequence[str] = ()) -> None:
    """A folder with copies of these files in the place of what was there."""
    fresh = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(fresh, ignore_errors=True)
    for folder in folders or (".",):
        (fresh / folder).mkdir(parents=True)
    for path, name in files:
        shutil.copyfile(path, fresh / name)
    if target.is_dir():
        shutil.rmtree(target)
    fresh.replace(target)
