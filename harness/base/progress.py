"""Progress of long work: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from operator import methodcaller

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

QUIET_SECONDS = 10.0  # without a terminal: at most one line in this time for each piece of work


class Reporter:
    """Told about each finished epoch; shows it one way or the other."""

    def __init__(self, bar: Progress | None = None) -> None:
        """`bar` is disabled where plain lines are shown instead."""
        self._bar = bar or Progress(console=Console(stderr=True), disable=True)
        self._last_line = time.monotonic()
        self._tasks: dict[str, TaskID] = {}

    def note(self, text: str) -> None:
        """One line, kept."""
        self._bar.console.print(text, markup=False, emoji=False, highlight=False, soft_wrap=True)

    def epoch(self, what: str, done: int, total: int, detail: str) -> None:
        """`done` of `total` epochs of `what` are finished."""
        if not self._bar.disable:
            if what not in self._tasks:
                self._tasks[what] = self._bar.add_task(what, total=total)
            self._bar.update(self._tasks[what], completed=done, description=f"{what}  {detail}")
        elif done == total or time.monotonic() - self._last_line > QUIET_SECONDS:
            self._last_line = time.monotonic()
            self.note(f"{what}: epoch {done}/{total}  {detail}")


class Sender(Reporter):
    """Sends what it is told to the process that shows it, as something to call with that process's reporter."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._send = connection.send

    def note(self, text: str) -> None:
        """Sent on."""
        self._send(methodcaller("note", text))

    def epoch(self, what: str, done: int, total: int, detail: str) -> None:
        """Sent on."""
        self._send(methodcaller("epoch", what, done, total, detail))


@contextlib.contextmanager
def reporter(*, shown: bool = True) -> Iterator[Reporter]:
    """A reporter for standard error: a bar if it is a terminal; one that says nothing if it is not to be `shown`."""
    console = Console(stderr=True, quiet=not shown)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not (shown and console.is_terminal)) as bar:
        yield Reporter(bar)
