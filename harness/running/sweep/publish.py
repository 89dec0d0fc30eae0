"""From a sweep of the default suite to `results/`, file by file as the stages of `dvc.yaml` write it.

`dvc commit` then records it, and `dvc repro` has nothing to do: DVC stays the record of what was made from what, and is
not the one that schedules it.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.base.errors import UserError
from harness.records.collect import collect
from harness.records.schema import read_record
from harness.records.table import rows, write_table
from harness.reporting.checkout import sources
from harness.reporting.report import build_report
from harness.running import cells
from harness.running.plans import Run, Settings
from harness.running.sweep.contract import DAMAGED, DONE, damaged, folder_of, withdraw
from harness.spec.entries import parse_entry
from harness.spec.recipes import Cell, resolve
from harness.spec.suites import GRID_FILE, RECORDS, SPLITS, parse_seeds, read_grid, write_recipes
from harness.splits import splits

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
    found = [reason for item, cell, folders in scored for reason in _check(item, cell, folders, out)]
    if wrong := list(dict.fromkeys(found)):  # a first stage is asked for by each that shares it
        raise UserError(f"{wrong[0]}; sweep again" + (f" ({len(wrong) - 1} other files too)" if wrong[1:] else ""))
    for name in grid["splits"]:
        _publish_split(name, out)
    write_recipes("default")
    for part in ("train", "finetune"):
        for item in grid[part].values():
            folders = _folders(item, out)[1]
            _publish_stage(folders.first if part == "train" else folders.last, Path(item["out"]), item["seeds"])
    for item, _cell, folders in scored:
        _replace(Path(item["out"]), [(path, path.name) for path in _of_seeds(folders.records, item["seeds"])])
    collected = collect(RECORDS, IMPORTED)
    write_table(rows(collected), TABLE)
    build_report(collected, REPORTS, sources())
    return sum(len(parse_seeds(item["seeds"])) for item, _cell, _folders in scored)


def _folders(item: dict[str, Any], out: Path) -> tuple[Cell, cells.Folders]:
    cell = resolve(parse_entry(item["entry"]), item["dataset"])
    return cell, cells.folders(cell, item["split"], out)


def _check(item: dict[str, Any], cell: Cell, folders: cells.Folders, out: Path) -> Iterator[str]:
    """What cannot be published of a cell. Its runs count as not done from here on, so that a sweep mends it."""
    from harness.records.runs import run_info

    split = splits.read_split(out / "splits" / f"{item['split']}.json")
    for seed in parse_seeds(item["seeds"]):
        path, info = folders.records / f"seed{seed}.json", run_info(cell, split, seed, cell.stages[-1])
        record = read_record(path)
        if record.run_key != info.run_key:
            raise UserError(f"{path}: of another run of {cell.entry} than this checkout's; sweep again")
        run = Run(item["split"], item["dataset"], item["entry"], seed, "finetune", (), info.run_key)
        first = dataclasses.replace(run, stage="train", run_key=info.stage1_key)
        for part in (first, run):
            yield from _wrong(out, part, run, may_lack_end=record.status == "failed")


def _wrong(out: Path, part: Run, run: Run, may_lack_end: bool) -> Iterator[str]:
    """What is wrong with the files of one part of a run; a failed one may have no `DONE`."""
    if may_lack_end and not (folder_of(out, part.folder) / DONE).is_file():
        return
    for name, what in damaged(out, part.folder).items():
        # Second-stage weights damaged in their size would be taken as they are: they have to be deleted first.
        if part is not run or what != DAMAGED:
            withdraw(out, run.folder)
        yield f"{out / name}: {what}" + ("; delete it" if what == DAMAGED else "")


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
