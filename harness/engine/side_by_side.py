"""Runs side by side on a processor: one process and one thread each.

A small network keeps one core busy and leaves the others idle, however many threads it is given. A run with one thread
also gives the same bits on a machine with any number of cores.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection

from harness.base.processes import Exited, Pool
from harness.base.progress import Reporter, Sender

Task = Callable[[Reporter], None]


def workers_for(tasks: int) -> int:
    """How many tasks to run at once here: one more than there are cores, so that three seeds fill two cores evenly.

    1 where processes cannot be forked safely.
    """
    if sys.platform != "linux":
        return 1
    return min(tasks, len(os.sched_getaffinity(0)) + 1)


def run_side_by_side(tasks: Mapping[str, Task], workers: int, reporter: Reporter) -> dict[str, str]:
    """Runs each task in a forked process, at most `workers` at once. Returns, by name, what killed tasks that died.

    The calling process must not have run autograd yet: its threads do not survive a fork. What tasks report goes to
    `reporter`. When this process dies, they die with it; so nothing writes into the files of a later call.

    Raises:
        UserError: a task raised it, or could not read or write a file; the others are stopped.
    """
    waiting, died = list(tasks), dict[str, str]()
    running: dict[Connection, str] = {}
    with Pool("fork") as pool:
        while waiting or running:
            while waiting and len(running) < workers:
                name = waiting.pop(0)
                running[pool.start(_child, tasks[name])] = name
            for connection, message in pool.heard():
                if isinstance(message, Exited):
                    name = running.pop(connection)
                    died |= {name: message.cause} if message.code else {}
                else:
                    message(reporter)
    return died


def _child(connection: Connection, task: Task) -> None:
    task(Sender(connection))
