"""The tables of the papers, cell by cell: the published number, what was measured beside it, and how the two compare.

The tables stand in `harness/reporting/papers/*.yaml`; a method folder may bring its own in `tables.yaml`. They hold no
numbers: a cell is the one claim, of a method or of a card, that its row and its column describe.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import Final, Literal, NamedTuple, get_args

from scipy import special

from harness.base.errors import UserError
from harness.metrics.shots import GROUPS
from harness.reporting.cards import Card
from harness.reporting.claims import NOT_STATED, SELECTIONS, Claim, one_of
from harness.reporting.comparison import Comparison, MeasuredRows, Place, dataset_identity
from harness.reporting.listed import read_lists
from harness.reporting.summary import Row, Stat

PAPERS = Path(__file__).parent / "papers"
TABLES_FILE = "tables.yaml"
TOLERANCE: Final = 0.005  # half a point of accuracy
CONFIDENCE: Final = 0.95
UNEXPLAINED: Final = "no known reason"

Status = Literal["reproduced", "differs", "not comparable", "failed", "not run", "reported only"]
STATUSES: Final[tuple[Status, ...]] = get_args(Status)


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
        if self.selection is not None:
            one_of("selection", self.selection, SELECTIONS)

    def has(self, claim: Claim) -> bool:
        """Whether a claim belongs to this column."""
        return (
            claim.group == self.group
            and self.dataset in (None, claim.dataset)
            and self.imbalance_factor in (None, claim.imbalance_factor)
            and self.backbone in (None, claim.backbone)
            and self.selection in (None, claim.selection)
            and claim.location.startswith(self.location)
        )


@dataclass(frozen=True)
class TableRow:
    """A row of a published table: the method, or the card, whose claims stand in it."""

    label: str  # the paper's own name
    method: str | None = None
    card: str | None = None
    variant: str | None = None  # None: the default of a method, any of a card
    selection: str | None = None
    location: str = ""  # how the claim's starts
    epochs: str | None = None
    note: str = ""  # a part of the claim's
    known: str | None = None  # why a difference is expected, instead of the table's
    measured_as: dict[str, str] = field(default_factory=dict)
    """Data set, as in the claims -> the variant that runs this source's recipe, where that is not the claim's own."""

    def __post_init__(self) -> None:
        if (self.method is None) == (self.card is None):
            raise ValueError("give either 'method' or 'card'")
        if self.card is not None and self.measured_as:
            raise ValueError("what has a card is not measured; leave out 'measured_as'")
        if self.selection is not None:
            one_of("selection", self.selection, SELECTIONS)

    def has(self, claim: Claim) -> bool:
        """Whether a claim of this row's method or card belongs to this row."""
        return (
            (self.variant if self.card or self.variant else "") in (None, claim.variant)
            and self.selection in (None, claim.selection)
            and claim.location.startswith(self.location)
            and self.epochs in (None, claim.epochs)
            and self.note in claim.note
        )


@dataclass(frozen=True)
class PaperTable:
    """One published table."""

    id: str
    title: str
    source: str  # as in the claims
    columns: tuple[Column, ...]
    rows: tuple[TableRow, ...]
    location: str | tuple[str, ...] = ""  # how that of its claims starts
    caption: str = ""
    known: str | None = None  # why differences are expected, where a row does not say

    def __post_init__(self) -> None:
        if not re.fullmatch("[a-z0-9-]+", self.id):
            raise ValueError(f"id must be of small letters, digits and '-', found '{self.id}'")
        if not self.columns or not self.rows:
            raise ValueError("a table has columns and rows")

    def has(self, claim: Claim) -> bool:
        """Whether a claim is printed in this table."""
        return claim.source == self.source and claim.location.startswith(self.location)


@dataclass(frozen=True)
class PaperCell:
    """A published number, and what was measured under a comparable protocol."""

    claim: Claim
    status: Status
    stat: Stat | None = None
    delta: float | None = None  # measured minus published, as a fraction
    n: int = 0  # seeds measured
    marks: tuple[str, ...] = ()  # what a reader must know of the measured value
    reason: str = ""
    row_key: str | None = None  # the leaderboard's row that is measured, that failed, or that is not comparable
    section_slug: str | None = None
    weights: str = ""  # what published weights score, where they fit; never a measurement of the claim's recipe


class FilledRow(NamedTuple):
    """A row with its cells, in the order of the columns; None is an empty cell."""

    row: TableRow
    cells: tuple[PaperCell | None, ...]


@dataclass(frozen=True)
class FilledTable:
    """A table with its cells."""

    table: PaperTable
    rows: tuple[FilledRow, ...]

    @property
    def counts(self) -> dict[Status, int]:
        """Number of cells of each status, in the order of `STATUSES`; empty cells are not counted."""
        found = Counter(cell.status for row in self.rows for cell in row.cells if cell)
        return {status: found[status] for status in STATUSES}


def load_tables(folders: Mapping[str, Path]) -> list[PaperTable]:
    """The shipped tables, then those of the method folders, by method name.

    Raises:
        UserError: a damaged file, an unknown key, a wrong type, or an id that is there twice.
    """
    own = (folder / TABLES_FILE for _, folder in sorted(folders.items()))
    return read_lists(PaperTable, [*sorted(PAPERS.glob("*.yaml")), *own], "tables")


def fill(
    tables: Iterable[PaperTable], claims: Iterable[Claim], cards: Iterable[Card], rows: MeasuredRows
) -> list[FilledTable]:
    """Puts the claims into the tables' cells, and beside each what was measured.

    Raises:
        UserError: more than one claim fits a cell.
    """
    by_source: dict[str, list[_Published]] = defaultdict(list)
    for one in [*map(_Published, claims), *(_Published(claim, card) for card in cards for claim in card.claims)]:
        by_source[one.claim.source].append(one)
    return [_fill(table, by_source[table.source], rows) for table in tables]


