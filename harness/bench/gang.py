"""Runs at once on a processor, each in a process and on a thread of its own, as the seeds of a cell are trained."""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Self

from harness.base.processes import become_dependent


class Gang:
    """So many runs of stage 1; calling it trains one epoch of each. Used as a context."""

    def __init__(self, count: int, folder: Path) -> None:
        spawn = multiprocessing.get_context("spawn")  # a fork would inherit a library that has started its threads
        self._connections: list[Connection] = []
        self._processes = []
        for seed in range(count):
            ours, theirs = spawn.Pipe()
            self._processes.append(spawn.Process(target=_member, args=(theirs, folder / str(seed), seed)))
            self._connections.append(ours)

    def __enter__(self) -> Self:
        for process in self._processes:
            process.start()
        self._wait()
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.terminate()
            process.join()

    def __call__(self) -> None:
        """Trains one epoch of each run.

        Raises:
            EOFError: a process has died.
        """
        for connection in self._connections:
            connection.send("go")
        self._wait()

    def _wait(self) -> None:
        for connection in self._connections:
            connection.recv()


def _member(connection: Connection, folder: Path, seed: int) -> None:
    os.environ["LTBENCH_THREADS"] = "1"
    become_dependent()
    from harness.bench.loop import CASES, run_of
    from harness.bench.timing import Paced

    with Paced(run_of(CASES[0], "float32", folder, seed)) as run:
        while True:
            connection.send("done")
            connection.recv()
            run()
