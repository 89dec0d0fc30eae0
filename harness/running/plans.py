"""Plans: which runs of a suite are left, in which order they are made, and how one of them is done.

A run is a (cell, seed). Its first stage is trained once for all cells that share it; a second stage can start when its
first one is done. Campaigns and sweeps take their runs from here.
"""

from __future__ import annotations

import bisect
import dataclasses
import fnmatch
import math
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

from harness.base.errors import RunFailed, UserError
from harness.base.progress import Reporter
from harness.records.evaluate import evaluate
from harness.records.runs import RunInfo, read_run_info, run_info, stage_files
from harness.records.schema import Record, read_record
from harness.running import cells
from harness.spec.entries import parse_entry
from harness.spec.recipes import Cell, resolve
from harness.spec.suites import entries_for, get_suite
from harness.splits import store
from harness.splits.split_names import parse_split_name
from harness.splits.splits import Split, read_split

if TYPE_CHECKING:
    from harness.reading.dataset import Dataset
    from harness.running.stages import Workplace

Place = tuple[str, int, int, int]
"""Of an entry: its suite's order; and numbers: of its split, of its group, of itself."""
ON_CUDA = 4  # runs of a sweep at once on a GPU


class OtherRunError(UserError):
    """What would be run here is not what was planned."""


@dataclass(frozen=True)
class Settings:
    """What the command line says."""

    out: Path
    device: str = "auto"
    per_device: int = 0  # 0: one a core; on a GPU a campaign finds out, a sweep takes `ON_CUDA`
    only: tuple[str, ...] = ()  # patterns of entries
    overrides: tuple[str, ...] = ()
    dry_run: bool = False  # nothing is fetched, and nothing written but decoded images


@dataclass(frozen=True)
class Outcome:
    """What a campaign or sweep came to, in records; of a sweep, `failed` counts first stages too."""

    made: int = 0
    failed: int = 0  # of those made
    left: int = 0
    left_out: int = 0  # splits without data, entries without a recipe

    def check(self) -> None:
        """Whether all that was due was made.

        Raises:
            RunFailed: something failed or was left out.
        """
        if self.failed or self.left_out:
            raise RunFailed(f"{self.failed} runs failed, {self.left_out} were left out: see above")


@dataclass(frozen=True)
class Run:
    """One stage of one run, as it travels to a worker."""

    split: str
    dataset: str
    entry: str
    seed: int
    stage: str  # "train", or "finetune" for all that follows the first stage, its record included
    overrides: tuple[str, ...]
    run_key: str = ""  # of the first stage where this is one, else of the whole run
    first_key: str = field(default="", compare=False)  # run key of its first stage
    length: float = field(default=0.0, compare=False)  # image passes, of a forward pass alone; nothing to train: inf
    priority: tuple[int, ...] = field(default=(), compare=False)  # the greatest is taken first

    def __str__(self) -> str:
        return f"{self.split} {self.entry} seed {self.seed} {self.stage}"

    @property
    def folder(self) -> str:
        """Its name in a sweep: a first stage is of all that share it, a record of its entry alone."""
        return first_folder(self.run_key) if self.stage == "train" else f"{self.run_key}-{self.entry}"

    @property
    def passes(self) -> float:
        """The work, in forward passes of images; 0 where nothing is trained."""
        return self.length if math.isfinite(self.length) else 0.0

    @property
    def again(self) -> bool:
        """Whether it has failed before, by its priority."""
        return self.priority[:1] == (-1,)


def first_folder(run_key: str) -> str:
    """The name of a first stage in a sweep, by its run key."""
    return f"{run_key}-train"


def priority(place: Place, seed: int, *, second: bool, again: bool) -> tuple[int, ...]:
    """Of a run; the greatest is taken first.

    A cell is complete when all its seeds are, so a second stage goes before every first stage of its split, and the
    seeds of a first stage follow each other. Runs that have failed before (`again`) come last of all.
    """
    order, split, group, position = place
    if order == "listed":
        return -again, -split, -group, -seed, second, -position
    return -again, -split, second, -position, -seed


