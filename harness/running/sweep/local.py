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
        self._running: dict[Future[int], tuple[Spec, Mapping[str, str]]] = {}
        self._processes: dict[Future[int], subprocess.Popen[bytes]] = {}

    def room(self) -> int:
        """The free slots."""
        return len(self._free)

    def submit(self, specs: Sequence[Spec]) -> bool:
        """Starts them, each in a slot."""
        for spec in specs:
            slot = self._free.pop()
            try:
                process = start(folder_of(self._root, spec.key), slot)
                future = self._threads.submit(process.wait)
                self._processes[future] = process
            except OSError as error:
                future = Future()
                future.set_exception(error)
            self._running[future] = spec, slot
        return True

    def ended(self, timeout: float) -> list[Ended]:
        """Those that are over, at least one unless the time is."""
        over, _ = wait(self._running, timeout, FIRST_COMPLETED)
        return [self._ended(future) for future in over]

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
