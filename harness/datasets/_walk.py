"""Which files of a user's own folder are images, of which part and class, and which files are passed over."""

from __future__ import annotations

import contextlib
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from harness.base.errors import UserError, printable
from harness.reading.dataset import PARTS
from harness.reading.decoding import FORMATS, SUFFIXES
from harness.reading.pieces import Piece, Place

JUNK = {"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx"}  # besides what is hidden; never worth a word
NAMED = 3  # files that are named of each kind that is passed over
PART = re.compile("(train|val|test)(ing|id|idation)?[ _-]?(set|data)?", re.IGNORECASE)  # what people call a part
LAYOUT = "folder:PATH needs train/<class>/ and test/<class>/; without test/, --holdout 0.2 sets some images aside"


class FaultsError(UserError):
    """A user's folder or lists with faults: the message has the first one, `faults` all of them."""

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = [*map(plain, faults)]
        super().__init__(
            self.faults[0] + (f" (and {len(faults) - 1} more faults: ltbench doctor)" if faults[1:] else "")
        )

    def __reduce__(self) -> tuple[type[FaultsError], tuple[list[str]]]:
        """From one process to another: all faults, not the message."""
        return FaultsError, (self.faults,)


@dataclass
class Found:
    """The image files of a folder; names are relative to it, with "/"."""

    class_names: list[str]
    files: dict[str, list[tuple[str, int]]] = field(default_factory=dict)  # part -> (name, class), sorted
    skipped: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))  # kind -> names
    faults: list[str] = field(default_factory=list)  # a line each; with one of them the folder is not used
    pieces: dict[str, Piece] = field(default_factory=dict)  # the images that lie inside larger files, by name

    def place(self, root: Path, name: str) -> Place:
        """Where an image file lies."""
        return self.pieces.get(name) or str(root / name)

    @property
    def passed_over(self) -> tuple[str, ...]:
        """A line for each kind of file that is not used."""
        return tuple(f"passed over: {line}" for line in kinds(self.skipped))


