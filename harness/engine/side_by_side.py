"""Runs side by side on a processor: one process and one thread each.

A small network keeps one core busy and leaves the others idle, however many threads it is given. A run with one thread
also gives the same bits on a machine with any number of cores.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from typing import Any

from harness.base.errors import UserError
from harness.base.processes import become_dependent
from harness.base.progress import Reporter

Task = Callable[[Reporter], None]


def workers_for(tasks: int) -> int:
    """How many tasks to run at once here: one more than there are cores, so that three seeds fill two cores evenly.

    1 where processes cannot be forked safely.
    """
    if sys.platform != "linux":
        return 1
    return min(tasks, len(os.sched_getaffinity(0)) + 1)


def run_side_by_side(tasks: Mapping[str, Task], workers: int, reporter: Reporter) -> dict[str, str]:
    """Runs each task in a forked process, at most `workers` at once. Returns, by name, how tasks died that did not end.

    The calling process must not have run autograd yet: its threads do not survive a fork. What tasks report goes to
    `reporter`. When this process dies, they die with it; so nothing writes into the files of a later call.

    Raises:
        UserError: a task raised it; the others are stopped.
    """
    fork = multiprocessing.get_context("fork")
    waiting, died = list(tasks), dict[str, str]()
    running: dict[Connection, ForkProcess] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                name = waiting.pop(0)
                ours, theirs = fork.Pipe(duplex=False)
                process = fork.Process(target=_child, args=(tasks[name], theirs), name=name)
                process.start()
                theirs.close()
                running[ours] = process
            for connection in wait(list(running)):
                assert isinstance(connection, Connection)
                if not _deliver(connection, reporter):
                    process = running.pop(connection)
                    process.join()
                    if process.exitcode:
                        died[process.name] = cause_of_death(process.exitcode)
    finally:
        for process in running.values():
            process.terminate()
            process.join()
    return died


def _deliver(connection: Connection, reporter: Reporter) -> bool:
    """Hands one message on; False once there are no more."""
    try:
        kind, arguments = connection.recv()
    except EOFError:
        return False
    if kind == "user_error":
        raise UserError(*arguments)
    getattr(reporter, kind)(*arguments)
    return True


def cause_of_death(code: int | None) -> str:
    """What ended a process, by its exit code as Python gives it: below 0 it is a signal."""
    if code == -signal.SIGKILL:
        return "its process was killed (SIGKILL); the machine may have run out of memory"
    if code is None or code >= 0:
        return f"its process ended with exit code {code}"
    try:
        return f"its process was ended by {signal.Signals(-code).name}"
    except ValueError:  # one without a name
        return f"its process was ended by signal {-code}"


class Sender(Reporter):
    """Sends what it is told to the process that shows it."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._send = connection.send

    def note(self, text: str) -> None:
        """Sent on."""
        self._send(("note", (text,)))

    def epoch(self, *arguments: Any) -> None:
        """Sent on."""
        self._send(("epoch", arguments))


def _child(task: Task, connection: Connection) -> None:
    become_dependent()
    try:
        task(Sender(connection))
    except UserError as error:
        connection.send(("user_error", (str(error),)))