def present(tables: Iterable[FilledTable]) -> list[FilledTable]:
    """The tables without rows that hold no number (their method or card is not here), and without empty tables."""
    kept = (replace(table, rows=tuple(row for row in table.rows if any(row.cells))) for table in tables)
    return [table for table in kept if table.rows]


@dataclass(frozen=True)
class _Published:
    claim: Claim
    card: Card | None = None

    @property
    def owner(self) -> tuple[str | None, str | None]:
        """As the method and the card of the row it belongs to."""
        return (None, self.card.name) if self.card else (self.claim.method, None)


def _fill(table: PaperTable, published: list[_Published], measured: MeasuredRows) -> FilledTable:
    by_owner: dict[tuple[str | None, str | None], list[_Published]] = defaultdict(list)
    for one in published:
        if table.has(one.claim):
            by_owner[one.owner].append(one)
    rows = []
    for row in table.rows:
        candidates = [one for one in by_owner[row.method, row.card] if row.has(one.claim)]
        found = (_only(table, row, column, candidates) for column in table.columns)
        rows.append(FilledRow(row, tuple(_cell(one, table, row, measured) if one else None for one in found)))
    return FilledTable(table, tuple(rows))


def _only(table: PaperTable, row: TableRow, column: Column, candidates: list[_Published]) -> _Published | None:
    found = [one for one in candidates if column.has(one.claim)]
    if len(found) > 1:
        claims = "; ".join(
            f"{one.claim.value} ({', '.join(filter(None, (one.claim.location, one.claim.selection, one.claim.note)))})"
            for one in found
        )
        raise UserError(
            f"table '{table.id}', row '{row.label}', column '{column.title}': {len(found)} claims fit: {claims}"
        )
    return found[0] if found else None


def _cell(one: _Published, table: PaperTable, line: TableRow, rows: MeasuredRows) -> PaperCell:
    claim = one.claim
    if one.card:
        return PaperCell(claim, "reported only", reason=one.card.reason)
    found = rows.beside(claim, line.measured_as.get(claim.dataset))
    if found.measured:
        return _measured(found, line.known or table.known)
    if ok := [place for place in found.comparable if place.row.ok_runs]:
        best = min(ok, key=attrgetter("preference"))
        return _at(PaperCell(claim, "not comparable", reason=_no_value(claim, best.row)), best)
    if failed := [place for place in found.comparable if place.row.status == "failed"]:
        best = min(failed, key=attrgetter("preference"))
        return _at(PaperCell(claim, "failed", reason=_failure(best.row)), best)
    if others := [other for other in found.others if other.place.row.ok_runs]:
        nearest = min(others, key=lambda other: (len(other.differences), other.place.preference))
        return _at(PaperCell(claim, "not comparable", reason="; ".join(nearest.differences)), nearest.place)
    return PaperCell(claim, "not run")


def _at(cell: PaperCell, place: Place) -> PaperCell:
    return replace(cell, row_key=place.row.key, section_slug=place.section.slug)


def _failure(row: Row) -> str:
    failures = [run.record.failure for run in row.runs]
    return "; ".join(dict.fromkeys(" ".join(failure.reason.split()) for failure in failures if failure))


def _measured(found: Comparison, known: str | None) -> PaperCell:
    """The cell of a claim that was measured, by the best row of those that have a value."""
    place, stat, delta = min(found.measured, key=attrgetter("place.preference"))
    agrees = _agrees(stat, delta)
    marks = [f"measured at {found.claim.rule}", *_marks(found, place), *place.row.marks]
    if agrees and abs(delta) > TOLERANCE + 1e-9:
        marks.append(f"95 % interval of the mean ± {100 * _reach(stat):.1f}")
    if agrees and known:
        marks.append(known)
    reason = "" if agrees else known or UNEXPLAINED
    cell = PaperCell(found.claim, "reproduced" if agrees else "differs", stat, delta, stat.n, tuple(marks), reason)
    return _at(cell, place)


def _agrees(stat: Stat, delta: float) -> bool:
    """Within the tolerance, or the published value lies in the t-interval of the measured mean."""
    return abs(delta) <= max(TOLERANCE, _reach(stat)) + 1e-9  # a difference of exactly the tolerance is within it


def _reach(stat: Stat) -> float:
    """Half the t-interval of the mean; 0 for one seed, which has none."""
    return 0.0 if stat.std is None else _quantile(stat.n) * stat.std / math.sqrt(stat.n)


@cache
def _quantile(n: int) -> float:
    return float(special.stdtrit(n - 1, (1 + CONFIDENCE) / 2))


def _marks(found: Comparison, place: Place) -> Iterator[str]:
    claim, (section, row) = found.claim, place
    first = row.first
    if claim.selection == NOT_STATED:
        yield "selection not stated there"
    if dataset_identity(claim.dataset).startswith("cifar"):
        yield f"subset {section.protocol.subset_rule}"
    if claim.selection == "best_test" and first.stage1_selection not in (None, "best_test"):
        yield f"stage 1 taken at {first.stage1_selection}"
    if first.variant != claim.variant:
        yield f"measured as {row.name}"
    if row.status == "partial":
        yield f"{row.ok_runs} of {len(row.runs)} seeds"
    if len(found.measured) > 1:
        yield f"one of {len(found.measured)} comparable rows"


def _no_value(claim: Claim, row: Row) -> str:
    if row.stats[claim.rule]["all"] is None:
        return f"no result at {claim.rule}, as there is no validation part"
    return f"no class is {claim.group}-shot in the measured data set"
