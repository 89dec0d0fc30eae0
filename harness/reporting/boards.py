"""What the page shows of a table besides its numbers: its name in plain words, its columns, its axis, its odd ranks."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Final, NamedTuple

from harness.base.errors import UserError
from harness.metrics.shots import GROUPS
from harness.records.schema import HEADLINE
from harness.reporting.figures import round_values
from harness.reporting.pictures import stage_epochs
from harness.reporting.summary import EARLIER_CODE, OTHER_CODE, RULES, Metric, Row, Section
from harness.reporting.tables import cell, percent
from harness.spec.pretrained import SUFFIXES
from harness.splits.store import get_dataset

FILE_ENDING: Final = re.compile(rf"(-[0-9a-f]{{8}})?({'|'.join(map(re.escape, SUFFIXES))})+$")  # torch's hash before it
TRACKS: Final = {
    "paper": "each method with its own published recipe. Only these rows may be held against a paper's number",
    "common": "one recipe for all methods. Compare rows within this board only, never with a paper's number",
    "short": "the common recipe with fewer epochs, so that it runs without a GPU. "
    "Compare rows within this board only, never with a paper's number",
}
FOOTNOTES: Final = {
    "†": (
        EARLIER_CODE,
        "measured with an earlier version of the code, which gives the same numbers to the last bit on a small suite",
    ),
    "‡": (OTHER_CODE, "measured with an earlier version of the code; not yet shown to give the same numbers"),
}
MILD: Final = next(iter(FOOTNOTES))  # says that the numbers are the same
TUNED: Final = "tuned on the test part"  # how the mark of such a recipe begins
LONGEST_MARK: Final = 64  # that a table shows whole
WIDTH: Final = 160  # of a forest plot, in its own units
MARGIN: Final = 6
HARDLY: Final = 0.001  # a mean change of which no size is given


class Axis(NamedTuple):
    """The scale of a table's forest plot, for accuracies as fractions."""

    low: float
    high: float

    def at(self, value: float) -> float:
        """Where a value stands, in units of the drawing."""
        return round(MARGIN + (WIDTH - 2 * MARGIN) * (value - self.low) / (self.high - self.low), 1)

    @property
    def ticks(self) -> list[float]:
        """Two to four round values on it."""
        return round_values(self.low, self.high, most=4)


