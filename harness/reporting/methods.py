"""What the page says of a method: what it is, with which recipe each of its rows was run, and how to run it again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.base import config
from harness.base.errors import UserError
from harness.base.files import read_yaml, shown
from harness.reporting.comparison import Comparison
from harness.reporting.provenance import Recipe, ResolveRecipe, flat
from harness.reporting.summary import Row, Section
from harness.spec.entries import Entry

OTHERS = ("common", "paper")  # tracks that a row's recipe is held against


@dataclass(frozen=True)
class About:
    """What a method's recipes.yaml says of it; empty for a method that is not here."""

    name: str
    title: str
    summary: str = ""
    equation: str = ""
    paper: str = ""
    link: str = ""


@dataclass(frozen=True)
class EntryView:
    """One row of a table, seen from its method."""

    section: Section
    row: Row
    label: str
    commands: tuple[str, ...]
    others: tuple[str, ...]  # entries whose recipes stand beside this row's
    differences: tuple[tuple[str, ...], ...]  # key, this row's value, the others' values
    outdated: bool  # its recipe is no longer what the commands would run


@dataclass(frozen=True)
class MethodView:
    """A method with its rows and its published numbers."""

    about: About
    entries: tuple[EntryView, ...]
    claims: tuple[Comparison, ...]


def read_about(folders: Mapping[str, Path]) -> dict[str, About]:
    """The description of each method; one whose recipes.yaml is broken has only its name."""
    from harness.spec.recipe_layers import MethodFile

    found = {}
    for name, folder in folders.items():
        path = folder / "recipes.yaml"
        try:
            file = config.build(MethodFile, read_yaml(path), shown(path))
        except UserError:
            found[name] = About(name, name)
            continue
        link = file.link if file.link.startswith("https://") else ""
        found[name] = About(name, file.title, file.summary, file.equation, file.paper, link)
    return found


def method_views(
    sections: list[Section],
    comparisons: list[Comparison],
    about: Mapping[str, About],
    resolve: ResolveRecipe | None,
) -> list[MethodView]:
    """A view for each method that has a row or a description, by name."""
    rows: dict[str, list[EntryView]] = {name: [] for name in about}
    for section in sections:
        for row, label in zip(section.rows, section.labels(), strict=True):
            rows.setdefault(row.first.method, []).append(_entry(section, row, label, resolve))
    claims: dict[str, list[Comparison]] = {}
    for comparison in comparisons:
        claims.setdefault(comparison.claim.method, []).append(comparison)
    return [
        MethodView(about.get(name) or About(name, name), tuple(entries), tuple(claims.get(name, ())))
        for name, entries in sorted(rows.items())
        if entries or name in claims
    ]


def _entry(section: Section, row: Row, label: str, resolve: ResolveRecipe | None) -> EntryView:
    first, others = row.first, dict[str, Recipe]()
    for track in OTHERS if resolve else ():
        name = str(Entry(first.method, first.variant if track == first.track else "", track))
        recipe = resolve(name, first.dataset) if resolve else None
        if recipe is not None and name != first.entry:
            others[name] = recipe
    own = resolve(first.entry, first.dataset) if resolve else None
    outdated = resolve is not None and own != first.recipe
    if own is not None and outdated:
        others[f"{first.entry}, as it is now"] = own
    return EntryView(
        section, row, label, _commands(row), tuple(others), tuple(_differences(first.recipe, others)), outdated
    )


def _differences(recipe: Recipe, others: Mapping[str, Recipe]) -> Iterator[tuple[str, ...]]:
    """The keys in which another recipe differs, with everybody's values."""
    flats = [dict(flat(one)) for one in (recipe, *others.values())]
    for key in sorted({key for one in flats for key in one}):
        values = [one.get(key, "-") for one in flats]
        if len(set(values)) > 1:
            yield (key, *values)


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
