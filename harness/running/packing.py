"""How many runs share a GPU: as many as make all of them together faster, found out while they run.

One small network leaves a GPU nearly idle, even from a graph. So a card begins with one worker; once its speed is known
their number is doubled, as long as there is memory for them and all together get faster. Processes share a card at the
same time only under NVIDIA's MPS, which is started where it is installed; else they take turns. A run holds
its graph against plain steps again when it has got neighbours (`harness/engine/graph.py`).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass

MOST = 32  # runs on a card
SECONDS = 5.0  # that a worker is timed, but for each run's first epoch: start-up, checks and captures are over by then
GAIN = 1.1  # all together must get faster by this, or there are enough
FULL = 0.9  # of a card's memory may be in use
PROBE = "import torch; torch.zeros(1, device='cuda').item()"


@dataclass(frozen=True)
class Memory:
    """Of a card, in bytes; of all its processes."""

    free: int
    total: int


@dataclass(frozen=True)
class Asked:
    """A worker asks how many runs there were beside its own, which included, on average."""


class Packing:
    """Decides for one device how many runs it has at once.

    Args:
        device: its name.
        fixed: their number where it is given; 0: it is found out.
        note: tells a person what was chosen.

    Attributes:
        count: how many there are to be now.
        memory: the card's, while its workers are at work; None until one has told it.
    """

    def __init__(self, device: str, fixed: int, note: Callable[[str], None]) -> None:
        self.count, self._settled = fixed or 1, fixed > 0
        self._device, self._note, self._clock = device, note, time.monotonic
        self._rates: dict[int, float] = {}  # image passes a second of all together, by how many they are
        self.memory: Memory | None = None
        self._timed: dict[Hashable, tuple[float, float]] = {}  # by worker: seconds and passes, over all its runs
        self._last: dict[Hashable, float | None] = {}  # when those at work ended an epoch; None: it is not to be timed

    def epoch(self, worker: Hashable, passes: float) -> None:
        """A worker has finished an epoch of so many image passes; decides once all have been timed."""
        if self._settled:
            return
        now, last = self._clock(), self._last.get(worker)
        if worker not in self._timed:  # from here on all have one neighbour more
            self._last = dict.fromkeys(self._last)
            self._timed = dict.fromkeys([*self._last, worker], (0.0, 0.0))
        self._last[worker] = now
        if last is None:
            return
        seconds, done = self._timed[worker]
        self._timed[worker] = seconds + now - last, done + passes
        if len(self._timed) >= self.count and min(seconds for seconds, _ in self._timed.values()) >= SECONDS:
            self._decide()

    def gone(self, worker: Hashable) -> None:
        """A worker's run is over; the first epoch of its next one is not timed."""
        self._last.pop(worker, None)

    @property
    def most(self) -> int:
        """Runs that there is memory for, by what those at work have taken."""
        if self.memory is None:
            return MOST
        each = max((self.memory.total - self.memory.free) / self.count, 1)
        return max(1, min(MOST, int(FULL * self.memory.total / each)))

    def _decide(self) -> None:
        rate = sum(done / seconds for seconds, done in self._timed.values())
        before = max(self._rates.values(), default=0.0)
        self._rates[self.count] = rate
        more, most = min(2 * self.count, self.most), self.most
        self._timed.clear()
        if rate >= GAIN * before and more > self.count:
            self.count = more
            return
        best = max(self._rates, key=lambda count: self._rates[count])
        self.count, self._settled = best, True
        gain = self._rates[best] / self._rates[min(self._rates)]
        self._note(
            f"{self._device}: {best} runs at once, {gain:.2f} times as fast together as one alone "
            f"({', '.join(f'{count}: {rate:,.0f}' for count, rate in self._rates.items())} image passes a second; "
            f"memory for {most})"
        )


class Load:
    """How many runs a device has at work, over the life of each: with packing that changes while they run."""

    def __init__(self) -> None:
        self._clock, self._since, self._sum = time.monotonic, 0.0, 0.0  # seconds of all runs together until then
        self._began: dict[Hashable, tuple[float, float]] = {}  # by worker: when, and that sum

    def begins(self, worker: Hashable) -> None:
        """A worker has got a run."""
        self._began[worker] = self._now()

    def ends(self, worker: Hashable) -> None:
        """Its run is over."""
        self._now()
        del self._began[worker]

    def mean(self, worker: Hashable) -> float:
        """Runs at work, itself included, on average since its run began."""
        (began, before), (now, total) = self._began[worker], self._now()
        return (total - before) / (now - began) if now > began else len(self._began)

    def _now(self) -> tuple[float, float]:
        now = self._clock()
        self._sum += len(self._began) * (now - self._since)
        self._since = now
        return now, self._sum


@contextlib.contextmanager
def shared_cards(wanted: bool, note: Callable[[str], None]) -> Iterator[None]:
    """While it is on, processes run at the same time on a card, if MPS is installed and works; says so if not."""
    daemon = shutil.which("nvidia-cuda-mps-control") if wanted else None
    if daemon is None or "CUDA_MPS_PIPE_DIRECTORY" in os.environ:  # somebody's own is used as it is
        if wanted and daemon is None:
            note("no MPS here: runs on a card take turns")
        yield
        return
    with tempfile.TemporaryDirectory(prefix="mps-") as folder:
        own = {"CUDA_MPS_PIPE_DIRECTORY": folder, "CUDA_MPS_LOG_DIRECTORY": folder}
        started = _runs([daemon, "-d"], own)
        if works := started and _runs([sys.executable, "-c", PROBE], own):
            os.environ.update(own)  # the workers' too
        else:
            note("MPS does not work here: runs on a card take turns")
        try:
            yield
        finally:
            for name in own if works else ():
                os.environ.pop(name, None)
            if started:
                _runs([daemon], own, "quit\n")


def _runs(command: list[str], variables: dict[str, str], text: str = "") -> bool:
    """Whether a command ends well."""
    try:
        done = subprocess.run(  # noqa: S603
            command,
            env=os.environ | variables,
            input=text,
            text=True,
            stdout=subprocess.DEVNULL,  # a pipe would stay open as long as the daemon
            stderr=subprocess.DEVNULL,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
