"""Campaigns: as many runs of a suite as a time budget allows, several at once on each device, without DVC.

A run is a (cell, seed). Its first stage is trained once for all cells that share it; a second stage is started when its
first one is done. Worker processes take runs from here, longest first. What is stopped by the end of the budget goes on
where it was by the same command; what is finished is a record under `<out>/records`. A run that fails becomes a record
that says so, and holds up nothing; the next call tries it again, last.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, cast

from harness import cells
from harness.data import splits, store
from harness.data.splits import Split
from harness.entries import parse_entry
from harness.errors import UserError
from harness.files import locked
from harness.processes import become_dependent
from harness.progress import Reporter, reporter
from harness.recipes import Cell, resolve
from harness.records.evaluate import evaluate
from harness.records.schema import Record, read_record
from harness.suites import entries_for, get_suite

ON_CUDA = 4  # runs at once on a GPU; to be measured on each kind


@dataclass(frozen=True)
class Settings:
    """What the command line says."""

    out: Path
    device: str = "auto"
    per_device: int = 0  # 0: one a core, or `ON_CUDA` a GPU
    only: tuple[str, ...] = ()  # patterns of entries
    overrides: tuple[str, ...] = ()


@dataclass
class Outcome:
    """What a campaign came to, in records."""

    made: int = 0
    failed: int = 0  # of those made
    left: int = 0
    left_out: int = 0  # splits without data, entries without a recipe


@dataclass(frozen=True)
class Run:
    """One stage of one run, as it travels to a worker."""

    split: str
    dataset: str
    entry: str
    seed: int
    stage: str  # "train", or "finetune" for all that follows the first stage, its record included
    overrides: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.split} {self.entry} seed {self.seed} {self.stage}"


@dataclass
class Plan:
    """Runs by what they wait for."""

    ready: list[Run] = field(default_factory=list)
    after: dict[tuple[str, int], list[Run]] = field(default_factory=dict)  # first-stage folder and seed -> what follows
    lengths: dict[Run, float] = field(default_factory=dict)  # in image passes; only their order matters
    keys: dict[Run, tuple[str, int]] = field(default_factory=dict)  # of first stages
    left_out: list[str] = field(default_factory=list)

    def take(self) -> Run:
        """The longest of the runs that can start, but first those that train nothing."""
        run = max(self.ready, key=lambda item: self.lengths[item])
        self.ready.remove(run)
        return run

    def finished(self, run: Run) -> None:
        """Lets start what waited for it."""
        if run.stage == "train":
            self.ready += self.after.pop(self.keys[run], [])

    @property
    def left(self) -> int:
        """Records that are still to be made, runs under way not counted."""
        return sum(run.stage != "train" for run in self.ready) + sum(len(runs) for runs in self.after.values())


def campaign(suite: str, budget: float, settings: Settings) -> Outcome:
    """Runs what fits.

    Args:
        suite: name in `harness/suites.yaml`.
        budget: seconds of wall time.

    Raises:
        UserError: no such suite, no data set of it is here, nothing of it matches, no such device, or another command
            at work in the folder.
    """
    until = time.monotonic() + budget
    with locked(settings.out), reporter() as progress:
        plan = make_plan(suite, settings)
        total, outcome = plan.left, Outcome(left_out=len(plan.left_out))
        with _Workers(settings, total) as workers:
            while (plan.ready or workers.busy) and time.monotonic() < until:
                workers.start(plan)
                for run, how in workers.finished(until, progress):
                    plan.finished(run)
                    if run.stage != "train":
                        outcome.made += 1
                        outcome.failed += how.startswith("failed")
                        progress.note(f"[{outcome.made}/{total}] {run.split} {run.entry} seed {run.seed}: {how}")
    outcome.left = total - outcome.made
    return outcome


# ---- which runs there are -------------------------------------------------------------------------------------------


def make_plan(suite_name: str, settings: Settings) -> Plan:
    """The suite's runs without those whose record is there, of this recipe, split and code; splits are drawn."""
    suite, plan, matched = get_suite(suite_name), Plan(), 0
    for name in suite.splits:
        dataset = store.get_dataset(splits.parse_split_name(name).dataset)
        wanted = [entry for entry in entries_for(suite, dataset.name) if _matches(str(entry), settings.only)]
        matched += len(wanted)
        try:
            split = splits.read_split(cells.ensure_split(name, dataset, settings.out)) if wanted else None
        except UserError as error:
            _leave_out(plan, f"split {name}", error)
            continue
        for entry in wanted:
            assert split is not None
            run = Run(name, dataset.name, str(entry), 0, "finetune", settings.overrides)
            try:
                cell = resolve(entry, dataset.name, settings.overrides)
            except UserError as error:
                _leave_out(plan, f"{name} {entry}", error)
                continue
            _add(plan, cell, run, suite.seeds, split, settings.out)
    if not matched:
        raise UserError(f"suite '{suite_name}': no entry matches --only {' '.join(settings.only)}")
    if len(plan.left_out) >= len(suite.splits) and not plan.lengths:
        raise UserError(f"suite '{suite_name}': none of its runs can be made: {plan.left_out[0]}")
    return plan


