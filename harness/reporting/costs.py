"""What training costs next to cross-entropy: one definition, which every part of the page starts with.

Steps that `ltbench bench steps` timed, and the images that runs took; where a stage was not timed, the runs' seconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from statistics import median
from types import MappingProxyType
from typing import Any, Final

from harness.reporting.speed import SpeedReport
from harness.reporting.summary import Row

StepTimes = Mapping[tuple[str, str], float]  # method and stage -> time for a training image, over cross-entropy's
NO_TIMES: Final[StepTimes] = MappingProxyType({})


def step_times(speed: Iterable[SpeedReport]) -> dict[tuple[str, str], float]:
    """Of the first file that has them: ratios of two machines don't mix."""
    return next((report.steps for report in speed if report.steps), {})


def cost(row: Row, reference: Row | None, times: StepTimes = NO_TIMES) -> dict[str, Any]:
    """What training a row costs, all stages.

    `seconds`: the median over seeds, and the least and the most of them; `times`: the least over the reference's least
    (what else a machine does only adds to them), None unless both were timed on one kind of device under one load (a
    crowded processor is several times slower); `steps`: over the reference's, from timed steps, None where a stage was
    not timed; `time`: that, else `times`.
    """
    seconds, base = _seconds(row), _seconds(reference) if reference else []
    alike = reference is not None and len(_loads(row) | _loads(reference)) == 1
    timed = relative_cost(row, reference, times) if reference else None
    steps = timed and round(timed, 3)
    measured = round(min(seconds) / min(base), 3) if alike and seconds and base else None
    return {
        "time": steps or measured,
        "steps": steps,
        "seconds": [round(f(seconds), 1) for f in (median, min, max)] if seconds else None,
        "times": measured,
    }


def _seconds(row: Row) -> list[float]:
    """Of training, by seed, where they are known."""
    return [seconds for seconds in row.costs("train_seconds") if seconds > 0]


def _loads(row: Row) -> set[tuple[str, int]]:
    """The devices of its runs, each with how many shared it; alone, or with a core for each thread, counts as one."""
    found = set()
    for run in row.finished:
        threads, cores, beside = (_whole(run.costs.get(key)) for key in ("threads", "cpus", "runs_at_once"))
        device = str(run.costs.get("device", ""))
        found.add((device, 1 if device.startswith("CPU") and beside * threads <= cores else beside))
    return found


def _whole(value: object) -> int:
    """A count, or a mean of counts, as cost files have it; 1 for what is none."""
    return max(1, round(value)) if isinstance(value, int | float) and math.isfinite(value) else 1


def relative_cost(row: Row, against: Row, times: StepTimes) -> float | None:
    """Training time of a row over that of another one, as if both ran alone on one machine.

    The sum over stages of training images times the time for each, so neither what else a machine did meanwhile nor
    the kind of machine is in it. None where a stage was not timed (a variant's, say).
    """
    ours, theirs = _work(row, times), _work(against, times)
    return ours / theirs if ours and theirs else None


def _work(row: Row, times: StepTimes) -> float | None:
    """Images times the time for each, over all stages; the median of the row's runs."""
    found = []
    for run in row.finished:
        stages = run.costs.get("stages")
        images = {stage: _images(costs) for stage, costs in stages.items()} if isinstance(stages, Mapping) else {}
        if images and all(not count or (row.name, stage) in times for stage, count in images.items()):
            found.append(sum(count * times[row.name, stage] for stage, count in images.items() if count))
    return median(found) if found else None


def _images(costs: Any) -> float:
    """Training images that a stage took; 0 where it trains nothing, or where the file says nothing of use."""
    found = [costs.get(key) for key in ("images_per_second", "train_seconds")] if isinstance(costs, Mapping) else [0.0]
    return math.prod(one if isinstance(one, int | float) else 0.0 for one in found)
