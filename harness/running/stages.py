"""The stages train and finetune, as functions of paths: all seeds of a cell, resumable, failures recorded.

A cell's folder holds, for each seed, `checkpoint/seed<n>.safetensors` (final weights), `predictions/seed<n>.npz` (see
`harness.records.history`), `predictions/seed<n>.json` (what the run was: `harness.records.runs.RunInfo`) and
`costs/seed<n>.json`. The first three are the same bytes for the same run on a CPU; the last one never is.
"""

from __future__ import annotations

import dataclasses
import shutil
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from harness.api import Method, Stage
from harness.base.errors import DISK_FAULTS, RunFailed, RunSkipped, UserError, of_file
from harness.base.files import atomic_path, read_json, stamped, unstamped, write_json
from harness.base.progress import Reporter
from harness.engine.checkpoint import load_weights
from harness.engine.compiling import COMPILE
from harness.engine.device import DETERMINISTIC, arithmetic, device_name, peak_memory_mb, reset_peak_memory, switched_on
from harness.engine.job import StageJob
from harness.engine.loop import StageRun
from harness.engine.ranks import ALONE, Ranks
from harness.engine.side_by_side import Task, run_side_by_side, workers_for
from harness.feed.image_reader import FAST_NOTE
from harness.feed.resize import as_files, from_users_files, normalised, resized
from harness.reading.dataset import AnyImages
from harness.records.history import read_history
from harness.records.runs import RunInfo, read_run_info, run_info, stage_files, write_run_info
from harness.spec.pretrained import start_notes
from harness.spec.provenance import machine
from harness.spec.recipes import Cell
from harness.spec.spread import KEY, ONE_PROCESS, Spread, spread_of
from harness.splits import store
from harness.splits.notes import data_notes
from harness.splits.split_names import parse_split_name
from harness.splits.splits import Split, build_split, read_split, select

SCRATCH = Path(".ltbench/scratch")


@dataclass(frozen=True)
class Workplace:
    """Where and on what a stage runs."""

    device: torch.device
    reporter: Reporter
    scratch: Path = SCRATCH
    side_by_side: bool = False  # a cell's seeds at once, in forked processes (CPU; this one must not have trained yet)
    at_once: int | Callable[[], float] = 1  # runs that share the device, itself included; on average, asked at its end
    ranks: Ranks = ALONE  # this process among those that train each run together
    spread: Spread = ONE_PROCESS


def train(cell: Cell, split_file: Path, seeds: Sequence[int], out: Path, place: Workplace) -> list[RunInfo]:
    """The first stage of a cell, every seed; what is finished already is kept. Returns what became of each run."""
    return _run_cell(cell, "train", split_file, seeds, out, place, start=None)


def finetune(
    cell: Cell, split_file: Path, seeds: Sequence[int], first_stage: Path, out: Path, place: Workplace
) -> list[RunInfo]:
    """The second stage of a cell, from the `last` weights in the first stage's folder.

    Raises:
        UserError: the weights are missing, damaged, or of another recipe, split, seed or code.
    """
    if "finetune" not in cell.stages:
        return adopt(cell, split_file, seeds, first_stage, out, place)
    return _run_cell(cell, "finetune", split_file, seeds, out, place, start=first_stage)


def adopt(
    cell: Cell, split_file: Path, seeds: Sequence[int], first_stage: Path, out: Path, place: Workplace
) -> list[RunInfo]:
    """Takes the results of an equal first stage over as those of a cell of one stage; nothing is trained.

    Raises:
        UserError: results missing, or of another recipe, split, seed or code.
    """
    if not place.ranks.first:
        return place.ranks.told([])
    split, outcomes = read_split(split_file), []
    for seed in seeds:
        info = run_info(cell, split, seed, "train", place.spread)
        source, target = stage_files(first_stage, seed), stage_files(out, seed)
        path = source["run.json"]
        outcome = read_run_info(path)
        _check_spread(outcome, info, path)
        if outcome.run_key != info.run_key:
            raise UserError(f"{path}: of run {outcome.run_key}, expected {info.run_key}; run its stage again")
        outcomes.append(dataclasses.replace(info, status=outcome.status, failure=outcome.failure, notes=outcome.notes))
        if outcome.status == "ok":
            target["predictions.npz"].parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source["predictions.npz"], target["predictions.npz"])
        write_run_info(target["run.json"], outcomes[-1])
    return place.ranks.told(outcomes)