def _leave_out(plan: Plan, what: str, error: UserError) -> None:
    plan.left_out.append(f"{what}: {error}")
    print(f"left out: {what}: {error}", file=sys.stderr)


def _matches(entry: str, patterns: Sequence[str]) -> bool:
    return not patterns or any(fnmatch.fnmatchcase(entry, pattern) for pattern in patterns)


def _add(plan: Plan, cell: Cell, run: Run, seeds: Sequence[int], split: Split, out: Path) -> None:
    from harness.engine.stages import run_info  # imports torch

    folders, images = cells.folders(cell, run.split, out), sum(split.class_counts)
    first_epochs = cell.recipe.train.for_images(images).epochs
    second_epochs = cell.recipe.finetune.for_images(images).epochs if cell.recipe.finetune else 0
    for seed in seeds:
        record = _read(folders.records / f"seed{seed}.json", run_info(cell, split, seed, cell.stages[-1]).run_key)
        if record and record.status != "failed":
            continue
        second, key = dataclasses.replace(run, seed=seed), (folders.first.as_posix(), seed)
        first = dataclasses.replace(second, stage="train")
        # What trains nothing takes seconds and leaves a record, which the end of the budget must not forestall.
        plan.lengths[second] = 0.0 if record else float(images * second_epochs) or math.inf
        if key not in plan.after:
            plan.keys[first], plan.after[key], plan.lengths[first] = key, [], 0.0
            plan.ready.append(first)
        if not record:  # runs that have failed before come last
            owner = next(item for item, its_key in plan.keys.items() if its_key == key)
            # A first stage runs backward through the backbone too: about three times the work of a frozen one.
            plan.lengths[owner] = 3.0 * images * first_epochs
        plan.after[key].append(second)


def _read(path: Path, run_key: str) -> Record | None:
    """The record of the run with that key; None for another one, or none."""
    try:
        record = read_record(path)
    except UserError:
        return None
    return record if record.run_key == run_key else None


# ---- who runs them --------------------------------------------------------------------------------------------------