def kinds(names: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """A line for each kind of file: how many there are, and the first ones by name."""
    for kind, some in sorted(names.items()):
        yield f"{len(some)} x {kind} ({first(sorted(map(plain, some)), NAMED)})"


def first(names: Sequence[str], count: int) -> str:
    """The first ones of some names, as text."""
    return ", ".join([*names[:count], *(["..."] if names[count:] else [])])


def file_facts(path: Path | str) -> list[int]:
    """What changes when a file does: bytes, times of the last change of content and of anything, place on the disk."""
    found = Path(path).stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def plain(name: str) -> str:
    """A name, or a text with names, as it can be shown; bytes that are not UTF-8 are written as escapes."""
    with contextlib.suppress(UnicodeEncodeError):  # no system would have given it: it stands in a file
        name = os.fsencode(name).decode("utf-8", "backslashreplace")
    return printable(name)


def class_name(name: str) -> str:
    """A class's name: the same one however a system writes its accents."""
    return unicodedata.normalize("NFC", plain(name))


def walk(root: Path, *, parts_of_its_own: bool) -> Found:
    """The images below `<part>/<class>/`, in subfolders too; links are followed.

    Args:
        root: the folder.
        parts_of_its_own: whether it has a test part. If not, everything is training part, also where the classes lie
            in the folder itself.

    Raises:
        UserError: no such folder, or another layout. Other faults are noted: a class without training images, a link
            that leads nowhere, ...
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; {LAYOUT}")
    check_parts(root, [entry.name for entry in _entries(root) if entry.is_dir()], or_classes=not parts_of_its_own)
    if not parts_of_its_own and (root / "test").is_dir():
        raise UserError(f"{root / 'test'}: the folder has a test part of its own; leave out --holdout")
    tops = {part: part for part in PARTS if _is_part(root / part)}
    if not parts_of_its_own and not tops:
        tops = {"train": "."}
    for part in ("train", "test") if parts_of_its_own else ("train",):
        if part not in tops:
            raise UserError(f"{root / part}: no such folder; {LAYOUT}")
    found = Found(_class_folders(root / tops["train"]))
    if "." not in tops.values():
        for entry in _entries(root):
            if entry.name not in PARTS:
                found.skipped["beside train, val and test"].append(plain(entry.name))
    for part, top in tops.items():
        _add_part(found, part, root, top)
    held = {label for _, label in found.files["train"]}
    for label, name in enumerate(found.class_names):
        if label not in held:
            needed = f"every class needs one ({', '.join(FORMATS)})"
            found.faults.append(f"{root / tops['train']}: no image of class '{name}'; {needed}")
    return found


def check_parts(root: Path, names: Iterable[str], *, or_classes: bool = False) -> None:
    """Refuses what is called nearly like a part: nobody would be told that it is taken for something else.

    Args:
        root: for the message.
        names: of folders, or of lists without their suffix.
        or_classes: whether they may be classes; then a single one is.

    Raises:
        UserError: one line with the right names.
    """
    called = {name: match[1].lower() for name in names if (match := PART.fullmatch(name))}
    wrong = [f"'{name}' to '{part}'" for name, part in called.items() if name != part]
    if wrong and (len(called) > 1 or not or_classes):
        raise UserError(f"{root}: parts are called train, val and test; rename {', '.join(wrong)}, or else remove it")


def _is_part(path: Path) -> bool:
    if os.path.lexists(path) and not path.is_dir():
        raise UserError(f"{path}: is no folder, or a link that leads to none; {LAYOUT}")
    return path.is_dir()


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What lies in a folder, sorted, without junk."""
    with os.scandir(folder) as entries:
        kept = (entry for entry in entries if not _is_junk(entry.name) and not _is_ours(Path(entry.path)))
        return sorted(kept, key=lambda entry: entry.name)


def _is_junk(name: str) -> bool:
    return name.startswith(".") or name.lower() in JUNK


def _is_ours(path: Path) -> bool:
    """A data root or a folder of runs, which a command leaves that is called in the folder of images itself."""
    return (path / ".folders").is_dir() or ((path / "records").is_dir() and (path / "splits").is_dir())


def _class_folders(folder: Path) -> list[str]:
    names = sorted(class_name(entry.name) for entry in _entries(folder) if entry.is_dir())
    if len(names) < 2:
        raise UserError(f"{folder}: has {len(names)} class folders, at least 2 are needed; {LAYOUT}")
    if twice := [name for name, next_one in pairwise(names) if name == next_one]:
        raise UserError(f"{folder}: two class folders are called '{twice[0]}' in different encodings; rename one")
    return names


def _add_part(found: Found, part: str, root: Path, top: str) -> None:
    labels = {name: label for label, name in enumerate(found.class_names)}
    found.files[part] = []
    for entry in _entries(root / top):
        name = entry.name if top == "." else f"{top}/{entry.name}"
        if _leads_nowhere(entry, found):
            continue
        if not entry.is_dir():
            found.skipped["outside of the class folders"].append(plain(name))
        elif (own := class_name(entry.name)) not in labels:
            found.faults.append(f"{root / top / own}: a class that train/ has not")
        else:
            found.files[part] += [(image, labels[own]) for image in sorted(_images(root, name, found))]


def _images(root: Path, top: str, found: Found) -> Iterator[str]:
    """Names of the image files below a class's folder."""
    waiting: list[tuple[str, tuple[Path, ...]]] = [(top, ())]  # and where the links lead that were followed
    while waiting:
        folder, followed = waiting.pop()
        for entry in _entries(root / folder):
            name = f"{folder}/{entry.name}"
            if _leads_nowhere(entry, found):
                continue
            suffix = Path(entry.name).suffix.lower()
            if entry.is_dir():
                target = Path(entry.path).resolve() if entry.is_symlink() else None
                if target and (target in followed or (root / folder).resolve().is_relative_to(target)):
                    found.faults.append(f"{entry.path}: a link to a folder that it lies in; remove it")
                else:
                    waiting.append((name, (*followed, target) if target else followed))
            elif entry.is_file() and suffix in SUFFIXES:
                yield name
            else:
                found.skipped[_kind(entry, suffix)].append(plain(name))


def _kind(entry: os.DirEntry[str], suffix: str) -> str:
    if not entry.is_file():
        return "no file"
    return plain(suffix) if suffix else "without a suffix"


def _leads_nowhere(entry: os.DirEntry[str], found: Found) -> bool:
    path = Path(entry.path)
    if nowhere := entry.is_symlink() and not path.exists():
        found.faults.append(f"{path}: a link to {path.readlink()}, which is not there; mend it or remove it")
    return nowhere
