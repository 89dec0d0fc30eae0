"""Entries: the rows of a table, written method[-variant]@track."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from harness.base.errors import UserError, unknown
from harness.spec.registry import get_plugin

TRACKS = ("paper", "common", "short")


@dataclass(frozen=True)
class Entry:
    """A row of a table: method[-variant]@track."""

    method: str
    variant: str
    track: str

    def __str__(self) -> str:
        return f"{self.method}{'-' + self.variant if self.variant else ''}@{self.track}"

    @property
    def path(self) -> Path:
        """The entry as a relative folder, <track>/<method[-variant]>."""
        return Path(self.track) / str(self).split("@")[0]


def parse_entry(text: str, *, where: str = "") -> Entry:
    """Reads method[-variant]@track.

    Raises:
        UserError: another form, an unknown method, or an unknown track.
    """
    match = re.fullmatch(r"([A-Za-z][A-Za-z0-9_]*)(?:-([A-Za-z0-9_.-]+))?@([a-z]+)", text)
    origin = f"{where}: " if where else ""
    if not match:
        raise UserError(
            f"{origin}{text!r} is not an entry; entries are written method[-variant]@track, e.g. tvmf-k64@common"
        )
    get_plugin(match[1], where=where)
    if match[3] not in TRACKS:
        raise unknown("track", match[3], TRACKS, where=where)
    return Entry(match[1], match[2] or "", match[3])