class _Workers:
    """Worker processes, each waiting for runs; in the end they are stopped wherever they are."""

    def __init__(self, settings: Settings, runs: int) -> None:
        self._settings = settings
        slots = _slots(settings)[:runs]
        self._at_once = {device: slots.count(device) for device in slots}
        self._processes: dict[Connection, tuple[SpawnProcess, str]] = {}
        self._idle: list[Connection] = []
        self.busy: dict[Connection, Run] = {}
        self._slots = slots

    def __enter__(self) -> _Workers:
        for device in self._slots:
            self._hire(device)
        return self

    def __exit__(self, *_: object) -> None:
        for process, _device in self._processes.values():
            process.terminate()
        for process, _device in self._processes.values():
            process.join()

    def _hire(self, device: str) -> None:
        spawn = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
        ours, theirs = spawn.Pipe()
        process = spawn.Process(target=work, args=(theirs, self._settings.out, device, self._at_once[device]))
        process.start()
        theirs.close()
        self._processes[ours] = process, device
        self._idle.append(ours)

    def start(self, plan: Plan) -> None:
        """Gives each idle worker a run."""
        while plan.ready and self._idle:
            worker, run = self._idle.pop(), plan.take()
            worker.send(run)
            self.busy[worker] = run

    def finished(self, until: float, progress: Reporter) -> Iterator[tuple[Run, str]]:
        """Waits for news, and gives the runs that are over with how they ended."""
        for heard in wait(list(self.busy), timeout=max(0.0, until - time.monotonic())):
            worker = cast(Connection, heard)
            try:
                kind, arguments = worker.recv()
            except EOFError:
                yield self._lost(worker)
                continue
            if kind == "done":
                self._idle.append(worker)
                yield self.busy.pop(worker), str(arguments[0])
            else:
                getattr(progress, kind)(*arguments)

    def _lost(self, worker: Connection) -> tuple[Run, str]:
        """A worker died: its run has failed, and another worker takes its place."""
        run, (process, device) = self.busy.pop(worker), self._processes.pop(worker)
        process.join()
        self._hire(device)
        reason = f"its process ended with code {process.exitcode}, for want of memory perhaps"
        return run, _fail(run, self._settings.out, reason)


def _slots(settings: Settings) -> list[str]:
    """The device of each worker."""
    import torch

    from harness.engine.device import pick_device

    picked = pick_device(settings.device)
    if picked.type == "cpu":
        return ["cpu"] * (settings.per_device or len(os.sched_getaffinity(0)))
    every = settings.device in ("auto", "cuda")
    devices = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if every else [str(picked)]
    return devices * (settings.per_device or ON_CUDA)


def work(connection: Connection, out: Path, device_name: str, at_once: int) -> None:
    """A worker's life: takes runs, does them, says how they ended."""
    from harness.engine import stages
    from harness.engine.device import pick_device
    from harness.engine.side_by_side import Sender

    become_dependent()
    scratch = out / "work" / ".scratch"
    place = stages.Workplace(pick_device(device_name), Sender(connection), scratch, at_once=at_once)
    while True:
        run: Run = connection.recv()
        try:
            how = _do(run, out, place)
        except UserError as error:  # an image that cannot be read, say: this run fails, the others go on
            how = _fail(run, out, str(error))
        connection.send(("done", (how,)))


def _do(run: Run, out: Path, place: Any) -> str:
    """Runs it; says how it ended."""
    from harness.engine import stages

    cell, file, folders = _where(run, out)
    if run.stage == "train":
        return stages.train(cell, file, [run.seed], folders.first, place)[0].status
    outcome = stages.finetune(cell, file, [run.seed], folders.first, folders.last, place)[0]
    evaluate(file, [folders.first, folders.last], [run.seed], folders.records)
    return outcome.status if outcome.failure is None else f"{outcome.status}: {outcome.failure.reason}"


def _fail(run: Run, out: Path, reason: str) -> str:
    """Writes the failure down: of a first stage for those that wait for it, else as the run's record."""
    from harness.engine import stages

    cell, file, folders = _where(run, out)
    if run.stage == "train":
        stages.record_failure(cell, file, run.seed, "train", folders.first, reason)
    else:
        stages.record_failure(cell, file, run.seed, cell.stages[-1], folders.last, reason)
        evaluate(file, [folders.first, folders.last], [run.seed], folders.records)
    return f"failed: {reason}"


def _where(run: Run, out: Path) -> tuple[Cell, Path, cells.Folders]:
    cell = resolve(parse_entry(run.entry), run.dataset, run.overrides)
    return cell, out / "splits" / f"{run.split}.json", cells.folders(cell, run.split, out)
