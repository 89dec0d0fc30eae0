"""What a maintainer runs on records that somebody sends: recompute every score, and measure some runs again."""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from harness.base.errors import RunFailed, UserError
from harness.base.files import read_json, stamped, write_json
from harness.records.agreement import agreement
from harness.records.check import VERDICT, Tier, check_record, repeated
from harness.records.collect import find_split
from harness.records.schema import Record, read_costs, read_record, record_paths
from harness.records.sender import read_sender
from harness.running import cells
from harness.spec.provenance import processor
from harness.spec.suites import SPLITS
from harness.splits.splits import Split

SCHEMA = 1
FAILED = "measured again, its run failed"  # how a remark begins


@dataclass
class Checked:
    """What is known of one record."""

    record: str  # path under the folder
    sha256: str  # of its content, so that a verdict holds for these numbers alone
    tier: Tier
    remark: str = ""


@dataclass
class Validation:
    """The verdict on a folder of records, as it stands in `validation.json` there."""

    schema: int = SCHEMA
    processor: str = ""
    records: list[Checked] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)  # each with its reason
    named: list[str] = field(default_factory=list)  # what a person should look at

    @property
    def tier(self) -> Literal["refused"] | Tier:
        """The whole folder's: re-run only if some runs were measured again, and none of them disagreed or failed."""
        if self.refused or not self.records:
            return "refused"
        some = any(one.tier == "re-run" for one in self.records)
        return "re-run" if some and not any(one.remark.startswith(FAILED) for one in self.records) else "recomputed"


def validate(folder: Path, rerun: int, device: str, scratch: Path) -> Validation:
    """Checks a submission, writes `validation.json` into its folder, and returns it.

    Args:
        rerun: how many of its runs to measure again here, drawn at random; the same ones as long as no record changes.
        scratch: for these runs.

    Raises:
        UserError: there are no records in the folder.
    """
    root = folder / "records" if (folder / "records").is_dir() else folder
    paths = list(record_paths(root))
    if not paths:
        raise UserError(f"{root}: no records; validate takes a folder that a campaign wrote, or one of records")
    found, sound = Validation(processor=processor()), dict[Path, Record]()
    for path in paths:
        try:
            record = read_record(path)
            check_record(path, record, _split(record, path))
        except UserError as error:
            found.refused.append(str(error))
            continue
        sound[path] = record
        stamp = read_json(path, "record")["sha256"]
        remark = "" if record.status == "ok" else f"its run {record.status}"
        found.records.append(Checked(str(path.relative_to(folder)), stamp, "recomputed", remark))
    try:
        read_sender(folder)
    except UserError as error:
        found.refused.append(str(error))
    found.named = repeated(sound.items())
    _measure_again(sound, found, folder, rerun, device, scratch)
    said = _said_to_be_measured_again(folder)
    for one in found.records:
        if one.tier != "re-run" and one.sha256 in said:
            found.named.append(f"{folder / VERDICT}: said that {one.record} was re-run; this verdict replaces it")
    write_json(folder / VERDICT, stamped(asdict(found)))
    return found


def _said_to_be_measured_again(folder: Path) -> set[str]:
    """Hashes of the records that a verdict which came along, or an earlier one, calls re-run."""
    try:
        return {one["sha256"] for one in read_json(folder / VERDICT, "verdict")["records"] if one["tier"] == "re-run"}
    except (UserError, KeyError, TypeError):
        return set()


def _split(record: Record, path: Path) -> Split:
    """This checkout's, or the one that came along."""
    if split := find_split(record, path):
        return split
    raise UserError(
        f"{path}: its split {record.split_sha256[:8]} is neither in {SPLITS} nor beside the records; "
        f"to make it: ltbench split {record.split}"
    )


def _measure_again(
    sound: dict[Path, Record], found: Validation, folder: Path, rerun: int, device: str, scratch: Path
) -> None:
    rows = defaultdict[tuple[str, str], list[Record]](list)
    finished = {path: record for path, record in sound.items() if record.status == "ok"}
    for record in finished.values():
        rows[record.split, record.entry].append(record)
    entries = {one.record: one for one in found.records}
    stamps = {entries[str(path.relative_to(folder))].sha256: path for path in finished}
    for path in _drawn(stamps, rerun, scratch):
        record, one = finished[path], entries[str(path.relative_to(folder))]
        try:
            again = read_record(cells.measure_again(path, scratch / one.sha256[:16], device))
        except RunFailed as error:
            one.remark = f"{FAILED}: {error}"
            found.named.append(f"{path}: {one.remark}")
            continue
        except UserError as error:
            one.remark = f"could not be measured again: {error}"
            continue
        verdict = agreement(record, again, rows[record.split, record.entry])
        there = read_costs(path).get("processor")
        remark = str(verdict.verdict)
        if remark != "same bits":
            remark += f": {verdict.score} {100 * verdict.difference:+.2f} points; processor there {there}"
            if verdict.verdict == "unknown":
                one.remark = f"measured again, {remark}; too few seeds to tell their spread"
                continue
            if there == found.processor:
                found.named.append(f"{path}: measured again on the same processor, it has other bits")
        if verdict.verdict == "outside":
            found.refused.append(f"{path}: measured again, it is {remark}")
        else:
            one.tier, one.remark = "re-run", remark


def _drawn(paths: Mapping[str, Path], rerun: int, scratch: Path) -> Iterator[Path]:
    """At random, so that nobody knows beforehand which.

    The same records (`paths` by the hash of their content) keep their order, so that a stopped command goes on, and one
    that is called again says the same. Whoever sends other ones has them drawn anew.
    """
    if not rerun:
        return
    file = scratch / "drawn.json"
    order = read_json(file, "order of runs") if file.is_file() else []
    if not isinstance(order, list) or set(map(str, order)) != set(paths):
        order = secrets.SystemRandom().sample(sorted(paths), len(paths))
        write_json(file, order)
    yield from (paths[sha256] for sha256 in order[:rerun])
