"""Timing of both sides of a comparison in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from pytest_benchmark.fixture import BenchmarkFixture

from tests.bench.sizes import device

Work = Callable[[], object]
SUBJECT = "ours"


def interleaved(
    benchmark: BenchmarkFixture, subject: Work, others: Mapping[str, Work], rounds: int, times: int = 1
) -> dict[str, list[float]]:
    """Seconds of each round of `subject` (as `SUBJECT`), and of the others, which run before it in every round.

    Whatever slows the machine down for a while slows all of them. One more round, the first, warms up and is left out.
    On CUDA each time ends when the device has done its work. A round does the work so many `times`.
    """
    seconds: dict[str, list[float]] = {name: [] for name in others}

    def before() -> None:
        for name, work in others.items():
            seconds[name].append(timed(work, times))

    def waited_for() -> None:
        for _ in range(times):
            subject()
        synchronize()

    benchmark.pedantic(waited_for, setup=before, rounds=rounds, warmup_rounds=1)
    assert benchmark.stats is not None
    return {SUBJECT: list(benchmark.stats.stats.data)} | {name: values[1:] for name, values in seconds.items()}


def timed(work: Work, times: int = 1) -> float:
    """Seconds that the work takes on the device, done so many times."""
    synchronize()
    start = time.perf_counter()
    for _ in range(times):
        work()
    synchronize()
    return time.perf_counter() - start


def synchronize() -> None:
    """Waits until the device is idle."""
    if device().type == "cuda":
        torch.cuda.synchronize(device())


def ratio(numerator: Sequence[float], denominator: Sequence[float]) -> dict[str, float]:
    """Median, least and largest of the ratios round by round.

    Raises:
        ValueError: the numbers of rounds differ, or there are none.
    """
    ratios = [a / b for a, b in zip(numerator, denominator, strict=True)]
    if not ratios:
        raise ValueError("no rounds to compare")
    figures = {"median": statistics.median(ratios), "low": min(ratios), "high": max(ratios)}
    return {name: round(figure, 3) for name, figure in figures.items()}


def speeds(seconds: Mapping[str, Sequence[float]], images: int) -> dict[str, Any]:
    """What a comparison says of rounds of so many images: speeds by who reached them, and ours over the plain one."""
    return {
        "images": images,
        "images_per_second": {name: round(images / statistics.median(values), 1) for name, values in seconds.items()},
        "ratio": ratio(seconds["plain"], seconds[SUBJECT]),
    }
