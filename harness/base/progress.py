"""Progress of long work: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Sized
from multiprocessing.connection import Connection
from operator import methodcaller
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

T = TypeVar("T")
PATIENCE = 3.0  # seconds of reading images before the first line or bar
STRIDE = 16  # images between two looks at the clock
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

    def count(self, what: str, done: int, total: int | None, *, began: bool = False) -> None:
        """`done` of `total` images (None: of an unknown number) are finished; `began` for the first time."""
        self._show(what, done, total, what, f"{what}: {done}{f'/{total}' if total else ''} images", now=began)

    def epoch(self, what: str, done: int, total: int, detail: str) -> None:
        """`done` of `total` epochs of `what` are finished."""
        line = f"{what}: epoch {done}/{total}  {detail}"
        self._show(what, done, total, f"{what}  {detail}", line, now=done == total)

    def _show(self, what: str, done: int, total: int | None, title: str, line: str, *, now: bool) -> None:
        if not self._bar.disable:
            if what not in self._tasks:
                self._tasks[what] = self._bar.add_task(what, total=total)
            self._bar.update(self._tasks[what], completed=done, description=title)
        elif now or time.monotonic() - self._last_line > QUIET_SECONDS:
            self._last_line = time.monotonic()
            self.note(line)


def counted(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """The items as they are; where taking them lasts, standard error shows how many are done.

    Args:
        what: what is done with them, as a participle: "decoding photos".
        total: how many there are, where it is known.
    """
    total = total if total is not None else len(items) if isinstance(items, Sized) else None
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        shown: Reporter | None = None
        for done, item in enumerate(items):
            if shown is None and time.monotonic() - began > PATIENCE:
                shown = stack.enter_context(reporter())
                shown.count(what, done, total, began=True)
            elif shown is not None and done % STRIDE == 0:
                shown.count(what, done, total)
            yield item


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