@dataclass
class Plan:
    """Runs by what they wait for."""

    ended: Callable[[Run], bool]  # of a run with a record: whether it is really over
    firsts: dict[str, Run] = field(default_factory=dict)  # by their run keys
    ready: list[Run] = field(default_factory=list)  # once sorted, the next one is the last
    after: dict[str, list[Run]] = field(default_factory=dict)  # run key of a first stage -> what follows it
    resolved: dict[Run, Cell] = field(default_factory=dict)
    folders: dict[Run, cells.Folders] = field(default_factory=dict)
    splits: dict[str, Split] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    done: int = 0  # records that are there

    def take(self) -> Run:
        """The next of the runs that can start."""
        return self.ready.pop()

    def finished(self, run: Run) -> None:
        """Makes ready what waited for it."""
        if run.stage == "train":
            for follower in self.after.pop(run.run_key, []):
                bisect.insort_left(self.ready, follower, key=attrgetter("priority"))

    def sort(self) -> None:
        """Makes the first stages ready, in the order in which they are taken."""
        self.ready = sorted(self.firsts.values(), key=attrgetter("priority"))

    @property
    def waiting(self) -> list[Run]:
        """All runs that have not been taken."""
        return [*self.ready, *(run for runs in self.after.values() for run in runs)]

    @property
    def left(self) -> int:
        """Records that are still to be made, runs under way not counted."""
        return sum(run.stage != "train" for run in self.waiting)


def make_plan(suite_name: str, settings: Settings, ended: Callable[[Run], bool] = lambda _run: True) -> Plan:
    """The suite's runs without those whose record is there, of this recipe, split and code; splits are drawn.

    Args:
        ended: asked about a run with a record; if it says no, the run is made again.
    """
    suite, plan = get_suite(suite_name), Plan(ended)
    matched = resolved = 0  # entries
    for number, name in enumerate(suite.splits):
        dataset = store.get_dataset(parse_split_name(name).dataset)
        entries = entries_for(suite, dataset.name).items()
        wanted = [(entry, group) for entry, group in entries if _matches(str(entry), settings.only)]
        matched += len(wanted)
        if not wanted:
            continue
        try:
            find = cells.planned_split if settings.dry_run else _drawn
            split = plan.splits[name] = find(name, dataset, settings.out)
        except UserError as error:
            _leave_out(plan, f"split {name}", error)
            continue
        for position, (entry, group) in enumerate(wanted):
            try:
                cell = resolve(entry, dataset.name, settings.overrides)
            except UserError as error:
                _leave_out(plan, f"{name} {entry}", error)
                continue
            resolved += 1
            folders = cells.folders(cell, name, settings.out)
            place = suite.order, number, group, position
            for seed in suite.seeds:
                run = Run(name, dataset.name, str(entry), seed, "finetune", settings.overrides)
                _add(plan, cell, run, split, folders, place)
    if not matched:
        only = f"matches --only {' '.join(settings.only)}" if settings.only else "has a recipe for its data"
        raise UserError(f"suite '{suite_name}': no entry {only}")
    if not resolved:
        raise UserError(f"suite '{suite_name}': none of its runs can be made: {plan.left_out[0]}")
    plan.sort()
    return plan


def plan_cell(cell: Cell, split: Split, seeds: Sequence[int], out: Path) -> Plan:
    """The runs of one cell, without those whose record is there, as `make_plan` has them."""
    plan, folders = Plan(lambda _run: True, splits={split.id: split}), cells.folders(cell, split.id, out)
    for seed in seeds:
        run = Run(split.id, split.dataset, str(cell.entry), seed, "finetune", ())
        _add(plan, cell, run, split, folders, ("cells", 0, 0, 0))
    plan.sort()
    return plan


def _drawn(name: str, dataset: Dataset, out: Path) -> Split:
    return read_split(cells.ensure_split(name, dataset, out))


def _leave_out(plan: Plan, what: str, error: UserError) -> None:
    plan.left_out.append(f"{what}: {error}")
    print(f"left out: {what}: {error}", file=sys.stderr)


def _matches(entry: str, patterns: Sequence[str]) -> bool:
    return not patterns or any(fnmatch.fnmatchcase(entry, pattern) for pattern in patterns)


