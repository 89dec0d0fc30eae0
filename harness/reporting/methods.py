"""What the page says of a method: what it is, with which recipe each of its rows was run, and how to run it again."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.base import config
from harness.base.errors import UserError
from harness.base.files import read_yaml, shown
from harness.reporting.comparison import Comparison
from harness.reporting.drawer import RecipeValues, ResolveRecipe, differing, flat
from harness.reporting.summary import Row, Section
from harness.spec.entries import Entry
from harness.spec.recipe_layers import MethodFile
from harness.spec.recipes import migrated, overrides_between

JOURNALS = ("TPAMI", "IJCV", "TIP", "JMLR", "TMLR")
OTHERS = ("common", "paper")  # tracks whose recipes stand beside a row's


@dataclass(frozen=True)
class EntryView:
    """One row of a table, seen from its method."""

    row: Row
    others: list[str]  # entries whose recipes stand beside this row's
    differences: list[list[str]]  # key, this row's value, the others' values
    outdated: bool  # its recipe is not this checkout's of its entry
    changes: list[str]  # what `--set` asks for, so that it is; nothing where that cannot make it

    @property
    def command(self) -> str:
        """What runs the row again, from an empty folder on."""
        first, seeds = self.row.first, ",".join(str(run.record.seed) for run in self.row.runs)
        changes = (word for item in self.changes for word in ("--set", item))
        return shlex.join(["ltbench", "run", first.split, first.entry, "--seeds", seeds, *changes])


@dataclass(frozen=True)
class MethodView:
    """A method with its rows and its published numbers."""

    name: str
    about: MethodFile
    entries: list[EntryView]
    claims: list[Comparison]

    @property
    def bibtex(self) -> str:
        """Its paper as a BibTeX entry; empty where `paper` is not "Authors, Title, Venue Year"."""
        return bibtex(self.about.paper, self.about.link)


def method_views(
    sections: list[Section],
    comparisons: list[Comparison],
    abouts: Mapping[str, MethodFile],
    resolve: ResolveRecipe | None,
) -> list[MethodView]:
    """A view for each method that has a row or a published number, by name."""
    rows = [row for section in sections for row in section.rows]
    views = []
    for name in sorted({*abouts, *(row.first.method for row in rows)}):
        entries = [_entry(row, resolve) for row in rows if row.first.method == name]
        claims = [comparison for comparison in comparisons if comparison.claim.method == name]
        if entries or claims:
            views.append(MethodView(name, abouts.get(name, MethodFile(name)), entries, claims))
    return views


def bibtex(paper: str, link: str = "") -> str:
    """A BibTeX entry from "Authors, Title, Venue Year"; empty where a text is not of this form."""
    found = re.fullmatch(r"([^,]+?)( et al\.)?, (.+), ([^,]+) (\d{4})", paper)
    if not found:
        return ""
    authors, more, title, venue, year = found.groups()
    kind, place = ("article", "journal") if venue in JOURNALS else ("inproceedings", "booktitle")
    key = "".join(re.findall(r"[a-z0-9]+", f"{authors.split()[-1]}{year}{title.split()[0]}".lower()))
    fields = {
        "author": f"{authors} and others" if more else authors,
        "title": f"{{{title}}}",
        place: venue,
        "year": year,
    }
    lines = [f"  {name} = {{{value}}}," for name, value in (fields | ({"url": link} if link else {})).items()]
    return "\n".join([f"@{kind}{{{key},", *lines, "}"])


def about(name: str, folder: Path) -> MethodFile:
    """What a method's recipes.yaml says of it; only its name where the file is broken, or not there."""
    path = folder / "recipes.yaml"
    try:
        return config.build(MethodFile, read_yaml(path), shown(path))
    except UserError:
        return MethodFile(name)


def _entry(row: Row, resolve: ResolveRecipe | None) -> EntryView:
    first, others = row.first, dict[str, RecipeValues]()
    if resolve is None:
        return EntryView(row, [], [], False, [])
    for track in OTHERS:
        name = str(Entry(first.method, first.variant if track == first.track else "", track))
        recipe = resolve(name, first.dataset)
        if recipe is not None and name != first.entry:
            others[name] = recipe
    own = resolve(first.entry, first.dataset)
    recorded = migrated(first.recipe)
    outdated, changes = own != recorded, list[str]()
    if own is not None and outdated:
        others[f"{first.entry}, as it is now"] = own
        if (
            dict(flat(own)).keys() == dict(flat(recorded)).keys()
        ):  # `--set` takes no key away, and adds none from elsewhere
            changes = overrides_between(own, recorded)
    return EntryView(row, list(others), differing(recorded, *others.values()), outdated, changes)