def _run_cell(
    cell: Cell, stage: Stage, split_file: Path, seeds: Sequence[int], out: Path, place: Workplace, start: Path | None
) -> list[RunInfo]:
    split = read_split(split_file)
    infos = [run_info(cell, split, seed, stage, place.spread) for seed in seeds]
    left = place.ranks.told(_left(infos, out, place) if place.ranks.first else [])
    if left:
        with place.ranks.machine_by_machine():
            shaped, images = _images(cell, stage, split)
        notes = (
            *data_notes(split, store.get_dataset(split.dataset)),
            *start_notes(cell.recipe.pretrained, split.dataset, cell.recipe.mean),
            *([FAST_NOTE] if cell.recipe.reader == "fast" else []),
        )
        for note in notes if place.ranks.first else ():
            place.reporter.note(f"note: {note}")
        left = [dataclasses.replace(info, notes=notes) for info in left]
        _run_all(left, place, lambda info, place: _run_one(cell, stage, shaped, images, info, place, start))
    if not place.ranks.first:
        return place.ranks.told([])
    for info in infos:  # published together: an interrupted cell loses its `out`, never its finished seeds
        _publish(_scratch(place, info), out, info.seed)
    for info in infos:
        _clear(_scratch(place, info))
    return place.ranks.told([read_run_info(stage_files(out, info.seed)["run.json"]) for info in infos])


def _left(infos: Sequence[RunInfo], out: Path, place: Workplace) -> list[RunInfo]:
    """The runs that are neither finished in `out` nor over in scratch."""
    done = [info for info in infos if _is_finished(out, info, place.reporter)]
    for info in done:
        place.reporter.note(f"{info.title}: already done in {out}")
    return [info for info in infos if info not in done and not (_scratch(place, info) / "run.json").is_file()]


def _images(cell: Cell, stage: Stage, split: Split) -> tuple[Split, Mapping[str, AnyImages]]:
    """The split's images as the stage takes them; a second stage may train on a subset drawn anew."""
    dataset = store.get_dataset(split.dataset)
    users = dataset.listed is not None
    parts = as_files(store.load(dataset), cell.recipe.reader, upright=users)
    if users:
        parts = from_users_files(parts, cell.recipe.image_size, cell.recipe.interpolation)
    chosen = select(split, parts)
    rule = cell.recipe.finetune.redraw if stage == "finetune" and cell.recipe.finetune else ""
    if rule:
        name = str(dataclasses.replace(parse_split_name(split.id), rule=rule))
        chosen["train"] = select(build_split(name, store.find(dataset), parts), parts)["train"]
    shaped, images = resized(split, chosen, cell.recipe.image_size, cell.recipe.interpolation)
    return normalised(shaped, cell.recipe.mean, cell.recipe.std), images


def _scratch(place: Workplace, info: RunInfo) -> Path:
    return place.scratch / f"{info.run_key}-{place.device.type}"


def _run_all(infos: Sequence[RunInfo], place: Workplace, run: Callable[[RunInfo, Workplace], None]) -> None:
    """All runs: side by side where that helps, else one after the other."""
    alone = place.side_by_side and place.device.type == "cpu" and place.ranks.world == 1
    may_fork = torch.get_num_threads() == 1  # else a second thread of OpenMP would wait there for ever
    workers = workers_for(len(infos)) if alone and may_fork else 1
    if workers == 1:
        for info in infos:
            run(info, place)
        return

    def task(info: RunInfo) -> Task:
        return lambda reporter: run(info, dataclasses.replace(place, reporter=reporter, at_once=workers))

    died = run_side_by_side({info.title: task(info) for info in infos}, workers, place.reporter)
    for info in infos:
        if info.title in died:
            place.reporter.note(f"{info.title}: failed: {died[info.title]}")
            write_run_info(_scratch(place, info) / "run.json", info.failed(died[info.title]))


def record_failure(cell: Cell, split_file: Path, seed: int, stage: Stage, out: Path, reason: str) -> RunInfo:
    """Records a failure that the stage itself could not: its process died, or its data cannot be read."""
    failed = run_info(cell, read_split(split_file), seed, stage).failed(reason)
    write_run_info(stage_files(out, seed)["run.json"], failed)
    return failed


def _is_finished(out: Path, info: RunInfo, reporter: Reporter) -> bool:
    """Whether all files of the run are there, whole and its own; a damaged one is run again."""
    files = stage_files(out, info.seed)
    try:
        found = read_run_info(files["run.json"])
    except UserError:
        return False
    if found.run_key != info.run_key or found.status != "ok":
        return False
    try:
        read_history(files["predictions.npz"])
        load_weights(files["weights.safetensors"], info.run_key)
        unstamped(read_json(files["costs.json"], "costs"), files["costs.json"])
    except UserError as error:
        reporter.note(f"{info.title}: run again, because of {error}")
        return False
    return True


