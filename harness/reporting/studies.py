"""Studies: what a choice is worth, one part of a method or of the protocol changed and all else the same.

A study is a list of contrasts, each between two rows of one table (of two, where starts are compared), and findings in
words. Studies of the protocol stand in `harness/reporting/studies.yaml`, those of a method in its folder's
`studies.yaml`. They hold no numbers: a finding takes its numbers from the contrasts, says what must hold for it to be
true, and is withdrawn where that does not.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final, TypeAlias, get_args

import numpy as np

from harness.base.errors import unknown
from harness.metrics.selection import SELECTION_RULES
from harness.metrics.shots import GROUPS
from harness.records.schema import HEADLINE
from harness.reporting.costs import NO_TIMES, StepTimes, relative_cost
from harness.reporting.drawer import differing
from harness.reporting.inputs import Named, read_lists
from harness.reporting.significance import ENOUGH, Classes, Effect, RunsOfRow, Verdict, effect
from harness.reporting.summary import Row, Section, in_all
from harness.reporting.tables import points
from harness.reporting.views import correct_of

STUDIES: Final = Path(__file__).with_name("studies.yaml")
SCORES: Final = ("all", *GROUPS)
PLACEHOLDER: Final = re.compile(r"\{([^{}]+)\}")
BOUND: Final = re.compile(r"(above|below) (-?\d+(?:\.\d+)?)")

# Recipe keys that no method decides and no study here varies. (The length of a second stage is the method's own.)
CONDITIONS: Final = ("backbone", "image_size", "precision", "train.epochs", "train.iterations", "train.batch_size")


@dataclass(frozen=True)
class Contrast:
    """One row against another of the same table; where the two are one row, at two selection rules."""

    label: str
    row: str  # as on the leaderboard: the entry without its track
    against: str
    at: str = HEADLINE
    name: str = ""  # that findings use; empty: the row's
    differ: tuple[str, ...] = ()  # in which of `CONDITIONS` the two may; the label says it

    def __post_init__(self) -> None:
        if self.at not in SELECTION_RULES:
            raise ValueError(str(unknown("selection rule", self.at, SELECTION_RULES)))
        for key in self.differ:
            if key not in CONDITIONS:
                raise ValueError(str(unknown("condition", key, CONDITIONS)))
        if (self.row, self.at) == (self.against, HEADLINE):
            raise ValueError(f"'{self.row}' is held against itself at the same selection rule")

    @property
    def key(self) -> str:
        """The name that findings use."""
        return self.name or self.row

    @property
    def of_one_row(self) -> bool:
        """Whether it compares a row with itself: the gain from choosing on the test set can be seen, not tested."""
        return self.row == self.against


@dataclass(frozen=True)
class Finding:
    """A sentence. `{name}` and `{name few}` become a contrast's difference; `holds` says what it rests on.

    That is the verdict on a contrast, or where its whole interval lies, in points: `above -2`, `below 3`.
    """

    text: str
    holds: dict[str, str]  # "name" or "name few" -> what the sentence assumes of it

    def __post_init__(self) -> None:
        for key, claim in self.holds.items():
            if claim not in get_args(Verdict) and not BOUND.fullmatch(claim):
                known = ", ".join((*get_args(Verdict), "above POINTS", "below POINTS"))
                raise ValueError(f"holds.{key} must be one of {known}, found '{claim}'")
        if not self.holds:
            raise ValueError("a finding names at least one contrast under 'holds'")
        for shown in PLACEHOLDER.findall(self.text):
            if shown not in self.holds:
                raise ValueError(f"a finding shows {{{shown}}}, which 'holds' does not name")


@dataclass(frozen=True)
class Study(Named):
    """A question that contrasts of one table answer."""

    question: str
    split: str
    track: str
    contrasts: tuple[Contrast, ...]
    findings: tuple[Finding, ...] = ()
    quantity: str = ""  # of each class, as methods keep them; shown by class
    quantity_rows: tuple[str, ...] = ()
    cost: bool = False  # whether training cost stands beside each difference
    starts: bool = False  # whether rows that start from pretrained weights are among them
    every: str = ""  # a row that the table's other methods are held against, too; the best one first

    def __post_init__(self) -> None:
        super().__post_init__()
        keys = [contrast.key for contrast in self.contrasts]
        if len(set(keys)) < len(keys):
            raise ValueError(f"two contrasts have one name; give them a 'name' each: {', '.join(keys)}")
        for name in (name for finding in self.findings for name in finding.holds):
            key, _, score = name.partition(" ")
            if key not in keys:
                raise ValueError(str(unknown("contrast", key, keys)))
            if score and score not in SCORES:
                raise ValueError(str(unknown("group", score, SCORES)))


@dataclass(frozen=True)
class MeasuredContrast:
    """A contrast with what the records say of it."""

    contrast: Contrast
    effects: dict[str, Effect | None] = field(default_factory=dict)  # all, many, medium, few
    marks: tuple[str, ...] = ()  # what a reader must know of either row
    missing: str = ""  # why there is no effect, in a phrase
    cost: float | None = None  # training time of the row over that of the other
    complete: bool = True  # no run of either row has failed; findings rest on no others

    @property
    def over_all(self) -> Effect | None:
        """The difference over all images."""
        return self.effects.get("all")

    @property
    def n(self) -> int:
        """Seeds that both rows have; 0 without an effect."""
        return self.over_all.n if self.over_all else 0


Pairs: TypeAlias = list[tuple[Study, MeasuredContrast]]


@dataclass(frozen=True)
class StudyResult:
    """A study with its numbers."""

    study: Study
    measured: tuple[MeasuredContrast, ...]
    findings: tuple[str, ...] = ()
    withdrawn: int = 0  # findings that these records do not support, or say nothing of
    section: Section | None = None  # the table, where there is one
    quantities: dict[str, list[float]] = field(default_factory=dict)  # row -> value of each class
    also: tuple[str, ...] = ()  # slugs of further tables that its rows stand in

    @property
    def started(self) -> bool:
        """Whether any contrast has been measured."""
        return any(one.over_all for one in self.measured)


def load_studies(folders: Mapping[str, Path]) -> list[Study]:
    """The protocol's studies, then those of the method folders, by method name.

    Raises:
        UserError: a damaged file, an unknown key, a wrong value, or an id that is there twice.
    """
    return read_lists(Study, "studies", [STUDIES], folders)


def ranked(results: Iterable[StudyResult]) -> tuple[Pairs, Pairs]:
    """The contrasts with a clear difference, over all images or in a group, largest first; and the others, likewise.

    What is only observed, and what does not differ at all, is in neither; two rows stand in them once, as they
    are first compared.
    """
    resolved, others, seen = [], [], set()
    pairs = [(result.study, one) for result in results for one in result.measured if one.n >= ENOUGH]
    for study, one in pairs:
        rows = (study.split, study.track, frozenset((one.contrast.row, one.contrast.against)))
        verdicts = {found.verdict for found in one.effects.values() if found} if rows not in seen else set()
        if verdicts & {"better", "worse"}:
            resolved.append((study, one))
        elif "not resolved" in verdicts:
            others.append((study, one))
        if not one.contrast.of_one_row:
            seen.add(rows)
    return sorted(resolved, key=_by_size), sorted(others, key=_by_size)


def _by_size(pair: tuple[Study, MeasuredContrast]) -> float:
    over_all = pair[1].over_all
    return -abs(over_all.mean) if over_all else 0.0


def common_marks(lines: Iterable[MeasuredContrast]) -> list[str]:
    """Marks that every contrast with numbers has, so that they are said once."""
    return in_all([one.marks for one in lines if not one.missing])


def usual_study(pairs: Iterable[tuple[Study | None, MeasuredContrast]]) -> Study | None:
    """The study of most contrasts, so that it is named once; None where there is none, or all are of one."""
    studies = [study for study, _ in pairs if study]
    (name, count), *others = Counter(study.id for study in studies).most_common() or [("", 0)]
    return next(study for study in studies if study.id == name) if others and 2 * count > len(studies) else None


def number(found: Effect | None) -> str:
    """A difference in points with its interval, as text."""
    if found is None:
        return "-"
    if found.verdict == "same":
        return "0.0, no image differs"
    mean, low, high = points(found)
    if found.n == 1:
        return f"{mean}, one seed"
    return f"{mean} ({low} to {high}{'' if found.inferred else ' by seed'})"


def carry_out(
    study: Study,
    sections: Sequence[Section],
    times: StepTimes = NO_TIMES,
    titles: Mapping[str, str] = MappingProxyType({}),
) -> StudyResult:
    """A study with what the records say; `titles` are of methods, by name."""
    place = (study.split, study.track)
    fitting = [one for one in sections if (one.protocol.split, one.protocol.track) == place]
    pretrained = [one for one in fitting if one.protocol.recipe.get("pretrained")]
    fitting = [one for one in fitting if one not in pretrained]
    if len(fitting) != 1:
        reason = f"{len(fitting)} tables are of this split and track" if fitting else "not run: nothing of this table"
        return StudyResult(study, tuple(MeasuredContrast(contrast, missing=reason) for contrast in study.contrasts))
    section = fitting[0]
    further = pretrained if study.starts else []
    rows = [row for one in (section, *further) for row in one.rows]
    contrasts = (*study.contrasts, *_others(study, section, titles))
    measured = tuple(_measure(contrast, rows, section, times) for contrast in contrasts)
    by_key = {one.contrast.key: one for one in measured}
    findings = [text for finding in study.findings if (text := _sentence(finding, by_key))]
    withdrawn, quantities = len(study.findings) - len(findings), dict(_quantities(study, section))
    also = tuple(one.slug for one in further)
    return StudyResult(study, measured, tuple(findings), withdrawn, section, quantities, also)


def _others(study: Study, section: Section, titles: Mapping[str, str]) -> Iterator[Contrast]:
    """The methods of a table that no contrast holds against the row of `every`, as the table has them."""
    listed = {one.row for one in study.contrasts if one.against == study.every} | {study.every}
    for row in section.heads if study.every else ():
        if row.name not in listed and row.ok_runs:
            yield Contrast(titles.get(row.first.method, row.name), row.name, study.every, name=f"every {row.name}")


class MissingError(Exception):
    """Why a contrast has no effect, in a phrase."""


def _measure(contrast: Contrast, rows: Sequence[Row], section: Section, times: StepTimes) -> MeasuredContrast:
    try:
        row, against = _row(contrast.row, rows), _row(contrast.against, rows)
        _check_conditions(row, against, contrast.differ)
        bits, targets = _correct(row, contrast.at)
        other_bits, other_targets = _correct(against, HEADLINE)
        if not np.array_equal(targets, other_targets):
            raise MissingError("not comparable: the test images are others")
    except MissingError as reason:
        return MeasuredContrast(contrast, missing=str(reason))
    infer = not contrast.of_one_row and len(bits.keys() & other_bits.keys()) > 1
    effects = {score: effect(bits, other_bits, targets, section.classes(score), infer=infer) for score in SCORES}
    marks = tuple(dict.fromkeys([*row.marks, *against.marks]))
    missing = "" if effects["all"] else "no seed in common, or a class with one test image"
    complete = row.status == against.status == "ok"
    return MeasuredContrast(contrast, effects, marks, missing, relative_cost(row, against, times), complete)


def _row(name: str, rows: Sequence[Row]) -> Row:
    found = [row for row in rows if row.name == name]
    if not found:
        raise MissingError(f"not run: {name} has not been measured")
    if len(found) > 1:
        raise MissingError(f"{len(found)} rows are called {name}")
    if not found[0].ok_runs:
        raise MissingError(f"{found[0].status}: {[*found[0].failures, name][0]}")
    return found[0]


def _check_conditions(row: Row, against: Row, differ: Sequence[str]) -> None:
    """Two rows of a table must share more than its split and track."""
    for name, one, other in differing(row.first.recipe, against.first.recipe):
        if name in CONDITIONS and name not in differ:
            raise MissingError(f"not comparable: {name} is {one} in {row.name}, {other} in {against.name}")


def _correct(row: Row, rule: str) -> tuple[RunsOfRow, Classes]:
    if not (found := correct_of(row, rule)):
        raise MissingError("no predictions are stored of one of the two")
    return found


def _sentence(finding: Finding, measured: Mapping[str, MeasuredContrast]) -> str | None:
    """The finding with its numbers; None where the records do not support it."""

    def looked_up(name: str) -> Effect | None:
        key, _, group = name.partition(" ")
        one = measured[key]
        return one.effects.get(group or "all") if one.n >= ENOUGH and one.complete else None

    if not all(_holds(looked_up(name), claim) for name, claim in finding.holds.items()):
        return None
    return PLACEHOLDER.sub(lambda match: number(looked_up(match[1])), finding.text)


def _holds(found: Effect | None, claim: str) -> bool:
    if found is None:
        return False
    bound = BOUND.fullmatch(claim)
    if not bound:
        return found.verdict == claim
    points = float(bound[2]) / 100
    return found.low > points if bound[1] == "above" else found.high < points


def _quantities(study: Study, section: Section) -> Iterator[tuple[str, list[float]]]:
    for name in study.quantity_rows:
        rows = [row for row in section.rows if row.name == name]
        if len(rows) == 1 and study.quantity in rows[0].quantities:
            yield name, rows[0].quantities[study.quantity]
