"""Processes that never outlive the one that started them, and report to it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Literal, Self, cast

from harness.base.errors import UserError, of_file

LONGEST = 86_400.0  # seconds that are waited at once; the system cannot count many more


@dataclass(frozen=True)
class Exited:
    """The last that is heard of a process: its exit code as Python gives it, below 0 for a signal."""

    code: int

    @property
    def cause(self) -> str:
        """What ended it."""
        if self.code == -signal.SIGKILL:
            return "its process was killed (SIGKILL); the machine may have run out of memory"
        if self.code >= 0:
            return f"its process ended with exit code {self.code}"
        name = next((known.name for known in signal.Signals if known == -self.code), f"signal {-self.code}")
        return f"its process was ended by {name}"


class Pool:
    """Processes, each at the other end of a pipe. Used as a context, whose end kills them wherever they are."""

    def __init__(self, method: Literal["fork", "spawn"]) -> None:
        self._context: Any = multiprocessing.get_context(method)
        self._processes: dict[Connection, BaseProcess] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            process.join()

    def start(self, work: Callable[..., None], *arguments: Any) -> Connection:
        """Calls `work(connection, *arguments)` in a new process; returns our end of the connection."""
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_dependent, args=(work, theirs, *arguments))
        process.start()
        theirs.close()
        self._processes[ours] = process
        return cast(Connection, ours)

    def heard(self, timeout: float = LONGEST) -> Iterator[tuple[Connection, Any]]:
        """Waits for messages, a day at most, and gives each with its connection. The last of a process is `Exited`.

        Raises:
            UserError: a process raised it, or could not read or write a file.
        """
        for connection in wait(list(self._processes), min(timeout, LONGEST)):
            assert isinstance(connection, Connection)
            try:
                message = connection.recv()
            except (EOFError, OSError):  # it died before it read what it was sent, or had said all of what it says
                process = self._processes.pop(connection)
                process.join()
                message = Exited(process.exitcode or 0)
            if isinstance(message, UserError):
                raise message
            yield connection, message


def _dependent(work: Callable[..., None], connection: Connection, *arguments: Any) -> None:
    become_dependent()
    try:
        work(connection, *arguments)
    except UserError as error:
        connection.send(error)
    except OSError as error:
        connection.send(of_file(error))


def become_dependent() -> None:
    """Makes this process die with the one that started it, and leaves Ctrl-C and SIGTERM to that one."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def die_with_stdin(first: Callable[[], None]) -> None:
    """Makes this process end when its standard input does, which is when the one that holds the other end dies.

    For a process that was started as a command. `first` is called before the end.
    """

    def die() -> None:
        while os.read(0, 4096):  # not through sys.stdin, whose lock would be held when the interpreter ends
            pass
        first()
        os._exit(1)

    threading.Thread(target=die, daemon=True).start()
