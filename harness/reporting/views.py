"""What the evidence beside records adds to a table: tie groups, intervals, curves, class quantities, confusions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.records.evidence import Evidence
from harness.records.schema import HEADLINE
from harness.reporting.significance import bootstrap_interval, pair_matrix, tie_groups
from harness.reporting.summary import Curve, Row, RunResult, Section

MOST_PAIRS = 40  # rows of a table up to which every pair of them is tested for the compare view
TAIL = 10  # rarest classes whose confusions are shown
CONFUSED_WITH = 3
CURVE_POINTS = 50
DRAWS = 500  # of the bootstrap: the bounds of an interval then vary by a few hundredths of its width

ReadEvidence = Callable[[RunResult], Evidence | None]
Floats = npt.NDArray[np.floating[Any]]


def with_evidence(section: Section, read: ReadEvidence) -> Section:
    """The section with what the evidence of its runs says; only what is shown is kept."""
    found = [evidence_of(row, read) for row in section.rows]
    ties = {rule: of_rule for rule in section.rules() if (of_rule := _ties(section, found, rule))}
    bits = [correct_at(HEADLINE, evidence) for evidence in found]
    stored = {i: np.stack(list(runs.values())) for i, runs in enumerate(bits) if runs}
    intervals = dict(zip(stored, bootstrap_interval(list(stored.values()), DRAWS), strict=True))
    rows = []
    for i, row in enumerate(section.rows):
        evidence = list(found[i].values())
        tied = {name: by_row[i] for name, by_row in ties.items() if i in by_row}
        seen = replace(
            row,
            ranks=row.ranks | {name: tied[name][0] if name in tied else None for name in ties},
            interval=intervals.get(i),
            p={name: p for name, (_, p) in tied.items() if not math.isnan(p)},
            curves=_curves(evidence),
            quantities=_quantities(evidence, len(section.protocol.class_counts)),
            confusions=_confusions(evidence, section.protocol.class_counts),
        )
        rows.append(seen)
    return replace(section, rows=tuple(rows), pairs=_pairs(bits) if len(bits) <= MOST_PAIRS else None)


def evidence_of(row: Row, read: ReadEvidence) -> dict[int, Evidence]:
    """By seed."""
    found = {run.record.seed: read(run) for run in row.runs if run.record.status == "ok"}
    return {seed: evidence for seed, evidence in found.items() if evidence is not None}


def correct_at(rule: str, evidence: Mapping[int, Evidence]) -> dict[int, npt.NDArray[np.bool_]]:
    """Which test images are right, by seed; without the runs that the rule does not apply to."""
    bits = {seed: one.correct(rule) for seed, one in evidence.items()}
    return {seed: correct for seed, correct in bits.items() if correct is not None}


def _ties(section: Section, found: list[dict[int, Evidence]], rule: str) -> dict[int, tuple[int, float]]:
    """Rank and p of each row that was tested; nan where there is nothing to test against."""
    means = {i: mean for i, row in enumerate(section.rows) if (mean := row.mean(rule)) is not None}
    order = sorted(means, key=lambda i: (-means[i], i))
    groups = tie_groups([correct_at(rule, found[i]) for i in order])
    return {i: (int(groups.rank[at]), float(groups.p[at])) for at, i in enumerate(order) if groups.tested[at]}


def _pairs(bits: list[dict[int, npt.NDArray[np.bool_]]]) -> list[list[float | None]]:
    return [[None if np.isnan(p) else float(f"{p:.2g}") for p in row] for row in pair_matrix(bits)]


def _curves(evidence: list[Evidence]) -> dict[str, Curve]:
    """Loss of each epoch, accuracy of the evaluated ones; only runs of one length are averaged."""
    curves = {}
    for name in ("loss", "test", "val"):
        values = [one.curves[name] for one in evidence if len(one.curves[name])]
        if not values or any(len(v) != len(values[0]) for v in values):
            continue
        epochs = evidence[0].curves["epochs"] if name != "loss" else np.arange(1, len(values[0]) + 1)
        if len(epochs) == len(values[0]) > 1:
            curves[name] = _thinned(np.asarray(epochs), np.stack(values))
    return curves


def _thinned(epochs: npt.NDArray[np.integer[Any]], values: Floats) -> Curve:
    kept = np.unique(np.linspace(0, len(epochs) - 1, min(CURVE_POINTS, len(epochs))).round().astype(int))
    std = values.std(0, ddof=1) if len(values) > 1 else np.zeros(values.shape[1])
    return Curve(epochs[kept].tolist(), _rounded(values.mean(0)[kept]), _rounded(std[kept]))


def _rounded(values: Floats) -> list[float]:
    return [float(f"{value:.4g}") for value in values]


def _quantities(evidence: list[Evidence], num_classes: int) -> dict[str, list[float]]:
    names = sorted({name for one in evidence for name in one.quantities})
    found = {name: [one.quantities[name] for one in evidence if name in one.quantities] for name in names}
    return {
        name: _rounded(np.stack(values).mean(0))
        for name, values in found.items()
        if all(value.shape == (num_classes,) and np.isfinite(value).all() for value in values)
    }


def _confusions(evidence: list[Evidence], counts: Sequence[int]) -> list[tuple[int, list[tuple[int, float]]]]:
    predictions = [(one.targets, one.predictions[HEADLINE]) for one in evidence if HEADLINE in one.predictions]
    if not predictions:
        return []
    targets, predicted = (np.concatenate(some) for some in zip(*predictions, strict=True))
    rarest = sorted(range(len(counts)), key=lambda c: (counts[c], c))[:TAIL]
    rows = []
    for c in rarest:
        hits = np.bincount(predicted[targets == c], minlength=len(counts))
        if hits.sum():
            top = np.argsort(-hits, kind="stable")[:CONFUSED_WITH]
            rows.append((c, [(int(k), round(float(hits[k] / hits.sum()), 4)) for k in top if hits[k]]))
    return rows
