"""Running cells: a stage for the pipeline, the whole path alone, failed ones again."""

from __future__ import annotations

import dataclasses
import functools
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from harness.base.errors import RunFailed, UserError
from harness.base.files import locked, read_json, sha256_json, write_json
from harness.base.launch import is_rank, launch
from harness.base.progress import reporter
from harness.metrics.selection import SELECTION_RULES
from harness.metrics.shots import DEFAULT_POLICY, GROUPS
from harness.reading.dataset import Dataset
from harness.records.evaluate import evaluate
from harness.records.runs import RunInfo, write_run_info
from harness.records.schema import Failure, Record, read_record
from harness.spec.entries import Entry, parse_entry
from harness.spec.provenance import code_version
from harness.spec.recipes import Cell, resolve
from harness.spec.registry import get_plugin
from harness.spec.spread import ONE_PROCESS, Spread, spread_of
from harness.spec.suites import SPLITS, check_cell, failed_cells, parse_seeds
from harness.splits import splits, store

if TYPE_CHECKING:
    from harness.api import Stage


def run_stage(
    stage: Stage,
    split_name: str,
    entry_text: str,
    seeds_text: str,
    out: Path,
    *,
    device: str,
    keep_going: bool,
    spread: Spread = ONE_PROCESS,
    first: Path | None = None,
) -> None:
    """One stage of a cell; as one of several processes, or starting them.

    Raises:
        UserError: `out` is the pipeline's, and the grid has other stages than the recipe.
        RunFailed: a seed failed, unless `keep_going`; then the failure stands in the cell's folder for its record.
    """
    seeds, name = parse_seeds(seeds_text), splits.parse_split_name(split_name)
    entry = parse_entry(entry_text)
    try:
        cell = resolve(entry, name.dataset)
    except UserError as error:
        if not keep_going:
            raise
        return _record_unresolved(stage, entry, split_name, seeds, out, error)
    check_cell(cell, split_name, out)
    if spread.ranks > 1 and not is_rank():
        from harness.engine.device import check_one_each  # imports torch

        check_one_each(device, spread.ranks)
        again = functools.partial(
            run_stage,
            stage,
            split_name,
            entry_text,
            seeds_text,
            out,
            device=device,
            keep_going=keep_going,
            spread=spread,
            first=first,
        )
        return launch(spread.ranks, again)
    _run_here(stage, cell, SPLITS / f"{split_name}.json", seeds, out, first, device, spread, keep_going=keep_going)
    return None


def _run_here(
    stage: Stage,
    cell: Cell,
    split_file: Path,
    seeds: Sequence[int],
    out: Path,
    first: Path | None,
    device: str,
    spread: Spread,
    *,
    keep_going: bool,
) -> None:
    """In this process, alone or with others that do the same."""
    from harness.engine import ranks
    from harness.engine.device import pick_device
    from harness.running import stages  # imports torch

    chosen = pick_device(ranks.local_device(device))
    with ranks.joined(chosen) as us, reporter(shown=us.first) as progress:
        place = stages.Workplace(chosen, progress, side_by_side=_may_fork(), ranks=us, spread=spread)
        if stage == "train":
            outcomes = stages.train(cell, split_file, seeds, out, place)
        else:
            assert first is not None
            outcomes = stages.finetune(cell, split_file, seeds, first, out, place)
        if us.first and not keep_going:
            _raise_failures(outcomes)


def _may_fork() -> bool:
    """Whether seeds may run in forked processes: a second thread of OpenMP would wait there for ever."""
    import torch

    return torch.get_num_threads() == 1


def _raise_failures(outcomes: Sequence[RunInfo]) -> None:
    reasons = [f"{info.title}: {info.failure and info.failure.reason}" for info in outcomes if info.status != "ok"]
    if reasons:
        raise RunFailed("; ".join(reasons))


def _record_unresolved(
    stage: Stage, entry: Entry, split_name: str, seeds: Sequence[int], out: Path, error: UserError
) -> None:
    """A cell whose method or recipe is broken becomes failed runs: a row each, not a hole and not a halt."""
    split = splits.read_split(SPLITS / f"{split_name}.json")
    print(f"failed: {error}")
    for seed in seeds:
        info = RunInfo(
            method=entry.method,
            variant=entry.variant,
            track=entry.track,
            seed=seed,
            split=split.id,
            split_sha256=split.sha256,
            stages=["train"] if stage == "train" else ["train", "finetune"],
            recipe={},
            recipe_sha256="",
            stage1_key="",
            run_key="",
            code_version="",
            status="failed",
            failure=Failure(str(error)),
        )
        write_run_info(out / "predictions" / f"seed{seed}.json", info)
    for folder in ("checkpoint", "costs"):
        (out / folder).mkdir(parents=True, exist_ok=True)


