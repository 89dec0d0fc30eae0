"""The tables of docs/recipes.md, made from the code: `python -m harness.plugins.recipe_docs`.

What stands before the first of them is written by hand. A key's meaning stands in the `Attributes` of its dataclass's
docstring, its type and default in the field.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing
from collections.abc import Iterator
from typing import Any, Literal

from harness.base.files import PACKAGE, shown, write_text
from harness.spec.stage_recipe import Augment, Layer, StageRecipe
from harness.toolbox.schedules import SCHEDULES, Steps

FILE = PACKAGE.parent / "docs" / "recipes.md"
TABLES = {  # heading and what it says first, by class
    Layer: ("The whole recipe", "Not within `finetune`."),
    StageRecipe: ("A stage", "At the top for the first stage, within `finetune` for the second."),
    Augment: ("Augmentation", "Within `augment`."),
    Steps: ("Milestones", "Within `schedule`, for example `schedule: {milestones: [0.8, 0.9], factors: [0.1, 0.01]}`."),
}
TYPES: dict[Any, str] = {
    int: "whole number",
    float: "number",
    bool: "true, false",
    str: "text",
    str | Steps: "name, or keys below",
    Augment: "keys below",
    Augment | None: "keys below, or none",
    dict[str, Any]: "keys and values",
    tuple[float, ...]: "list of numbers",
}


def meanings(cls: type) -> dict[str, str]:
    """The `Attributes` of a class's docstring, each on one line."""
    section = inspect.cleandoc(cls.__doc__ or "").partition("Attributes:\n")[2]
    items = re.split(r"^ {4}(\w+): ", section, flags=re.MULTILINE)[1:]
    return {key: " ".join(text.split()) for key, text in zip(items[::2], items[1::2], strict=True)}


def text() -> str:
    """The file's content, with its tables as the code has them."""
    by_hand = FILE.read_text(encoding="utf-8").partition(f"## {TABLES[Layer][0]}")[0]
    parts = [by_hand.rstrip() + "\n"]
    for cls, (title, where) in TABLES.items():
        lines = [f"| `{key}` | {kind} | {default} | {meaning} |" for key, kind, default, meaning in _rows(cls)]
        table = ["| Key | Type | Default | Meaning |", "| --- | --- | --- | --- |", *lines]
        parts.append("\n".join([f"## {title}", "", where, "", *table, ""]))
    named = [f"| `{name}` | {' '.join((rule.__doc__ or '').split())} |" for name, rule in SCHEDULES.items()]
    table = ["| Name | Learning rate |", "| --- | --- |", *named]
    parts.insert(-1, "\n".join(["## Schedules", "", "Names for `schedule`.", "", *table, ""]))
    return "\n".join(parts)


def _rows(cls: type) -> Iterator[tuple[str, str, str, str]]:
    """Key, type, default and meaning of the keys that a class adds to its base.

    Raises:
        ValueError: a field whose meaning is missing.
    """
    hints, inherited = typing.get_type_hints(cls), typing.get_type_hints(cls.__base__)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.name not in inherited}
    for name, meaning in meanings(cls).items():
        if name in fields:
            yield name, _kind(hints[name]), _default(fields.pop(name)), meaning
        else:  # `base`, which no dataclass has
            yield name, TYPES[str], "none", meaning
    if fields:
        raise ValueError(f"{cls.__name__}: no meaning in its docstring's Attributes: {', '.join(fields)}")


def _kind(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return ", ".join(f"`{choice}`" for choice in typing.get_args(hint))
    return TYPES[hint]


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default_factory is not dataclasses.MISSING or field.default == "":
        return "empty"
    if field.default is dataclasses.MISSING:
        return "required"
    return f"`{field.default}`".lower() if isinstance(field.default, bool) else f"`{field.default}`"


if __name__ == "__main__":
    write_text(FILE, text())
    print(f"{shown(FILE)}: written")
