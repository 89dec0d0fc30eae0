"""Campaigns: as many runs of a suite as a time budget allows, several at once on each device, without DVC.

Worker processes take runs in the order of `harness.running.plans`, which completes one cell after the other. When the
budget ends, runs under way stop, and the same command resumes them. A finished run is a record under `<out>/records`.
A failed run becomes a record that says so and holds up nothing; the next call tries it again, last.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

from harness.base.errors import UserError
from harness.base.files import locked
from harness.base.processes import Exited, Pool
from harness.base.progress import Reporter, Sender, reporter
from harness.records.runs import RunInfo
from harness.running.plans import Outcome, Plan, Run, Settings, do, fail, make_plan, slots, workplace
from harness.running.status import Tracker
from harness.running.sweep.contract import only_one


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
    with locked(settings.out), reporter() as progress, Pool("spawn") as pool:  # CUDA does not survive a fork
        plan = make_plan(suite, settings)
        total, devices = plan.left, slots(settings)[: plan.left]
        tracker = Tracker(settings.out, suite, plan, len(devices))
        workers = _Workers(pool, settings.out, devices, progress, tracker)
        while (plan.ready or workers.busy) and time.monotonic() < until:
            workers.start(plan)
            for run, outcome in workers.finished(until):
                plan.finished(run)
                tracker.finished(run, outcome)
                if run.stage != "train":
                    title = f"{run.split} {run.entry} seed {run.seed}"
                    progress.note(f"[{tracker.made}/{total}] {title}: {outcome.how_it_ended}")
    return Outcome(tracker.made, tracker.failed, total - tracker.made, len(plan.left_out))


class _Watched(Reporter):
    """Shows what a worker reports of its run, and keeps count of the epochs."""

    def __init__(self, run: Run, progress: Reporter, tracker: Tracker) -> None:
        super().__init__()
        self._run, self._tracker, self._progress = run, tracker, progress

    def note(self, text: str) -> None:
        """Shown."""
        self._progress.note(text)

    def epoch(self, what: str, done: int, total: int, detail: str) -> None:
        """Shown and counted."""
        self._progress.epoch(what, done, total, detail)
        self._tracker.epoch(self._run, done, total)


class _Workers:
    """Worker processes, each waiting for runs."""

    def __init__(self, pool: Pool, out: Path, devices: list[str], progress: Reporter, tracker: Tracker) -> None:
        self._pool, self._out, self._progress, self._tracker = pool, out, progress, tracker
        self._at_once = {device: devices.count(device) for device in devices}
        self._devices: dict[Connection, str] = {}
        self.busy: dict[Connection, Run] = {}
        for device in devices:
            self._hire(device)

    def _hire(self, device: str) -> None:
        self._devices[self._pool.start(work, self._out, device, self._at_once[device])] = device

    def start(self, plan: Plan) -> None:
        """Gives each idle worker a run."""
        for worker in self._devices.keys() - self.busy.keys():
            if plan.ready:
                run = plan.take()
                worker.send(run)
                self.busy[worker] = run
                self._tracker.started(run)

    def finished(self, until: float) -> Iterator[tuple[Run, RunInfo]]:
        """Waits for news, and gives the runs that are over with how they ended."""
        for worker, message in self._pool.heard(max(0.0, until - time.monotonic())):
            run = self.busy[worker]
            if isinstance(message, RunInfo):
                yield self.busy.pop(worker), message
            elif isinstance(message, Exited):  # it died: its run has failed, and another takes its place
                self._hire(self._devices.pop(worker))
                yield self.busy.pop(worker), fail(run, self._out, message.cause)
            else:
                message(_Watched(run, self._progress, self._tracker))


def work(connection: Connection, out: Path, device: str, at_once: int) -> None:
    """A worker's life: takes runs, does them, says how they ended."""
    place = workplace(out, device, at_once, Sender(connection))
    while True:
        run: Run = connection.recv()
        with only_one(out.resolve(), run.folder):  # a job of a sweep whose head died may still be at it
            try:
                outcome = do(run, out, place)
            except UserError as error:  # an image that cannot be read, say: this run fails, the others go on
                outcome = fail(run, out, str(error))
        connection.send(outcome)