def run_alone(
    dataset_name: str,
    entry: Entry,
    seeds_text: str,
    out: Path,
    imbalance_factor: float | None,
    overrides: list[str],
    backbone: str | None,
    device: str,
    holdout: float = 0.0,
) -> None:
    """Fetch, split, train, finetune, evaluate for one cell, without DVC; prints the table.

    Everything lies under `out`, in folders named by what they depend on, so that another recipe never overwrites it
    and the same command goes on where it was stopped.

    Raises:
        RunFailed: a seed failed.
    """
    seeds, dataset = parse_seeds(seeds_text), store.get_dataset(dataset_name, where="--dataset", holdout=holdout)
    for line in dataset.passed_over:
        print(f"note: {line}", file=sys.stderr)
    name = str(splits.name_split(dataset, imbalance_factor))
    splits.parse_split_name(name, where="--imbalance-factor")
    cell = resolve(entry, dataset.name, overrides, backbone)
    paths, outcomes = _whole_path(cell, name, dataset, seeds, out, device)
    records = [read_record(path) for path in paths]
    print_table(records)
    for note in dict.fromkeys(note for record in records for note in record.notes):
        print(f"note: {note}")
    print(f"records: {paths[0].parent}  (as a page: ltbench report {out / 'records'} --out {out / 'report'})")
    _raise_failures(outcomes)


def _whole_path(
    cell: Cell, split: str, dataset: Dataset, seeds: Sequence[int], out: Path, device: str, policy: str = DEFAULT_POLICY
) -> tuple[list[Path], list[RunInfo]]:
    """Everything from the split to the records; their paths, and what became of each run."""
    from harness.engine.backbones import create_backbone
    from harness.engine.device import pick_device
    from harness.running import stages  # imports torch

    chosen_device = pick_device(device)
    size = cell.recipe.image_size
    shape = (size, size, dataset.image_shape[2]) if size else dataset.image_shape
    create_backbone(cell.recipe.backbone, shape)  # refused before anything is fetched or written
    split_file, places = ensure_split(split, dataset, out), folders(cell, split, out)
    with locked(out), reporter() as progress:
        place = stages.Workplace(chosen_device, progress, places.scratch, side_by_side=_may_fork())
        stages.train(cell, split_file, seeds, places.first, place)
        outcomes = stages.finetune(cell, split_file, seeds, places.first, places.last, place)
    return evaluate(split_file, [places.first, places.last], seeds, places.records, policy), outcomes


def reproduce(path: Path, out: Path | None, device: str) -> None:
    """Runs a record's run again, from the data on, and compares the two records.

    Args:
        out: an empty folder, or that of the same call that was stopped; default `runs/reproduced/<run key>`.

    Raises:
        UserError: this checkout would run something else: another recipe, or another split.
        RunFailed: the run failed, or its numbers are not the record's.
    """
    record = read_record(path)
    if record.status != "ok":
        raise UserError(f"{path}: its run {record.status}; there is no number to measure again")
    entry, dataset = parse_entry(record.entry, where=str(path)), store.get_dataset(record.dataset, where=str(path))
    spread = spread_of(record.recipe, str(path))
    if spread.changes_numbers:
        raise UserError(
            f"{path}: trained with {spread.options}, and this command trains in one process with whole batches; "
            f"measure it again with `ltbench train` (and `finetune`) {spread.options}"
        )
    cell = resolve(entry, dataset.name)
    if cell.recipe.sha256() != record.recipe_sha256:
        raise UserError(
            f"{path}: its recipe {record.recipe_sha256[:8]} is not this checkout's of {entry} "
            "(a run with --set or --backbone cannot be reproduced from its record alone)"
        )
    out = out or Path("runs/reproduced") / record.run_key
    marker = out / "reproducing.json"
    if out.is_dir() and any(out.iterdir()) and (not marker.is_file() or read_json(marker, "marker") != record.run_key):
        raise UserError(f"--out {out}: not empty; what lies there would not be measured again; name a new folder")
    write_json(marker, record.run_key)  # the same command goes on where it was stopped
    drawn = splits.read_split(ensure_split(record.split, dataset, out))
    if drawn.sha256 != record.split_sha256:
        raise UserError(f"{path}: measured on split {record.split_sha256}, {record.split} is {drawn.sha256} here")
    code = code_version(get_plugin(entry.method).folder)
    if code != record.code_version:
        print(f"note: measured with code {record.code_version}, this checkout has {code}; the numbers may differ")
    (again,), outcomes = _whole_path(cell, record.split, dataset, [record.seed], out, device, record.shot_policy)
    _raise_failures(outcomes)
    marker.unlink()
    differences = _differences(record, read_record(again))
    if differences:
        raise RunFailed(f"{path}: measured again ({again}), it differs: {'; '.join(differences)}")
    print(f"{path}: measured again, and every number is the same ({again})")


