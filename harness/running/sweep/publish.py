"""From a sweep of the default suite to `results/`, file by file as the stages of `dvc.yaml` write it.

`dvc commit` then records it, and `dvc repro` has nothing to do: DVC stays the record of what was made from what, and is
not the one that schedules it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.base.errors import UserError
from harness.records.collect import ROOTS, collect
from harness.records.runs import run_info
from harness.records.schema import read_record
from harness.records.table import rows, write_table
from harness.reporting.report import build_report, sources
from harness.running import cells
from harness.running.plans import Run, Settings, first_folder
from harness.running.sweep.contract import DONE, damaged, folder_of, withdraw
from harness.spec.entries import parse_entry
from harness.spec.recipes import Cell, resolve
from harness.spec.suites import GRID_FILE, SPLITS, parse_seeds, read_grid, write_recipes
from harness.splits import splits

TABLE, REPORTS = Path("results/table.csv"), Path("reports")
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
    found = [reason for item in grid["evaluate"].values() for reason in _check(item, out)]
    if wrong := list(dict.fromkeys(found)):  # a first stage is asked for by each that shares it
        raise UserError(f"{wrong[0]}; sweep again" + (f" ({len(wrong) - 1} other files too)" if wrong[1:] else ""))
    for name in grid["splits"]:
        _publish_split(name, out)
    write_recipes("default")
    for item in grid["train"].values():
        _replace(item, _folders(item, out).first, STAGE_FOLDERS)
    for item in grid["finetune"].values():
        _replace(item, _folders(item, out).last, STAGE_FOLDERS)
    for item in grid["evaluate"].values():
        _replace(item, _folders(item, out).records)
    collected = collect(*ROOTS)
    write_table(rows(collected), TABLE)
    build_report(collected, REPORTS, sources())
    return sum(len(parse_seeds(item["seeds"])) for item in grid["evaluate"].values())


def _cell(item: dict[str, Any]) -> Cell:
    return resolve(parse_entry(item["entry"]), item["dataset"])


def _folders(item: dict[str, Any], out: Path) -> cells.Folders:
    return cells.folders(_cell(item), item["split"], out)


def _check(item: dict[str, Any], out: Path) -> Iterator[str]:
    """What cannot be published of a cell. It is withdrawn, so that the next sweep makes it again."""
    cell, split = _cell(item), splits.read_split(out / "splits" / f"{item['split']}.json")
    for seed in parse_seeds(item["seeds"]):
        path, info = _folders(item, out).records / f"seed{seed}.json", run_info(cell, split, seed, cell.stages[-1])
        record = read_record(path)
        if record.run_key != info.run_key:
            raise UserError(f"{path}: of another run of {cell.entry} than this checkout's; sweep again")
        run = Run(item["split"], item["dataset"], item["entry"], seed, "finetune", (), info.run_key)
        for folder in (first_folder(info.stage1_key), run.folder):
            if record.status == "failed" and not (folder_of(out, folder) / DONE).is_file():
                continue  # it was given up
            for name, what in damaged(out, folder).items():
                (out / name).unlink(missing_ok=True)  # or the next attempt would take what is left for whole
                withdraw(out, run.folder)
                yield f"{out / name}: {what}"


def _publish_split(name: str, out: Path) -> None:
    """Takes the split over if none is here."""
    theirs, ours = out / "splits" / f"{name}.json", SPLITS / f"{name}.json"
    split = splits.read_split(theirs)
    if not ours.is_file():
        splits.write_split(split, ours)
    elif splits.read_split(ours).sha256 != split.sha256:
        raise UserError(f"{theirs}: not the split in {ours}, which the data here gives; sweep with this data")


def _replace(item: dict[str, Any], source: Path, folders: Sequence[str] = (".",)) -> None:
    """The item's folder, anew: what is in these folders of `source`, of its seeds."""
    target = Path(item["out"])
    fresh = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(fresh, ignore_errors=True)
    for folder in folders:
        (fresh / folder).mkdir(parents=True)
        for seed in parse_seeds(item["seeds"]):
            for path in (source / folder).glob(f"seed{seed}.*"):
                shutil.copyfile(path, fresh / folder / path.name)
    if target.is_dir():
        shutil.rmtree(target)
    fresh.replace(target)
