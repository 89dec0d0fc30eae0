"""The first screen: what was found, in sentences that the records decide; every method on every data set."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from harness.base.errors import UserError
from harness.metrics.selection import SELECTION_RULES
from harness.records.progress import Progress
from harness.records.schema import HEADLINE
from harness.reporting.boards import Board
from harness.reporting.claims import TRACK
from harness.reporting.comparison import Comparison, Status
from harness.reporting.paper_tables import FilledTable, count_by_status, published_sentence
from harness.reporting.pictures import stage_epochs
from harness.reporting.significance import Classes, Effect, RunsOfRow, effect
from harness.reporting.summary import REFERENCE, Row, in_all
from harness.reporting.tables import digits_beside, percent, points, published
from harness.reporting.views import correct_of
from harness.splits.split_names import parse_split_name
from harness.splits.store import get_dataset

LEVELS: Final = 4  # of colour on either side of cross-entropy
MOST_NAMED: Final = 6  # rows that may be held against a paper
WIDE: Final = 5  # methods that a table needs to be on the first screen, beside such tables
MOST_NAMES: Final = 10  # that a sentence lists
MEANING: Final[dict[Status, str]] = {
    "reproduced": "measured the paper's way, and the number fits",
    "differs": "measured the paper's way, and the number does not fit",
    "not comparable": "measured, but under another protocol",
    "failed": "tried the paper's way, and the run failed",
    "not run": "nobody has measured it here yet",
    "reported only": "nobody can run it here",
}


class Finding(NamedTuple):
    """A sentence, and the parts of the page that it rests on, by what their links say."""

    text: str
    links: dict[str, str]


class HeatCell(NamedTuple):
    """A row's accuracy, its difference to cross-entropy in steps of colour, and whether it is its column's best."""

    row: Row
    value: float
    level: int
    best: bool


class Column(NamedTuple):
    """A column of the heat map: a table and `all` or `few`."""

    board: Board
    score: str


@dataclass(frozen=True)
class HeatMap:
    """Methods by data sets; a method has None where it was not measured."""

    columns: list[Column]
    rows: list[tuple[str, list[HeatCell | None]]]

    @property
    def boards(self) -> list[tuple[Board, int]]:
        """Its tables, and over how many columns each one stands."""
        return list(Counter(column.board for column in self.columns).items())

    @property
    def tuned(self) -> bool:
        """Whether any cell has seen its test set."""
        return any(cell.row.tuned for _, cells in self.rows for cell in cells if cell)

    @property
    def single(self) -> bool:
        """Whether any cell is of one run."""
        return any(cell.row.ok_runs == 1 for _, cells in self.rows for cell in cells if cell)


@dataclass(frozen=True)
class Overview:
    """What the first screen shows."""

    findings: list[Finding]
    heat: HeatMap
    coverage: dict[Status, int]
    runnable: int  # of those not run, how many have a command that would measure them
    apart: str  # why those are not comparable that are not, as far as all have the same reason
    why: str  # no more of them are reproduced, and what is under way

    @property
    def published(self) -> int:
        """Number of published values looked at."""
        return sum(self.coverage.values())

    @property
    def checked(self) -> str:
        """How many of them are reproduced, why no more, and what is under way."""
        return f"{self.findings[-1].text}{self.why}" if self.published else ""


def overview(
    boards: Sequence[Board],
    papers: Sequence[FilledTable],
    titles: Mapping[str, str],
    campaigns: Iterable[Progress] = (),
) -> Overview:
    """The first screen of a page.

    Args:
        boards: the one with most few-shot classes first.
        titles: of methods, by name.
        campaigns: what is under way.
    """
    everywhere = {row.first.method for board in boards for row in board.section.rows}
    cells = [cell for filled in papers for cell in filled.cells if not cell.claim.again]
    runnable = sum(bool(cell.status == "not run" and cell.todo and cell.todo.command) for cell in cells)
    coverage = count_by_status(papers)
    facts = _Facts({**titles, REFERENCE: "cross-entropy"})
    why = f"{_why(boards)}{_under_way(campaigns, boards, facts)}"
    full_length = {f"{one.title} at full length": one.section.slug for one in boards if _as_papers_do(one)}
    boards = _wide(boards)
    checked = _published(coverage, _as_published(papers), full_length)
    found = [_rare_classes(boards, everywhere, facts), _everywhere(boards, facts), checked]
    return Overview([one for one in found if one], heat_map(boards), coverage, runnable, _apart(cells), why)


def _apart(cells: Iterable[Comparison]) -> str:
    return "; ".join(in_all([cell.reason.split("; ") for cell in cells if cell.status == "not comparable"]))


def _wide(boards: Sequence[Board]) -> Sequence[Board]:
    """Those whose rows start from scratch and that many methods share, where there are such."""
    scratch = [board for board in boards if not board.section.protocol.recipe.get("pretrained")]
    return [board for board in scratch if len(board.section.families) >= WIDE] or scratch or boards


# Sentences


class _Facts:
    """Names of methods, and differences of rows that paired predictions bear out."""

    def __init__(self, titles: Mapping[str, str]) -> None:
        self._titles = titles
        self._bits: dict[str, tuple[RunsOfRow, Classes] | None] = {}

    def name(self, row: Row) -> str:
        return self.title(row.first.method)

    def title(self, method: str) -> str:
        return self._titles.get(method, method)

    def names(self, rows: Iterable[Row]) -> str:
        *first, last = (self.name(row) for row in rows)
        return f"{', '.join(first)} and {last}" if first else last

    def effect(self, board: Board, row: Row, against: Row, score: str) -> Effect | None:
        """The difference of two rows over all images, or in the classes of a group."""
        ours, theirs = self._of(row), self._of(against)
        if not ours or not theirs or not np.array_equal(ours[1], theirs[1]):
            return None
        return effect(ours[0], theirs[0], ours[1], board.section.classes(score))

    def _of(self, row: Row) -> tuple[RunsOfRow, Classes] | None:
        if row.key not in self._bits:
            self._bits[row.key] = correct_of(row, HEADLINE)
        return self._bits[row.key]


def _rare_classes(boards: Sequence[Board], everywhere: set[str], facts: _Facts) -> Finding | None:
    """Who is best in the few-shot classes, where most of them are, what intervals say of its lead, and its price."""
    board = next(iter(boards), None)
    base = board.section.reference if board else None
    rows = sorted(_measured(board, "few"), key=lambda row: -_mean(row, "few")) if board else []
    if board is None or base is None or len(rows) < 2 or base not in rows or rows[0] is base:
        return None
    best, *others = rows
    leads = [(row, lead) for row in others if (lead := facts.effect(board, best, row, "few"))]
    if not leads:
        return None
    led = {row.key for row, _ in leads}
    untold = [row for row in others if row.key not in led]  # no two seeds in common
    p = board.section.protocol
    text = (
        f"Rare classes: on {board.title} ({len(p.class_counts)} classes) {facts.name(best)} is best: "
        f"{percent(_mean(best, 'few'), 1)} % in the {p.groups['few']} few-shot classes, where cross-entropy has "
        f"{percent(_mean(base, 'few'), 1)} %. "
    )
    if unsure := [row for row, lead in leads if lead.low <= 0]:
        text += f"The intervals of the paired differences in these classes do not part it from {facts.names(unsure)}"
        text += " (row Few of Compare)."
    else:
        second, lead = leads[0]
        each = "each of the" if len(leads) > 1 else "the"
        text += f"It leads {each} other {len(leads)} that ran on this set, by the intervals of the paired differences "
        text += f"in these classes (row Few of Compare): {facts.name(second)} by {_interval(lead)}."
    if untold:
        text += f" Too few seeds in common for an interval: {facts.names(untold)}."
    if elsewhere := len(everywhere - {row.first.method for row in board.section.rows}):
        text += f" {elsewhere} of {len(everywhere)} methods {'has' if elsewhere == 1 else 'have'} not run there."
    price = facts.effect(board, best, base, "many")
    if price and price.verdict == "worse":
        text += f" The price: {_interval(price)} in the frequent classes."
    slug = board.section.slug
    closest = unsure[0] if unsure else min(leads, key=lambda pair: pair[1].mean)[0]
    links = {"See the table": f"open={slug}&sort={slug}:few:descending"}
    return Finding(text, links | {f"Compare with {facts.name(closest)}": f"compare={slug}:{closest.key}:{best.key}"})


def _everywhere(boards: Sequence[Board], facts: _Facts) -> Finding | None:
    """Which methods beat cross-entropy over all classes in every table that has them, where two tables do."""
    verdicts: dict[str, list[str]] = {}
    rows: dict[str, Row] = {}
    fullest: dict[str, Board] = {}  # of each split, which counts once
    for board in sorted(boards, key=lambda board: -len(_measured(board, "all"))):
        fullest.setdefault(board.section.protocol.split, board)
    boards = [board for board in boards if board is fullest[board.section.protocol.split]]
    used = [(board, base) for board in boards if (base := board.section.reference) and len(_measured(board, "all")) > 1]
    for board, base in used:
        for row in _measured(board, "all"):
            if row is not base and (found := facts.effect(board, row, base, "all")):
                verdicts.setdefault(row.first.method, []).append(found.verdict)
                rows.setdefault(row.first.method, row)
    least = min(2, len(used))
    shared = {method: found for method, found in verdicts.items() if len(found) >= least}
    if not shared:
        return None
    better = [rows[method] for method, found in shared.items() if set(found) == {"better"}]
    maybe = [rows[method] for method, found in shared.items() if set(found) == {"better", "not resolved"}]
    never = [rows[method] for method, found in shared.items() if "better" not in found]
    mixed = [rows[method] for method, found in shared.items() if {"better", "worse"} <= set(found)]
    where, there = used[0][0].title, "there"
    if len(used) > 1:
        where, there = f"{'at least two of ' if len(used) > least else ''}these {len(used)} data sets", "each time"
    methods = "method" if len(shared) == 1 else "methods"
    text = f"All classes: of the {len(shared)} {methods} with two seeds or more on {where}, "
    text += f"{len(better) or 'none'} {'beats' if len(better) < 2 else 'beat'} cross-entropy {there}"
    text += f", with a 95 % interval above zero: {facts.names(better)}." if 0 < len(better) <= MOST_NAMES else "."
    if 0 < len(maybe) <= MOST_NAMES // 2 and len(used) > 1:
        text += f" {facts.names(maybe)} {'does' if len(maybe) == 1 else 'do'} on some; on the others it is not certain."
    if 0 < len(mixed) <= MOST_NAMES // 2:
        text += f" {facts.names(mixed)} {'is' if len(mixed) == 1 else 'are'} better on some, and worse on another."
    if 0 < len(never) <= MOST_NAMES // 2 and len(used) > 1:
        text += f" {facts.names(never)} {'beats' if len(never) == 1 else 'beat'} it on none."
    titles = Counter(board.title for board, _ in used)
    names = [board.title if titles[board.title] == 1 else board.name for board, _ in used]
    return Finding(text, {name: f"findings-{board.section.slug}" for name, (board, _) in zip(names, used, strict=True)})


def _as_papers_do(board: Board) -> bool:
    return board.section.protocol.track == TRACK


def _as_published(papers: Iterable[FilledTable]) -> str:
    """The rows that may be held against a paper, by its name, each beside the first value that is printed of it."""
    first: dict[str, tuple[str, str]] = {}
    for paper, cell in ((line.row, cell) for filled in papers for line in filled.rows for cell in line.cells):
        if cell and not cell.claim.again and cell.best and cell.best.row.key not in first:
            claim, stat, row = cell.claim, cell.best.stat, cell.best.row
            rule = SELECTION_RULES[claim.rule][0].partition(":")[0]
            group = "" if claim.group == "all" else f", {claim.group} classes"
            where = f"{claim.source}, {claim.location} ({split_title(row.first.split)}{group}, at {rule})"
            value = percent(stat.mean, digits_beside(claim.value))
            name = f"{paper.label} (as {row.name})" if paper.variant_measured(claim) else paper.label
            what = f"{name} {value} (printed {published(claim.value)}: {cell.status}; n = {stat.n})"
            first[row.key] = where, what
    tables: dict[str, list[str]] = {}
    for where, what in [*first.values()][:MOST_NAMED]:
        tables.setdefault(where, []).append(what)
    text = "".join(f" Measured as in {where}: {', '.join(found)}." for where, found in tables.items())
    return text + f" And {len(first) - MOST_NAMED} more." * (len(first) > MOST_NAMED)


def _published(coverage: Mapping[Status, int], measured: str, links: Mapping[str, str]) -> Finding | None:
    """How much of what papers print has been reproduced."""
    if not any(coverage.values()):
        return None
    return Finding(f"{published_sentence(coverage)}{measured}", {"Why, and paper by paper": "published", **links})


def _why(boards: Sequence[Board]) -> str:
    """Which runs cannot check a paper."""
    shared = [board for board in boards if not _as_papers_do(board)]
    ours, runs = (sum(len(row.runs) for board in some for row in board.section.rows) for some in (shared, boards))
    if not shared:
        return ""
    longest = max(stage_epochs(row.first, "train") or 0 for board in shared for row in board.section.rows)
    devices = {row.device for board in shared for row in board.section.rows if row.device}
    text = f" Why so few: {f'{ours:,} of ' * (ours < runs)}the {runs:,} runs here have a recipe of this project"
    text += f", with a first stage of up to {longest:g} epochs" * bool(longest)
    text += f", on a {', '.join(devices)}" * (len(devices) == 1)
    return f"{text}. They compare methods, but check no paper's number."


def _under_way(campaigns: Iterable[Progress], boards: Iterable[Board], facts: _Facts) -> str:
    """The runs with papers' own recipes that are being made, and have no record yet."""
    rows = [row for board in boards for row in board.section.rows]
    there = {(row.first.split, row.first.entry, run.record.seed) for row in rows for run in row.finished}
    splits: dict[str, list[str]] = {}
    left: dict[
        tuple[str, str | None], int
    ] = {}  # of a part that runs by itself, the whole at its commit counts them, too
    day = ""
    for one in campaigns:
        named = [(re.match(rf"(\S+) ((\w+)(?:-(\S+))?@{TRACK}) seed (\d+)", run.run), run) for run in one.running]
        for found, run in named:
            if found and (found[1], found[2], int(found[5])) not in there:
                variant = f" ({found[4]})" if found[4] else ""
                what = f"{facts.title(found[3])}{variant} seed {found[5]} ({run.state})"
                splits.setdefault(split_title(found[1]), []).append(what)
                suite = one.suite, one.commit
                left[suite] = max(left.get(suite, 0), one.left)
                day = max(day, one.updated[:10])
    if not splits:
        return ""
    runs = "; ".join(f"{', '.join(found)} on {split}" for split, found in splits.items())
    count = sum(left.values())
    return (
        f" Under way with the papers' own recipes: {runs}; {count:,} {'run' if count == 1 else 'runs'} left on {day}."
    )


