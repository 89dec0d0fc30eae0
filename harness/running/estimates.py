"""How long runs will take, from what measured runs cost (`--dry-run`); where nothing was measured, no number."""

from __future__ import annotations

import os
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.base.errors import UserError
from harness.base.screen import console, table
from harness.reading.dataset import Dataset
from harness.records.collect import ROOTS, collect
from harness.records.schema import Record, read_costs
from harness.running import cells
from harness.running.doctor import duration
from harness.running.plans import Plan, Run, Settings, first_stage_of, make_plan, plan_cell, slots
from harness.spec.recipes import Cell, migrated
from harness.splits import store
from harness.splits.notes import counted

NAMELESS = "a processor that was not noted"
ANY_CARD = "CUDA"  # a kind of device: of a cluster, whose cards cannot be asked from here


@dataclass(frozen=True)
class Cost:
    """What one stage of a measured run cost.

    seconds: of the device; of a run that shared it with others, its share of the wall time. images: that it was
    trained on, each as often as it was; 0 where nothing was trained. side: of the images, in pixels.
    """

    record: Record
    stage: str
    key: str  # run key of the stage
    seconds: float
    images: float
    side: int
    processor: str


@dataclass(frozen=True)
class Estimate:
    """Seconds of one device, None where nothing comparable was measured; what they are taken from, and its machines."""

    seconds: float | None
    basis: str
    processors: frozenset[str] = frozenset()


class Costs:
    """The costs of measured runs on one kind of device: its name, or `ANY_CARD`."""

    def __init__(self, device: str, *roots: Path) -> None:
        collected = collect(*(root for root in dict.fromkeys((*ROOTS, *roots)) if root.is_dir()))
        self._costs = [
            cost
            for path, record in collected.records
            if record.status == "ok"
            for cost in _costs(record, read_costs(path), device)
        ]

    def of(self, cell: Cell, run: Run, images: int, side: int) -> Estimate:
        """A stage of a run on a training part of so many images, `side` pixels high."""
        stage, first = run.stage, run.stage == "train"
        given = cell.recipe.train if first else cell.recipe.finetune
        if given is None:
            return Estimate(0.0, "")
        length = images * given.for_images(images).epochs
        recipe = cell.recipe.as_dict()
        own = [cost for cost in self._costs if cost.stage == stage]
        same = [cost for cost in own if cost.key == run.run_key]
        rows = [cost for cost in own if (cost.record.split, cost.record.entry) == (run.split, run.entry)]
        same = same or [cost for cost in rows if migrated(cost.record.recipe) == recipe]
        if same or not length:
            seconds = statistics.median(cost.seconds for cost in same) if same else 0.0
            return Estimate(seconds, "this recipe" if same else "nothing is trained", _processors(same))
        alike = [c for c in own if c.images and c.side == side and c.record.backbone == cell.recipe.backbone]
        methods = {cell.method.name, *([cell.first_stage.name] if first else [])}
        of_method = [cost for cost in alike if cost.record.method in methods]
        if not alike:
            return Estimate(None, "not measured")
        found = of_method or alike
        each = statistics.median(cost.seconds / cost.images for cost in found)
        basis = "this method, by its images" if of_method else "other methods, by their images"
        return Estimate(each * length, basis, _processors(found))


def _processors(costs: Sequence[Cost]) -> frozenset[str]:
    return frozenset(cost.processor for cost in costs)


def _costs(record: Record, costs: Mapping[str, Any], device: str) -> Iterator[Cost]:
    """The stages in a cost file. Other versions and other people write those: what is not a number is passed over."""
    try:
        side = record.recipe.get("image_size") or store.get_dataset(record.dataset).image_shape[0]
    except UserError:  # images that are not known here
        return
    stages = costs.get("stages")
    for stage, facts in stages.items() if isinstance(stages, Mapping) else ():
        if not isinstance(facts, Mapping) or not _of_kind(name := str(facts.get("device", "CPU")), device):
            continue
        on_cpu = name.startswith("CPU")
        at_once, room = facts.get("runs_at_once", 1), facts.get("cpus", 1) if on_cpu else 1
        numbers = [facts.get("wall_seconds"), facts.get("train_seconds"), facts.get("images_per_second") or 0, at_once]
        if not all(isinstance(number, int | float) and number >= 0 for number in (*numbers, room)) or not at_once:
            continue
        wall, training, rate, _ = map(float, numbers)
        share, key = min(at_once, room) / at_once, record.stage1_key if stage == "train" else record.run_key
        processor = str(facts.get("processor") or NAMELESS) if on_cpu else name
        yield Cost(record, str(stage), key, wall * share, training * rate, side, processor)


