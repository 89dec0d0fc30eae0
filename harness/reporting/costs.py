"""What training costs next to cross-entropy: steps that `ltbench bench steps` timed, and the images that runs took."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from typing import Any

from harness.reporting.speed import SpeedReport
from harness.reporting.summary import Row

StepTimes = Mapping[tuple[str, str], float]  # method and stage -> time for a training image, over cross-entropy's
REFERENCE = "ce"  # the row that costs are relative to


def step_times(speed: Iterable[SpeedReport]) -> dict[tuple[str, str], float]:
    """Of the first file that has them: ratios of two machines don't mix."""
    return next((report.steps for report in speed if report.steps), {})


def relative_cost(row: Row, rows: Iterable[Row], times: StepTimes) -> float | None:
    """Training time of a row over that of cross-entropy in the same table, as if both ran alone on one machine.

    The sum over stages of training images times the time for each, so neither what else a machine did meanwhile nor
    the kind of machine is in it. None where a stage was not timed (a variant's, say), or the table has no such row.
    """
    ours = _work(row, times)
    plain = [work for other in rows if other.name == REFERENCE and (work := _work(other, times))]
    return ours / plain[0] if ours and plain else None


def _work(row: Row, times: StepTimes) -> float | None:
    """Images times the time for each, over all stages; the median of the row's runs."""
    found = []
    for run in (one for one in row.runs if one.record.status == "ok"):
        stages = run.costs.get("stages")
        images = {stage: _images(costs) for stage, costs in stages.items()} if isinstance(stages, Mapping) else {}
        if images and all(not count or (row.name, stage) in times for stage, count in images.items()):
            found.append(sum(count * times[row.name, stage] for stage, count in images.items() if count))
    return statistics.median(found) if found else None


def _images(costs: Any) -> float:
    """Training images that a stage took; 0 where it trains nothing, or where the file says nothing of use."""
    found = [costs.get(key) for key in ("images_per_second", "train_seconds")] if isinstance(costs, Mapping) else [0.0]
    return math.prod(one if isinstance(one, int | float) else 0.0 for one in found)
