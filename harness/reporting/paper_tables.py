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
from functools import cache, cached_property
from pathlib import Path
from typing import Final, Literal, NamedTuple, get_args

from scipy import special

from harness.base import config
from harness.base.errors import UserError
from harness.base.files import read_yaml
from harness.metrics.selection import SELECTION_RULES
from harness.metrics.shots import GROUPS
from harness.reporting.cards import Card
from harness.reporting.claims import NOT_STATED, Claim, Identity, Setting, claim_identity, dataset_identity, index_rows
from harness.reporting.provenance import ResolveRecipe
from harness.reporting.summary import Row, Section, Stat

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
        _known("group", self.group, ("all", *GROUPS))
        _known_selection(self.selection)

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
        _known_selection(self.selection)

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
class Cell:
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
    cells: tuple[Cell | None, ...]


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
    tables: dict[str, PaperTable] = {}
    for path in [*sorted(PAPERS.glob("*.yaml")), *filter(Path.exists, own)]:
        for table in _read(path):
            if table.id in tables:
                raise UserError(f"{path}: another table has the id '{table.id}'")
            tables[table.id] = table
    return list(tables.values())


def fill(
    tables: Iterable[PaperTable],
    claims: Iterable[Claim],
    cards: Iterable[Card],
    sections: list[Section],
    resolve: ResolveRecipe | None = None,
) -> list[FilledTable]:
    """Puts the claims into the tables' cells, and beside each what was measured.

    Args:
        resolve: the recipe that an entry has; without it a changed recipe is not noticed.

    Raises:
        UserError: more than one claim fits a cell.
    """
    by_source: dict[str, list[_Published]] = defaultdict(list)
    for claim in claims:
        by_source[claim.source].append(_Published(claim))
    for card in cards:
        for claim in card.claims:
            by_source[claim.source].append(_Published(claim, card))
    pools = {
        identity: {setting: _Pool(rows) for setting, rows in by_setting.items()}
        for identity, by_setting in index_rows(sections, resolve).items()
    }
    return [_fill(table, by_source[table.source], pools) for table in tables]


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


class _Pool:
    """The rows of one setting, best first: most seeds with a result, then the smaller recipe hash."""

    def __init__(self, rows: list[tuple[Section, Row]]) -> None:
        self.rows = sorted(rows, key=_preference)
        self._valued: dict[tuple[str, str], list[tuple[Section, Row]]] = {}

    def valued(self, rule: str, group: str) -> list[tuple[Section, Row]]:
        """The rows that have a value, best first."""
        if (rule, group) not in self._valued:
            self._valued[rule, group] = [pair for pair in self.rows if pair[1].stats[rule][group]]
        return self._valued[rule, group]

    @cached_property
    def failure(self) -> tuple[Section, Row, str] | None:
        """The first failed row, with the reasons."""
        for section, row in self.rows:
            if row.status == "failed":
                failures = [run.record.failure for run in row.runs]
                return section, row, "; ".join(dict.fromkeys(" ".join(f.reason.split()) for f in failures if f))
        return None


_Pools = dict[Setting, _Pool]


def _preference(pair: tuple[Section, Row]) -> tuple[int, str, str, str]:
    section, row = pair
    return -row.ok_runs, row.first.recipe_sha256, section.slug, row.key


def _fill(table: PaperTable, published: list[_Published], pools: dict[Identity, _Pools]) -> FilledTable:
    by_owner: dict[tuple[str | None, str | None], list[_Published]] = defaultdict(list)
    for one in published:
        if table.has(one.claim):
            by_owner[one.owner].append(one)
    rows = []
    for row in table.rows:
        candidates = [one for one in by_owner[row.method, row.card] if row.has(one.claim)]
        found = (_only(table, row, column, candidates) for column in table.columns)
        rows.append(FilledRow(row, tuple(_cell(one, table, row, pools) if one else None for one in found)))
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


