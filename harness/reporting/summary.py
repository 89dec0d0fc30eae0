"""Records -> rows of mean, sample standard deviation and n. Pure functions: no files, no formatting."""

from __future__ import annotations

import hashlib
import math
import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from harness.metrics.selection import SELECTION_RULES
from harness.metrics.shots import GROUPS
from harness.records.schema import HEADLINE, Record, Scores

RULES = tuple(SELECTION_RULES)


@dataclass(frozen=True)
class Metric:
    """A column of the leaderboard. `best` says which end of it is marked, if any."""

    key: str
    title: str
    best: Literal["high", "low"] | None = "high"
    signed: bool = False  # a difference in points, printed with its sign


@dataclass(frozen=True)
class Cost:
    """A column of what a row cost: a key of the file beside each record."""

    key: str
    title: str
    unit: str


@dataclass(frozen=True)
class Stat:
    """Mean and sample standard deviation (ddof = 1) over n seeds; one seed has no deviation."""

    mean: float
    std: float | None
    n: int


@dataclass(frozen=True)
class Run:
    """One record with where it stands (`path` is a label for people) and what it cost (untrusted, may be empty)."""

    path: str
    record: Record
    costs: dict[str, Any]
    note: str = ""  # what a reader must know of this record: measured with other code, say


@dataclass(frozen=True)
class Protocol:
    """What two numbers must share to stand in one column."""

    dataset: str
    imbalance_factor: float
    split: str
    track: str
    profile: str
    subset_rule: str
    split_sha256: str
    class_counts: tuple[int, ...]
    val_images: int
    test_images: int
    shot_policy: str
    group_sizes: tuple[int, ...]  # classes in many, medium, few


PROTOCOL = tuple(Protocol.__dataclass_fields__)


@dataclass(frozen=True)
class Curve:
    """Mean and sample standard deviation over seeds, in the unit of the values."""

    epochs: list[int]
    mean: list[float]
    std: list[float]


@dataclass(frozen=True)
class Seen:
    """What the evidence beside a row's runs says. Everything is empty for runs without evidence."""

    interval: tuple[float, float] | None = None  # of the accuracy at `last`, over images and seeds
    p: dict[str, float] = field(default_factory=dict)
    """Selection rule -> p against the leader of the row's tie group (for a leader: of the group above), after Holm."""
    curves: dict[str, Curve] = field(default_factory=dict)  # loss, test, val
    quantities: dict[str, list[float]] = field(default_factory=dict)  # mean over seeds of each class, in class order
    confusions: list[tuple[int, list[tuple[int, float]]]] = field(default_factory=list)
    """The rarest classes, each with the classes that its test images are taken for and their shares, at `last`."""


