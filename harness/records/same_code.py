"""Code versions that measured the same: an edit of the engine that changes no number leaves a trace of that.

Any edit of the engine gives all methods a new code version, and results that took days would stand there as measured
with older code. `ltbench same-code REV` compares the default suite's records as they were at a commit with those of
today, method by method; only what this checkout's code measured counts as today's. Where every number of every record
is the same, the pair of versions is written down, and the report says so beside results of the old one. It is evidence
from one suite, no proof, and is called that.
"""

from __future__ import annotations

import io
import subprocess
import tarfile
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from harness.errors import UserError
from harness.files import read_json, write_bytes, write_json
from harness.provenance import code_version
from harness.records.schema import Record, costs_path, read_record, record_paths
from harness.registry import available_methods, get_plugin

SAME_CODE = Path("results/same_code.json")
RECORDS = Path("results/records")


@dataclass
class Compared:
    """Methods, by what became of their numbers."""

    same: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)  # other numbers, but of another processor, or not known of which
    not_measured_again: list[str] = field(default_factory=list)  # all or some runs, with this checkout's code


class Measured(NamedTuple):
    """A record, and the processor that its costs name."""

    record: Record
    processor: str | None


Pairs = list[tuple[Measured, Measured | None]]  # then and now


def note_same_code(revision: str, path: Path = SAME_CODE) -> Compared:
    """Compares today's records with those of a commit, and writes down which methods measured the same.

    Raises:
        UserError: no such commit, or no records in it.
    """
    then = {name: found for name, found in _at(revision).items() if found.record.status == "ok"}
    now = _measured(Path())
    by_method: dict[str, Pairs] = defaultdict(list)
    for name, old in then.items():
        by_method[old.record.method].append((old, now.get(name)))
    known, found, current = read_same_code(path), Compared(), current_versions()
    for method, pairs in sorted(by_method.items()):
        if not all(new and new.record.code_version == current.get(method) for _, new in pairs):
            found.not_measured_again.append(method)
        elif not _is_same(pairs):
            on_one = all(new and old.processor and old.processor == new.processor for old, new in pairs)
            (found.other if on_one else found.elsewhere).append(method)
        else:
            found.same.append(method)
            known |= _known(method, pairs, current)
    write_json(path, dict(sorted(known.items())))
    return found


def current_versions() -> dict[str, str]:
    """This checkout's code version of each method."""
    return {name: code_version(get_plugin(name).folder) for name in available_methods()}


def _is_same(pairs: Pairs) -> bool:
    one_version = len({old.record.code_version for old, _ in pairs}) == 1
    return one_version and all(new and _numbers(old.record) == _numbers(new.record) for old, new in pairs)


def _known(method: str, pairs: Pairs, current: Mapping[str, str]) -> dict[str, dict[str, str]]:
    old, now = pairs[0][0].record.code_version, current[method]
    return {} if old == now else {old: {"method": method, "now": now, "on": _suite(one.record for one, _ in pairs)}}


def read_same_code(path: Path = SAME_CODE) -> dict[str, dict[str, str]]:
    """Old code version -> the one that measured the same, and on what; empty where nothing was written down.

    Raises:
        UserError: damaged.
    """
    if not path.is_file():
        return {}
    value = read_json(path, "code versions")
    fits = isinstance(value, dict) and all(
        isinstance(entry, dict)
        and set(entry) == {"method", "now", "on"}
        and all(isinstance(v, str) for v in entry.values())
        for entry in value.values()
    )
    if not fits:
        raise UserError(f"{path}: damaged; delete it, and compare again with `ltbench same-code REV`")
    return dict(value)


def measured_the_same(version: str, current: str, known: dict[str, dict[str, str]]) -> str | None:
    """On what the version measured the same as the current one, in any number of steps; None where not known."""
    suites: dict[str, None] = {}
    seen = set()
    while version != current:
        if version not in known or version in seen:
            return None
        seen.add(version)
        suites[known[version]["on"]] = None
        version = known[version]["now"]
    return ", ".join(suites)


def versions_of(method: str, known: dict[str, dict[str, str]]) -> list[str]:
    """This checkout's code version of a method, then the older ones that measured the same."""
    current = code_version(get_plugin(method).folder)
    older = [version for version, to in known.items() if to["method"] == method]
    return [current, *(version for version in older if measured_the_same(version, current, known) is not None)]


def _numbers(record: Record) -> dict[str, Any]:
    """What must be equal: everything that is no name of code."""
    return {
        name: value for name, value in vars(record).items() if name not in ("code_version", "run_key", "stage1_key")
    }


def _suite(records: Iterable[Record]) -> str:
    return ", ".join(sorted({f"{record.split} ({record.track})" for record in records}))


def _measured(root: Path) -> dict[str, Measured]:
    """The records under `root`, by path."""
    paths = record_paths(root / RECORDS)
    return {path.relative_to(root).as_posix(): Measured(read_record(path), _processor(path)) for path in paths}


def _processor(record: Path) -> str | None:
    try:
        costs = read_json(costs_path(record), "cost file")
    except UserError:
        return None
    return costs.get("processor") if isinstance(costs, dict) else None


def _at(revision: str) -> dict[str, Measured]:
    """The records of a commit, by path."""
    commit = _git("rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}").decode().strip()
    archive = _git("archive", "--format=tar", commit, "--", RECORDS.as_posix())
    with tempfile.TemporaryDirectory() as name, tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        folder = Path(name)
        for member in tar:  # not extractall: its filter came with Python 3.11.4
            if (content := tar.extractfile(member)) is not None:
                write_bytes(folder / member.name, content.read())
        return _measured(folder)


def _git(*arguments: str) -> bytes:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, check=False)  # noqa: S603, S607
    except FileNotFoundError:
        raise UserError("git is not installed") from None
    if done.returncode:
        raise UserError(f"git {' '.join(arguments)}: {' '.join(done.stderr.decode(errors='replace').split())}")
    return done.stdout
