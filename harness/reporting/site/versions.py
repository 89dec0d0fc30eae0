"""Which version of the records a site shows: its name and date, and what changed since another version.

Everything comes from the records and from git's history of their files, nothing from the clock: the same commit gives
the same version.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from harness.base import config
from harness.base.errors import UserError
from harness.base.files import read_json, sha256_json
from harness.base.git import git
from harness.records.schema import HEADLINE
from harness.reporting.summary import Section

SCHEMA = 1
MANIFEST = "site.json"
LAST = 253402300800  # the year 10000, which no date can have


@dataclass(frozen=True)
class History:
    """What git knows of a file: the time of its last commit (Unix seconds), and how many commits it has."""

    time: int
    commits: int


@dataclass(frozen=True)
class RunFacts:
    """A record as one version of the site has it."""

    sha256: str
    address: str
    split: str
    entry: str
    seed: int
    status: str
    tier: str
    time: int | None = None  # of its last commit


@dataclass(frozen=True)
class RowFacts:
    """A row of a board as one version of the site has it; `mean` is the accuracy over all images, as a fraction."""

    board: str
    table: str
    row: str
    rank: int | None
    mean: float | None
    n: int


@dataclass(frozen=True)
class Manifest:
    """What `site.json` holds: a version of the site, to compare others with.

    Attributes:
        name: the version's folder in the archive.
        records: file of the record -> what it holds.
        files: what `ltbench publish` wrote, relative to the site; it touches nothing else there.
    """

    schema: int
    version: str
    name: str
    title: str
    time: int | None
    records: dict[str, RunFacts] = field(default_factory=dict)
    rows: list[RowFacts] = field(default_factory=list)
    files: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not re.fullmatch("[0-9a-f-]+", self.name):
            raise ValueError(f"name must be a date and a hash, found '{self.name}'")
        if self.time is not None and not 0 <= self.time < LAST:
            raise ValueError(f"time must be in seconds since 1970, found {self.time}")


def read_manifest(path: Path) -> Manifest:
    """The manifest of a site.

    Raises:
        UserError: damaged, or written by a later version of ltbench.
    """
    value = read_json(path, "manifest of a site")
    if not isinstance(value, dict) or value.get("schema") != SCHEMA:
        raise UserError(f"{path}: not a manifest that this version can read (schema {SCHEMA}); publish elsewhere")
    return config.build(Manifest, value, str(path))


def version_of(records: Mapping[str, RunFacts]) -> tuple[str, str, int | None]:
    """A short hash over the records and how far they were checked; the archive's name for it; and its time."""
    version = sha256_json({name: [one.sha256, one.tier] for name, one in records.items()})[:8]
    times = [one.time for one in records.values()]
    if not times or None in times:  # not in git, or not committed: no date would be true
        return version, version, None
    time = max(filter(None, times))
    return version, f"{day(time)}-{version}", time


def day(time: int) -> str:
    """The date of a time, in UTC."""
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d")


def histories(files: Iterable[Path]) -> dict[Path, History]:
    """Last commit and number of commits of each file that is committed as it is; empty where there is no git."""
    roots = sorted({str(file.parent) for file in files})
    try:
        log = git("log", "--format=%x00%ct", "--name-only", "--relative", "-z", "--", *roots).decode()
        edited = git("diff", "--name-only", "--relative", "-z", "HEAD", "--", *roots).decode().split("\0")
    except UserError:
        return {}
    found: dict[Path, History] = {}
    time = 0
    for item in filter(None, (part.strip() for part in log.split("\0"))):
        if item.isdigit():
            time = int(item)
        else:
            known = found.get(Path(item), History(time, 0))
            found[Path(item)] = History(known.time, known.commits + 1)
    return {path: one for path, one in found.items() if str(path) not in edited}


@dataclass(frozen=True)
class Move:
    """A row that came, went or has another rank; None: it is not in that version."""

    before: RowFacts | None
    after: RowFacts | None

    @property
    def row(self) -> RowFacts:
        """The later one, where there is one."""
        found = self.after or self.before
        assert found is not None
        return found


def row_facts(board: str, sections: Iterable[Section]) -> Iterator[RowFacts]:
    """The rows of a board's tables."""
    for section in sections:
        for row in section.rows:
            mean = row.mean(HEADLINE)
            rounded = None if mean is None else round(mean, 6)
            yield RowFacts(board, section.slug, row.label, row.ranks[HEADLINE], rounded, row.ok_runs)


def moved(older: Iterable[RowFacts], newer: Iterable[RowFacts]) -> tuple[list[Move], int]:
    """What came, went or has another rank; and how many rows only made room for what came or went above them."""
    old, new = ({(one.board, one.table, one.row): one for one in rows} for rows in (older, newer))
    every = [Move(old.get(key), new.get(key)) for key in sorted({*old, *new})]
    comings = [move for move in every if move.before is None or move.after is None]
    changed = [one for one in every if one.before is None or one.after is None or one.before.rank != one.after.rank]
    moves = [move for move in changed if not _makes_room(move, comings)]
    return moves, len(changed) - len(moves)


def _makes_room(move: Move, comings: Iterable[Move]) -> bool:
    """Whether a row's rank changed by just the rows that came above it, less those that went."""
    before, after = move.before, move.after
    if before is None or after is None or before.rank is None or after.rank is None:
        return False
    same_table = [one for one in comings if (one.row.board, one.row.table) == (after.board, after.table)]
    came = sum(one.after is not None and (one.after.rank or math.inf) < after.rank for one in same_table)
    went = sum(one.before is not None and (one.before.rank or math.inf) < before.rank for one in same_table)
    return after.rank - before.rank == came - went


@dataclass(frozen=True)
class Changes:
    """What differs between two versions: files of records, and rows."""

    older: Manifest
    newer: Manifest
    added: list[str]
    changed: list[str]
    removed: list[str]
    moves: list[Move]
    made_room: int  # rows that only did so

    @property
    def file(self) -> str:
        """The name of its page."""
        return f"{self.older.name}..{self.newer.name}.html"


def changes(older: Manifest, newer: Manifest) -> Changes:
    """What changed from one version to another."""
    before, after = older.records, newer.records
    return Changes(
        older,
        newer,
        sorted(after.keys() - before.keys()),
        sorted(name for name in after.keys() & before.keys() if after[name].sha256 != before[name].sha256),
        sorted(before.keys() - after.keys()),
        *moved(older.rows, newer.rows),
    )
