"""What the evidence beside records adds to a table: tie groups, intervals, curves, class quantities, confusions."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.metrics.shots import GROUPS
from harness.records.evidence import Evidence, evidence_path, read_evidence
from harness.records.schema import HEADLINE
from harness.reporting.pictures import confusion
from harness.reporting.significance import (
    Bits,
    Classes,
    Effect,
    RunsOfRow,
    effect,
    interval,
    pair_effects,
    pair_matrix,
    tie_groups,
)
from harness.reporting.summary import Curve, Row, Section
from harness.reporting.tables import points

MOST_PAIRS = 40  # rows of a table up to which every pair of them is tested for the compare view
CURVE_POINTS = 50

Curves = Mapping[str, npt.NDArray[Any]]
NOTHING: npt.NDArray[Any] = np.empty(0)
Floats = npt.NDArray[np.floating[Any]]


def with_evidence(section: Section) -> Section:
    """The section with what the evidence of its runs says; only what is shown is kept."""
    found = [evidence_of(row) for row in section.rows]
    runs = [(run.record, evidence) for row, evidence in zip(section.rows, found, strict=True) for run in row.finished]
    by_run = {record.run_key: evidence[record.seed] for record, evidence in runs if record.seed in evidence}
    ranks, p = _tested(section, found, range(len(found)))
    heads = list(section.families)
    places, place_p = _tested(section, found, heads) if len(heads) < len(found) else (ranks, p)
    bits = [correct_at(HEADLINE, evidence) for evidence in found]
    rows = []
    for i, row in enumerate(section.rows):
        evidence = list(found[i].values())
        seen = replace(
            row,
            ranks=row.ranks | ranks[i],
            p=p[i],
            places=row.places | places[i],
            place_p=place_p[i],
            # The mean is of all its runs.
            interval=interval(bits[i], evidence[0].targets) if evidence and len(bits[i]) == row.ok_runs else None,
            curves=_curves([one.curves for one in evidence]),
            first_curves=_curves(_first_stages(row, found[i], by_run)),
            quantities=_quantities(evidence, len(section.protocol.class_counts)),
            confusion=confusion(evidence, section.protocol.class_counts),
        )
        rows.append(seen)
    if len(bits) > MOST_PAIRS:
        return replace(section, rows=tuple(rows))
    pairs = [[None if np.isnan(p) else float(f"{p:.2g}") for p in line] for line in pair_matrix(bits)]
    return replace(section, rows=tuple(rows), pairs=pairs, differences=_differences(section, found, bits))


def evidence_of(row: Row) -> dict[int, Evidence]:
    """By seed."""
    return {run.record.seed: one for run in row.finished if (one := read_evidence(evidence_path(run.file), run.record))}


def _first_stages(row: Row, evidence: Mapping[int, Evidence], by_run: Mapping[str, Evidence]) -> list[Curves]:
    """The curves of the runs that a row's second stage started from; none unless all are known.

    Evidence has them itself, or there is a row of that run.
    """
    found: list[Curves] = []
    for run in (run for run in row.finished if len(run.record.stages) > 1):
        own, other = evidence.get(run.record.seed), by_run.get(run.record.stage1_key)
        found.append(own.first if own and own.first else other.curves if other else {})
    return found if all(found) else []


def correct_at(rule: str, evidence: Mapping[int, Evidence]) -> dict[int, Bits]:
    """Which test images are right, by seed; without the runs that the rule does not apply to."""
    return {seed: bits for seed, one in evidence.items() if (bits := one.correct(rule)) is not None}


def correct_of(row: Row, rule: str) -> tuple[RunsOfRow, Classes] | None:
    """Which test images are right, by seed, and the classes of the images; None without stored predictions."""
    evidence = evidence_of(row)
    bits = correct_at(rule, evidence)
    return (bits, evidence[max(bits)].targets) if bits else None


def _tested(
    section: Section, found: list[dict[int, Evidence]], among: Sequence[int]
) -> tuple[dict[int, dict[str, int | None]], dict[int, dict[str, float]]]:
    """Ranks and p among some of the rows, by row and selection rule, at the rules at which there is a test.

    A row that was not tested has no rank beside rows that were, and no p where there is nothing to test against.
    """
    ranks: dict[int, dict[str, int | None]] = defaultdict(dict)
    p: dict[int, dict[str, float]] = defaultdict(dict)
    for rule in section.rules():
        means = {i: mean for i in among if (mean := section.rows[i].mean(rule)) is not None}
        order = sorted(means, key=lambda i: (-means[i], i))
        ties = tie_groups([correct_at(rule, found[i]) for i in order])
        for at, i in enumerate(order if ties.tested.any() else ()):
            ranks[i][rule] = int(ties.rank[at]) if ties.tested[at] else None
            if not math.isnan(ties.p[at]):
                p[i][rule] = float(ties.p[at])
    return ranks, p


def _differences(
    section: Section, found: Sequence[Mapping[int, Evidence]], bits: Sequence[RunsOfRow]
) -> dict[str, list[list[tuple[float, ...] | None]]]:
    """Of the rows whose runs have all left predictions, since the others' means are of more runs."""
    whole = [right if len(right) == row.ok_runs else {} for row, right in zip(section.rows, bits, strict=True)]
    targets = [evidence.targets for runs in found for evidence in runs.values()]
    differences = {}
    for score in ("all", *GROUPS) if targets else ():
        classes = section.classes(score)
        if classes is None or classes:
            means, halves = pair_effects(whole, targets[0], classes)
            differences[score] = [
                [
                    _rounded_effect(float(means[i, j]), float(halves[i, j]))
                    or _of_shared(whole[i], whole[j], targets[0], classes)
                    for j in range(i)
                ]
                for i in range(len(whole))
            ]
    return differences


def _rounded_effect(mean: float, half: float) -> tuple[float, ...] | None:
    """As every part of the page prints it."""
    found = Effect(mean, max(mean - half, -1.0), min(mean + half, 1.0), 0)
    return None if math.isnan(half) else tuple(float(text) for text in points(found))


def _of_shared(
    row: RunsOfRow, other: RunsOfRow, targets: Classes, classes: Sequence[int] | None
) -> tuple[float, ...] | None:
    """Of rows that were run with other seeds: over those that both have; of one seed the mean alone."""
    shared = len(row.keys() & other.keys())
    found = effect(row, other, targets, classes, infer=shared > 1)
    return tuple(float(text) for text in points(found)[: 3 if shared > 1 else 1]) if found else None


def _curves(runs: list[Curves]) -> dict[str, Curve]:
    """Loss of each epoch, accuracy of the evaluated ones; only runs of one length are averaged."""
    found = {}
    for name in ("loss", "test", "val"):
        values = [curves for of_run in runs if len(curves := of_run.get(name, NOTHING))]
        if not values or any(len(v) != len(values[0]) for v in values):
            continue
        epochs = runs[0].get("epochs", NOTHING) if name != "loss" else np.arange(1, len(values[0]) + 1)
        if len(epochs) == len(values[0]) > 1:
            found[name] = _thinned(np.asarray(epochs), np.stack(values))
    return found


def _thinned(epochs: npt.NDArray[np.integer[Any]], values: Floats) -> Curve:
    kept = np.unique(np.linspace(0, len(epochs) - 1, min(CURVE_POINTS, len(epochs))).round().astype(int))
    std = _rounded(values.std(0, ddof=1)[kept]) if len(values) > 1 else []
    return Curve(epochs[kept].tolist(), _rounded(values.mean(0)[kept]), std)


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