def _add(plan: Plan, cell: Cell, run: Run, split: Split, folders: cells.Folders, place: Place) -> None:
    """Adds a run to the plan, and its first stage to those that it has; neither if the run is done."""
    info = run_info(cell, split, run.seed, cell.stages[-1])
    run = dataclasses.replace(run, run_key=info.run_key, first_key=info.stage1_key)
    record = _read(folders.records / f"seed{run.seed}.json", info.run_key)
    if record and record.status != "failed" and plan.ended(run):
        plan.done += 1
        return
    images, again = sum(split.class_counts), bool(record)
    epochs = cell.recipe.finetune.for_images(images).epochs if cell.recipe.finetune else 0
    # What trains nothing takes seconds and leaves a record: it goes first, before the budget ends.
    length = float(images * epochs) or math.inf
    run = dataclasses.replace(run, length=length, priority=priority(place, run.seed, second=True, again=again))
    plan.after.setdefault(info.stage1_key, []).append(run)
    plan.resolved[run], plan.folders[run] = cell, folders

    # A first stage runs backward through the backbone too: about three times the work of a frozen one.
    length = 3.0 * images * cell.recipe.train.for_images(images).epochs
    rank = priority(place, run.seed, second=False, again=again)
    first = dataclasses.replace(run, stage="train", run_key=info.stage1_key, length=length, priority=rank)
    if other := plan.firsts.get(info.stage1_key):  # of an earlier entry that shares it
        first = dataclasses.replace(other, length=max(length, other.length), priority=max(rank, other.priority))
    plan.firsts[info.stage1_key] = first
    plan.resolved.setdefault(first, cell)
    plan.folders[first] = folders


def _read(path: Path, run_key: str) -> Record | None:
    """The record of the run with that key; None for another one, or none."""
    try:
        record = read_record(path)
    except UserError:
        return None
    return record if record.run_key == run_key else None


# ---- where and how a run is done -------------------------------------------------------------------------------------


def slots(settings: Settings) -> list[str]:
    """The device of each worker."""
    import torch

    from harness.engine.device import pick_device

    picked = pick_device(settings.device)
    if picked.type == "cpu":
        return ["cpu"] * (settings.per_device or len(os.sched_getaffinity(0)))
    every = settings.device in ("auto", "cuda")
    devices = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if every else [str(picked)]
    return devices * (settings.per_device or ON_CUDA)


def workplace(out: Path, device: str, at_once: int | Callable[[], float], reporter: Reporter) -> Workplace:
    """Where one process does the runs that it is given."""
    from harness.engine.device import pick_device
    from harness.running import stages

    return stages.Workplace(pick_device(device), reporter, out / cells.SCRATCH, at_once=at_once)


def do(run: Run, out: Path, place: Workplace) -> RunInfo:
    """Runs it; says how it ended.

    Raises:
        OtherRunError: this checkout would make another run than the one that was planned.
        UserError: its data cannot be read.
    """
    from harness.running import stages

    cell, file, folders = _where(run, out)
    _check_key(run, cell, read_split(file))
    if run.stage == "train":
        (outcome,) = stages.train(cell, file, [run.seed], folders.first, place)
    else:
        (outcome,) = stages.finetune(cell, file, [run.seed], folders.first, folders.last, place)
        evaluate(file, [folders.first, folders.last], [run.seed], folders.records)
    return outcome


def _check_key(run: Run, cell: Cell, split: Split) -> None:
    """Code may change between plan and run, and differ between machines; its results must not pass for the plan's."""
    info = run_info(cell, split, run.seed, cell.stages[-1])
    found = info.stage1_key if run.stage == "train" else info.run_key
    if found != run.run_key:
        raise OtherRunError(
            f"{run}: planned as run {run.run_key}, but the code, recipe or split here makes it {found}; "
            "use one checkout everywhere, and start the command again"
        )


def first_stage_of(run: Run, folders: cells.Folders) -> RunInfo | None:
    """The first stage of a run, as it was noted, if it went well."""
    try:
        found = read_run_info(stage_files(folders.first, run.seed)["run.json"])
    except UserError:
        return None
    return found if (found.run_key, found.status) == (run.first_key, "ok") else None


def fail(run: Run, out: Path, reason: str) -> RunInfo:
    """Writes the failure down: of a first stage for those that wait for it, else as the run's record.

    A first stage that went well before was only looked at, and stays what it is.
    """
    from harness.running import stages

    cell, file, folders = _where(run, out)
    if run.stage == "train":
        if there := first_stage_of(run, folders):
            return there
        return stages.record_failure(cell, file, run.seed, "train", folders.first, reason)
    outcome = stages.record_failure(cell, file, run.seed, cell.stages[-1], folders.last, reason)
    evaluate(file, [folders.first, folders.last], [run.seed], folders.records)
    return outcome


def _where(run: Run, out: Path) -> tuple[Cell, Path, cells.Folders]:
    cell = resolve(parse_entry(run.entry), run.dataset, run.overrides)
    return cell, out / "splits" / f"{run.split}.json", cells.folders(cell, run.split, out)
