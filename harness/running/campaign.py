"""Campaigns: as many runs of a suite as a time budget allows, several at once on each device, without DVC.

Worker processes take runs from here, in the order of `harness.running.plans`: one cell after the other is completed.
What is stopped by the end of the budget goes on where it was by the same command; what is finished is a record under
`<out>/records`. A run that fails becomes a record that says so, and holds up nothing; the next call tries it again,
last.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import TYPE_CHECKING, cast

from harness.base.errors import UserError
from harness.base.files import locked
from harness.base.processes import become_dependent
from harness.base.progress import Reporter, reporter
from harness.engine.side_by_side import Sender, cause_of_death
from harness.running.plans import Plan, Run, Settings, do, fail, make_plan, slots
from harness.running.status import Tracker
from harness.running.sweep.contract import only_one

if TYPE_CHECKING:
    from harness.running.stages import Workplace


@dataclass
class Outcome:
    """What a campaign came to, in records."""

    made: int = 0
    failed: int = 0  # of those made
    left: int = 0
    left_out: int = 0  # splits without data, entries without a recipe


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
            tracker = Tracker(settings.out, suite, plan, workers.count)
            while (plan.ready or workers.busy) and time.monotonic() < until:
                workers.start(plan, tracker)
                for run, how in workers.finished(until, progress, tracker):
                    plan.finished(run)
                    tracker.finished(run, how)
                    if run.stage != "train":
                        outcome.made += 1
                        outcome.failed += how.startswith("failed")
                        progress.note(f"[{outcome.made}/{total}] {run.split} {run.entry} seed {run.seed}: {how}")
    outcome.left = total - outcome.made
    return outcome


class _Workers:
    """Worker processes, each waiting for runs; in the end they are stopped wherever they are."""

    def __init__(self, settings: Settings, runs: int) -> None:
        self._settings = settings
        self._slots = slots(settings)[:runs]
        self._at_once = {device: self._slots.count(device) for device in self._slots}
        self._processes: dict[Connection, tuple[SpawnProcess, str]] = {}
        self._idle: list[Connection] = []
        self.busy: dict[Connection, Run] = {}

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

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._slots)

    def start(self, plan: Plan, tracker: Tracker) -> None:
        """Gives each idle worker a run."""
        while plan.ready and self._idle:
            worker, run = self._idle.pop(), plan.take()
            worker.send(run)
            self.busy[worker] = run
            tracker.started(run)

    def finished(self, until: float, progress: Reporter, tracker: Tracker) -> Iterator[tuple[Run, str]]:
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
            elif kind == "epoch":
                progress.epoch(*arguments)
                tracker.epoch(self.busy[worker], *arguments[1:3])
            else:
                progress.note(*arguments)

    def _lost(self, worker: Connection) -> tuple[Run, str]:
        """A worker died: its run has failed, and another worker takes its place."""
        run, (process, device) = self.busy.pop(worker), self._processes.pop(worker)
        process.join()
        self._hire(device)
        return run, fail(run, self._settings.out, cause_of_death(process.exitcode))


def work(connection: Connection, out: Path, device_name: str, at_once: int) -> None:
    """A worker's life: takes runs, does them, says how they ended."""
    from harness.engine.device import pick_device
    from harness.running import stages

    become_dependent()
    scratch = out / "work" / ".scratch"
    place = stages.Workplace(pick_device(device_name), Sender(connection), scratch, at_once=at_once)
    while True:
        run: Run = connection.recv()
        with only_one(out.resolve(), run.folder):  # a job of a sweep whose head died may still be at it
            how = _done_or_failed(run, out, place)
        connection.send(("done", (how,)))


def _done_or_failed(run: Run, out: Path, place: Workplace) -> str:
    try:
        return do(run, out, place)
    except UserError as error:  # an image that cannot be read, say: this run fails, the others go on
        return fail(run, out, str(error))
