"""Interleaved timing, and a training run that goes on by one epoch at a time."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import torch
from pytest_benchmark.fixture import BenchmarkFixture

from harness.base.progress import Reporter
from harness.engine.loop import StageRun

Work = Callable[[], object]
SUBJECT = "ours"


def interleaved(
    benchmark: BenchmarkFixture, subject: Work, others: Mapping[str, Work], rounds: int, device: torch.device
) -> dict[str, list[float]]:
    """Seconds of each round of `subject` (as `SUBJECT`), and of the others, which run before it in every round.

    Whatever slows the machine down for a while slows all of them. One more round, the first, warms up and is left out.
    On CUDA each time ends when the device has done its work.
    """
    seconds: dict[str, list[float]] = {name: [] for name in others}

    def before() -> None:
        for name, work in others.items():
            seconds[name].append(timed(work, device))

    def waited_for() -> None:
        subject()
        synchronize(device)

    benchmark.pedantic(waited_for, setup=before, rounds=rounds, warmup_rounds=1)  # type: ignore[no-untyped-call]
    assert benchmark.stats is not None
    return {SUBJECT: list(benchmark.stats.stats.data)} | {name: values[1:] for name, values in seconds.items()}


def timed(work: Work, device: torch.device) -> float:
    """Seconds that the work takes on the device."""
    synchronize(device)
    start = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - start


def synchronize(device: torch.device) -> None:
    """Waits until the device is idle."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def ratio(numerator: Sequence[float], denominator: Sequence[float]) -> dict[str, float]:
    """Median, least and largest of the ratios round by round.

    Raises:
        ValueError: the numbers of rounds differ, or there are none.
    """
    ratios = [a / b for a, b in zip(numerator, denominator, strict=True)]
    if not ratios:
        raise ValueError("no rounds to compare")
    return {
        "median": round(statistics.median(ratios), 3),
        "low": round(min(ratios), 3),
        "high": round(max(ratios), 3),
    }


class Paced(Reporter):
    """A stage's run that goes on by one epoch with each call, so that other work can be timed in between.

    `StageRun.run` trains to the end. Here it does so in a thread that waits in the run's own report of each epoch; the
    loop under test is the one that users run. Used as a context; leaving it ends the run where it stands.

    Args:
        run: must have more epochs than calls will be made.
    """

    class _Stop(BaseException):
        """Ends the run's thread from within."""

    def __init__(self, run: StageRun) -> None:
        super().__init__()
        self._go, self._done, self._stopping = threading.Semaphore(0), threading.Semaphore(0), False
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._train, args=(run,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping = True
        self._go.release()
        self._thread.join()

    def __call__(self) -> None:
        """Trains one epoch.

        Raises:
            RuntimeError: the run is over.
            Exception: what the run raised.
        """
        if not self._thread.is_alive():
            raise RuntimeError("the run has no more epochs")
        self._go.release()
        self._done.acquire()
        if self._error:
            raise self._error

    def note(self, text: str) -> None:
        """Says nothing: the benchmark's output is a table."""

    def epoch(self, *_: Any) -> None:
        """Hands over to the caller until it asks for another epoch."""
        self._done.release()
        self._wait()

    def _wait(self) -> None:
        self._go.acquire()
        if self._stopping:
            raise self._Stop

    def _train(self, run: StageRun) -> None:
        try:
            self._wait()
            run.run(self)
        except self._Stop:
            pass
        except Exception as error:  # handed to the caller's thread
            self._error = error
            self._done.release()