def _run_one(
    cell: Cell,
    stage: Stage,
    split: Split,
    images: Mapping[str, AnyImages],
    info: RunInfo,
    place: Workplace,
    start: Path | None,
) -> None:
    """One seed; in the end `run.json` in its scratch folder says what became of it."""
    folder = _scratch(place, info)
    reset_peak_memory(place.device)
    try:
        job = _job(cell, stage, info, _told_weights(start, info, place.ranks), place.spread)
        run = StageRun(job, split, images, place.device, folder, place.ranks)
        run.run(place.reporter)
    except RunFailed as failure:
        if place.ranks.world > 1 and not failure.agreed:  # the others do not know of it, and wait for this one
            raise
        place.reporter.note(f"{info.title}: {failure.status}: {failure}")
        info = info.failed(failure.reason, failure.epoch, failure.step, failure.status)
        if place.ranks.first:
            (folder / "resume.pt").unlink(missing_ok=True)  # it would end the same way
    except UserError:
        raise
    except Exception as error:  # foreign code: a plugin's bug or a lack of memory fails this run, not the others
        if isinstance(error, OSError) and error.errno in DISK_FAULTS:
            error.filename = error.filename or folder
            raise of_file(error) from None
        if place.ranks.world > 1:  # the other ranks wait for this one: the job ends, and the same command resumes
            raise
        traceback.print_exc()
        info = info.failed(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
    if place.ranks.first:
        if info.status == "ok":
            _write_costs(folder, run, info, place)
            info = dataclasses.replace(info, notes=(*info.notes, *run.notes))
        write_run_info(folder / "run.json", info)  # the last file of a run: once it is there, the run is over


def _told_weights(start: Path | None, info: RunInfo, ranks: Ranks) -> dict[str, torch.Tensor]:
    """The first stage's weights, or why there are none, as rank 0 finds them."""
    weights: dict[str, torch.Tensor] = {}
    failure: RunFailed | None = None
    if start and ranks.first:
        try:
            weights = _first_stage_weights(start, info)
        except RunFailed as error:
            failure = error
    weights, failure = ranks.told((weights, failure))
    if failure:
        raise failure
    return weights


def _job(cell: Cell, stage: Stage, info: RunInfo, start: dict[str, torch.Tensor], spread: Spread) -> StageJob:
    first = stage == "train"
    method: type[Method] = cell.first_stage if first else cell.method
    params = cell.first_stage_params if first else cell.recipe.params
    recipe = cell.recipe.train if first else cell.recipe.finetune
    assert recipe is not None
    whole, run = cell.recipe, (info.seed, info.run_key)
    return StageJob(
        stage, method, params, recipe, whole.backbone, whole.precision, *run, start, spread, whole.pretrained
    )


def _first_stage_weights(folder: Path, info: RunInfo) -> dict[str, torch.Tensor]:
    files = stage_files(folder, info.seed)
    outcome = read_run_info(files["run.json"])
    _check_spread(outcome, info, files["run.json"])
    if outcome.run_key == info.stage1_key and outcome.status != "ok":
        kind = RunSkipped if outcome.status == "skipped" else RunFailed
        raise kind(f"first stage {outcome.how_it_ended}", agreed=True)
    return load_weights(files["weights.safetensors"], info.stage1_key)


def _check_spread(first: RunInfo, info: RunInfo, path: Path) -> None:
    """Refuses a first stage that was spread in another way, by the options that would have made it fit."""
    if first.recipe and first.recipe.get(KEY) != info.recipe.get(KEY):
        theirs, ours = (spread_of(some.recipe, str(path)).options for some in (first, info))
        raise UserError(f"{path}: trained with {theirs}; its second stage cannot have {ours}: both must be the same")


def _write_costs(folder: Path, run: StageRun, info: RunInfo, place: Workplace) -> None:
    costs = run.costs
    rate = costs.images / costs.train_seconds if costs.train_seconds else None
    beside = place.at_once() if callable(place.at_once) else place.at_once
    facts = machine(device_name(place.device)) | {
        "run_key": info.run_key,
        "precision": run.job.precision,
        "threads": torch.get_num_threads(),
        "runs_at_once": round(beside, 2),
        "processes": place.ranks.world,
        "compiled": switched_on(COMPILE),
        "deterministic": place.device.type == "cpu" or switched_on(DETERMINISTIC),
        **arithmetic(place.device),
        "graph_steps": costs.graph_steps,
        "fell_back": costs.fell_back,
        "wall_seconds": round(costs.wall_seconds, 3),
        "train_seconds": round(costs.train_seconds, 3),
        "eval_seconds": round(costs.eval_seconds, 3),
        "shared_seconds": round(costs.shared_seconds, 3),
        "images_per_second": rate and round(rate, 1),
        "processors": costs.processors,
        "trained_parameters": run.network.parameters[0],
        "parameters": run.network.parameters[1],
        "peak_memory_mb": round(peak_memory_mb(place.device), 1),
    }
    write_json(folder / "costs.json", stamped(facts))


def _publish(folder: Path, out: Path, seed: int) -> None:
    """Copies what a run that is over left in scratch to its place."""
    if not folder.is_dir():
        return
    for name, target in reversed(stage_files(out, seed).items()):
        target.parent.mkdir(parents=True, exist_ok=True)
        if (folder / name).is_file():
            with atomic_path(target) as temporary:
                shutil.copyfile(folder / name, temporary)


def _clear(folder: Path) -> None:
    """Removes a run's scratch folder, but not the state that it can go on from: if it was killed, or had no memory."""
    over = folder / "run.json"
    goes_on = (folder / "resume.pt").is_file() and over.is_file() and read_run_info(over).status != "ok"
    over.unlink(missing_ok=True)  # first: what is left without it is never taken for the end of a run
    if not goes_on:
        shutil.rmtree(folder, ignore_errors=True)
