"""The executor `local`: a slot for each run that this machine takes at once, on a core or a share of a GPU."""

from __future__ import annotations

import queue
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.running.sweep.attempt import start
from harness.running.sweep.contract import Ended, Spec, folder_of


class LocalExecutor:
    """Each slot is a thread that waits for one attempt at a time."""

    def __init__(self, root: Path, slots: Sequence[Mapping[str, str]]) -> None:
        """`slots`: for each, what it adds to the environment of its runs (which GPU they see)."""
        self._root = root
        self._waiting: queue.PriorityQueue[tuple[float, int, Spec | None]] = queue.PriorityQueue()
        self._over: queue.Queue[Ended] = queue.Queue()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._starting, self._closed, self._count = threading.Lock(), False, 0
        self._threads = [threading.Thread(target=self._slot, args=(slot,), daemon=True) for slot in slots]
        for thread in self._threads:
            thread.start()

    def submit(self, specs: Sequence[Spec]) -> None:
        """Queues them; a longer one that comes later goes first."""
        for spec in specs:
            self._put(-spec.length, spec)

    def _put(self, priority: float, spec: Spec | None) -> None:
        self._count += 1  # equal lengths: first come, first served
        self._waiting.put((priority, self._count, spec))

    def ended(self, timeout: float) -> list[Ended]:
        """Those that are over, at least one unless the time is."""
        try:
            found = [self._over.get(timeout=timeout)]
        except queue.Empty:
            return []
        while not self._over.empty():
            found.append(self._over.get())
        return found

    def close(self) -> None:
        """Kills what runs."""
        with self._starting:
            self._closed = True
            for process in self._running:
                assert process.stdin is not None
                process.stdin.close()
        for _ in self._threads:
            self._put(float("-inf"), None)
        for thread in self._threads:
            thread.join()

    def _slot(self, environment: Mapping[str, str]) -> None:
        while (spec := self._waiting.get()[2]) is not None:
            self._over.put(self._attempt(spec, environment))

    def _attempt(self, spec: Spec, environment: Mapping[str, str]) -> Ended:
        with self._starting:
            if self._closed:
                return Ended(spec.key, None, "the sweep was stopped")
            try:
                process = start(folder_of(self._root, spec.key), environment)
            except OSError as error:
                return Ended(spec.key, None, f"no process could be started: {error}")
            self._running.add(process)
        code = process.wait()
        with self._starting:
            self._running.discard(process)
            assert process.stdin is not None
            process.stdin.close()
        return Ended(spec.key, code)
