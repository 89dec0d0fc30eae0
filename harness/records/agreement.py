"""Whether a run that was measured again agrees: the same bits, within the spread of its seeds, or outside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from scipy import special

from harness.records.schema import HEADLINE, Record

Verdict = Literal["same bits", "within seed spread", "outside", "unknown"]
GROUPS = ("all", "macro", "many", "medium", "few")
LEVEL = 0.95
FEWEST = 3  # seeds of a row: two give an interval that holds nearly anything


@dataclass(frozen=True)
class Agreement:
    """How far a run's new scores are from its old ones.

    Attributes:
        verdict: "unknown" where fewer than three seeds say too little of the spread.
        score: the accuracy of the last epoch that differs most, relative to its spread.
        difference: of that accuracy, new minus old, as a fraction.
    """

    verdict: Verdict
    score: str = ""
    difference: float = 0.0


def agreement(stated: Record, again: Record, seeds: Sequence[Record]) -> Agreement:
    """Compares a run with its repetition.

    It lies within the seed spread if every accuracy of the last epoch does: inside the interval that holds the value
    of one further seed in 95 % of cases, mean +- t s sqrt(1 + 1/n), by the n seeds of the row.

    Args:
        seeds: the finished runs of the row, all seeds, `stated` among them.
    """
    if scores_of(stated) == scores_of(again):
        return Agreement("same bits")
    old, new = stated.results[HEADLINE], again.results[HEADLINE]
    if old is None or new is None:
        return Agreement("outside")
    found = []
    for score in GROUPS:
        before, now = getattr(old, score), getattr(new, score)
        if before is None or now is None:
            continue
        limits = prediction_interval([getattr(run.results[HEADLINE], score) for run in seeds])
        inside = limits is not None and limits[0] - 1e-9 <= now <= limits[1] + 1e-9
        width = limits[1] - limits[0] if limits else 1.0
        found.append((inside, -abs(now - before) / max(width, 1e-9), score, now - before))
    inside, _, score, difference = min(found)
    if len(seeds) < FEWEST:
        return Agreement("unknown", score, difference)
    return Agreement("within seed spread" if inside else "outside", score, difference)


def scores_of(record: Record) -> dict[str, dict[str, object] | None]:
    """All scores, to be compared as they are."""
    return {rule: asdict(scores) if scores else None for rule, scores in record.results.items()}


def prediction_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Where a further value lies in 95 % of cases, if the values are normal; None for fewer than two."""
    count = len(values)
    if count < 2:
        return None
    mean, deviation = float(np.mean(values)), float(np.std(values, ddof=1))
    half = float(special.stdtrit(count - 1, (1 + LEVEL) / 2)) * deviation * (1 + 1 / count) ** 0.5
    return mean - half, mean + half