def split_title(name: str) -> str:
    """The data set's own name for a split's, and its imbalance factor; the name as it is where there is no such."""
    try:
        split = parse_split_name(name)
        title = get_dataset(split.dataset).title
    except UserError:
        return name
    return f"{title}, imbalance factor {split.imbalance_factor:g}" if split.imbalance_factor else title


def _measured(board: Board, score: str) -> list[Row]:
    """The rows that stand for their methods and have a value."""
    return [row for row in board.section.heads if row.stats[HEADLINE][score]]


def _mean(row: Row, score: str) -> float:
    found = row.stats[HEADLINE][score]
    return found.mean if found else 0.0


def _interval(found: Effect) -> str:
    mean, low, high = points(found)
    return f"{mean} points (95 % interval {low} to {high})".replace("-", "\N{MINUS SIGN}")


# Heat map


def heat_map(boards: Sequence[Board]) -> HeatMap:
    """Every method on every data set; those of most data sets first, then as the first table has them."""
    columns = [Column(board, score) for board in boards for score in ("all", "few") if _measured(board, score)]
    cells = [_cells(column) for column in columns]
    methods = {method for column in cells for method in column}

    def place(method: str) -> tuple[int, list[float], str]:
        found = [column.get(method) for column in cells]
        return sum(one is None for one in found), [-one.value if one else 1.0 for one in found], method

    return HeatMap(
        columns, [(method, [column.get(method) for column in cells]) for method in sorted(methods, key=place)]
    )


def _cells(column: Column) -> dict[str, HeatCell]:
    score = column.score
    rows = {row.first.method: row for row in _measured(column.board, score)}
    base = column.board.section.reference
    values = {method: _mean(row, score) for method, row in rows.items()}
    zero = _mean(base, score) if base else min(values.values())
    reach = max(abs(value - zero) for value in values.values()) or 1.0
    top = max(round(value * 100, 1) for value in values.values())
    return {
        method: HeatCell(rows[method], value, round(LEVELS * (value - zero) / reach), round(value * 100, 1) == top)
        for method, value in values.items()
    }
