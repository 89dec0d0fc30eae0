"""A campaign's progress: kept up to date in its file, said in words, and saved with what a lost machine would cost."""

from __future__ import annotations

import dataclasses
import datetime
import shutil
import time
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

    Raises:
        UserError: what is kept there is further on than the campaign.
    """
    if (folder / PROGRESS).is_file():
        kept = read_progress(progress.suite, folder)
        if kept.made > progress.made:
            raise UserError(
                f"{shown(folder)}: has {kept.made} records, the campaign in {shown(out)} {progress.made}; "
                "bring it back first (cp -r), or remove it"
            )
    patterns = ("splits/*.json", "records/**/seed*", STATES)
    found = [path for pattern in patterns for path in out.glob(pattern)]
    wanted = dict.fromkeys([out / PROGRESS, *found, *(out / name for name in progress.needed)])
    if folder.is_dir():
        shutil.rmtree(folder)
    copied = []
    for path in wanted:
        target = folder / path.relative_to(out)
        if path.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
            copied.append(target)
    return copied


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
            left=self._plan.left + sum(run.stage != "train" for run in self._running),
            running=list(self._running.values()),
            hours_left=self._hours_left(),
            needed=self._needed(),
        )
        write_json(self._out / PROGRESS, config.as_dict(made))

    def _hours_left(self) -> float | None:
        if not self._progress.seconds_per_pass:
            return None
        passes = sum(run.passes for run in self._plan.waiting)
        for run, state in self._running.items():
            passes += run.passes * (1 - state.epoch / state.epochs if state.epochs else 1)
        return round(passes * self._progress.seconds_per_pass / self._progress.workers / 3600, 2)

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
