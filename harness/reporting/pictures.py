"""What the page's pictures are drawn from: a board's classes and, for each row, scores, curves, confusion and cost.

Everything that grows with the number of classes is put into bins here, so that the page stays small.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.metrics.selection import SELECTION_RULES
from harness.metrics.shots import GROUPS as SHOTS
from harness.records.evidence import Evidence
from harness.records.schema import HEADLINE, Record
from harness.reporting.costs import NO_TIMES, StepTimes, cost
from harness.reporting.summary import METRICS, Confusion, Curve, Row, Section, Stat
from harness.reporting.tables import mean_and_std

MOST_VALUES = 40_000  # class accuracies that the page carries of a board; of more, neighbours in frequency go together
MOST_NAMED = 20  # classes that a confusion shows one by one
GROUPS = 10  # of classes with about the same frequency, where there are more
MOST_PAIRS = 12  # confusions of one class with another that are listed
TAIL, CONFUSED_WITH = 10, 3  # the rarest classes, and how many their images are taken for, that are listed
COMPARED = tuple(metric.key for metric in METRICS if metric.best)
DIGITS = 1

Floats = npt.NDArray[np.floating[Any]]


def by_frequency(counts: Sequence[int]) -> list[int]:
    """The classes, from the most to the least frequent in training."""
    return sorted(range(len(counts)), key=lambda c: (-counts[c], c))


def groups_of(order: Sequence[int], most: int, groups: int) -> list[list[int]]:
    """Neighbours in an order, in so many groups as even as possible; each alone where there are at most `most`."""
    parts = np.array_split(np.asarray(order), len(order) if len(order) <= most else groups)
    return [part.tolist() for part in parts]


def confusion(evidence: Sequence[Evidence], counts: Sequence[int]) -> Confusion | None:
    """Which classes test images are taken for at `last`, over all seeds; None without predictions.

    Args:
        counts: training images of each class, (C,).
    """
    stored = [(one.targets, one.predictions[HEADLINE]) for one in evidence if HEADLINE in one.predictions]
    if not stored:
        return None
    size = len(counts)
    seen = np.concatenate([targets.astype(np.int64) * size + predicted for targets, predicted in stored])
    cells, hits = np.unique(seen, return_counts=True)  # the table of all classes would be large, and almost empty
    true, taken = np.divmod(cells, size)
    bins = groups_of(by_frequency(counts), MOST_NAMED, GROUPS)
    bin_of = np.empty(size, np.int64)
    for number, some in enumerate(bins):
        bin_of[some] = number
    pooled = np.zeros((len(bins), len(bins)))
    np.add.at(pooled, (bin_of[true], bin_of[taken]), hits)
    shares = np.where(true == taken, 0, hits / np.bincount(true, hits, size)[true])
    worst = [at for at in np.argsort(-shares, kind="stable")[:MOST_PAIRS] if shares[at] > 0]
    pairs = [(int(true[at]), int(taken[at]), float(shares[at])) for at in worst]
    rarest = []
    for c in sorted(range(size), key=lambda c: (counts[c], c))[:TAIL]:
        of_class = np.flatnonzero(true == c)
        most = of_class[np.argsort(-hits[of_class], kind="stable")[:CONFUSED_WITH]]
        found = [(int(taken[at]), round(float(hits[at] / hits[of_class].sum()), 4)) for at in most]
        rarest += [(c, found)] if found else []
    return Confusion(_shares(pooled).tolist(), pairs, rarest)


def _shares(hits: Floats) -> Floats:
    """Each row by its sum; a row of zeros stays one."""
    totals = hits.sum(1, keepdims=True)
    shares: Floats = np.divide(hits, totals, out=np.zeros_like(hits), where=totals > 0)
    return shares


def board(section: Section, names: Sequence[str] = (), times: StepTimes = NO_TIMES) -> dict[str, Any]:
    """What the page draws a board's pictures from, and compares its rows by; classes by falling frequency.

    Args:
        names: of the classes, by class; none where they are not known.
        times: of training steps, for what a row would cost alone.
    """
    counts = section.protocol.class_counts
    order = by_frequency(counts)
    most = max(MOST_NAMED, MOST_VALUES // (len(SELECTION_RULES) * len(section.rows)))
    bins = groups_of(order, most, most)
    called = _called(names, len(counts))
    reference = section.reference
    return {
        "title": f"{section.protocol.split}, {section.protocol.track} track",
        "classes": [some[0] if len(some) == 1 else -1 for some in bins],
        "names": [called[some[0]] if len(some) == 1 else f"{len(some)} classes" for some in bins],
        "starts": np.cumsum([0, *map(len, bins)]).tolist(),
        "counts": [round(fmean(counts[c] for c in some)) for some in bins],
        "groups": [section.groups[some[0]] for some in bins],
        "sizes": [section.protocol.groups.get(group, 0) for group in SHOTS],
        "heat": [_group(some, called, counts) for some in groups_of(order, MOST_NAMED, GROUPS)],
        "confused": {
            c: called[c] for row in section.rows if row.confusion for pair in row.confusion.pairs for c in pair[:2]
        },
        "reference": reference.key if reference else None,
        "series": [
            _series(row, bins, i, i in section.families) | {"cost": cost(row, reference, times)}
            for i, row in enumerate(section.rows)
            if row.ok_runs
        ],
        "pairs": section.pairs,
        "differences": section.differences,
    }


def _called(names: Sequence[str], classes: int) -> list[str]:
    """What to call each class. Names that are numbers say nothing without a word."""
    known = list(names) if len(names) == classes else [str(c) for c in range(classes)]
    return [f"class {name}" if name.isdecimal() else name for name in known]


def _group(some: Sequence[int], called: Sequence[str], counts: Sequence[int]) -> list[str]:
    """Its short name and a longer one, of the classes that a line of a confusion stands for."""
    if len(some) == 1:
        return [called[some[0]].removeprefix("class "), f"{called[some[0]]} ({counts[some[0]]:,} training images)"]
    high, low = counts[some[0]], counts[some[-1]]
    return [f"{high:,}\N{EN DASH}{low:,}", f"the {len(some)} classes with {high:,} to {low:,} training images"]


def _series(row: Row, bins: Sequence[Sequence[int]], index: int, head: bool) -> dict[str, Any]:
    return {
        "name": row.label,
        "key": row.key,
        "row": index,
        "head": head,
        "method": row.first.method,
        "values": {rule: _points(row.per_class[rule], bins, _percent) for rule in SELECTION_RULES},
        "scores": {rule: {key: _score(stats[key]) for key in COMPARED} for rule, stats in row.stats.items()},
        "means": {rule: [_mean(stats[key]) for key in ("all", *SHOTS)] for rule, stats in row.stats.items()},
        "curves": _curves(row.curves),
        "first": _curves(row.first_curves),
        "stages": len(row.first.stages),
        "planned": [stage_epochs(row.first, stage) for stage in row.first.stages],
        "quantities": {name: _points(values, bins, _four) for name, values in row.quantities.items()},
        "confusions": row.confusion.rarest if row.confusion and all(len(some) == 1 for some in bins) else [],
        "heat": row.confusion and [[_percent(share) for share in line] for line in row.confusion.shares],
        "confused": row.confusion and [[c, k, round(100 * share)] for c, k, share in row.confusion.pairs],
    }


def stage_epochs(record: Record, stage: str) -> float | None:
    """A stage's length; a number of iterations becomes epochs of its batches."""
    recipe = record.recipe.get(stage)
    if not isinstance(recipe, dict) or not isinstance(epochs := recipe.get("epochs"), int | float):
        return None
    iterations, batch = recipe.get("iterations") or 0, recipe.get("batch_size") or 0
    return round(epochs + iterations * batch / sum(record.class_counts), 2)


