"""Annotations as COCO, iNaturalist and iWildCam have them: JSON with `images`, `annotations` and `categories`.

One file for each part, in the folder itself or in its `annotations`; its name says the part: `train.json`,
`train2018.json`, `instances_train2017.json`. Images lie below the folder, below its `images`, or below the folder
that is called like the file's last word (`train2017`). A class is a category's name. An image may have several
annotations if they agree, as boxes do; images without any are passed over, and named.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from harness.base.errors import UserError
from harness.base.files import read_json
from harness.datasets._rows import LEFT, Row, by_part, classify, is_file, label_of
from harness.datasets._walk import Found, plain

NEEDED = ("images", "annotations", "categories")
LAYOUT = "coco:DIR needs train.json and test.json with images, annotations and categories, beside the images"


def read_coco(root: Path, *, parts_of_its_own: bool) -> Found:
    """The images that annotations give a class.

    Args:
        root: the folder.
        parts_of_its_own: whether there are annotations of a test part.

    Raises:
        UserError: no such folder, no annotations of a part or several, or a file that holds none. Faults of single
            entries are noted: no such image, a category that is not there, an image in two categories.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; {LAYOUT}")
    paths = [path for top in (".", "annotations") for path in (root / top).glob("*.json")]
    names = [path.relative_to(root).as_posix() for path in paths if not path.name.startswith(LEFT)]
    parts = by_part(root, names, LAYOUT, parts_of_its_own=parts_of_its_own)
    found, rows, order = Found([]), {}, list[str]()
    if others := parts.pop("", []):
        found.skipped["annotations of no part"] = others
    for part, files in parts.items():
        if len(files) > 1:
            raise UserError(f"{root}: several files of the {part} part: {', '.join(files)}; leave one there")
        path = root / files[0]
        content = _content(path)
        classes = dict(_categories(path, content["categories"], found))
        order = order or list(classes.values())
        images = dict(_files(path, root, content["images"], found))
        rows[part] = list(_rows(path, content["annotations"], images, classes, found))
    return classify(found, rows, root, order, parts["train"][0])


def _content(path: Path) -> dict[str, list[Any]]:
    content = read_json(path, "file of annotations")
    for key in NEEDED:
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise UserError(f"{path}: has no list '{key}'; annotations have {', '.join(NEEDED)}")
    return dict(content)


def _entries(path: Path, what: str, entries: list[Any], found: Found, *keys: str) -> Iterator[tuple[str, list[Any]]]:
    """Where each entry stands, and its values; one that lacks any is a fault."""
    for number, entry in enumerate(entries):
        where = f"{path}, {what}[{number}]"
        values = [entry.get(key) if isinstance(entry, dict) else None for key in keys]
        lacking = [key for key, value in zip(keys, values, strict=True) if label_of(value) is None]
        if lacking:
            found.faults.append(f"{where}: '{lacking[0]}' is neither text nor a whole number")
        else:
            yield where, values


def _categories(path: Path, entries: list[Any], found: Found) -> Iterator[tuple[Any, str]]:
    """Id and name of each category."""
    ids, names = dict[Any, str](), dict[str, str]()
    for where, (number, written) in _entries(path, "categories", entries, found, "id", "name"):
        name = label_of(written) or ""
        for twice in (ids.setdefault(number, where), names.setdefault(name, where)):
            if twice != where:
                found.faults.append(f"{where}: id {number!r} or name '{name}' stands twice, also in {twice}")
        yield number, name


def _files(path: Path, root: Path, entries: list[Any], found: Found) -> Iterator[tuple[Any, str | None]]:
    """Id of each image and the name of its file, None for one that is not there."""
    word = path.stem.rpartition("_")[2]
    seen = dict[Any, str]()
    for where, (number, written) in _entries(path, "images", entries, found, "id", "file_name"):
        path_of_it = PurePosixPath(str(written))
        out = path_of_it.is_absolute() or ".." in path_of_it.parts
        tops = () if out else ("", "images/", f"{word}/", f"images/{word}/")
        name = next((f"{top}{written}" for top in tops if is_file(root / f"{top}{written}")), None)
        if name is None:
            fault = "leads out of the folder" if out else "no such file"
            found.faults.append(f"{where}: {fault}: '{written}' (names are relative to {root})")
        for key in ((number, "id"), (name, "file")) if name else ((number, "id"),):
            if (twice := seen.setdefault(key, where)) != where:
                found.faults.append(f"{where}: id {number!r} or file '{written}' stands twice, also in {twice}")
        yield number, name


def _rows(
    path: Path, entries: list[Any], files: Mapping[Any, str | None], classes: Mapping[Any, str], found: Found
) -> Iterator[Row]:
    """A row for each image that has a class."""
    seen = dict[Any, tuple[Any, str]]()
    for where, (image, category) in _entries(path, "annotations", entries, found, "image_id", "category_id"):
        if image not in files:
            found.faults.append(f"{where}: image_id {image!r} is not among the images")
        elif category not in classes:
            found.faults.append(f"{where}: category_id {category!r} is not among the categories")
        elif image not in seen:
            seen[image] = (category, where)
            yield Row(files[image], classes[category], where)
        elif seen[image][0] != category:
            other, first = seen[image]
            both = f"'{classes[category]}' here and '{classes[other]}' in {first.rpartition(', ')[2]}"
            found.faults.append(f"{where}: image_id {image!r} is {both}")
    if without := [plain(name) for image, name in files.items() if name and image not in seen]:
        found.skipped["without an annotation"] += without
    if not seen:
        found.faults.append(f"{path}: gives no image a class")
