"""Progress of long work: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from operator import methodcaller

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

QUIET_SECONDS = 10.0  # without a terminal: at most one line in this time for each piece of work


class Reporter:
    """Told about each finished epoch; shows it one way or the other."""

    def __init__(self, bar: Progress | None = None) -> None:
        self._bar = bar
        self._last_line = time.monotonic()
        self._tasks: dict[str, object] = {}

    def note(self, text: str) -> None:
        """One line, kept."""
        if self._bar:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def epoch(self, what: str, done: int, total: int, detail: str) -> None:
        """`done` of `total` epochs of `what` are finished."""
        if self._bar:
            if what not in self._tasks:
                self._tasks[what] = self._bar.add_task(what, total=total)
            self._bar.update(self._tasks[what], completed=done, description=f"{what}  {detail}")  # type: ignore[arg-type]
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


class Silent(Reporter):
    """Says nothing: of several processes of one run, one speaks."""

    def note(self, text: str) -> None:
        """Not said."""

    def epoch(self, *arguments: object) -> None:
        """Not said."""


@contextlib.contextmanager
def reporter(*, shown: bool = True) -> Iterator[Reporter]:
    """A reporter for standard error: a bar if it is a terminal; one that says nothing if it is not to be `shown`."""
    if not shown:
        yield Silent()
        return
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Reporter()
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        yield Reporter(bar)
