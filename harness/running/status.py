"""A campaign's progress: kept up to date in its file, said in words, and saved with what a lost machine would cost."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from harness.base import config
from harness.base.errors import UserError
from harness.base.files import is_locked, shown, write_json
from harness.records.progress import PROGRESS, Progress, Running, read_progress
from harness.records.runs import RunInfo, stage_files
from harness.running.cells import SCRATCH
from harness.running.plans import Plan, Run
from harness.spec.provenance import git_commit
from harness.spec.suites import lies_in

STATES = f"{SCRATCH}/*/resume.pt"
EVERY = 1.0  # seconds: the file is not written more often than that


def describe(progress: Progress, out: Path) -> list[str]:
    """The lines that a person reads."""
    total, at_work = progress.made + progress.left, is_locked(out)
    failed = f", {progress.failed} of them failed" if progress.failed else ""
    lines = [f"{progress.suite}: {progress.made} of {total} records made{failed}; {progress.left} left"]
    state = "at work" if at_work else "stopped; the same `ltbench campaign` goes on"
    lines.append(f"{state} (written {progress.updated}, code {progress.commit or 'without git'})")
    lines += [f"{run.run}: {run.state}" for run in progress.running]
    if progress.hours_left is not None:
        lines.append(f"about {progress.hours_left:.1f} hours left with {progress.workers} at once, at the speed so far")
    return lines


def save(progress: Progress, out: Path, folder: Path) -> list[Path]:
    """Copies what a lost machine would cost into `folder`, in place of what is there; `cp -r` brings it back.

    These are the resume states of all runs that are not over, first stages that others wait for, and the records.

    They are copied beside it first: whatever ends this leaves all that was kept before, or all that is new.

    Raises:
        UserError: the folder is the campaign's, holds something else, or what it keeps is further on.
    """
    if lies_in(out, folder) or lies_in(folder, out):
        raise UserError(f"{shown(folder)}: holds the campaign itself, or lies in its folder; name another one")
    if folder.exists() and not _is_ours(folder):
        raise UserError(f"{shown(folder)}: holds something else, which would be lost; name another folder")
    if (folder / PROGRESS).is_file() and _is_ahead(read_progress(progress.suite, folder), progress):
        raise UserError(
            f"{shown(folder)}: is further on than the campaign in {shown(out)}; "
            "bring it back first (cp -r), or remove it"
        )
    folder = folder.resolve()  # beside a link's target, not beside the link
    fresh, before = (folder.with_name(f".{folder.name}.{what}") for what in ("new", "old"))
    shutil.rmtree(fresh, ignore_errors=True)
    states = _copied(out, fresh, out.glob(STATES))
    # Listed after that: what ends meanwhile is in one of them.
    needed = [out / name for name in read_progress(progress.suite, out).needed]
    done = [path for pattern in (PROGRESS, "splits/*.json", "records/**/seed*") for path in out.glob(pattern)]
    others = _copied(out, fresh, [path for path in (*needed, *done) if path not in states])
    if folder.is_dir():
        shutil.rmtree(before, ignore_errors=True)
        folder.replace(before)
    fresh.replace(folder)
    shutil.rmtree(before, ignore_errors=True)
    return [folder / path.relative_to(out) for path in (*states, *others)]


def _is_ours(folder: Path) -> bool:
    """Whether a folder is empty, or holds what `save` keeps, and nothing else."""
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else {"a file"}
    return not names or (PROGRESS in names and names <= {PROGRESS, "splits", "records", "work"})


def _is_ahead(kept: Progress, now: Progress) -> bool:
    """Whether what is kept has a record, a file or an epoch that the campaign would have to make again.

    While no record is made, a run that begins and a first stage that ends only add to the files that are needed.
    """
    epochs = {run.run: run.epoch for run in now.running}
    more = any(run.epoch > epochs.get(run.run, run.epoch) for run in kept.running)
    there, here = kept.made - kept.failed, now.made - now.failed  # the next call makes those that failed again
    return (there, len(kept.needed)) > (here, len(now.needed)) or (there == here and more)


def _copied(out: Path, to: Path, paths: Iterable[Path]) -> list[Path]:
    """Copies those that are still there."""
    found = []
    for path in paths:
        target = to / path.relative_to(out)
        target.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # a run has just ended
            shutil.copyfile(path, target)
            found.append(path)
    return found


class Tracker:
    """Counts what a campaign makes, and keeps its file up to date."""

    def __init__(self, out: Path, suite: str, plan: Plan, workers: int) -> None:
        self.made = self.failed = 0  # records, by this call
        self._out, self._plan, self._written = out, plan, 0.0
        self._running: dict[Run, Running] = {}
        self._measured_from: dict[Run, tuple[float, int]] = {}  # time and epoch since when a run is timed
        self._passes = self._seconds = 0.0  # measured so far
        try:
            before = read_progress(suite, out)
        except UserError:
            before = Progress(suite)
        self._before = {run.run: run for run in before.running}
        self._progress = dataclasses.replace(before, workers=workers, commit=git_commit())
        self.write()

    def at_once(self, workers: int) -> None:
        """So many runs share the work from here on."""
        self._progress = dataclasses.replace(self._progress, workers=workers)

    def started(self, run: Run) -> None:
        """A worker has it."""
        self._running[run] = self._before.pop(str(run), Running(str(run)))
        self.write()

    def epoch(self, run: Run, done: int, total: int) -> None:
        """`done` of `total` epochs are finished."""
        now = time.monotonic()
        if run in self._measured_from and total:
            since, from_epoch = self._measured_from[run]
            self._passes += run.length * (done - from_epoch) / total
            self._seconds += now - since
        self._measured_from[run] = now, done
        self._running[run] = Running(str(run), done, total)
        if now - self._written > EVERY:
            self.write()

    def finished(self, run: Run, outcome: RunInfo) -> None:
        """It is over."""
        self._running.pop(run, None)
        if run.stage != "train":
            self.made += 1
            self.failed += outcome.status == "failed"
        self.write()

    def write(self) -> None:
        """Writes the file."""
        self._written = time.monotonic()
        if self._passes:
            self._progress = dataclasses.replace(self._progress, seconds_per_pass=self._seconds / self._passes)
        made = dataclasses.replace(
            self._progress,
            updated=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            made=self._plan.done + self.made,
            failed=self.failed,
            left=self._left,
            running=list(self._running.values()),
            hours_left=self._hours_left(),
            needed=self._needed(),
        )
        write_json(self._out / PROGRESS, config.as_dict(made))

    @property
    def _left(self) -> int:
        return self._plan.left + sum(run.stage != "train" for run in self._running)

    def _hours_left(self) -> float | None:
        if not self._progress.seconds_per_pass:
            return None
        passes = sum(run.passes for run in self._plan.waiting)
        for run, state in self._running.items():
            passes += run.passes * (1 - state.epoch / state.epochs if state.epochs else 1)
        at_once = max(1, min(self._progress.workers, self._left))  # no more than there are runs
        return round(passes * self._progress.seconds_per_pass / at_once / 3600, 2)

    def _needed(self) -> list[str]:
        """Resume states of what is not over; files of finished first stages that others still wait for."""
        states = sorted(self._out.glob(STATES))
        unfinished = [run for run in (*self._running, *self._plan.waiting) if run.stage != "train"]
        firsts = sorted({(self._plan.folders[run].first, run.seed) for run in unfinished})
        files = [path for folder, seed in firsts for path in stage_files(folder, seed).values()]
        return [path.relative_to(self._out).as_posix() for path in (*states, *files) if path.is_file()]


def as_json(progress: Progress, out: Path) -> dict[str, Any]:
    """The same for machines."""
    return {**config.as_dict(progress), "at_work": is_locked(out)}