def _of_kind(name: str, device: str) -> bool:
    return not name.startswith("CPU") if device == ANY_CARD else name == device


# ---- what is left to run ---------------------------------------------------------------------------------------------


def of_cell(cell: Cell, split: str, dataset: Dataset, seeds: Sequence[int], out: Path, device: str) -> None:
    """Prints what `ltbench run` would do; arguments as `cells.run_alone` takes them."""
    cells.check_start(cell, dataset)
    plan = plan_cell(cell, cells.planned_split(split, dataset, out), seeds, out)
    _show(plan, Costs(_device(device), out / "records"), _seeds_at_once(device, len(seeds)))


def of_record(path: Path, out: Path | None, device: str) -> None:
    """Prints what `ltbench reproduce` would do."""
    record, cell, dataset = cells.recorded(path)
    of_cell(cell, record.split, dataset, [record.seed], out or cells.REPRODUCED / record.run_key, device)


def of_suite(suite: str, settings: Settings, *, here: bool = True) -> None:
    """Prints what a campaign or sweep would do; here: on this machine, whose devices can be counted."""
    plan = make_plan(suite, replace(settings, dry_run=True))
    at_once = _useful(slots(settings)) if here else 1
    device = _device(settings.device) if here or settings.device != "cuda" else ANY_CARD
    _show(plan, Costs(device, settings.out / "records"), at_once)


def _device(name: str) -> str:
    from harness.engine.device import device_name, pick_device

    return device_name(pick_device(name))


def _seeds_at_once(device: str, seeds: int) -> int:
    from harness.engine.device import pick_device

    return min(seeds, len(os.sched_getaffinity(0))) if pick_device(device).type == "cpu" else 1


def _useful(devices: Sequence[str]) -> int:
    """How many devices work at once; more runs than cores, or than one a GPU, take longer each."""
    return min(len(devices), len(os.sched_getaffinity(0))) if devices[0] == "cpu" else len(set(devices))


def _estimate(run: Run, plan: Plan, costs: Costs) -> Estimate:
    if run.stage == "train" and first_stage_of(run, plan.folders[run]):
        return Estimate(0.0, "done")
    split, cell = plan.splits[run.split], plan.resolved[run]
    return costs.of(cell, run, sum(split.class_counts), cell.recipe.image_size or split.image_shape[0])


def _show(plan: Plan, costs: Costs, at_once: int) -> None:
    """A line for each cell and stage, and the time of all."""
    if not plan.waiting:
        print(f"nothing is left to run: {counted(plan.done, 'record')} there")
        return
    found = {run: _estimate(run, plan, costs) for run in plan.waiting}
    groups = defaultdict[tuple[str, str, str], list[Estimate]](list)
    for run, estimate in found.items():
        if run.stage == "train" or plan.resolved[run].recipe.finetune:
            groups[run.split, run.entry, run.stage].append(estimate)
    order = sorted(groups, key=lambda name: (*name[:2], name[2] != "train"))
    rows = [[*name, str(len(groups[name])), _time(groups[name]), groups[name][0].basis] for name in order]
    title = f"{counted(plan.left, 'record')} to be made, {plan.done} there; nothing is run"
    head = ["Split", "Entry", "Stage", "Runs", "Device time", "From the costs of"]
    console().print(table(title, head, rows, words=("Split", "Entry", "Stage", "From the costs of")))
    known = [estimate for estimate in found.values() if estimate.seconds is not None]
    at_once = max(1, min(at_once, plan.left))  # no more than there are runs
    if total := sum(estimate.seconds or 0.0 for estimate in known):
        where = ", ".join(sorted({name for estimate in known for name in estimate.processors}))
        print(f"in all {duration(total / at_once)} with {at_once} at once, as measured on {where}")
    if unknown := next((run for run, estimate in found.items() if estimate.seconds is None), None):
        lacking = counted(len(found) - len(known), "stage")
        hint = f"`ltbench doctor {unknown.split} {unknown.entry}` times a step here"
        print(f"not in it: {lacking} of runs, because nothing comparable has been measured; {hint}")


def _time(estimates: Sequence[Estimate]) -> str:
    known = [estimate.seconds for estimate in estimates if estimate.seconds is not None]
    return duration(sum(known)) if len(known) == len(estimates) else "not measured"
