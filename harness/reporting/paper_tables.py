"""The tables of the papers, cell by cell: the published number, what was measured beside it, and how the two compare.

The tables stand in `harness/reporting/papers/*.yaml`; a method folder may bring its own in `tables.yaml`. They hold no
numbers: a cell is the one claim, of a method or of a card, that its row and its column describe.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from pathlib import Path
from typing import Final, Literal, NamedTuple, get_args

from scipy import special

from harness.base.errors import UserError
from harness.metrics.shots import GROUPS
from harness.reporting.claims import NOT_STATED, SELECTIONS, Card, Claim, one_of
from harness.reporting.comparison import Comparison, MeasuredRows, Place, dataset_identity
from harness.reporting.inputs import read_lists
from harness.reporting.summary import Row, Stat
from harness.reporting.weights import mark
from harness.weights.record import WeightsRecord

PAPERS = Path(__file__).parent / "papers"
TABLES_FILE = "tables.yaml"
TOLERANCE: Final = 0.005  # half a point of accuracy
ROUNDING: Final = 1e-9  # a difference of exactly the tolerance is within it
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
    tables: Iterable[PaperTable],
    claims: Iterable[Claim],
    cards: Sequence[Card],
    rows: MeasuredRows,
    weights: Sequence[WeightsRecord] = (),
) -> list[FilledTable]:
    """Puts the claims into the tables' cells, and beside each what was measured, and what published weights score.

    Raises:
        UserError: more than one claim fits a cell.
    """
    owned: dict[tuple[str | None, str | None], list[Claim]] = defaultdict(list)  # by method, card
    for claim in claims:
        owned[claim.method, None].append(claim)
    for card in cards:
        owned[None, card.name] += card.claims
    reasons = {card.name: card.reason for card in cards}

    def cell(table: PaperTable, line: TableRow, claim: Claim | None) -> PaperCell | None:
        if claim is None:
            return None
        reason = reasons.get(line.card or "", "")
        found = PaperCell(claim, "reported only", reason=reason) if line.card else _cell(claim, table, line, rows)
        return replace(found, weights=mark(claim, weights))

    filled = []
    for table in tables:
        lines = []
        for line in table.rows:
            own = [claim for claim in owned[line.method, line.card] if table.has(claim) and line.has(claim)]
            in_cells = [_only(table, line, column, own) for column in table.columns]
            lines.append(FilledRow(line, tuple(cell(table, line, claim) for claim in in_cells)))
        filled.append(FilledTable(table, tuple(lines)))
    return filled


def present(tables: Iterable[FilledTable]) -> list[FilledTable]:
    """The tables without rows that hold no number (their method or card is not here), and without empty tables."""
    kept = (replace(table, rows=tuple(row for row in table.rows if any(row.cells))) for table in tables)
    return [table for table in kept if table.rows]


def _only(table: PaperTable, row: TableRow, column: Column, candidates: list[Claim]) -> Claim | None:
    found = [claim for claim in candidates if column.has(claim)]
    if len(found) > 1:
        claims = "; ".join(f"{c.value} ({', '.join(filter(None, (c.location, c.selection, c.note)))})" for c in found)
        where = f"table '{table.id}', row '{row.label}', column '{column.title}'"
        raise UserError(f"{where}: {len(found)} claims fit: {claims}")
    return found[0] if found else None


def _cell(claim: Claim, table: PaperTable, line: TableRow, rows: MeasuredRows) -> PaperCell:
    found = rows.beside(claim, line.measured_as.get(claim.dataset))
    if found.measured:
        return _measured(found, line.known or table.known)
    if ok := [place for place in found.comparable if place.row.ok_runs]:
        best = min(ok, key=attrgetter("preference"))
        return PaperCell(claim, "not comparable", reason=_no_value(claim, best.row), row_key=best.row.key)
    if failed := [place for place in found.comparable if place.row.status == "failed"]:
        best = min(failed, key=attrgetter("preference"))
        return PaperCell(claim, "failed", reason=_failure(best.row), row_key=best.row.key)
    if others := [other for other in found.others if other[0].row.ok_runs]:
        best, differences = min(others, key=lambda other: (len(other[1]), other[0].preference))
        return PaperCell(claim, "not comparable", reason="; ".join(differences), row_key=best.row.key)
    return PaperCell(claim, "not run")


def _failure(row: Row) -> str:
    failures = [run.record.failure for run in row.runs]
    return "; ".join(dict.fromkeys(" ".join(failure.reason.split()) for failure in failures if failure))


def _measured(found: Comparison, known: str | None) -> PaperCell:
    """The cell of a claim that was measured, by the best row of those that have a value."""
    place, stat, delta = min(found.measured, key=attrgetter("place.preference"))
    reach = _reach(stat)  # the published value is within the tolerance, or in the t-interval of the measured mean
    agrees = abs(delta) <= max(TOLERANCE, reach) + ROUNDING
    marks = [f"measured at {found.claim.rule}", *_marks(found, place), *place.row.marks]
    if agrees and abs(delta) > TOLERANCE + ROUNDING:
        marks.append(f"95 % interval of the mean ± {100 * reach:.1f}")
    if agrees and known:
        marks.append(known)
    reason = "" if agrees else known or UNEXPLAINED
    status: Status = "reproduced" if agrees else "differs"
    return PaperCell(found.claim, status, stat, delta, stat.n, tuple(marks), reason, place.row.key)


def _reach(stat: Stat) -> float:
    """Half the t-interval of the mean; 0 for one seed, which has none."""
    if stat.std is None:
        return 0.0
    return float(special.stdtrit(stat.n - 1, (1 + CONFIDENCE) / 2)) * stat.std / math.sqrt(stat.n)


def _marks(found: Comparison, place: Place) -> Iterator[str]:
    claim, section, row = found.claim, place.section, place.row
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
