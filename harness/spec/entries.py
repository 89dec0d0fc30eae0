"""Entries: the rows of a table, written method[-variant]@track."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from harness.base.errors import UserError, unknown
from harness.spec.registry import available_methods, get_plugin

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
    match = re.fullmatch(r"([A-Za-z][A-Za-z0-9_]*(?:-[A-Za-z0-9_.-]+)?)@([a-z]+)", text)
    origin = f"{where}: " if where else ""
    if not match:
        raise UserError(
            f"{origin}{text!r} is not an entry; entries are written method[-variant]@track, e.g. tvmf-k64@common"
        )
    method, variant = _method_and_variant(match[1], where)
    if match[2] not in TRACKS:
        raise unknown("track", match[2], TRACKS, where=where)
    return Entry(method, variant, match[2])


def entry_of(text: str, variant: str = "", track: str = "") -> Entry:
    """The entry that a person means by method[-variant][@track], with what `--variant` and `--track` add.

    Without a track it is the common one.

    Raises:
        UserError: as `parse_entry`, or two tracks.
    """
    name, at, own = text.partition("@")
    if at and track:
        raise UserError(f"--track {track}: '{text}' names its track already")
    return parse_entry(f"{name}{variant and '-'}{variant}@{own if at else track or 'common'}")


def _method_and_variant(text: str, where: str) -> tuple[str, str]:
    """`tvmf-k64`; and `balanced-softmax` for balanced_softmax, where no method is called `balanced`."""
    words = text.split("-")
    known = available_methods() if len(words) > 1 else []
    for end in range(1, len(words) + 1):
        if (method := "_".join(words[:end])) in known:
            return method, "-".join(words[end:])
    get_plugin(words[0], where=where)
    return words[0], "-".join(words[1:])
