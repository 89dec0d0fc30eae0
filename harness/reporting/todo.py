"""What it takes to measure a published number that was not run: the command, and its time from what was measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Final

from harness.reading.profiles import exponential_class_counts
from harness.reporting.claims import TRACK, Claim
from harness.reporting.comparison import PROFILED, Todo, backbone_identity, dataset_identity
from harness.reporting.costs import step_times
from harness.reporting.drawer import RecipeValues, ResolveRecipe
from harness.reporting.speed import SpeedReport
from harness.reporting.summary import REFERENCE, Section
from harness.spec.entries import Entry
from harness.splits.store import available_datasets, get_dataset

SEEDS: Final = "0,1,2"


class Planner:
    """Commands and costs for claims of methods that can run here."""

    def __init__(self, resolve: ResolveRecipe, sections: Sequence[Section], speed: Iterable[SpeedReport]) -> None:
        """Takes the recipes that entries have now, and what runs and benchmarks cost."""
        self._resolve, self._sections, self._speed = resolve, sections, tuple(speed)
        self._times = step_times(self._speed)
        self._datasets = {dataset_identity(name): name for name in available_datasets()}

    def __call__(self, claim: Claim, variant: str) -> Todo:
        """The command that measures a claim with three seeds, or why there is none."""
        dataset = self._datasets.get(dataset_identity(claim.dataset))
        if dataset is None:
            return Todo(obstacle=f"{claim.dataset} is not among the data sets here")
        entry = str(Entry(claim.method, variant, TRACK))
        recipe = self._resolve(entry, dataset)
        if recipe is None:
            return Todo(obstacle=f"{entry} has no recipe for {dataset} here")
        if backbone_identity(str(recipe["backbone"])) != backbone_identity(claim.backbone):
            return Todo(obstacle=f"the recipe of {entry} is of {recipe['backbone']}, the number of {claim.backbone}")
        factor = f" --imbalance-factor {claim.imbalance_factor:g}" if dataset in PROFILED else ""
        what = f"--dataset {dataset}{factor} --method {claim.method}{f' --variant {variant}' if variant else ''}"
        return Todo(f"ltbench run {what} --track {TRACK} --seeds {SEEDS}", self._cost(claim, entry, dataset, recipe))

    def _cost(self, claim: Claim, entry: str, dataset: str, recipe: RecipeValues) -> str:
        """Hours of all seeds: training images of all stages by the network's speed, times its steps."""
        backbone = str(recipe["backbone"])
        if dataset not in PROFILED or backbone not in self._speeds:
            return f"time not known: {backbone} has not been timed on these images here"
        found = get_dataset(dataset)
        counts = exponential_class_counts(found.train_class_size, len(found.class_names), claim.imbalance_factor)
        stages = {name: recipe[name] for name in ("train", "finetune") if recipe.get(name)}
        seen = {
            name: stage["epochs"] * sum(counts) or stage["iterations"] * stage["batch_size"]
            for name, stage in stages.items()
        }
        name = entry.partition("@")[0]
        times = {stage: self._times.get((name, stage)) for stage, images in seen.items() if images}
        speed, device = self._speeds[backbone]
        hours = sum(seen[stage] * (time or 1) for stage, time in times.items()) / speed / 3600
        known = "" if all(times.values()) else " *"
        seeds = len(SEEDS.split(","))
        return f"about {seeds * hours:.1f} h for {seeds} seeds on {device}: {speed:,.0f} images/s of {backbone}{known}"

    @cached_property
    def _speeds(self) -> dict[str, tuple[float, str]]:
        """Backbone -> training images a second of cross-entropy at 32 pixels, and on what."""
        found: dict[str, tuple[float, str]] = {}
        for row in (row for section in self._sections for row in section.rows if row.name == REFERENCE):
            rate = row.cost("images_per_second")
            if rate and row.first.dataset in PROFILED:
                found.setdefault(row.first.backbone, (rate.mean, row.device))
        for report in self._speed:
            for one in report.rows:
                if one.precision == "float32" and one.what.startswith("training, ") and one.what.endswith(", stage 1"):
                    found.setdefault(one.what.split(", ")[1], (one.ours, report.device))
        return found
