"""The executor `local`: a slot for each run that this machine takes at once, on a core or a share of a GPU."""

from __future__ import annotations

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
        self._running: dict[Future[int], tuple[str, Mapping[str, str]]] = {}  # key of the run, slot
        self._processes: set[subprocess.Popen[bytes]] = set()

    def room(self) -> int:
        """The free slots."""
        return len(self._free)

    def submit(self, specs: Sequence[Spec]) -> bool:
        """Starts them, each in a slot."""
        for spec in specs:
            slot = self._free.pop()
            self._running[self._threads.submit(self._attempt, spec.key, slot)] = spec.key, slot
        return True

    def _attempt(self, key: str, slot: Mapping[str, str]) -> int:
        with start(folder_of(self._root, key), slot) as process:
            self._processes.add(process)
            return process.wait()

    def ended(self, timeout: float) -> list[Ended]:
        """Those that are over, at least one unless the time is."""
        over, _ = wait(self._running, timeout, FIRST_COMPLETED)
        return [self._ended(future) for future in over]

    def _ended(self, future: Future[int]) -> Ended:
        key, slot = self._running.pop(future)
        self._free.append(slot)
        error = future.exception()
        return Ended(key, None, f"no process could be started: {error}") if error else Ended(key, future.result())

    def close(self) -> None:
        """Ends what runs, until nothing does: an attempt dies when its standard input is closed."""
        while self._running:
            for process in list(self._processes):
                assert process.stdin is not None
                process.stdin.close()
            self.ended(0.1)
        self._threads.shutdown()
