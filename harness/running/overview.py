"""`ltbench status` of a checkout: which cells have results, which of them failed or are stale, and the campaigns."""

from __future__ import annotations

import functools
import sys
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from harness.base.errors import UserError
from harness.base.screen import console, table
from harness.records.collect import ROOTS, collect
from harness.records.progress import KEPT, PROGRESS, Progress, read_progress
from harness.records.same_code import read_same_code, versions_of
from harness.records.schema import Record
from harness.running import status
from harness.spec.entries import parse_entry
from harness.spec.recipes import migrated, resolve
from harness.spec.spread import spread_of
from harness.spec.suites import GRID_FILE, SPLITS, read_grid
from harness.splits.splits import read_split


@dataclass(frozen=True)
class CellState:
    """A split and an entry with records. `why` says what failed or is stale; failed comes before stale."""

    split: str
    entry: str
    seeds: list[int]
    state: Literal["done", "failed", "stale"]
    why: str = ""


@dataclass(frozen=True)
class Overview:
    """What was found; `not_run` are cells of the default suite without a record."""

    cells: list[CellState] = field(default_factory=list)
    not_run: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    campaigns: list[tuple[Path, Progress]] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        campaigns = [{"folder": out.as_posix(), **status.as_json(found, out)} for out, found in self.campaigns]
        return asdict(self) | {"campaigns": campaigns}


def look(campaigns: Path) -> Overview:
    """Looks through this checkout's results and a folder of campaigns.

    Methods are imported, for their recipes as they are now.
    """
    collected = collect(*(root for root in ROOTS if root.is_dir()))
    by_cell = defaultdict[tuple[str, str], list[Record]](list)
    for _, record in collected.records:
        by_cell[record.split, record.entry].append(record)
    now = _Checkout()
    cells = [_state(*name, records, now) for name, records in sorted(by_cell.items())]
    wanted = read_grid("default")["evaluate"].values() if GRID_FILE.is_file() else []
    not_run = [f"{it['split']} {it['entry']}" for it in wanted if (it["split"], it["entry"]) not in by_cell]
    files = sorted([*campaigns.glob(f"*/{PROGRESS}"), *KEPT.glob(f"*/{PROGRESS}")])
    left_out, found = [reason for _, reason in collected.left_out], list[tuple[Path, Progress]]()
    for folder in (path.parent for path in files):
        try:
            found.append((folder, read_progress("", folder)))
        except UserError as error:
            left_out.append(str(error))
            print(f"left out: {error}", file=sys.stderr)
    return Overview(cells, not_run, left_out, found)


class _Checkout:
    """What a run made here now would depend on, each thing looked up once."""

    def __init__(self) -> None:
        known = read_same_code()
        self.recipe = functools.cache(lambda entry, dataset: resolve(parse_entry(entry), dataset).recipe.as_dict())
        self.versions = functools.cache(lambda method: versions_of(method, known))
        self.split = functools.cache(lambda file: read_split(file).sha256)


def _state(split: str, entry: str, records: list[Record], now: _Checkout) -> CellState:
    seeds = sorted(record.seed for record in records)
    for record in records:
        if record.status == "failed":
            why = f"seed {record.seed}: {record.failure.reason if record.failure else 'unknown'}"
            return CellState(split, entry, seeds, "failed", why)
    why = next(filter(None, (_stale(record, now) for record in records)), "")
    return CellState(split, entry, seeds, "stale" if why else "done", why)


def _stale(record: Record, now: _Checkout) -> str:
    """In what this checkout would make another run; empty if in nothing that changes numbers."""
    try:
        recipe, versions = now.recipe(record.entry, record.dataset), now.versions(record.method)
    except UserError as error:
        return str(error)
    if migrated(record.recipe) != recipe | spread_of(record.recipe, record.title).in_recipe:
        return "measured with another recipe than this checkout's"
    if record.code_version not in versions:
        return "measured with other code that is not known to measure the same (ltbench same-bits)"
    file = SPLITS / f"{record.split}.json"
    if file.is_file() and now.split(file) != record.split_sha256:
        return f"measured on split {record.split_sha256[:12]}, which is {now.split(file)[:12]} now"
    return ""


def show(found: Overview) -> None:
    """Prints it for a person."""
    states = ("done", "failed", "stale")
    groups = defaultdict[tuple[str, str], Counter[str]](Counter)
    for cell in found.cells:
        groups[cell.split, cell.entry.rpartition("@")[2]][cell.state] += 1
    rows = [[*name, str(n.total()), *(str(n[state]) for state in states)] for name, n in sorted(groups.items())]
    runs = sum(len(cell.seeds) for cell in found.cells)
    if rows:
        title = f"{len(found.cells)} cells with {runs} records"
        console().print(table(title, ["Split", "Track", "Cells", *states], rows, words=("Split", "Track")))
    else:
        print("no records yet; e.g. ltbench run mnist5k ce, or make repro")
    alike = defaultdict[tuple[str, str, str], list[str]](list)
    for cell in found.cells:
        if cell.state != "done":
            alike[cell.state, cell.split, cell.why].append(cell.entry)
    for (state, split, why), entries in alike.items():
        print(f"{state}: {split}: {why}: {', '.join(entries)}")
    print("".join(f"not run, of suite default: {name}\n" for name in found.not_run), end="")
    for out, progress in found.campaigns:
        first, *more = status.describe(progress, out)
        print("\n  ".join([f"campaign {first} ({out})", *more]))
