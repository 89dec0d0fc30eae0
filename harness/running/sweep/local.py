"""The executor `local`: a slot for each run that this machine takes at once, on a core or a share of a GPU."""

from __future__ import annotations

import heapq
import itertools
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

from harness.running.sweep.attempt import start
from harness.running.sweep.contract import Ended, Spec, folder_of


class LocalExecutor:
    """Each slot has one attempt at a time, and a thread that waits for its end."""

    def __init__(self, root: Path, slots: Sequence[Mapping[str, str]]) -> None:
        """`slots`: for each, what it adds to the environment of its runs (which GPU they see)."""
        self._root, self._free, self._threads = root, list(slots), ThreadPoolExecutor(len(slots))
        self._waiting: list[tuple[float, int, Spec]] = []  # a heap; equal lengths: first come, first served
        self._numbers = itertools.count()
        self._running: dict[Future[int], tuple[Spec, Mapping[str, str]]] = {}
        self._processes: dict[Future[int], subprocess.Popen[bytes]] = {}

    def submit(self, specs: Sequence[Spec]) -> None:
        """Queues them; a longer one that comes later goes first."""
        for spec in specs:
            heapq.heappush(self._waiting, (-spec.length, next(self._numbers), spec))
        self._hand_over()

    def _hand_over(self) -> None:
        while self._waiting and self._free:
            spec, slot = heapq.heappop(self._waiting)[-1], self._free.pop()
            try:
                process = start(folder_of(self._root, spec.key), slot)
                future = self._threads.submit(process.wait)
                self._processes[future] = process
            except OSError as error:
                future = Future()
                future.set_exception(error)
            self._running[future] = spec, slot

    def ended(self, timeout: float) -> list[Ended]:
        """Those that are over, at least one unless the time is."""
        over, _ = wait(self._running, timeout, FIRST_COMPLETED)
        found = [self._ended(future) for future in over]
        self._hand_over()
        return found

    def _ended(self, future: Future[int]) -> Ended:
        spec, slot = self._running.pop(future)
        self._free.append(slot)
        if error := future.exception():
            return Ended(spec.key, None, f"no process could be started: {error}")
        with self._processes.pop(future):  # closes its pipe
            return Ended(spec.key, future.result())

    def close(self) -> None:
        """Kills what runs."""
        for process in self._processes.values():
            with process:  # an attempt ends when its standard input is closed
                pass
        self._threads.shutdown()