def _mean(stat: Stat | None) -> float | None:
    return stat and round(100 * stat.mean, 2)


def _score(stat: Stat | None) -> tuple[str, str] | None:
    return stat and mean_and_std(stat, DIGITS)


def _curves(curves: dict[str, Curve]) -> dict[str, list[list[float]]]:
    """Epochs, mean and deviation; accuracies in percent."""
    return {
        name: [
            [*curve.epochs],
            *([_short(v * (1 if name == "loss" else 100), 3) for v in of] for of in (curve.mean, curve.std)),
        ]
        for name, curve in curves.items()
    }


def _points(
    values: Sequence[float | None] | None, bins: Iterable[Sequence[int]], shown: Callable[[float], float]
) -> list[float | None] | None:
    """The mean of each bin of classes; None where none of them has a value."""
    if values is None:
        return None
    found = ([v for c in some if (v := values[c]) is not None] for some in bins)
    return [shown(fmean(some)) if some else None for some in found]


def _percent(share: float) -> float:
    return _short(100 * share)


def _four(value: float) -> float:
    """To four significant digits."""
    return float(f"{value:.4g}")


def _short(value: float, digits: int = 1) -> float | int:
    """Rounded; a whole number without its `.0`."""
    rounded = round(value, digits)
    return int(rounded) if rounded == int(rounded) else rounded
