"""Which files of a user's own folder are images, of which part and class, and which files are passed over."""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from harness.base.errors import UserError, printable
from harness.reading.dataset import PARTS
from harness.reading.decoding import SUFFIXES

JUNK = {"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx"}  # besides what is hidden; never worth a word
NAMED = 3  # files that are named of each kind that is passed over
LAYOUT = "folder:PATH needs train/<class>/ and test/<class>/; without test/, --holdout 0.2 sets some images aside"


@dataclass
class Found:
    """The image files of a folder; names are relative to it, with "/"."""

    class_names: list[str]
    files: dict[str, list[tuple[str, int]]] = field(default_factory=dict)  # part -> (name, class), sorted
    skipped: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))  # kind -> names

    @property
    def passed_over(self) -> tuple[str, ...]:
        """A line for each kind of file that is not used."""
        return tuple(
            f"passed over: {len(names)} x {kind} ({', '.join(sorted(names)[:NAMED])}{', ...' if names[NAMED:] else ''})"
            for kind, names in sorted(self.skipped.items())
        )


def plain(name: str) -> str:
    """A file's name as text that can be shown; bytes of it that are not UTF-8 are written as escapes."""
    return printable(os.fsencode(name).decode("utf-8", "backslashreplace"))


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
        UserError: no such folder, another layout, a class without training images, or a link that leads nowhere.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; {LAYOUT}")
    if not parts_of_its_own and (root / "test").is_dir():
        raise UserError(f"{root / 'test'}: the folder has a test part of its own; leave out --holdout")
    tops = {part: part for part in PARTS if _is_part(root / part)}
    if not parts_of_its_own and not tops:
        tops = {"train": "."}
    for part in ("train", "test") if parts_of_its_own else ("train",):
        if part not in tops:
            raise UserError(f"{root / part}: no such folder; {LAYOUT}")
    found = Found([])
    if "." not in tops.values():
        for entry in _entries(root):
            if entry.name not in PARTS:
                found.skipped["beside train, val and test"].append(plain(entry.name))
    classes = _class_folders(root / tops["train"])
    for part, top in tops.items():
        _add_part(found, part, root, top, classes)
    held = {label for _, label in found.files["train"]}
    if empty := [name for label, name in enumerate(classes) if label not in held]:
        kinds = ", ".join(SUFFIXES)
        raise UserError(f"{root / tops['train']}: no image of class '{empty[0]}'; every class needs one ({kinds})")
    found.class_names = classes
    return found


def _is_part(path: Path) -> bool:
    if path.is_symlink() or path.exists():
        if not path.is_dir():
            raise UserError(f"{path}: is no folder, or a link that leads to none; {LAYOUT}")
        return True
    return False


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


def _add_part(found: Found, part: str, root: Path, top: str, classes: list[str]) -> None:
    labels = {name: label for label, name in enumerate(classes)}
    found.files[part] = []
    for entry in _entries(root / top):
        name = entry.name if top == "." else f"{top}/{entry.name}"
        if entry.is_dir():
            if (own := class_name(entry.name)) not in labels:
                raise UserError(f"{root / top / own}: a class that train/ has not")
            found.files[part] += [(image, labels[own]) for image in sorted(_images(root, name, found))]
        else:
            _check_link(entry)
            found.skipped["outside of the class folders"].append(plain(name))


def _images(root: Path, top: str, found: Found) -> Iterator[str]:
    """Names of the image files below a class's folder."""
    waiting: list[tuple[str, tuple[Path, ...]]] = [(top, ())]  # and where the links lead that were followed
    while waiting:
        folder, followed = waiting.pop()
        for entry in _entries(root / folder):
            name = f"{folder}/{entry.name}"
            _check_link(entry)
            suffix = Path(entry.name).suffix.lower()
            if entry.is_dir():
                target = Path(entry.path).resolve() if entry.is_symlink() else None
                if target and (target in followed or (root / folder).resolve().is_relative_to(target)):
                    raise UserError(f"{entry.path}: a link to a folder that it lies in; remove it")
                waiting.append((name, (*followed, target) if target else followed))
            elif entry.is_file() and suffix in SUFFIXES:
                yield name
            else:
                found.skipped[_kind(entry, suffix)].append(plain(name))


def _kind(entry: os.DirEntry[str], suffix: str) -> str:
    if not entry.is_file():
        return "no file"
    return plain(suffix) if suffix else "without a suffix"


def _check_link(entry: os.DirEntry[str]) -> None:
    path = Path(entry.path)
    if entry.is_symlink() and not path.exists():
        raise UserError(f"{path}: a link to {path.readlink()}, which is not there; mend it or remove it")