def _differences(first: Record, second: Record) -> list[str]:
    """The numbers in which two records of one run differ."""
    found: list[str] = []
    for rule in SELECTION_RULES:
        scores = (record.results.get(rule) for record in (first, second))
        one, other = (dataclasses.asdict(some) if some else {} for some in scores)
        keys = [key for key in sorted({*one, *other}) if one.get(key) != other.get(key)]
        found += [f"{rule} {key} was {one.get(key)}, now {other.get(key)}" for key in keys]
    return found


@dataclass(frozen=True)
class Folders:
    """Where a cell's results lie when it runs without DVC."""

    first: Path  # its first stage; of all cells that share it
    last: Path
    records: Path
    scratch: Path


def folders(cell: Cell, split: str, out: Path) -> Folders:
    """Folders under `out`, named by what they depend on, so that another recipe never overwrites anything."""
    identity = sha256_json(cell.first_stage_identity())[:8]
    first = out / "work" / split / "stage1" / f"{cell.first_stage.name}-{identity}" / "train"
    own = Path(split) / cell.entry.path.with_name(f"{cell.entry.path.name}-{cell.recipe.sha256()[:8]}")
    return Folders(first, out / "work" / own / cell.stages[-1], out / "records" / own, out / "work" / ".scratch")


def ensure_split(name: str, dataset: Dataset, out: Path) -> Path:
    """The split's file under `out`, made if it is not there; the data set is fetched if nothing of it is."""
    if not store.is_here(dataset):
        store.fetch(dataset, store.data_root())
    path = out / "splits" / f"{name}.json"
    try:
        splits.read_split(path)
    except UserError:  # missing, or damaged: it is drawn by rule, so it can always be made again
        splits.write_split(splits.build_split(name, store.find(dataset), store.load(dataset)), path)
    return path


def print_table(records: Sequence[Record]) -> None:
    """Accuracy in percent by group, a line for each seed and selection rule."""
    groups = records[0].groups
    table = Table(title=f"{records[0].entry} on {records[0].split} (top-1, %)")
    for column in ("seed", "selection", "epoch", "all", *(f"{group} ({groups[group]})" for group in GROUPS)):
        table.add_column(column, justify="left" if column == "selection" else "right")
    for record in records:
        if record.status != "ok":
            table.add_row(str(record.seed), record.status, "-", "-", "-", "-", "-")
        for rule in SELECTION_RULES:
            scores = record.results.get(rule)
            if scores:
                values = [scores.all, *(getattr(scores, group) for group in GROUPS)]
                cells = ["-" if value is None else f"{100 * value:.2f}" for value in values]
                table.add_row(str(record.seed), rule, str(scores.epoch), *cells)
    Console().print(table)


def retry(suite: str) -> int:
    """Forces the DVC stages of failed cells, then brings the rest up to date; returns the exit code."""
    from harness.records.collect import collect

    failed = failed_cells(suite, collect(Path("results/records")).records)
    if not failed:
        print("no failed cells")
        return 0
    for stage, reason in failed:
        print(f"{stage}: {reason}")
    try:
        for stage, _ in failed:
            subprocess.run(["dvc", "repro", "--force", "--single-item", stage], check=True)  # noqa: S603, S607
        subprocess.run(["dvc", "repro"], check=True)  # noqa: S607
    except FileNotFoundError:
        raise UserError(
            "dvc is not installed; install the extra 'pipeline', or rerun single cells with `ltbench run`"
        ) from None
    except subprocess.CalledProcessError as error:
        return error.returncode
    again = failed_cells(suite, collect(Path("results/records")).records)
    for stage, reason in again:
        print(f"failed again: {stage}: {reason}")
    return 1 if again else 0
