"""docs/recipes.md lists every key, from the code."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import pytest

from harness.plugins import recipe_docs
from harness.spec.stage_recipe import LAYER_KEYS, Augment
from harness.toolbox.schedules import SCHEDULES, Steps


def test_the_page_is_up_to_date() -> None:
    found = recipe_docs.FILE.read_text(encoding="utf-8")
    assert found == recipe_docs.text(), "docs/recipes.md is stale; run: python -m harness.plugins.recipe_docs"


def test_every_key_has_a_row_with_a_meaning() -> None:
    keys = {*LAYER_KEYS, *SCHEDULES} | {field.name for cls in (Augment, Steps) for field in dataclasses.fields(cls)}
    rows = [line.strip("| ").split(" | ") for line in recipe_docs.text().splitlines() if line.startswith("| `")]
    assert sorted(row[0].strip("`") for row in rows) == sorted(keys)
    assert all(len(row[-1]) > 10 and "|" not in row[-1] for row in rows)


def test_meanings_are_those_of_the_docstring() -> None:
    @dataclass
    class Two:
        """Two keys.

        Attributes:
            one: over
                two lines: joined.
            two: short.
        """

        one: int
        two: bool = True

    assert recipe_docs.meanings(Two) == {"one": "over two lines: joined.", "two": "short."}
    assert list(recipe_docs._rows(Two)) == [
        ("one", "whole number", "required", "over two lines: joined."),
        ("two", "true, false", "`true`", "short."),
    ]


def test_a_field_without_a_meaning_is_refused() -> None:
    @dataclass
    class Bare:
        """Nothing said."""

        one: int = 1

    with pytest.raises(ValueError, match="one"):
        list(recipe_docs._rows(Bare))
