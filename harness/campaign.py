"""Campaigns: as many runs of a suite as a time budget allows, several at once on each device, without DVC.

A run is a (cell, seed). Its first stage is trained once for all cells that share it; a second stage is started when its
first one is done. Worker processes take runs from here, longest first. What is stopped by the end of the budget goes on
where it was by the same command; what is finished is a record under `<out>/records`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, cast

from harness import cells
from harness.data import splits, store
from harness.entries import parse_entry
from harness.errors import UserError
from harness.progress import Reporter, reporter
from harness.recipes import Cell, resolve
from harness.records.schema import read_record
from harness.suites import entries_for, get_suite

ON_CUDA = 4  # runs at once on a GPU; to be measured on each kind


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

    def take(self) -> Run:
        """The longest of the runs that can start."""
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


@dataclass(frozen=True)
class Settings:
    """What the command line says."""

    out: Path
    device: str = "auto"
    per_device: int = 0  # 0: one a core, or `ON_CUDA` a GPU
    only: tuple[str, ...] = ()  # patterns of entries
    overrides: tuple[str, ...] = ()


def campaign(suite: str, budget: float, settings: Settings) -> tuple[int, int]:
    """Runs what fits. Returns how many records were made and how many are left.

    Args:
        suite: name in `harness/suites.yaml`.
        budget: seconds of wall time.

    Raises:
        UserError: no such suite, no data set of it is here, nothing of it matches, or no such device.
    """
    began = time.monotonic()
    plan = make_plan(suite, settings)
    total, made = plan.left, 0
    with reporter() as progress, _workers(settings, total) as workers:
        idle, busy = list(workers), dict[Connection, Run]()
        while (plan.ready or busy) and time.monotonic() - began < budget:
            while plan.ready and idle:
                worker, run = idle.pop(), plan.take()
                worker.send(run)
                busy[worker] = run
            for heard in wait(list(busy), timeout=max(0.0, budget - (time.monotonic() - began))):
                worker = cast(Connection, heard)
                answer = _hear(worker, busy[worker], progress)
                if answer is None:
                    continue
                run = busy.pop(worker)
                idle.append(worker)
                plan.finished(run)
                if run.stage != "train":
                    made += 1
                    progress.note(f"[{made}/{total}] {run.split} {run.entry} seed {run.seed}: {answer}")
    return made, total - made


def _hear(worker: Connection, run: Run, progress: Reporter) -> str | None:
    """Hands a message on; what became of the run once it is over, else None."""
    try:
        kind, arguments = worker.recv()
    except EOFError:
        raise UserError(f"the worker of {run} died; for want of memory perhaps; try a lower --per-device") from None
    if kind == "done":
        return str(arguments[0])
    if kind == "user_error":
        raise UserError(*arguments)
    getattr(progress, kind)(*arguments)
    return None


# ---- which runs there are -------------------------------------------------------------------------------------------


def make_plan(suite_name: str, settings: Settings) -> Plan:
    """The suite's runs without those whose record is there; splits are drawn on the way."""
    suite, plan, missing, matched = get_suite(suite_name), Plan(), [], 0
    for name in suite.splits:
        dataset = store.get_dataset(splits.parse_split_name(name).dataset)
        wanted = [entry for entry in entries_for(suite, dataset.name) if _matches(str(entry), settings.only)]
        matched += len(wanted)
        try:
            file = cells.ensure_split(name, dataset, settings.out) if wanted else None
        except UserError as error:
            missing.append(str(error))
            print(f"left out: split {name}: {error}", file=sys.stderr)
            continue
        for entry in wanted:
            assert file is not None
            run = Run(name, dataset.name, str(entry), 0, "finetune", settings.overrides)
            try:
                cell = resolve(entry, dataset.name, settings.overrides)
            except UserError as error:
                print(f"left out: {name} {entry}: {error}", file=sys.stderr)
                continue
            _add(plan, cell, run, suite.seeds, settings.out, sum(splits.read_split(file).class_counts))
    if not matched:
        raise UserError(f"suite '{suite_name}': no entry matches --only {' '.join(settings.only)}")
    if len(missing) == len(suite.splits):
        raise UserError(f"suite '{suite_name}': none of its splits can be drawn: {missing[0]}")
    return plan


def _matches(entry: str, patterns: Sequence[str]) -> bool:
    return not patterns or any(fnmatch.fnmatchcase(entry, pattern) for pattern in patterns)


def _add(plan: Plan, cell: Cell, run: Run, seeds: Sequence[int], out: Path, images: int) -> None:
    folders, first_recipe, second_recipe = cells.folders(cell, run.split, out), cell.recipe.train, cell.recipe.finetune
    for seed in seeds:
        if _is_done(folders.records / f"seed{seed}.json"):
            continue
        second = dataclasses.replace(run, seed=seed)
        # A first stage runs backward through the backbone too: about three times the work of a frozen one.
        plan.lengths[second] = images * second_recipe.for_images(images).epochs if second_recipe else 0.0
        key = (folders.first.as_posix(), seed)
        if key not in plan.after:
            first = dataclasses.replace(second, stage="train")
            plan.lengths[first] = 3.0 * images * first_recipe.for_images(images).epochs
            plan.keys[first], plan.after[key] = key, []
            plan.ready.append(first)
        plan.after[key].append(second)


def _is_done(record: Path) -> bool:
    """Whether there is a record, and not of a failure: that is tried again."""
    try:
        return read_record(record).status != "failed"
    except UserError:
        return False


# ---- who runs them --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _workers(settings: Settings, runs: int) -> Iterator[list[Connection]]:
    """Worker processes, each waiting for runs; in the end they are stopped wherever they are."""
    spawn = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    processes, ends = [], []
    for device in _slots(settings)[:runs]:
        ours, theirs = spawn.Pipe()
        process = spawn.Process(target=work, args=(theirs, settings.out, device))
        process.start()
        theirs.close()
        processes.append(process)
        ends.append(ours)
    try:
        yield ends
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()


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


def work(connection: Connection, out: Path, device_name: str) -> None:
    """A worker's life: takes runs, does them, says how they ended."""
    from harness.engine import stages
    from harness.engine.device import pick_device
    from harness.engine.side_by_side import Sender, become_dependent

    become_dependent()
    place = stages.Workplace(pick_device(device_name), Sender(connection), out / "work" / ".scratch")
    while True:
        run: Run = connection.recv()
        try:
            connection.send(("done", (_do(run, out, place),)))
        except UserError as error:
            connection.send(("user_error", (f"{run}: {error}",)))


def _do(run: Run, out: Path, place: Any) -> str:
    from harness.engine import stages
    from harness.records.evaluate import evaluate

    cell = resolve(parse_entry(run.entry), run.dataset, run.overrides)
    file, folders = out / "splits" / f"{run.split}.json", cells.folders(cell, run.split, out)
    if run.stage == "train":
        return stages.train(cell, file, [run.seed], folders.first, place)[0].status
    outcome = stages.finetune(cell, file, [run.seed], folders.first, folders.last, place)[0]
    evaluate(file, [folders.first, folders.last], [run.seed], folders.records)
    return outcome.status if outcome.failure is None else f"{outcome.status}: {outcome.failure.reason}"
