"""Records -> rows of mean, sample standard deviation and n. Pure functions: no files, no formatting."""

from __future__ import annotations

import hashlib
import math
import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from harness.metrics.selection import SELECTION_RULES
from harness.metrics.shots import GROUPS, group_of_class
from harness.records.check import Tier
from harness.records.schema import HEADLINE, Record, Scores
from harness.spec.recipes import overrides_between

RULES = tuple(SELECTION_RULES)
EPOCHS = {  # what a rule takes, as a sentence says it
    "last": "the last epoch",
    "best_val": "the epoch best on the validation part",
    "best_test": "the epoch best on the test part",
}
REFERENCE = "ce"  # the method that others are held against
EARLIER_CODE = "earlier code, same bits on a small suite"  # notes of a run for which a footnote is enough
OTHER_CODE = "measured with code"  # how one begins: of which version, and which it is now


class Metric(NamedTuple):
    """A column of the leaderboard. `best` says which end of it is marked, if any."""

    key: str
    title: str
    best: Literal["high", "low"] | None = "high"
    signed: bool = False  # a difference in points, printed with its sign
    shown: Literal["always", "unbalanced", "there"] = "always"


class Cost(NamedTuple):
    """A column of what a row cost: a key of the file beside each record."""

    key: str
    title: str
    unit: str  # of what the page shows: for the time, a multiple


class Stat(NamedTuple):
    """Mean and sample standard deviation (ddof = 1) over n seeds; one seed has no deviation."""

    mean: float
    std: float | None
    n: int


@dataclass(frozen=True)
class RunResult:
    """One record, where it lies (`path` is a label for people) and what it cost (untrusted, may be empty)."""

    path: str
    record: Record
    costs: dict[str, Any]
    note: str = ""  # what a reader must know of this record: measured with other code, say
    tier: Tier = "recomputed"  # how far it was checked
    tuned: str = ""  # which value of its recipe was chosen after its test part was seen
    file: Path = Path()  # the record itself


PROTOCOL = (
    "dataset", "imbalance_factor", "split", "track", "profile", "subset_rule", "split_sha256", "class_counts",
    "val_images", "test_images", "shot_policy", "group_sizes", "pretrained",
)  # fmt: skip
"""What two numbers must share to stand in one column."""


@dataclass(frozen=True)
class Curve:
    """Mean and sample standard deviation over seeds, in the unit of the values; one seed has no deviation (empty)."""

    epochs: list[int]
    mean: list[float]
    std: list[float]


@dataclass(frozen=True)
class Confusion:
    """What test images are taken for, as shares of 1; classes from the most to the least frequent in training.

    shares: of the images of a class, or of a group of classes, (true, predicted).
    pairs: single classes that are most often taken for another: true class, predicted class, share.
    rarest: the rarest classes, each with the classes that its images are most often taken for, and their shares.
    """

    shares: list[list[float]]
    pairs: list[tuple[int, int, float]]
    rarest: list[tuple[int, list[tuple[int, float]]]] = field(default_factory=list)


