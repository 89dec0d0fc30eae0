"""Runs cells: one stage for the pipeline, the whole path without it, or failed cells once more."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.base.errors import RunFailed, UserError
from harness.base.files import locked, read_json, sha256_json, write_json
from harness.base.launch import is_rank, launch
from harness.base.progress import reporter
from harness.base.screen import console, table
from harness.metrics.selection import SELECTION_RULES
from harness.metrics.shots import DEFAULT_POLICY, GROUPS
from harness.reading.dataset import Dataset
from harness.records.collect import collect
from harness.records.evaluate import evaluate
from harness.records.runs import RunInfo, stage_files, write_run_info
from harness.records.schema import Record, read_record
from harness.spec.entries import Entry, parse_entry
from harness.spec.provenance import code_version
from harness.spec.recipes import Cell, overrides_between, resolve
from harness.spec.registry import get_plugin
from harness.spec.spread import ONE_PROCESS, Spread, spread_of
from harness.spec.suites import RECORDS, SPLITS, check_cell, failed_cells, parse_seeds
from harness.splits import splits, store
from harness.splits.split_names import parse_split_name

REPRODUCED, MARKER = Path("runs/reproduced"), "reproducing.json"  # in folders by run key
SCRATCH = Path("work/.scratch")  # runs under way without DVC: in the folder of all that they leave


@dataclass(frozen=True)
class StageRequest:
    """One stage of a cell, as the command line asks for it."""

    split: str
    entry: str
    seeds: str
    out: Path
    device: str = "auto"
    keep_going: bool = False  # a failed seed is recorded, and no error
    spread: Spread = ONE_PROCESS
    first: Path | None = None  # folder of the first stage; this is the second one then


def run_stage(asked: StageRequest) -> None:
    """One stage of a cell; as one of several processes, or starting them.

    Raises:
        UserError: `out` is the pipeline's, and the grid has other stages than the recipe.
        RunFailed: a seed failed, unless `keep_going`; then the failure stands in the cell's folder for its record.
    """
    seeds, name, entry = parse_seeds(asked.seeds), parse_split_name(asked.split), parse_entry(asked.entry)
    try:
        cell = resolve(entry, name.dataset)
    except UserError as error:
        if not asked.keep_going:
            raise
        return _record_unresolved(asked, entry, seeds, error)
    check_cell(cell, asked.split, asked.out)
    from harness.engine import device, ranks  # these import torch
    from harness.running import stages

    if asked.spread.ranks > 1 and not is_rank():
        device.check_one_each(asked.device, asked.spread.ranks)
        return launch(asked.spread.ranks, functools.partial(run_stage, asked))
    chosen, split_file = device.pick_device(ranks.local_device(asked.device)), SPLITS / f"{asked.split}.json"
    with ranks.joined(chosen) as us, reporter(shown=us.first) as progress:
        place = stages.Workplace(chosen, progress, side_by_side=True, ranks=us, spread=asked.spread)
        if asked.first:
            outcomes = stages.finetune(cell, split_file, seeds, asked.first, asked.out, place)
        else:
            outcomes = stages.train(cell, split_file, seeds, asked.out, place)
        if us.first and not asked.keep_going:
            _raise_failures(outcomes)
    return None


def _raise_failures(outcomes: Sequence[RunInfo]) -> None:
    reasons = [f"{info.title}: {info.failure and info.failure.reason}" for info in outcomes if info.status != "ok"]
    if reasons:
        raise RunFailed("; ".join(reasons))


def _record_unresolved(asked: StageRequest, entry: Entry, seeds: Sequence[int], error: UserError) -> None:
    """A cell whose method or recipe is broken becomes failed runs: a row each, instead of a gap or a halt."""
    split = splits.read_split(SPLITS / f"{asked.split}.json")
    print(f"failed: {error}")
    for seed in seeds:
        info = RunInfo(
            **dataclasses.asdict(entry),
            seed=seed,
            split=split.id,
            split_sha256=split.sha256,
            stages=["train", "finetune"] if asked.first else ["train"],
            recipe={},
            recipe_sha256="",
            stage1_key="",
            run_key="",
            code_version="",
            status="ok",
        )
        files = stage_files(asked.out, seed)
        for path in files.values():
            path.parent.mkdir(parents=True, exist_ok=True)
        write_run_info(files["run.json"], info.failed(str(error)))


def run_alone(cell: Cell, split: str, dataset: Dataset, seeds: Sequence[int], out: Path, device: str) -> None:
    """Fetch, split, train, finetune, evaluate for one cell, without DVC; prints the table.

    Everything lies under `out`, in folders named by what they depend on, so that another recipe never overwrites it
    and the same command goes on where it was stopped.

    Raises:
        RunFailed: a seed failed.
    """
    for line in dataset.passed_over:
        print(f"note: {line}", file=sys.stderr)
    paths, outcomes = _whole_path(cell, split, dataset, seeds, out, device)
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
    from harness.engine.device import pick_device
    from harness.running import stages  # imports torch

    chosen_device = pick_device(device)
    check_start(cell, dataset)  # before anything is fetched or written
    split_file, places = ensure_split(split, dataset, out), folders(cell, split, out)
    with locked(out), reporter() as progress:
        place = stages.Workplace(chosen_device, progress, out / SCRATCH, side_by_side=True)
        stages.train(cell, split_file, seeds, places.first, place)
        outcomes = stages.finetune(cell, split_file, seeds, places.first, places.last, place)
        forget_features(out)
    return evaluate(split_file, [places.first, places.last], seeds, places.records, policy), outcomes


def reproduce(path: Path, out: Path | None, device: str) -> None:
    """Runs a record's run again, from the data on, and compares the two records.

    Args:
        out: as `measure_again` takes it; default `runs/reproduced/<run key>`.

    Raises:
        UserError, RunFailed: as `measure_again`, or the numbers are not the record's.
    """
    out = out or REPRODUCED / read_record(path).run_key
    again = measure_again(path, out, device)
    (out / MARKER).unlink()  # what has been compared is no new measurement
    if differences := _differences(read_record(path), read_record(again)):
        raise RunFailed(f"{path}: measured again ({again}), it differs: {'; '.join(differences)}")
    print(f"{path}: measured again, and every number is the same ({again})")


def recorded(path: Path) -> tuple[Record, Cell, Dataset]:
    """A record, with the cell and data set that make its run again here.

    Raises:
        UserError: this checkout would run something else.
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
    if changes := overrides_between(cell.recipe.as_dict(), record.recipe):
        cell = resolve(entry, dataset.name, changes)
        print(f"note: {path}: not this checkout's recipe of {entry}, but with --set {' --set '.join(changes)}")
    if cell.recipe.sha256() != record.recipe_sha256:
        raise UserError(
            f"{path}: its recipe {record.recipe_sha256[:8]} is not this checkout's of {entry}, nor can --set make it; "
            "check out the commit that measured it (`commit` in its .run.json), and try again there"
        )
    return record, cell, dataset


