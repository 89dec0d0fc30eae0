"""Files that a report reads: YAML with one list (claims, tables, studies), and files that may be damaged."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from harness.base import config
from harness.base.errors import UserError
from harness.base.files import read_yaml

T = TypeVar("T")


@dataclass(frozen=True)
class Named:
    """An entry that its file, the page and links call by its `id`."""

    id: str
    title: str

    def __post_init__(self) -> None:
        if not re.fullmatch("[a-z0-9-]+", self.id):
            raise ValueError(f"id must be of small letters, digits and '-', found '{self.id}'")


N = TypeVar("N", bound=Named)


def read_list(cls: type[T], path: Path, key: str) -> list[T]:
    """The entries under the one key of a file, each an instance of the dataclass `cls`.

    Raises:
        UserError: a damaged file, another key, an unknown key in an entry, a wrong type or value.
    """
    values = read_yaml(path)
    entries = values.get(key)
    if set(values) != {key} or not isinstance(entries, list):
        found = ", ".join(map(str, values)) or "nothing"
        raise UserError(f"{path}: expected one key '{key}' with a list, found {found}")
    return [config.build(cls, entry, f"{path}: {key}[{index}]") for index, entry in enumerate(entries)]


def read_lists(cls: type[N], key: str, shipped: Iterable[Path], folders: Mapping[str, Path]) -> list[N]:
    """The entries of the shipped files, then those of the method folders' `<key>.yaml`, where there is one.

    Raises:
        UserError: as `read_list`, or an `id` that is there twice.
    """
    found: dict[str, N] = {}
    own = (folder / f"{key}.yaml" for _, folder in sorted(folders.items()))
    for path in filter(Path.exists, [*shipped, *own]):
        for entry in read_list(cls, path, key):
            if found.setdefault(entry.id, entry) is not entry:
                raise UserError(f"{path}: another of the {key} has the id '{entry.id}'")
    return list(found.values())


def readable(paths: Iterable[Path], read: Callable[[Path], T]) -> tuple[list[T], list[tuple[Path, str]]]:
    """What the files hold, and the files that are left out, each with the reason."""
    found: list[T] = []
    left_out = []
    for path in paths:
        try:
            found.append(read(path))
        except UserError as error:
            left_out.append((path, str(error)))
    return found, left_out