@dataclass(frozen=True)
class Row:
    """The runs of one entry under one recipe, each seed once."""

    name: str  # entry without its track
    runs: tuple[Run, ...]  # by seed
    marks: tuple[str, ...]  # what a reader must know before comparing
    stats: dict[str, dict[str, Stat | None]]  # selection rule -> metric -> value
    per_class: dict[str, list[float | None] | None]  # selection rule -> mean accuracy of each class
    label: str = ""  # its name, with what tells it from rows of the same name in its table
    ranks: dict[str, int | None] = field(default_factory=dict)
    """Selection rule -> rank in its table; no result has none.

    Rows that paired tests cannot tell from the best of their group share its rank. Where no predictions are stored to
    test with, the mean accuracy over all images decides, and equal means share a rank.
    """
    seen: Seen = Seen()

    @property
    def first(self) -> Record:
        """The record of the lowest seed: method, recipe and backbone are the same in all."""
        return self.runs[0].record

    @property
    def status(self) -> str:
        """ok, partial (some seeds have no result), failed or skipped (none has)."""
        states = {run.record.status for run in self.runs}
        if "ok" in states:
            return "ok" if states == {"ok"} else "partial"
        return "failed" if "failed" in states else "skipped"

    @property
    def ok_runs(self) -> int:
        """Number of runs with a result."""
        return sum(run.record.status == "ok" for run in self.runs)

    def mean(self, rule: str) -> float | None:
        """Accuracy over all images."""
        found = self.stats[rule]["all"]
        return found.mean if found else None

    def cost(self, key: str) -> Stat | None:
        """One of the costs over the runs that have it."""
        values = [run.costs.get(key) for run in self.runs if run.record.status == "ok"]
        numbers = [float(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
        return stat([number for number in numbers if math.isfinite(number)])

    @property
    def device(self) -> str:
        """CPU, GPU, both, or nothing where it is not known."""
        names = {str(device) for run in self.runs if (device := run.costs.get("device"))}
        return " and ".join(sorted({"CPU" if name.startswith("CPU") else "GPU" for name in names}))

    @cached_property
    def key(self) -> str:
        """A short name that stays the same when other rows come or go."""
        return _digest([self.name, *_row_key(self.first), *(run.path for run in self.runs)])


def in_all(marks: Sequence[Sequence[str]]) -> list[str]:
    """What is said of each of some things."""
    return [mark for mark in marks[0] if all(mark in others for others in marks)] if marks else []


@dataclass(frozen=True)
class Section:
    """One table: every row was measured under the same protocol."""

    protocol: Protocol
    rows: tuple[Row, ...]  # by headline rank
    slug: str
    conflicts: tuple[str, ...] = ()  # what differs from other tables of the same split and track
    pairs: list[list[float | None]] | None = None
    """Two-sided p of each pair of rows at `last`, not adjusted; None: not tested, or too many rows."""

    def best(self, rule: str, metric: Metric, digits: int) -> set[int]:
        """Indices of the rows that print the best value of a column; empty when that tells no rows apart."""
        values = [row.stats[rule][metric.key] for row in self.rows]
        shown = {index: round(value.mean * 100, digits) for index, value in enumerate(values) if value}
        if metric.best is None or len(set(shown.values())) < 2:
            return set()
        top = max(shown.values()) if metric.best == "high" else min(shown.values())
        return {index for index, value in shown.items() if value == top}

    @property
    def shared_marks(self) -> tuple[str, ...]:
        """What a reader must know of every one of its rows, to be said once; none where there is but one."""
        return tuple(in_all([row.marks for row in self.rows])) if len(self.rows) > 1 else ()

    def own_marks(self, row: Row) -> list[str]:
        """What a reader must know of this row beyond that."""
        return [mark for mark in row.marks if mark not in self.shared_marks]

    def rules(self) -> list[str]:
        """The selection rules that at least one row has a value for; the headline rule always."""
        return [rule for rule in RULES if rule == HEADLINE or any(row.stats[rule]["all"] for row in self.rows)]


METRICS = (
    Metric("all", "All"),
    *(Metric(group, group.capitalize()) for group in GROUPS),
    Metric("macro_f1", "Macro-F1"),
    Metric("ece", "ECE", best="low"),
    Metric("optimism", "Optimism of best-on-test", best=None, signed=True),
)


def _value(record: Record, rule: str, metric: Metric) -> float | None:
    """What a run has in a column. Its optimism is the same at any rule: how much choosing on the test set flatters."""
    if metric.key == "optimism":
        oracle, last = record.results.get("best_test"), record.results.get("last")
        return oracle.all - last.all if oracle and last else None
    scores = record.results.get(rule)
    return getattr(scores, metric.key) if scores else None


COSTS = (
    Cost("wall_seconds", "Time", "s"),
    Cost("images_per_second", "Speed", "images/s"),
    Cost("peak_memory_mb", "Memory", "MB"),
)


def stat(values: Sequence[float | None]) -> Stat | None:
    """Mean, sample standard deviation and n of the values that exist; None when there is none."""
    present = [value for value in values if value is not None]
    if not present:
        return None
    return Stat(statistics.fmean(present), statistics.stdev(present) if len(present) > 1 else None, len(present))


def protocol(record: Record) -> Protocol:
    """The protocol a record was measured under."""
    sizes = tuple(record.groups.get(group, 0) for group in GROUPS)
    same = {name: getattr(record, name) for name in PROTOCOL if name != "group_sizes"}
    return Protocol(**same | {"class_counts": tuple(record.class_counts), "group_sizes": sizes})


def summarize(runs: Iterable[Run]) -> list[Section]:
    """One section for each protocol, in a fixed order that does not depend on the order of the runs."""
    by_protocol: dict[Protocol, list[Run]] = defaultdict(list)
    for run in sorted(runs, key=lambda run: (run.record.code_version, run.path)):
        by_protocol[protocol(run.record)].append(run)
    ordered = sorted(by_protocol, key=lambda p: tuple(asdict(p).values()))
    slugs = Counter(map(_slug, ordered))
    sections = []
    for p in ordered:
        slug = _slug(p) if slugs[_slug(p)] == 1 else f"{_slug(p)}-{_digest(asdict(p))}"
        rivals = [other for other in ordered if (other.split, other.track) == (p.split, p.track)]
        conflicts = tuple(name for name in PROTOCOL if len({getattr(one, name) for one in rivals}) > 1)
        sections.append(Section(p, _rows(by_protocol[p]), slug, conflicts))
    return sections


def _slug(p: Protocol) -> str:
    return re.sub(r"[^a-z0-9]+", "-", f"{p.split}-{p.track}".lower()).strip("-")[:80] or "table"


def _digest(value: Any) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()[:8]


def _row_key(record: Record) -> tuple[str, ...]:
    return (record.method, record.variant, record.recipe_sha256, record.stage1_selection or "")


def _rows(runs: list[Run]) -> tuple[Row, ...]:
    """Rows by headline rank. A seed that occurs again under the same recipe opens a further row: nothing is
    averaged twice and nothing is dropped."""
    cells: dict[tuple[tuple[str, ...], int], list[Run]] = defaultdict(list)
    seen: Counter[tuple[tuple[str, ...], int]] = Counter()
    for run in runs:
        key = _row_key(run.record)
        cells[key, seen[key, run.record.seed]].append(run)
        seen[key, run.record.seed] += 1
    rows = [_row(sorted(members, key=lambda run: run.record.seed)) for members in cells.values()]
    return tuple(_placed(sorted(_mark_siblings(rows), key=_headline_order)))


def _placed(rows: list[Row]) -> Iterable[Row]:
    """The rows with their labels, and with ranks by mean accuracy."""
    names = Counter(row.name for row in rows)
    means = {rule: [mean for row in rows if (mean := row.mean(rule)) is not None] for rule in RULES}
    seen: Counter[str] = Counter()
    for row in rows:
        label = f"{row.name} ({row.first.recipe_sha256[:8]})" if names[row.name] > 1 else row.name
        seen[label] += 1
        own = {rule: row.mean(rule) for rule in RULES}
        yield replace(
            row,
            label=label if seen[label] == 1 else f"{label} #{seen[label]}",
            ranks={r: None if mean is None else 1 + sum(m > mean for m in means[r]) for r, mean in own.items()},
        )


def _headline_order(row: Row) -> tuple[float, str, str]:
    mean = row.mean(HEADLINE)
    return (math.inf if mean is None else -mean, row.name, row.key)


def _row(runs: list[Run]) -> Row:
    records = [run.record for run in runs]
    good = [record for record in records if record.status == "ok"]
    stats = {rule: {m.key: stat([_value(record, rule, m) for record in good]) for m in METRICS} for rule in RULES}
    per_class = {rule: _per_class([s for record in good if (s := record.results.get(rule))]) for rule in RULES}
    return Row(records[0].entry.rsplit("@", 1)[0], tuple(runs), tuple(_marks(records, runs)), stats, per_class)


def _per_class(scores: list[Scores]) -> list[float | None] | None:
    if not scores:
        return None
    columns = zip(*(score.per_class for score in scores), strict=True)
    present = ([value for value in column if value is not None] for column in columns)
    return [statistics.fmean(values) if values else None for values in present]


def _marks(records: list[Record], runs: Sequence[Run]) -> list[str]:
    marks = [*_protocol_marks(records[0]), *sorted({run.note for run in runs if run.note})]
    broken = [record for record in records if record.status != "ok"]
    if broken:
        reasons = (f"seed {record.seed} {record.status}: {_reason(record)}" for record in broken)
        marks.append("; ".join([f"{len(records) - len(broken)} of {len(records)} seeds", *reasons]))
    versions = sorted({record.code_version for record in records})
    if len(versions) > 1:
        marks.append(f"{len(versions)} code versions: {', '.join(version[:12] for version in versions)}")
    return marks


def _protocol_marks(record: Record) -> Iterable[str]:
    """What a recipe or its data do that a reader does not expect, though it is no part of a method."""
    for stage in record.stages:
        recipe = record.recipe.get(stage)
        if isinstance(recipe, dict) and recipe.get("redraw"):
            yield f"stage 2 trains on other images than stage 1, drawn by {recipe['redraw']}"
    spread = record.recipe.get("parallel")
    if isinstance(spread, dict):
        batchnorm = "over all of them" if spread.get("sync_bn") else "each over its own images"
        size = f", at most {spread['micro_batch']} images at once" if spread.get("micro_batch") else ""
        ranks = spread.get("ranks")
        if ranks == 1:
            yield f"trained in parts of a batch{size}, BatchNorm over each part"
        else:
            yield f"trained by {ranks} processes together{size}, BatchNorm {batchnorm}"
    yield from record.notes
    last = record.recipe.get(record.stages[-1]) if record.stages else None
    if isinstance(last, dict) and last.get("flip_average"):
        yield "predicts from the mean logits of an image and its mirror image"


def _reason(record: Record) -> str:
    return " ".join(record.failure.reason.split()) if record.failure else "no reason recorded"


def _mark_siblings(rows: list[Row]) -> Iterable[Row]:
    """Says in each row of an entry that has several why it is not one row."""
    seeds_of: dict[tuple[str, ...], Counter[int]] = defaultdict(Counter)
    for row in rows:
        seeds_of[_row_key(row.first)].update(run.record.seed for run in row.runs)
    for row in rows:
        family = [other.first for other in rows if other.name == row.name]
        recipes, marks = {first.recipe_sha256 for first in family}, []
        if len(recipes) > 1:
            marks.append(f"recipe {row.first.recipe_sha256[:8]}, one of {len(recipes)} recipes of this entry")
        if len({first.stage1_selection for first in family}) > 1:
            marks.append(f"stage 1 taken at {row.first.stage1_selection or 'no rule'}")
        if seeds := sorted(seed for seed, count in seeds_of[_row_key(row.first)].items() if count > 1):
            names = f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}"
            marks.append(f"{names} recorded more than once: kept in separate rows")
        yield replace(row, marks=(*marks, *row.marks))
