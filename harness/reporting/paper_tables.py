"""The tables of the papers, cell by cell: the published number, what was measured beside it, and how the two compare.

The tables stand in `harness/reporting/papers/*.yaml`; a method folder may bring its own in `tables.yaml`. They hold no
numbers: a cell is the one claim, of a method or of a card, that its row and its column describe.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from harness.base.errors import UserError
from harness.metrics.shots import GROUPS
from harness.reporting.claims import SELECTIONS, Card, Claim, at_factor, one_of
from harness.reporting.comparison import (
    STATUSES,
    Comparison,
    MeasuredRows,
    Status,
    Todo,
    backbone_identity,
    dataset_identity,
)
from harness.reporting.inputs import Named, read_lists
from harness.weights.catalogue import Weights
from harness.weights.record import WeightsRecord

PAPERS = Path(__file__).parent / "papers"


@dataclass(frozen=True)
class Column:
    """What the claims of a column share. What is not given is not looked at."""

    title: str
    dataset: str | None = None
    imbalance_factor: float | None = None
    group: str = "all"
    backbone: str | None = None
    selection: str | None = None
    location: str = ""  # how the claim's starts

    def __post_init__(self) -> None:
        one_of("group", self.group, ("all", *GROUPS))
        one_of("selection", self.selection, SELECTIONS)

    def has(self, claim: Claim) -> bool:
        """Whether a claim belongs to this column."""
        return _fits(self, claim, "dataset", "imbalance_factor", "group", "backbone", "selection")


@dataclass(frozen=True)
class TableRow:
    """A row of a published table: the method, or the card, whose claims stand in it."""

    label: str  # the paper's own name
    method: str | None = None
    card: str | None = None
    variant: str | None = None  # None: the default of a method, any of a card
    selection: str | None = None
    location: str = ""  # how the claim's starts
    note: str = ""  # a part of the claim's
    known: str | None = None  # why a difference is expected, instead of the table's
    measured_as: dict[str, str] = field(default_factory=dict)
    """Data set, as in the claims, or data set and imbalance factor ("CIFAR-100-LT 50") -> the variant that runs this
    source's recipe, where that is not the row's own. A claim may have it already."""

    def __post_init__(self) -> None:
        if (self.method is None) == (self.card is None):
            raise ValueError("give either 'method' or 'card'")
        if self.card is not None and self.measured_as:
            raise ValueError("what has a card is not measured; leave out 'measured_as'")
        one_of("selection", self.selection, SELECTIONS)

    def has(self, claim: Claim) -> bool:
        """Whether a claim of this row's method or card belongs to this row."""
        if self.card is None:
            variant_fits = claim.variant in (self.variant or "", self.variant_measured(claim))
        else:
            variant_fits = self.variant in (None, claim.variant)
        return variant_fits and self.note in claim.note and _fits(self, claim, "selection")

    def variant_measured(self, claim: Claim) -> str | None:
        """The variant that runs the recipe of a claim of this row; None: the claim's own."""
        return at_factor(self.measured_as, claim.dataset, claim.imbalance_factor)


@dataclass(frozen=True)
class PaperTable(Named):
    """One published table."""

    source: str  # as in the claims
    columns: tuple[Column, ...]
    rows: tuple[TableRow, ...]
    location: str | tuple[str, ...] = ""  # how that of its claims starts
    caption: str = ""
    known: str | None = None  # why differences are expected, where a row does not say

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.columns or not self.rows:
            raise ValueError("a table has columns and rows")

    def has(self, claim: Claim) -> bool:
        """Whether a claim is printed in this table."""
        return _fits(self, claim, "source")


def _fits(described: Column | TableRow | PaperTable, claim: Claim, *names: str) -> bool:
    """Whether a claim has the values that are given under these names, and the location; None fits any."""
    given = ((getattr(described, name), getattr(claim, name)) for name in names)
    return claim.location.startswith(described.location) and all(one in (None, other) for one, other in given)


class FilledRow(NamedTuple):
    """A row with its cells, in the order of the columns; None is an empty cell."""

    row: TableRow
    cells: tuple[Comparison | None, ...]


@dataclass(frozen=True)
class FilledTable:
    """A table with its cells."""

    table: PaperTable
    rows: tuple[FilledRow, ...]

    @property
    def cells(self) -> list[Comparison]:
        """Those that hold a number."""
        return [cell for row in self.rows for cell in row.cells if cell]

    @property
    def todos(self) -> dict[Todo, list[str]]:
        """What would measure the cells that were not run -> their rows and columns, in words."""
        found: dict[Todo, list[str]] = defaultdict(list)
        for row in self.rows:
            for column, cell in zip(self.table.columns, row.cells, strict=True):
                if cell and cell.todo:
                    found[cell.todo].append(f"{row.row.label}, {column.title}")
        return dict(found)

    @property
    def counts(self) -> dict[Status, int]:
        """Number of cells of each status; empty cells are not counted."""
        return _count(self.cells)


def count_by_status(tables: Iterable[FilledTable]) -> dict[Status, int]:
    """How many published numbers have each status; one that its source prints again counts once."""
    return _count(cell for filled in tables for cell in filled.cells if not cell.claim.again)