@dataclass(frozen=True, eq=False)
class Board:
    """A table as the page shows it."""

    section: Section
    several: bool = False  # whether other tables are of the same data set with another tail

    @cached_property
    def title(self) -> str:
        """The data set's own name; its imbalance factor where that tells tables apart; what its rows start from."""
        p = self.section.protocol
        try:
            title = get_dataset(p.dataset).title
        except UserError:  # measured elsewhere, or somebody's own
            title = p.dataset
        title += f", imbalance {p.imbalance_factor:g}" if self.several else ""
        start = FILE_ENDING.sub("", str(p.recipe.get("pretrained") or "").partition(" sha256:")[0])
        return f"{title}, from {start}" if start else title

    @property
    def classes(self) -> str:
        """How many classes it has, how many of them are few-shot, and how uneven they are."""
        p = self.section.protocol
        few = p.groups.get("few", 0) or "none"
        return f"{len(p.class_counts)} classes, {few} of them few-shot, imbalance factor {p.imbalance_factor:g}"

    @property
    def lengths(self) -> str:
        """Of its runs: `12 epochs, 12 + 5 with a second stage`; empty where it is not known."""
        records = [row.first for row in self.section.rows]
        first = _span(stage_epochs(one, "train") for one in records)
        second = _span(stage_epochs(one, one.stages[-1]) for one in records if len(one.stages) > 1)
        staged = f", {first} + {second} with a second stage" if second else ""
        return f"{first} epoch{'' if first == '1' else 's'}{staged}" if first else ""

    @cached_property
    def conditions(self) -> str:
        """The track in plain words: how long the runs are, and on what; what else tells it from another table."""
        section = self.section
        devices = {row.device for row in section.rows if row.device}
        facts = [*filter(None, [self.lengths]), *(f"on a {device}" for device in devices if len(devices) == 1)]
        p = section.protocol
        other = f" ({p.split}, {p.shot_policy}, split {p.split_sha256[:6]})" if self._apart else ""
        return f"{p.track}{': ' if facts else ''}{', '.join(facts)}{other}"

    @property
    def track(self) -> str:
        """The track alone, where that tells it from other tables of its data set."""
        return self.conditions if self._apart else self.section.protocol.track

    @property
    def _apart(self) -> set[str]:
        """What tells it from tables of its data set and track, but for what stands in its title."""
        return set(self.section.conflicts) - {"pretrained"}

    @property
    def name(self) -> str:
        """What the page calls it, away from the table."""
        return f"{self.title} ({self.track})"

    @property
    def words(self) -> str:
        """What a search finds it by."""
        p = self.section.protocol
        return f"{self.title} {p.dataset} {p.dataset}-lt {p.split} {p.track}"

    @cached_property
    def metrics(self) -> tuple[Metric, ...]:
        """The columns in which any row has a value; the rare classes come before the frequent ones."""
        rows = self.section.rows
        there = [m for m in self.section.metrics if any(row.stats[rule][m.key] for row in rows for rule in RULES)]
        groups = [m for m in reversed(there) if m.key in GROUPS]
        return tuple(groups.pop(0) if m.key in GROUPS else m for m in there)

    @property
    def hidden(self) -> list[str]:
        """Why columns are not there, a sentence each."""
        return [_why_hidden(metric, self.section) for metric in self.section.metrics if metric not in self.metrics]

    @property
    def lacking(self) -> list[str]:
        """The selection rules at which no row has a value."""
        return [rule for rule in RULES if rule not in self.section.rules()]

    @cached_property
    def axis(self) -> Axis | None:
        """The scale of the intervals; None where no row has one."""
        found = [row.interval for row in self.section.rows if row.interval]
        low, high = min((low for low, _ in found), default=0.0), max((high for _, high in found), default=0.0)
        return Axis(low, high) if high > low else None

    @property
    def zero(self) -> float | None:
        """The accuracy of cross-entropy, where it lies on the axis."""
        stat = base.stats[HEADLINE]["all"] if (base := self.section.reference) else None
        return stat.mean if stat and self.axis and self.axis.low <= stat.mean <= self.axis.high else None

    @property
    def footnotes(self) -> list[tuple[str, int, str]]:
        """Sign, number of rows and meaning of each footnote."""
        signs = Counter(sign for row in self.section.rows for sign in split_marks(row.marks)[0])
        return [(sign, signs[sign], meaning) for sign, (_, meaning) in FOOTNOTES.items() if signs[sign]]

    @property
    def on_all(self) -> list[str]:
        """The signs that every row would have."""
        return [sign for sign, rows, _ in self.footnotes if rows == len(self.section.rows)]

    @property
    def no_news(self) -> list[str]:
        """The signs that rows of Findings go without: every row would have them, or most, and they warn of nothing."""
        most = len(self.section.rows) / 2
        return [sign for sign, rows, _ in self.footnotes if sign in self.on_all or (sign == MILD and rows > most)]

    @property
    def families(self) -> Iterator[tuple[int, Row, list[tuple[int, Row]]]]:
        """The row of each method with its place in the table, and its variants likewise."""
        rows = self.section.rows
        return ((head, rows[head], [(i, rows[i]) for i in others]) for head, others in self.section.families.items())

    def heads(self, rule: str) -> list[Row]:
        """The rows that stand for their methods and have a rank at a selection rule."""
        return [row for row in self.section.heads if row.places.get(rule)]

    def surprises(self, named: Callable[[str], str]) -> dict[str, str]:
        """Key of a row -> why it has its rank, where the row above looks no better and has another one."""
        heads = self.heads(HEADLINE)
        return {row.key: text for above, row in pairwise(heads) if (text := _why_apart(above, row, heads, named))}

    def moves(self, rule: str, named: Callable[[str], str]) -> str:
        """What a selection rule does to ranks and means at the last epoch; empty where no method has both."""
        found = [(row, row.places.get(HEADLINE) or 0, row.places[rule] or 0) for row in self.heads(rule)]
        ranks = [(abs(after - before), before, after, row) for row, before, after in found if before]
        means = [(row.mean(HEADLINE), row.mean(rule)) for *_, row in ranks if row.trains]
        gains = [after - before for before, after in means if before is not None and after is not None]
        if not gains:
            return ""
        text, moved = f"none of {len(ranks)} ranks moves", [one for one in ranks if one[0]]
        if moved:
            step, old, new, row = max(moved, key=lambda one: one[0])
            others = sum(one[0] == step for one in moved) - 1
            text = f"{len(moved)} of {len(ranks)} ranks {'move' if len(moved) > 1 else 'moves'}, the furthest by "
            text += f"{step}: {named(row.label)} from {old} to {new}"
            text += f", and {others} {'others' if others > 1 else 'other'} as far" if others else ""
        gain = sum(gains) / len(gains)
        if abs(gain) < HARDLY:
            return f"{text}. All changes by less than {percent(HARDLY, 1)} points on average."
        return f"{text}. All {'falls' if gain < 0 else 'rises'} by {percent(abs(gain), 1)} points on average."


