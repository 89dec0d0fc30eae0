"""What lists, annotations and shards share: files that are parts, and rows of image and label that become classes."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from harness.base.errors import UserError
from harness.datasets._walk import Found, class_name
from harness.reading.dataset import PARTS

WORDS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test",
         "testing": "test"}  # fmt: skip
OF = re.compile(r"(.*?)(\d{1,9})-of-(\d{1,9})", re.DOTALL)  # how shards say that there are more of them
LEFT = (".", "cache-")  # what hidden files and those begin with that other libraries leave beside shards
DIGITS = 18  # of the labels that are sorted as numbers


class Row(NamedTuple):
    """An image and its label, as they stand in a file."""

    name: str | None  # of the image, relative to the data set's folder; None: it is not there
    label: str
    where: str  # for messages


def label_of(value: object) -> str | None:
    """A class's name from a label that may be of any type; None for what is neither text nor a whole number."""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return None
    return class_name(str(value).strip().encode("utf-8", "backslashreplace").decode()) or None


def is_file(path: Path) -> bool:
    """Whether there is such a file; also for what stands in a file as a name, and no system allows as one."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def classify(
    found: Found,
    rows: Mapping[str, Sequence[Row]],
    root: Path,
    order: Iterable[str] = (),
    train: str = "the training part",
) -> Found:
    """Puts the images of rows into classes, which are those of the training part.

    Args:
        found: what is filled in; keeps the faults that it has.
        rows: of each part.
        root: the data set's folder, and
        train: where the training rows stand, for messages.
        order: names of classes in label order, where the data have one. Others are sorted, as numbers if all are.
    """
    names = {row.label for row in rows["train"]}
    if len(names) < 2 and (names or not found.faults):
        found.faults.append(f"{root}: {train} has {len(names)} classes, at least 2 are needed")
    numbers = all(name.isascii() and name.isdecimal() and len(name) <= DIGITS for name in names)
    places = {name: place for place, name in enumerate(order)}
    found.class_names = sorted(
        names, key=lambda name: (places.get(name, len(places)), int(name) if numbers else 0, name)
    )
    labels = {name: label for label, name in enumerate(found.class_names)}
    known = f"a class that {train} has not"
    for part, listed in rows.items():
        found.faults += [f"{row.where}: {known}: '{row.label}'" for row in listed if labels and row.label not in labels]
        found.files[part] = [(row.name, labels[row.label]) for row in listed if row.name and row.label in labels]
    return found


def by_part(root: Path, names: Sequence[str], layout: str, *, parts_of_its_own: bool) -> dict[str, list[str]]:
    """Which files are of which part, by the last word in their paths that says so; "" has those that say nothing.

    Args:
        root: the data set's folder.
        names: of the files, relative to it.
        layout: for messages, how it should be.
        parts_of_its_own: whether it has a test part. If not, and no name says a part, all are training part.

    Raises:
        UserError: no training part, no test part, or one that should not be there.
    """
    found = defaultdict[str, list[str]](list)
    for name in sorted(names):
        found[_part_of(name)].append(name)
    if not parts_of_its_own and not found.keys() & {*PARTS}:
        found["train"] = found.pop("", [])
    if not parts_of_its_own and "test" in found:
        raise UserError(f"{root / found['test'][0]}: the data set has a test part of its own; leave out --holdout")
    for part in ("train", "test") if parts_of_its_own else ("train",):
        if not found[part]:
            there = f"there are {len(names)} files of other parts" if names else "nothing of the kind is there"
            there += "; if you report on the val part, call it test" if part == "test" and found["val"] else ""
            raise UserError(f"{root}: no files of the {part} part ({there}); {layout}")
    return {part: found[part] for part in (*PARTS, "") if found[part]}


def _part_of(name: str) -> str:
    for piece in reversed(name.lower().split("/")):
        said = {WORDS[word] for word in re.findall("[a-z]+", piece) if word in WORDS}
        if said:
            return said.pop() if len(said) == 1 else ""
    return ""


def shards(
    root: Path, found: Found, suffixes: tuple[str, ...], layout: str, *, parts_of_its_own: bool
) -> dict[str, list[str]]:
    """The shards of each part below a folder; notes in `found` which are missing and which are passed over.

    Raises:
        UserError: no such folder, or as `by_part`.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; {layout}")
    names = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.name.lower().endswith(suffixes)]
    names = [name for name in names if not any(piece.startswith(LEFT) for piece in name.split("/"))]
    parts = by_part(root, names, layout, parts_of_its_own=parts_of_its_own)
    if others := parts.pop("", []):
        found.skipped["shards of no part"] = others
    for part, files in parts.items():
        found.faults += [f"{root}: {fault}" for fault in _not_whole(part, files)]
    return parts


def _not_whole(part: str, files: Iterable[str]) -> Iterator[str]:
    """What is wrong with the numbers of shards that say how many there are."""
    sets = defaultdict[tuple[str, int], set[int]](set)
    for match in filter(None, map(OF.match, files)):
        sets[match[1], int(match[3])].add(int(match[2]))
    for (start, total), numbers in sets.items():
        if (lacking := next((n for n in range(total) if n not in numbers), total)) < total:
            yield f"{start}{lacking:05d}-of-{total:05d} is missing; there are {len(numbers)} of {total} shards"
    if len(sets) > 1:
        which = ", ".join(f"{start}*-of-{total:05d}" for start, total in sets)
        yield f"the {part} part has several sets of shards ({which}); give the folder of one of them"
