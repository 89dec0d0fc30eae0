"""Campaigns: as many runs of a suite as a time budget allows, several at once on each device, without DVC.

Worker processes take runs in the order of `harness.running.plans`, which completes one cell after the other. When the
budget ends, runs under way stop, and the same command resumes them. A finished run is a record under `<out>/records`.
A failed run becomes a record that says so and holds up nothing; the next call tries it again, last.
"""

from __future__ import annotations

import time
from multiprocessing.connection import Connection
from pathlib import Path

from harness.base.errors import UserError
from harness.base.files import locked
from harness.base.processes import Exited, Pool
from harness.base.progress import Reporter, Sender, reporter
from harness.records.runs import RunInfo
from harness.running.plans import Outcome, Run, Settings, do, fail, make_plan, slots, workplace
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

        def hire(device: str) -> Connection:
            return pool.start(work, settings.out, device, devices.count(device))

        idle, busy = {hire(device): device for device in devices}, dict[Connection, tuple[str, Run]]()
        while (plan.ready or busy) and time.monotonic() < until:
            while plan.ready and idle:
                (worker, device), run = idle.popitem(), plan.take()
                worker.send(run)
                busy[worker] = device, run
                tracker.started(run)
            for worker, message in pool.heard(max(0.0, until - time.monotonic())):
                device, run = busy[worker]
                if not isinstance(message, RunInfo | Exited):
                    message(_Watched(run, progress, tracker))
                    continue
                del busy[worker]
                if isinstance(message, Exited):  # it died: its run has failed, and another takes its place
                    idle[hire(device)], outcome = device, fail(run, settings.out, message.cause)
                else:
                    idle[worker], outcome = device, message
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
