"""The records of this checkout beside the committed ones: did another machine come to the same result?"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from harness.base.errors import UserError
from harness.base.git import git, unpack
from harness.records.agreement import Agreement, agreement
from harness.records.schema import Record, read_costs, read_record, record_paths
from harness.spec.suites import RECORDS

RESTORED = ("results", "reports", "dvc.lock")
Runs = Mapping[Path, Record]


def compare_with_committed() -> list[str]:
    """What a person reads after `make repro`: one sentence, and a line for each method that is worth one.

    Raises:
        UserError: no git repository, or no records in one of the two.
    """
    with tempfile.TemporaryDirectory() as folder:
        unpack("HEAD", Path(folder), str(RECORDS))
        old, there = _runs(Path(folder) / RECORDS), _processors(Path(folder) / RECORDS)
    new, here = _runs(RECORDS), _processors(RECORDS)
    for where, runs in (("HEAD", old), (str(RECORDS), new)):
        if not runs:
            raise UserError(f"{where}: no records to compare")
    found = dict(_agreements(old, new))
    lines = [_sentence(found, here, there)] if found else []
    if any(one.verdict != "same bits" for one in found.values()):
        lines.append(f"measured on {here}; the committed ones on {there}")
    lines += _worst_of_each_method(found, new)
    if others := len(set(old) & set(new)) - len(found):
        lines.append(f"{others} records have another recipe or split than the committed ones: not compared")
    if missing := len(set(old) ^ set(new)):
        lines.append(f"{missing} records are in one of the two only")
    return lines


def restore() -> None:
    """Puts the committed results, reports and dvc.lock back.

    Raises:
        UserError: git cannot do it.
    """
    there = git("ls-tree", "--name-only", "HEAD", "--", *RESTORED).decode().split()
    git("checkout", "HEAD", "--", *there)


def _runs(root: Path) -> dict[Path, Record]:
    found = ((path.relative_to(root), read_record(path)) for path in record_paths(root))
    return {path: record for path, record in found if record.status == "ok"}


def _processors(root: Path) -> str:
    names = {str(costs.get("processor", "unknown")) for path in record_paths(root) if (costs := read_costs(path))}
    return " and ".join(sorted(names)) or "unknown"


def _agreements(old: Runs, new: Runs) -> Iterator[tuple[Path, Agreement]]:
    rows = defaultdict[Path, list[Record]](list)
    for path, record in old.items():
        rows[path.parent].append(record)
    for path in sorted(set(old) & set(new)):
        before, now = old[path], new[path]
        if (before.recipe_sha256, before.split_sha256) == (now.recipe_sha256, now.split_sha256):
            yield path, agreement(before, now, rows[path.parent])


def _sentence(found: Mapping[Path, Agreement], here: str, there: str) -> str:
    verdicts = [one.verdict for one in found.values()]
    same, outside = verdicts.count("same bits"), verdicts.count("outside")
    if same == len(found):
        return f"all {same} records are the committed ones, to the last bit"
    counts = [f"{same} to the last bit"]
    for verdict, words in (("within seed spread", "within what another seed does"), ("outside", "outside of that")):
        counts += [f"{verdicts.count(verdict)} {words}"] if verdict in verdicts else []
    if unknown := verdicts.count("unknown"):
        counts.append(f"{unknown} of rows with fewer than three seeds, whose spread is not known")
    if outside > 0.1 * len(found):
        verdict = "chance does not explain that: something differs here"
    elif outside:
        verdict = "chance explains a few of these"
    elif unknown:
        verdict = "more seeds would tell whether chance explains that"
    elif here == there or "unknown" in here + there:
        verdict = "chance explains that, but on the same processor even the bits would be the same"
    else:
        verdict = "another processor rounds differently, so this is fine"
    return f"{len(found)} records beside the committed ones: {', '.join(counts)}; {verdict}"


def _worst_of_each_method(found: Mapping[Path, Agreement], new: Runs) -> list[str]:
    worst: dict[str, tuple[float, str]] = {}
    for path, one in found.items():
        if one.verdict != "same bits":
            entry, points = new[path].entry, 100 * one.difference
            line = f"{one.verdict}: {entry} seed {new[path].seed}, {one.score} {points:+.1f} points"
            rank = abs(points) + (1000 if one.verdict == "outside" else 0)
            worst[entry] = max(worst.get(entry, (-1.0, "")), (rank, line))
    return [line for _, line in sorted(worst.values(), reverse=True)]