def boards_of(sections: Iterable[Section]) -> list[Board]:
    """The tables as boards; the one with most few-shot classes first, which is where the page opens."""
    sections = list(sections)
    tails = {(section.protocol.dataset, section.protocol.imbalance_factor) for section in sections}
    tables = Counter(dataset for dataset, _ in tails)
    boards = [Board(section, several=tables[section.protocol.dataset] > 1) for section in sections]
    return sorted(boards, key=lambda board: -board.section.protocol.groups.get("few", 0))


def split_marks(marks: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """Those that a footnote explains, by its sign; and the others."""
    signed, others = dict[str, str](), []
    for mark in marks:
        sign = next((sign for sign, (start, _) in FOOTNOTES.items() if mark.startswith(start)), "")
        if sign:
            signed[sign] = mark
        else:
            others.append(mark)
    return signed, others


def display_name(label: str, titles: Mapping[str, str]) -> str:
    """A row's label with its method's title for the code: `GCL, one-stage`."""
    method, rest = re.sub(r"\W.*", "", label), re.sub(r"^\w*", "", label).strip(" -,")
    return ", ".join(filter(None, (titles[method], rest))) if method in titles else label


def short_mark(mark: str) -> str:
    """What a table shows of a mark; the whole one where that is short."""
    if mark.startswith(TUNED):
        return "tuned on test"
    if len(mark) <= LONGEST_MARK:
        return mark
    first = re.split("[:;] ", re.sub("^(train|finetune): ", "", mark))[0]
    return textwrap.shorten(first, LONGEST_MARK, placeholder=" \N{HORIZONTAL ELLIPSIS}")


def warns(mark: str) -> bool:
    """Whether a mark is a warning: of a recipe that saw the test part, of failed seeds, or of files not checked."""
    return mark.startswith((TUNED, "not fully checked")) or " seeds; seed " in mark


def interval(row: Row) -> list[tuple[str, str]]:
    """The 95 % interval of a row, as a fact with its name; none where it has no evidence."""
    if not row.interval:
        return []
    low, high = (percent(end, 1) for end in row.interval)
    return [("95 % interval of All, last epoch", f"{low} to {high}")]


def _span(lengths: Iterable[float | None]) -> str:
    """`12`, or `12 to 200`; empty where none is known."""
    known = sorted({length for length in lengths if length})
    return " to ".join(dict.fromkeys(f"{length:g}" for length in (known[0], known[-1]))) if known else ""


def _why_hidden(metric: Metric, section: Section) -> str:
    if metric.key in GROUPS:
        return f"{metric.title}: no class is {metric.key}-shot in this split ({section.protocol.shot_policy})."
    return f"{metric.title}: no row has a value."


def _why_apart(above: Row, row: Row, heads: Sequence[Row], named: Callable[[str], str]) -> str:
    """Why a test parts two neighbours whose means are closer than their spread; empty where it does not surprise."""
    first, second = above.stats[HEADLINE]["all"], row.stats[HEADLINE]["all"]
    rank, own = above.places[HEADLINE], row.places[HEADLINE]
    p = row.place_p.get(HEADLINE)
    if rank == own or p is None or not first or not second:
        return ""
    if first.mean - second.mean >= max(first.std or 0, second.std or 0):
        return ""
    leader = next(one for one in heads if one.places[HEADLINE] == rank)
    text = f"The tests show it to be worse than {named(leader.label)}, which has the highest All of rank {rank} "
    text += f"(p = {p:.2g})"
    if above is not leader and HEADLINE in above.place_p:
        text += f"; {named(above.label)} ({cell(first, 1)}) they do not (p = {above.place_p[HEADLINE]:.2g})"
        if (first.std or 0) > 1.5 * (second.std or 0):
            text += ", as its seeds differ more, and one seed that disagrees can prevent it"
    return f"{text}."