def _count(cells: Iterable[Comparison]) -> dict[Status, int]:
    """In the order of `STATUSES`."""
    found = Counter(cell.status for cell in cells)
    return {status: found[status] for status in STATUSES}


def published_sentence(counts: Mapping[Status, int]) -> str:
    """How many published numbers are reproduced and how many are not."""
    done, off, apart = (counts[status] for status in ("reproduced", "differs", "not comparable"))
    text = f"Reproduced so far: {f'{done:,}' if done else 'none'} of the {sum(counts.values()):,} published numbers"
    text += f"; {off:,} {'differs' if off == 1 else 'differ'}" if off else ""
    text += f"; {apart:,} {'was' if apart == 1 else 'were'} measured under another protocol" if apart else ""
    return f"{text}."


class Coverage(NamedTuple):
    """How many published numbers of each status a source has on each data set; None where it has none."""

    datasets: list[str]
    sources: list[tuple[str, list[dict[Status, int] | None]]]


def coverage(tables: Iterable[FilledTable]) -> Coverage:
    """Sources in the order of the tables; data sets by name."""
    found: dict[str, dict[str, Counter[Status]]] = defaultdict(lambda: defaultdict(Counter))
    for filled in tables:
        for cell in filled.cells:
            found[filled.table.source][cell.claim.dataset][cell.status] += not cell.claim.again
    datasets = sorted({dataset for by_dataset in found.values() for dataset in by_dataset})

    def counts(one: Counter[Status] | None) -> dict[Status, int] | None:
        return {status: one[status] for status in STATUSES if one[status]} if one else None

    return Coverage(datasets, [(s, [counts(by_set.get(d)) for d in datasets]) for s, by_set in found.items()])


def load_tables(folders: Mapping[str, Path]) -> list[PaperTable]:
    """The shipped tables, then those of the method folders, by method name.

    Raises:
        UserError: a damaged file, an unknown key, a wrong type, or an id that is there twice.
    """
    return read_lists(PaperTable, "tables", sorted(PAPERS.glob("*.yaml")), folders)


def fill(
    tables: Iterable[PaperTable],
    claims: Iterable[Claim],
    cards: Sequence[Card],
    rows: MeasuredRows,
    weights: Sequence[WeightsRecord] = (),
    plan: Callable[[Claim, str], Todo] | None = None,
) -> list[FilledTable]:
    """Puts the claims into the tables' cells, and beside each what was measured, and what published weights score.

    Rows that hold no number (their method or card is not here) and empty tables are left out.

    Args:
        plan: what would measure a claim, with a variant.

    Raises:
        UserError: more than one claim fits a cell.
    """
    owned: dict[tuple[str | None, str | None], list[Claim]] = defaultdict(list)  # by method, card
    for claim in claims:
        owned[claim.method, None].append(claim)
    for card in cards:
        owned[None, card.name] += card.claims
    reasons = {card.name: card.reason for card in cards}

    def cell(table: PaperTable, line: TableRow, column: Column) -> Comparison | None:
        card = line.card or (None if owned[line.method, None] else line.method)  # a method that is not here has a card
        candidates = owned[None, card] if card else owned[line.method, None]
        found = [claim for claim in candidates if table.has(claim) and line.has(claim) and column.has(claim)]
        if len(found) > 1:
            fitting = (f"{c.value} ({', '.join(filter(None, (c.location, c.selection, c.note)))})" for c in found)
            where = f"table '{table.id}', row '{line.label}', column '{column.title}'"
            raise UserError(f"{where}: {len(found)} claims fit: {'; '.join(fitting)}")
        if not found:
            return None
        if card:
            answer = Comparison(found[0], "reported only", reasons[card])
        else:
            named = line.variant_measured(found[0])
            variant = found[0].variant if named is None else named
            answer = rows.beside(found[0], variant, line.known or table.known)
            if plan and (answer.status == "not run" or (answer.aside and "recipe" in answer.reason)):
                answer = replace(answer, todo=plan(found[0], variant))
        return replace(answer, weights=mark(found[0], weights))

    filled = []
    for table in tables:
        lines = (FilledRow(line, tuple(cell(table, line, column) for column in table.columns)) for line in table.rows)
        if kept := tuple(line for line in lines if any(line.cells)):
            filled.append(FilledTable(table, kept))
    return filled


def mark(claim: Claim, records: Sequence[WeightsRecord]) -> str:
    """What published weights score where a claim is about such weights. It never changes the status of the claim."""
    marks = []
    about = [one for one in records if _setting(claim) == _setting(one.weights) and not claim.variant]
    for record in about:
        methods = {result.method: result for result in reversed(record.results)}  # the first one of a method counts
        result = methods.get(claim.method) if claim.group == "all" or claim.shot_policy == record.shot_policy else None
        value = getattr(result.scores, claim.group) if result else None
        if value is not None:
            marks.append(f"published weights score {100 * value:.2f} ({record.source.repository or record.name})")
    return "; ".join(marks)


def _setting(of: Claim | Weights) -> tuple[object, ...]:
    """Data, tail, network, length of training and choice of the epoch."""
    data, network = dataset_identity(of.dataset), backbone_identity(of.backbone)
    return data, of.imbalance_factor, network, of.epochs or None, of.selection
