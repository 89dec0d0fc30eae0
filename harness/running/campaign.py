"""Campaigns: as many runs of a suite as a time budget allows, several at once on each device, without DVC.

On a GPU `harness.running.packing` finds out how many at once, unless that is given.

Worker processes take runs in the order of `harness.running.plans`, which completes one cell after the other. When the
budget ends, runs under way stop, and the same command resumes them. A finished run is a record under `<out>/records`.
A failed run becomes a record that says so and holds up nothing; the next call tries it again, last.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

from harness.base.errors import DiskError, UserError, of_file
from harness.base.files import locked
from harness.base.processes import Exited, Pool
from harness.base.progress import Reporter, Sender, reporter
from harness.records.runs import RunInfo
from harness.running.cells import forget_features
from harness.running.packing import Asked, Load, Memory, Packing, shared_cards
from harness.running.plans import OtherRunError, Outcome, Plan, Run, Settings, do, fail, make_plan, slots, workplace
from harness.running.status import Tracker
from harness.running.sweep.contract import only_one


def campaign(suite: str, budget: float, settings: Settings) -> Outcome:
    """Runs what fits.

    Args:
        suite: name in `harness/suites.yaml`.
        budget: seconds of wall time.

    Raises:
        UserError: no such suite, no data set of it is here, nothing of it matches, no such device, another command at
            work in the folder, a disk that is full, or a checkout that was edited meanwhile.
    """
    until = time.monotonic() + budget
    with locked(settings.out), reporter() as progress, contextlib.ExitStack() as stack:
        plan = make_plan(suite, settings)
        every = slots(settings)
        total, devices = plan.left, list(dict.fromkeys(every))
        on_cards = devices[:1] != ["cpu"]
        stack.enter_context(shared_cards(on_cards, progress.note))
        pool = stack.enter_context(Pool("spawn"))  # CUDA does not survive a fork
        fixed = settings.per_device if on_cards else min(len(every), max(total, 1))
        crews = [_Crew(device, Packing(device, fixed, progress.note), settings.out, pool) for device in devices]
        tracker = Tracker(settings.out, suite, plan, sum(crew.packing.count for crew in crews))
        while (plan.ready or any(crew.busy for crew in crews)) and time.monotonic() < until:
            for crew in crews:
                crew.set_to_work(plan, tracker)
            tracker.at_once(sum(crew.packing.count for crew in crews))
            for worker, message in pool.heard(max(0.0, until - time.monotonic())):
                found = [crew for crew in crews if worker in crew.busy]
                if not found:  # an idle one has died, which costs nothing
                    continue
                (crew,) = found
                run = crew.busy[worker]
                if isinstance(message, Memory):
                    crew.packing.memory = message
                elif isinstance(message, Asked):
                    with contextlib.suppress(OSError):  # it has died since
                        worker.send(crew.load.mean(worker))
                elif not isinstance(message, RunInfo | Exited):
                    message(_Watched(run, progress, tracker, partial(crew.packing.epoch, worker)))
                else:
                    outcome = crew.over(worker, message)
                    plan.finished(run)
                    tracker.finished(run, outcome)
                    if run.stage != "train":
                        title = f"{run.split} {run.entry} seed {run.seed}"
                        progress.note(f"[{tracker.made}/{total}] {title}: {outcome.how_it_ended}")
        if tracker.made == total:
            forget_features(settings.out)
    return Outcome(tracker.made, tracker.failed, total - tracker.made, len(plan.left_out))


class _Crew:
    """The workers of a device.

    Attributes:
        busy: the runs under way, by worker.
    """

    def __init__(self, device: str, packing: Packing, out: Path, pool: Pool) -> None:
        self.packing, self.load, self.busy = packing, Load(), dict[Connection, Run]()
        self._device, self._out, self._pool = device, out, pool
        self._idle: list[Connection] = []

    def set_to_work(self, plan: Plan, tracker: Tracker) -> None:
        """Gives out runs that can start, to as many workers as there are to be."""
        while plan.ready and len(self.busy) < self.packing.count:
            run = plan.take()
            worker = self._given(run)
            self.busy[worker] = run
            self.load.begins(worker)
            tracker.started(run)

    def _given(self, run: Run) -> Connection:
        """A worker that was sent the run: an idle one that is still alive, or a new one."""
        while self._idle:
            worker = self._idle.pop()
            with contextlib.suppress(OSError):
                worker.send(run)
                return worker
        worker = self._pool.start(work, self._out, self._device)
        with contextlib.suppress(OSError):  # it has died at once, which is heard next
            worker.send(run)
        return worker

    def over(self, worker: Connection, message: RunInfo | Exited) -> RunInfo:
        """A run is over, or the worker is, and its run has failed; says how it ended."""
        run = self.busy.pop(worker)
        self.packing.gone(worker)
        self.load.ends(worker)
        if isinstance(message, Exited):
            return fail(run, self._out, message.cause)
        self._idle.append(worker)
        return message


class _Watched(Reporter):
    """Shows what a worker reports of its run, and keeps count of the epochs.

    Args:
        passes: told the image passes of each epoch.
    """

    def __init__(self, run: Run, progress: Reporter, tracker: Tracker, passes: Callable[[float], None]) -> None:
        super().__init__()
        self._run, self._tracker, self._progress, self._passes = run, tracker, progress, passes

    def note(self, text: str) -> None:
        """Shown."""
        self._progress.note(text)

    def epoch(self, what: str, done: int, total: int, detail: str) -> None:
        """Shown and counted."""
        self._progress.epoch(what, done, total, detail)
        self._tracker.epoch(self._run, done, total)
        self._passes(self._run.passes / total)


class _OnCard(Sender):
    """Says with each epoch how much memory the card has left."""

    def __init__(self, connection: Connection, device: str) -> None:
        super().__init__(connection)
        self._device = device

    def epoch(self, what: str, done: int, total: int, detail: str) -> None:
        """Sent on."""
        import torch

        self._send(Memory(*torch.cuda.mem_get_info(self._device)))
        super().epoch(what, done, total, detail)


def work(connection: Connection, out: Path, device: str) -> None:
    """A worker's life: takes runs, does them, says how they ended."""
    told = Sender(connection) if device == "cpu" else _OnCard(connection, device)

    def at_once() -> float:
        connection.send(Asked())
        return float(connection.recv())

    place = workplace(out, device, at_once, told)
    while True:
        run = connection.recv()
        with only_one(out.resolve(), run.folder):  # a job of a sweep whose head died may still be at it
            try:
                outcome = do(run, out, place)
            except (UserError, OSError) as error:
                fault = of_file(error) if isinstance(error, OSError) else error
                if isinstance(fault, DiskError | OtherRunError):  # so would all that follow: it ends, and can go on
                    raise fault from None
                outcome = fail(run, out, str(fault))  # an image that cannot be read, say: the others go on
        connection.send(outcome)