@dataclass(frozen=True)
class Row:
    """The runs of one entry under one recipe, each seed once.

    From `interval` on it is what the evidence beside the runs says; empty for runs without evidence.
    """

    name: str  # entry without its track
    runs: tuple[RunResult, ...]  # by seed
    marks: tuple[str, ...]  # what a reader must know before comparing
    stats: dict[str, dict[str, Stat | None]]  # selection rule -> metric -> value
    per_class: dict[str, list[float | None] | None]  # selection rule -> mean accuracy of each class
    label: str = ""  # its name, with what tells it from rows of the same name in its table
    ranks: dict[str, int | None] = field(default_factory=dict)
    """Selection rule -> rank in its table; no result has none.

    Rows that paired tests cannot tell from the best of their group share its rank. Where no predictions are stored to
    test with, the mean accuracy over all images decides, and equal means share a rank.
    """
    interval: tuple[float, float] | None = None  # of the accuracy at `last`, over images and seeds
    p: dict[str, float] = field(default_factory=dict)
    """Selection rule -> p against the leader of the row's tie group (for a leader: of the group above), after Holm."""
    places: dict[str, int | None] = field(default_factory=dict)
    """As `ranks`, among the rows that stand for their method; empty for the others."""
    place_p: dict[str, float] = field(default_factory=dict)  # as `p`, of the places
    curves: dict[str, Curve] = field(default_factory=dict)  # loss, test, val; of the last stage
    first_curves: dict[str, Curve] = field(default_factory=dict)  # of stage 1, where it is stored
    quantities: dict[str, list[float]] = field(default_factory=dict)  # mean over seeds of each class, in class order
    confusion: Confusion | None = None  # of all classes, at `last`

    @property
    def first(self) -> Record:
        """The record of the lowest seed: method, recipe and backbone are the same in all."""
        return self.runs[0].record

    @property
    def status(self) -> str:
        """ok, partial (some seeds have no result), failed or skipped (none has)."""
        if self.ok_runs:
            return "ok" if self.ok_runs == len(self.runs) else "partial"
        return "failed" if any(run.record.status == "failed" for run in self.runs) else "skipped"

    @property
    def tuned(self) -> bool:
        """Whether a value of its recipe was chosen after its test part was seen."""
        return any(run.tuned for run in self.runs)

    @cached_property
    def finished(self) -> tuple[RunResult, ...]:
        """The runs with a result."""
        return tuple(run for run in self.runs if run.record.status == "ok")

    @property
    def trains(self) -> bool:
        """Whether its last stage has epochs; a post-hoc method's has none."""
        return any(last.epoch for run in self.finished if (last := run.record.results.get(HEADLINE)))

    @property
    def ok_runs(self) -> int:
        """Number of runs with a result."""
        return len(self.finished)

    @property
    def tier(self) -> Tier:
        """How far its runs were checked: the least of them."""
        return min((run.tier for run in self.runs), key=get_args(Tier).index)

    @property
    def failures(self) -> list[str]:
        """Why runs failed or were skipped: each reason once, on one line."""
        return list(dict.fromkeys(_reason(run.record) for run in self.runs if run.record.failure))

    def mean(self, rule: str) -> float | None:
        """Accuracy over all images."""
        found = self.stats[rule]["all"]
        return found.mean if found else None

    def costs(self, key: str) -> list[float]:
        """One of the costs of each run that has it, by seed."""
        values = [run.costs.get(key) for run in self.finished]
        numbers = [float(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
        return [number for number in numbers if math.isfinite(number)]

    def cost(self, key: str) -> Stat | None:
        """One of the costs over the runs that have it."""
        return stat(self.costs(key))

    @property
    def device(self) -> str:
        """CPU, GPU, both, or nothing where it is not known."""
        names = {str(device) for run in self.runs if (device := run.costs.get("device"))}
        return " and ".join(sorted({"CPU" if name.startswith("CPU") else "GPU" for name in names}))

    @cached_property
    def key(self) -> str:
        """A short name that stays the same when other rows come or go."""
        return _digest([self.name, *_row_key(self.first), *(run.path for run in self.runs)])


def families(rows: Sequence[Row]) -> dict[int, list[int]]:
    """Index of the row that stands for its method (the one of no variant, if there is one) -> those of its others."""
    members: dict[str, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        members[row.first.method].append(index)
    heads = {next((i for i in those if not rows[i].first.variant), those[0]): those for those in members.values()}
    return {head: [i for i in heads[head] if i != head] for head in sorted(heads)}


def in_all(marks: Sequence[Sequence[str]]) -> list[str]:
    """The marks that all of them have."""
    return [mark for mark in marks[0] if all(mark in others for others in marks)] if marks else []


@dataclass(frozen=True)
class Section:
    """One table: every row was measured under the same protocol."""

    rows: tuple[Row, ...]  # by headline rank
    slug: str
    conflicts: tuple[str, ...] = ()  # what differs from other tables of the same split and track
    pairs: list[list[float | None]] | None = None
    """Two-sided p of each pair of rows at `last`, not adjusted; None: not tested, or too many rows."""
    differences: dict[str, list[list[tuple[float, ...] | None]]] = field(default_factory=dict)
    """Score -> row -> each row before it: the row minus that one at `last`, and its 95 % interval; points, rounded."""

    @property
    def protocol(self) -> Record:
        """One of its records: all have the same values under the names in `PROTOCOL`."""
        return self.rows[0].first

    @cached_property
    def families(self) -> dict[int, list[int]]:
        """Index of the row of each method -> those of its variants."""
        return families(self.rows)

    @property
    def heads(self) -> list[Row]:
        """The rows that stand for their methods."""
        return [self.rows[head] for head in self.families]

    @property
    def reference(self) -> Row | None:
        """The row of cross-entropy, which others are held against."""
        return next((row for row in self.heads if row.first.method == REFERENCE and row.finished), None)

    @cached_property
    def groups(self) -> list[str]:
        """Of each class: many, medium or few."""
        return group_of_class(self.protocol.class_counts, self.protocol.shot_policy)

    def classes(self, score: str) -> list[int] | None:
        """Those whose mean accuracy a score is; None: it is over all images."""
        return None if score == "all" else [c for c, group in enumerate(self.groups) if group == score]

    def best(self, rule: str, metric: Metric, digits: int, among: Iterable[int] | None = None) -> set[int]:
        """Indices of the rows (or of some) that print the best value of a column; empty when that tells none apart."""
        indices = range(len(self.rows)) if among is None else among
        values = {index: self.rows[index].stats[rule][metric.key] for index in indices}
        shown = {index: round(value.mean * 100, digits) for index, value in values.items() if value}
        if metric.best is None or len(set(shown.values())) < 2:
            return set()
        top = max(shown.values()) if metric.best == "high" else min(shown.values())
        return {index for index, value in shown.items() if value == top}

    @property
    def shared_marks(self) -> tuple[str, ...]:
        """Marks that all rows have, so that they are said once; none in a table of one row."""
        return tuple(in_all([row.marks for row in self.rows])) if len(self.rows) > 1 else ()

    def own_marks(self, row: Row) -> list[str]:
        """The other marks of a row; of one that stands for several recipes, that its test part chose it."""
        own = [mark for mark in row.marks if mark not in self.shared_marks]
        index = next(i for i, one in enumerate(self.rows) if one is row)
        rivals = [self.rows[i].first for i in (index, *self.families.get(index, ()))]
        # A row of no variant stands for its method by being that; what `--set` changed of it competes all the same.
        recipes = {one.recipe_sha256 for one in rivals if row.first.variant or not one.variant}
        return own + (
            [f"of {len(recipes)} recipes the one that scores best on the test part"] if len(recipes) > 1 else []
        )

    @cached_property
    def metrics(self) -> tuple[Metric, ...]:
        """Its columns: class-mean accuracy if the test set is not balanced, top-5 accuracy if it was measured."""
        stats = [row.stats[HEADLINE] for row in self.rows]
        unbalanced = any(
            one["all"] and one["macro"] and abs(one["all"].mean - one["macro"].mean) > 1e-6 for one in stats
        )
        hidden = set() if unbalanced else {"unbalanced"}
        hidden |= set() if any(one["top5"] for one in stats) else {"there"}
        return tuple(metric for metric in METRICS if metric.shown not in hidden)

    def rules(self) -> list[str]:
        """The selection rules that at least one row has a value for; the headline rule always."""
        return [rule for rule in RULES if rule == HEADLINE or any(row.stats[rule]["all"] for row in self.rows)]


METRICS = (
    Metric("all", "All"),
    *(Metric(group, group.capitalize()) for group in GROUPS),
    Metric("macro", "Class mean", shown="unbalanced"),
    Metric("top5", "Top-5", shown="there"),
    Metric("macro_f1", "Macro-F1"),
    Metric("ece", "ECE", best="low"),
    Metric("optimism", "Optimism of best-on-test", best=None, signed=True),
)


def _value(record: Record, rule: str, metric: Metric) -> float | None:
    """What a run has in a column.

    Its optimism is the same at any rule: how much choosing on the test set flatters, in the class-mean accuracy by
    which the epoch is chosen. None where nothing is trained, so that there is none to choose.
    """
    if metric.key == "optimism":
        oracle, last = record.results.get("best_test"), record.results.get("last")
        return oracle.macro - last.macro if oracle and last and last.epoch else None
    scores = record.results.get(rule)
    return getattr(scores, metric.key) if scores else None


COSTS = (
    Cost("wall_seconds", "Time", "\N{MULTIPLICATION SIGN} cross-entropy"),
    Cost("images_per_second", "Speed", "images/s"),
    Cost("peak_memory_mb", "Memory", "MB"),
    Cost("trained_parameters", "Trained", "parameters, last stage"),
)


def stat(values: Sequence[float | None]) -> Stat | None:
    """Mean, sample standard deviation and n of the values that exist; None when there is none."""
    present = [value for value in values if value is not None]
    if not present:
        return None
    return Stat(statistics.fmean(present), statistics.stdev(present) if len(present) > 1 else None, len(present))


def _protocol(record: Record) -> tuple[Any, ...]:
    """The values of a record under the names in `PROTOCOL`."""
    sizes = tuple(record.groups.get(group, 0) for group in GROUPS)
    values = vars(record) | {"class_counts": tuple(record.class_counts), "group_sizes": sizes}
    values["pretrained"] = str(record.recipe.get("pretrained", ""))
    return tuple(values[name] for name in PROTOCOL)


def summarize(runs: Iterable[RunResult]) -> list[Section]:
    """One section for each protocol, in a fixed order that does not depend on the order of the runs."""
    by_protocol: dict[tuple[Any, ...], list[RunResult]] = defaultdict(list)
    for run in sorted(runs, key=lambda run: (run.record.code_version, run.path)):
        by_protocol[_protocol(run.record)].append(run)
    slugs = Counter(_slug(members[0].record) for members in by_protocol.values())
    sections = []
    for values in sorted(by_protocol):
        members = by_protocol[values]
        slug = _slug(members[0].record)
        if slugs[slug] > 1:
            slug += f"-{_digest(dict(zip(PROTOCOL, values, strict=True)))}"
        rivals = [others for others in by_protocol if others[2:4] == values[2:4]]  # of the same split and track
        conflicts = tuple(name for name, *found in zip(PROTOCOL, *rivals, strict=True) if len(set(found)) > 1)
        sections.append(Section(_rows(members), slug, conflicts))
    return sections


def _slug(record: Record) -> str:
    return re.sub(r"[^a-z0-9]+", "-", f"{record.split}-{record.track}".lower()).strip("-")[:80] or "table"


def _digest(value: Any) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()[:8]


def _row_key(record: Record) -> tuple[str, ...]:
    return (record.method, record.variant, record.recipe_sha256, record.stage1_selection or "")


def _rows(runs: list[RunResult]) -> tuple[Row, ...]:
    """Rows by headline rank. A seed that occurs again under the same recipe opens a further row: nothing is
    averaged twice and nothing is dropped."""
    found: dict[tuple[str, ...], list[dict[int, RunResult]]] = defaultdict(list)
    for run in runs:
        of_key, seed = found[_row_key(run.record)], run.record.seed
        free = next((members for members in of_key if seed not in members), None)
        if free is None:
            of_key.append(free := {})
        free[seed] = run
    rows = []
    for key, of_key in found.items():
        marks = [*_recipe_marks(key, found), *_repetition_mark(of_key)]
        rows += [_row([run for _, run in sorted(members.items())], marks) for members in of_key]
    return tuple(_placed(sorted(rows, key=_headline_order)))


def _placed(rows: list[Row]) -> Iterable[Row]:
    """The rows with their labels, and with ranks by mean accuracy."""
    names, heads = Counter(row.name for row in rows), families(rows)
    seen: Counter[str] = Counter()
    for index, row in enumerate(rows):
        label = f"{row.name} ({_told_apart(row, rows)})" if names[row.name] > 1 else row.name
        seen[label] += 1
        yield replace(
            row,
            label=label if seen[label] == 1 else f"{label} #{seen[label]}",
            ranks=_ranks_by_mean(row, rows),
            places=_ranks_by_mean(row, [rows[head] for head in heads]) if index in heads else {},
        )


def _ranks_by_mean(row: Row, rows: Sequence[Row]) -> dict[str, int | None]:
    own = {rule: row.mean(rule) for rule in RULES}
    return {
        rule: None if mean is None else 1 + sum((other.mean(rule) or 0.0) > mean for other in rows)
        for rule, mean in own.items()
    }


def _told_apart(row: Row, rows: list[Row]) -> str:
    """What of its recipe tells a row from others of its name, as on the command line; else the recipe's hash."""
    recipe = row.first.recipe
    items = [item for o in rows if o.name == row.name for item in overrides_between(o.first.recipe, recipe)]
    items = [item for item in dict.fromkeys(items) if not item.startswith("finetune.") or item[9:] not in items]
    return ", ".join([*items[:2], *(["..."] if items[2:] else [])]).replace('"', "") or row.first.recipe_sha256[:8]


def _headline_order(row: Row) -> tuple[float, str, str]:
    mean = row.mean(HEADLINE)
    return (math.inf if mean is None else -mean, row.name, row.key)


def _row(runs: list[RunResult], marks: list[str]) -> Row:
    good = [run.record for run in runs if run.record.status == "ok"]
    stats = {rule: {m.key: stat([_value(record, rule, m) for record in good]) for m in METRICS} for rule in RULES}
    per_class = {rule: _per_class([s for record in good if (s := record.results.get(rule))]) for rule in RULES}
    return Row(runs[0].record.entry.rsplit("@", 1)[0], tuple(runs), (*marks, *_marks(runs)), stats, per_class)


def _per_class(scores: list[Scores]) -> list[float | None] | None:
    if not scores:
        return None
    columns = zip(*(score.per_class for score in scores), strict=True)
    present = ([value for value in column if value is not None] for column in columns)
    return [statistics.fmean(values) if values else None for values in present]


def _marks(runs: Sequence[RunResult]) -> list[str]:
    records = [run.record for run in runs]
    marks = [*_protocol_marks(records[0]), *sorted({note for run in runs for note in (run.note, run.tuned) if note})]
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


def _recipe_marks(key: tuple[str, ...], keys: Iterable[tuple[str, ...]]) -> Iterable[str]:
    """What tells the rows of a key from those that have its method and variant."""
    family = [other for other in keys if other[:2] == key[:2]]
    recipes, rules = ({other[at] for other in family} for at in (2, 3))
    if len(recipes) > 1:
        yield f"recipe {key[2][:8]}, one of {len(recipes)} recipes of this entry"
    if len(rules) > 1:
        yield f"stage 1 taken at {EPOCHS.get(key[3], key[3]) or 'no rule'}"


def _repetition_mark(of_key: list[dict[int, RunResult]]) -> Iterable[str]:
    if len(of_key) > 1:
        seeds = sorted(of_key[1])  # the first row has every seed, the second one those that come again
        names = f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}"
        yield f"{names} recorded more than once: kept in separate rows"