def measure_again(path: Path, out: Path, device: str) -> Path:
    """Runs a record's run again, from the data on; where the new record lies.

    Args:
        out: an empty folder, or that of the same call: one that was stopped goes on, one that ended has its record.

    Raises:
        UserError: this checkout would run something else: another recipe, or another split.
        RunFailed: the run failed.
    """
    record, cell, dataset = recorded(path)
    marker = out / MARKER
    if out.is_dir() and any(out.iterdir()) and (not marker.is_file() or read_json(marker, "marker") != record.run_key):
        raise UserError(f"--out {out}: not empty; what lies there would not be measured again; name a new folder")
    write_json(marker, record.run_key)  # the same command goes on where it was stopped
    drawn = splits.read_split(ensure_split(record.split, dataset, out))
    if drawn.sha256 != record.split_sha256:
        raise UserError(f"{path}: measured on split {record.split_sha256}, {record.split} is {drawn.sha256} here")
    code = code_version(get_plugin(cell.entry.method).folder)
    if code != record.code_version:
        print(f"note: measured with code {record.code_version}, this checkout has {code}; the numbers may differ")
    (again,), outcomes = _whole_path(cell, record.split, dataset, [record.seed], out, device, record.shot_policy)
    _raise_failures(outcomes)
    return again


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