def _cell(one: _Published, table: PaperTable, row: TableRow, pools: dict[Identity, _Pools]) -> Cell:
    claim = one.claim
    if one.card:
        return Cell(claim, "reported only", reason=one.card.reason)
    variant = row.measured_as.get(claim.dataset, claim.variant)
    settings = pools.get(claim_identity(replace(claim, variant=variant)), {})
    usable = [pool for setting, pool in settings.items() if not setting.differences(claim)]
    valued = [rows for pool in usable if (rows := pool.valued(claim.rule, claim.group))]
    if valued:
        section, best = min((rows[0] for rows in valued), key=_preference)
        return _measured(claim, section, best, sum(map(len, valued)), table, row)
    if ok := [pool.rows[0] for pool in usable if pool.rows[0][1].ok_runs]:
        section, best = min(ok, key=_preference)
        return _at(Cell(claim, "not comparable", reason=_no_value(claim, best)), section, best)
    if failures := [pool.failure for pool in usable if pool.failure]:
        section, best, reason = failures[0]
        return _at(Cell(claim, "failed", reason=reason), section, best)
    others = list(_others(claim, settings))
    if others:
        differences, pair = min(others, key=lambda other: (len(other[0]), _preference(other[1])))
        return _at(Cell(claim, "not comparable", reason="; ".join(differences)), *pair)
    return Cell(claim, "not run")


def _others(claim: Claim, settings: _Pools) -> Iterator[tuple[list[str], tuple[Section, Row]]]:
    """The best row of each setting that is not comparable, if it has a result, and what differs."""
    for setting, pool in settings.items():
        differences = setting.differences(claim)
        if differences and pool.rows[0][1].ok_runs:
            yield differences, pool.rows[0]


def _at(cell: Cell, section: Section, row: Row) -> Cell:
    return replace(cell, row_key=row.key, section_slug=section.slug)


def _measured(claim: Claim, section: Section, row: Row, comparable: int, table: PaperTable, line: TableRow) -> Cell:
    stat = row.stats[claim.rule][claim.group]
    assert stat is not None  # only rows that have a value come here
    delta = stat.mean - claim.value / 100
    agrees, known = _agrees(stat, delta), line.known or table.known
    marks = [f"measured at {claim.rule}", *_marks(claim, section, row, comparable), *row.marks]
    if agrees and abs(delta) > TOLERANCE + 1e-9:
        marks.append(f"95 % interval of the mean ± {100 * _reach(stat):.1f}")
    if agrees and known:
        marks.append(known)
    cell = Cell(
        claim,
        "reproduced" if agrees else "differs",
        stat,
        delta,
        stat.n,
        tuple(marks),
        "" if agrees else known or UNEXPLAINED,
    )
    return _at(cell, section, row)


def _agrees(stat: Stat, delta: float) -> bool:
    """Within the tolerance, or the published value lies in the t-interval of the measured mean."""
    return abs(delta) <= max(TOLERANCE, _reach(stat)) + 1e-9  # a difference of exactly the tolerance is within it


def _reach(stat: Stat) -> float:
    """Half the t-interval of the mean; 0 for one seed, which has none."""
    return 0.0 if stat.std is None else _quantile(stat.n) * stat.std / math.sqrt(stat.n)


@cache
def _quantile(n: int) -> float:
    return float(special.stdtrit(n - 1, (1 + CONFIDENCE) / 2))


def _marks(claim: Claim, section: Section, row: Row, comparable: int) -> Iterator[str]:
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
    if comparable > 1:
        yield f"one of {comparable} comparable rows"


def _no_value(claim: Claim, row: Row) -> str:
    if row.stats[claim.rule]["all"] is None:
        return f"no result at {claim.rule}, as there is no validation part"
    return f"no class is {claim.group}-shot in the measured data set"


def _read(path: Path) -> list[PaperTable]:
    values = read_yaml(path)
    entries = values.get("tables")
    if set(values) != {"tables"} or not isinstance(entries, list):
        raise UserError(
            f"{path}: expected one key 'tables' with a list, found {', '.join(map(str, values)) or 'nothing'}"
        )
    return [config.build(PaperTable, entry, f"{path}: tables[{index}]") for index, entry in enumerate(entries)]


def _known(key: str, value: str, known: Iterable[str]) -> None:
    if value not in known:
        raise ValueError(f"{key} must be one of {', '.join(known)}, found '{value}'")


def _known_selection(value: str | None) -> None:
    if value is not None:
        _known("selection", value, (*SELECTION_RULES, NOT_STATED))
