"""Two recipes key by key, each value with the place where it stands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from harness.spec.entries import Entry
from harness.spec.recipe_layers import Layers
from harness.spec.recipes import Cell, resolve_with_layers

DEFAULT = "default"  # of a key that no layer sets
SECTIONS = ("params", "train", "finetune")  # in this order, after what stands in none


@dataclass(frozen=True)
class Value:
    """Of a key in one recipe, and the file and section that set it."""

    value: Any
    source: str


@dataclass(frozen=True)
class Difference:
    """A key that two recipes have different values of; None where a recipe has no such key."""

    key: str
    values: tuple[Value | None, Value | None]

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "key": self.key,
            "values": [one and one.value for one in self.values],
            "sources": [one and one.source for one in self.values],
        }


def values(entry: Entry, dataset: str) -> dict[str, Value]:
    """Every key of the entry's recipe for a data set, dots between levels, those of the first stage after `train.`.

    Raises:
        UserError: as `resolve`.
    """
    cell, layers = resolve_with_layers(entry, dataset)
    found = {key: Value(value, _source(key, layers)) for key, value in _flat(cell.recipe.as_dict())}
    return {**_methods(cell), **found}


def differences(one: Mapping[str, Value], other: Mapping[str, Value]) -> list[Difference]:
    """The keys whose values differ, or that only one recipe has; not the defaults of a stage that one has not."""
    keys = sorted({**one, **other}, key=lambda key: SECTIONS.index(key.split(".")[0]) if "." in key else -1)
    pairs = [Difference(key, (one.get(key), other.get(key))) for key in keys]
    return [pair for pair in pairs if len({repr(v and v.value) for v in pair.values}) > 1 and not _implied(pair)]


def _implied(pair: Difference) -> bool:
    there = [value for value in pair.values if value]
    return len(there) == 1 and there[0].source == DEFAULT and pair.key.startswith("finetune.")


def describe(split: str, entries: tuple[Entry, Entry], found: list[Difference]) -> list[str]:
    """The lines that a person reads."""
    names = [str(entry) for entry in entries]
    if not found:
        return [f"{split}: {' and '.join(names)} have the same recipe"]
    width = max(map(len, names))
    lines = [f"{split}: {names[0]} and {names[1]} differ in {len(found)} {'key' if len(found) == 1 else 'keys'}"]
    for difference in found:
        lines.append(difference.key)
        for name, one in zip(names, difference.values, strict=True):
            lines.append(f"  {name:<{width}}  {_text(one.value)}  ({one.source})" if one else f"  {name:<{width}}  -")
    return lines


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value) or "none"


def _methods(cell: Cell) -> dict[str, Value]:
    """What is no key of a recipe: whose code runs in which stage."""
    owner, first = f"methods/{cell.method.name}", f"methods/{cell.first_stage.name}"
    named = {"method": Value(cell.method.name, owner), "first_stage": Value(cell.first_stage.name, first)}
    return named | {"stages": Value(list(cell.stages), owner)}


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            yield from _flat(item, f"{prefix}{key}.")
        elif item not in (None, {}):
            yield f"{prefix}{key}", item


def _source(key: str, layers: Layers) -> str:
    """The last layer that sets a key; a key of the second stage may stand in its own section or follow the first's."""
    section, _, rest = key.partition(".")
    for path in {"train": [rest], "finetune": [key, rest]}.get(section, [key]):
        for where, layer in reversed(layers):
            if _sets(layer, path.split(".")):
                return where
    return DEFAULT


def _sets(layer: Mapping[str, Any], path: list[str]) -> bool:
    head, *rest = path
    if head not in layer:
        return False
    return not rest or not isinstance(layer[head], Mapping) or _sets(layer[head], rest)