def folders(cell: Cell, split: str, out: Path) -> Folders:
    """Folders under `out`, named by what they depend on, so that another recipe never overwrites anything."""
    identity = sha256_json(cell.first_stage_identity())[:8]
    first = out / "work" / split / "stage1" / f"{cell.first_stage.name}-{identity}" / "train"
    own = Path(split) / cell.entry.path.with_name(f"{cell.entry.path.name}-{cell.recipe.sha256()[:8]}")
    return Folders(first, out / "work" / own / cell.stages[-1], out / "records" / own)


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


def forget_features(out: Path) -> None:
    """Removes the features that runs under `out` kept for each other, once all are done."""
    from harness.engine.shared_features import FOLDER

    shutil.rmtree(out / SCRATCH / FOLDER, ignore_errors=True)


def check_start(cell: Cell, dataset: Dataset) -> None:
    """Builds reader and backbone as a run would, but for weights that timm would have to fetch.

    Raises:
        UserError: they cannot be built, or are not for such images; or the weights are of another network.
    """
    from harness.engine.pretrained import start_backbone
    from harness.feed import parts, resize

    recipe = cell.recipe
    shape = recipe.shape_of(dataset.image_shape)
    if recipe.reader:
        if not dataset.image_files:
            raise UserError(resize.NO_FILES.format(recipe.reader))
        parts.image_reader(recipe.reader)(shape, recipe.train.augment)
    start_backbone(recipe.backbone, shape, recipe.pretrained, recipe.train.drop_path, fetch=False)


def planned_split(name: str, dataset: Dataset, out: Path) -> splits.Split:
    """The split as `ensure_split` would have it, but nothing is fetched, and nothing written but decoded images.

    Those are kept in the data root (`store.load`), where the run itself takes them from.

    Raises:
        UserError: it has not been drawn, and its data are not here.
    """
    for folder in (out / "splits", SPLITS):
        with contextlib.suppress(UserError):
            return splits.read_split(folder / f"{name}.json")
    if not store.is_here(dataset):
        raise UserError(f"{name}: neither the split nor its data are here; first: {store.bringing_command(dataset)}")
    return splits.build_split(name, store.find(dataset), store.load(dataset))


BALANCED = 1e-6  # within this, class-mean accuracy is that over all images


def print_table(records: Sequence[Record]) -> None:
    """Accuracy in percent by group, a line for each seed and selection rule.

    Class-mean accuracy stands beside that over all images where the test set is not balanced.
    """
    groups = records[0].groups
    of_all = [scores for record in records for scores in record.results.values() if scores]
    scored = ["all", "macro"] if any(abs(scores.all - scores.macro) > BALANCED for scores in of_all) else ["all"]
    titles = [{"macro": "class mean"}.get(name, name) for name in scored]
    head = ("seed", "selection", "epoch", *titles, *(f"{group} ({groups[group]})" for group in GROUPS))
    rows = list[list[str]]()
    for record in records:
        if record.status != "ok":
            rows.append([str(record.seed), record.status, *["-"] * (1 + len(scored) + len(GROUPS))])
        for rule in SELECTION_RULES:
            if scores := record.results.get(rule):
                values = [getattr(scores, name) for name in (*scored, *GROUPS)]
                cells = ["-" if value is None else f"{100 * value:.2f}" for value in values]
                rows.append([str(record.seed), rule, str(scores.epoch), *cells])
    console().print(table(f"{records[0].entry} on {records[0].split} (top-1, %)", head, rows, words=("selection",)))


def retry(suite: str) -> int:
    """Forces the DVC stages of failed cells, then brings the rest up to date; returns the exit code."""
    failed = _failed_cells(suite)
    if not failed:
        print(f"no failed cells in {RECORDS}; runs and campaigns of your own go on with the same command")
        return 0
    for stage, reason in failed:
        print(f"{stage}: {reason}")
    forced = [["dvc", "repro", "--force", "--single-item", stage] for stage, _ in failed]
    try:
        for command in (*forced, ["dvc", "repro"]):
            subprocess.run(command, check=True)  # noqa: S603
    except FileNotFoundError:
        raise UserError(
            "dvc is not installed; install the extra 'pipeline', or rerun single cells with `ltbench run`"
        ) from None
    except subprocess.CalledProcessError as error:
        return error.returncode
    again = _failed_cells(suite)
    for stage, reason in again:
        print(f"failed again: {stage}: {reason}")
    return 1 if again else 0


def _failed_cells(suite: str) -> list[tuple[str, str]]:
    return failed_cells(suite, collect(RECORDS).records)
