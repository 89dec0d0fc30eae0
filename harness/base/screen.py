"""Tables on standard output."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

WIDTH = 10_000  # of a file or a pipe, where nothing is cut or folded; rich would take 80 columns


def console() -> Console:
    """Standard output, as wide as the terminal; where it is none, as wide as the tables are."""
    found = Console()
    return found if found.is_terminal else Console(width=WIDTH)


def table(
    title: str, head: Iterable[str], rows: Iterable[Iterable[RenderableType]], words: Collection[str] = ()
) -> Table:
    """A table whose columns are figures, except for those that `words` names."""
    made = Table(title=Text(title), title_justify="left")
    for column in head:
        made.add_column(column, justify="left" if column in words else "right")
    for row in rows:
        made.add_row(*row)
    return made
