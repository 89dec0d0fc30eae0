"""Records measured elsewhere: checked against this checkout, then kept under `results/imported/<campaign>/`."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from harness.base.errors import UserError
from harness.base.files import sha256_json
from harness.records.check import VERDICT, check_record
from harness.records.evidence import evidence_path
from harness.records.runs import run_info
from harness.records.same_code import read_same_code, versions_of
from harness.records.schema import Record, costs_path, read_record, record_paths, write_record
from harness.records.sender import SENDER, read_sender
from harness.spec.entries import Entry, parse_entry
from harness.spec.recipes import migrated, resolve
from harness.spec.spread import spread_of
from harness.splits.split_names import parse_split_name
from harness.splits.splits import read_split, write_split

IMPORTED = Path("results/imported")


@dataclass
class Imported:
    """What happened to a campaign's records."""

    taken: list[Path] = field(default_factory=list)
    known: list[Path] = field(default_factory=list)  # imported before, the same record
    refused: list[str] = field(default_factory=list)  # each with its reason


def import_campaign(folder: Path, splits: Path, root: Path = IMPORTED) -> Imported:
    """Takes over the records under `<folder>/records` that were measured as this checkout would measure them.

    A record is refused when its split, its recipe or the code of its method is not this checkout's, nor code that
    measured the same (`same_code`). A split that is not here yet is taken over with the first record measured on it.

    Raises:
        UserError: no such folder, no records in it, or a `submission.yaml` that cannot be read.
    """
    paths = list(record_paths(folder / "records"))
    if not paths:
        raise UserError(f"{folder / 'records'}: no records; --import takes the folder that a campaign wrote (--out)")
    read_sender(folder)  # before anything is taken over
    found = Imported()
    for path in paths:
        try:
            record = read_record(path)
            entry = _check(record, path, folder / "splits", splits)
        except UserError as error:
            found.refused.append(str(error) if str(path.with_suffix("")) in str(error) else f"{path}: {error}")
            continue
        place = Path(record.split) / entry.path / f"seed{record.seed}.json"
        if other := next((one for one in sorted(root.glob(f"*/{place}")) if _holds(one, record)), None):
            found.known.append(other)  # also of a part of this campaign, which was imported by itself
        else:
            _take(record, path, root / folder.resolve().name / place, found)
    for name in (VERDICT, SENDER):
        if found.taken and (folder / name).is_file():
            shutil.copyfile(folder / name, root / folder.resolve().name / name)
    return found


def _check(record: Record, path: Path, their_splits: Path, our_splits: Path) -> Entry:
    entry = parse_entry(record.entry, where=str(path))
    if entry != Entry(record.method, record.variant, record.track):
        called = f"method '{record.method}', variant '{record.variant}'"
        raise UserError(f"{path}: {called}: entry {record.entry} is method '{entry.method}', variant '{entry.variant}'")
    if str(parse_split_name(record.split, where=str(path))) != record.split or record.seed < 0:
        raise UserError(f"{path}: '{record.split}', seed {record.seed}, is no name that a file could have here")
    cell = resolve(entry, record.dataset)
    spread = spread_of(record.recipe, str(path))  # as it was: that is no part of the recipe that a checkout has
    if sha256_json(record.recipe) != record.recipe_sha256:
        raise UserError(f"{path}: its recipe does not have the hash {record.recipe_sha256[:8]} that stands beside it")
    if sha256_json(migrated(record.recipe)) != sha256_json(cell.recipe.as_dict() | spread.in_recipe):
        raise UserError(f"{path}: measured with another recipe of {entry} than this checkout's")
    known = read_same_code()
    if record.code_version not in (versions := versions_of(entry.method, known)):
        raise UserError(f"{path}: measured with code version {record.code_version}, this checkout has {versions[0]}")
    ours = our_splits / f"{record.split}.json"
    split = read_split(ours if ours.is_file() else their_splits / f"{record.split}.json")
    if (split.id, split.sha256, split.class_counts) != (record.split, record.split_sha256, record.class_counts):
        raise UserError(f"{path}: measured on split {record.split_sha256}, {split.id} has {split.sha256} here")
    for version in versions_of(cell.first_stage.name, known):
        codes = {cell.first_stage.name: version, entry.method: record.code_version}
        run = run_info(cell, split, record.seed, cell.stages[-1], spread, codes, record.recipe)
        if (record.stage1_key, record.run_key) == (run.stage1_key, run.run_key):
            break
    else:
        raise UserError(f"{path}: another run key than this checkout's: its first stage was trained with other code")
    check_record(path, record, split)
    if not ours.is_file():
        write_split(split, ours)
    return entry


def _holds(path: Path, record: Record) -> bool:
    try:
        return read_record(path) == record
    except UserError:  # damaged: whoever reads the results is told
        return False


def _take(record: Record, path: Path, target: Path, found: Imported) -> None:
    there = read_record(target) if target.is_file() else None
    if there and (there.status == "ok" or record.status != "ok"):  # one that failed, then went well, may be replaced
        found.refused.append(f"{path}: {target} holds another measurement of this run; remove it to take this one")
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    for beside in (costs_path, evidence_path):
        beside(target).unlink(missing_ok=True)  # of a run that failed
        if beside(path).is_file():
            shutil.copyfile(beside(path), beside(target))
    write_record(target, record)  # last: it says that the others are there
    found.taken.append(target)
