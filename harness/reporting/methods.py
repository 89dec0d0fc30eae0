"""What the page says of a method: what it is, with which recipe each of its rows was run, and how to run it again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.base import config
from harness.base.errors import UserError
from harness.base.files import read_yaml, shown
from harness.reporting.comparison import Comparison
from harness.reporting.drawer import RecipeValues, ResolveRecipe, differing
from harness.reporting.summary import Row, Section
from harness.spec.entries import Entry
from harness.spec.recipe_layers import MethodFile

OTHERS = ("common", "paper")  # tracks that a row's recipe is held against


@dataclass(frozen=True)
class EntryView:
    """One row of a table, seen from its method."""

    section: Section
    row: Row
    commands: tuple[str, ...]
    others: list[str]  # entries whose recipes stand beside this row's
    differences: list[list[str]]  # key, this row's value, the others' values
    outdated: bool  # its recipe is no longer what the commands would run


@dataclass(frozen=True)
class MethodView:
    """A method with its rows and its published numbers."""

    name: str
    about: MethodFile
    entries: list[EntryView]
    claims: list[Comparison]


def read_about(folders: Mapping[str, Path]) -> dict[str, MethodFile]:
    """What each method's recipes.yaml says of it; one whose file is broken has only its name."""
    found = {}
    for name, folder in folders.items():
        path = folder / "recipes.yaml"
        try:
            found[name] = config.build(MethodFile, read_yaml(path), shown(path))
        except UserError:
            found[name] = MethodFile(name)
    return found


def method_views(
    sections: list[Section],
    comparisons: list[Comparison],
    about: Mapping[str, MethodFile],
    resolve: ResolveRecipe | None,
) -> list[MethodView]:
    """A view for each method that has a row or a description, by name."""
    rows: dict[str, list[EntryView]] = {name: [] for name in about}
    for section in sections:
        for row in section.rows:
            rows.setdefault(row.first.method, []).append(_entry(section, row, resolve))
    claims: dict[str, list[Comparison]] = defaultdict(list)
    for comparison in comparisons:
        claims[comparison.claim.method].append(comparison)
    return [
        MethodView(name, about.get(name) or MethodFile(name), entries, claims[name])
        for name, entries in sorted(rows.items())
        if entries or name in claims
    ]


def _entry(section: Section, row: Row, resolve: ResolveRecipe | None) -> EntryView:
    first, others = row.first, dict[str, RecipeValues]()
    if resolve is None:
        return EntryView(section, row, _commands(row), [], [], False)
    for track in OTHERS:
        name = str(Entry(first.method, first.variant if track == first.track else "", track))
        recipe = resolve(name, first.dataset)
        if recipe is not None and name != first.entry:
            others[name] = recipe
    own = resolve(first.entry, first.dataset)
    outdated = own != first.recipe
    if own is not None and outdated:
        others[f"{first.entry}, as it is now"] = own
    differences = differing(first.recipe, *others.values())
    return EntryView(section, row, _commands(row), list(others), differences, outdated)


def _commands(row: Row) -> tuple[str, ...]:
    """What runs the row again, from an empty folder on."""
    first = row.first
    seeds = ",".join(str(run.record.seed) for run in row.runs)
    usual = f"{first.dataset}-lt-if{first.imbalance_factor:g}"
    if first.split in (usual, first.dataset):
        factor = f" --imbalance-factor {first.imbalance_factor:g}" if first.split == usual else ""
        variant = f" --variant {first.variant}" if first.variant else ""
        what = f"--dataset {first.dataset}{factor} --method {first.method}{variant} --track {first.track}"
        return (f"ltbench run {what} --seeds {seeds}",)
    folder = f"runs/{first.split}/{first.entry.partition('@')[0]}"
    stages = [f"ltbench train {first.split} {first.entry} --seeds {seeds} --out {folder}/train"]
    if "finetune" in first.stages:
        stages.append(
            f"ltbench finetune {first.split} {first.entry} --seeds {seeds} --first {folder}/train "
            f"--out {folder}/finetune"
        )
    runs = " ".join(f"--run {folder}/{stage}" for stage in first.stages)
    score = f"ltbench evaluate {first.split} --seeds {seeds} {runs} --out {folder}/records"
    return (f"ltbench split {first.split}", *stages, score)
