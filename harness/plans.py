"""Plans: which runs of a suite are still to be made, in which order, and how one of them is done.

A run is a (cell, seed). Its first stage is trained once for all cells that share it; a second stage can start when its
first one is done. Campaigns and sweeps take their runs from here.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from harness import cells
from harness.data import splits, store
from harness.data.splits import Split
from harness.entries import parse_entry
from harness.errors import UserError
from harness.recipes import Cell, resolve
from harness.records.evaluate import evaluate
from harness.records.schema import Record, read_record
from harness.registry import unchanging
from harness.suites import entries_for, get_suite

if TYPE_CHECKING:
    from harness.engine.stages import Workplace

ON_CUDA = 4  # runs at once on a GPU; to be measured on each kind


@dataclass(frozen=True)
class Settings:
    """What the command line says."""

    out: Path
    device: str = "auto"
    per_device: int = 0  # 0: one a core, or `ON_CUDA` a GPU
    only: tuple[str, ...] = ()  # patterns of entries
    overrides: tuple[str, ...] = ()


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

    def __str__(self) -> str:
        return f"{self.split} {self.entry} seed {self.seed} {self.stage}"


@dataclass
class Plan:
    """Runs by what they wait for."""

    ready: list[Run] = field(default_factory=list)
    after: dict[tuple[str, int], list[Run]] = field(default_factory=dict)  # first-stage folder and seed -> what follows
    lengths: dict[Run, float] = field(default_factory=dict)  # in image passes; only their order matters
    keys: dict[Run, tuple[str, int]] = field(default_factory=dict)  # of first stages
    firsts: dict[tuple[str, int], Run] = field(default_factory=dict)  # the other way round
    folders: dict[Run, cells.Folders] = field(default_factory=dict)
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


def make_plan(suite_name: str, settings: Settings) -> Plan:
    """The suite's runs without those whose record is there, of this recipe, split and code; splits are drawn."""
    with unchanging():
        return _make_plan(suite_name, settings)


def _make_plan(suite_name: str, settings: Settings) -> Plan:
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
        info = run_info(cell, split, seed, cell.stages[-1])
        record = _read(folders.records / f"seed{seed}.json", info.run_key)
        if record and record.status != "failed":
            continue
        second = dataclasses.replace(run, seed=seed, run_key=info.run_key)
        first = dataclasses.replace(second, stage="train", run_key=info.stage1_key)
        key = folders.first.as_posix(), seed
        # What trains nothing takes seconds and leaves a record, which the end of the budget must not forestall.
        plan.lengths[second] = 0.0 if record else float(images * second_epochs) or math.inf
        if key not in plan.after:
            plan.keys[first], plan.firsts[key], plan.after[key], plan.lengths[first] = key, first, [], 0.0
            plan.folders[first] = folders
            plan.ready.append(first)
        if not record:  # runs that have failed before come last
            # A first stage runs backward through the backbone too: about three times the work of a frozen one.
            plan.lengths[plan.firsts[key]] = 3.0 * images * first_epochs
        plan.folders[second] = folders
        plan.after[key].append(second)


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


def do(run: Run, out: Path, place: Workplace) -> str:
    """Runs it; says how it ended."""
    from harness.engine import stages

    cell, file, folders = _where(run, out)
    if run.stage == "train":
        return stages.train(cell, file, [run.seed], folders.first, place)[0].status
    outcome = stages.finetune(cell, file, [run.seed], folders.first, folders.last, place)[0]
    evaluate(file, [folders.first, folders.last], [run.seed], folders.records)
    return outcome.status if outcome.failure is None else f"{outcome.status}: {outcome.failure.reason}"


def fail(run: Run, out: Path, reason: str) -> str:
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
