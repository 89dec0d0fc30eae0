"""`ltbench diff`: two recipes key by key, with the places where the values stand."""

from __future__ import annotations

from typing import Any

import pytest

from harness.base.files import PACKAGE, read_yaml
from harness.spec.differences import DEFAULT, describe, differences, values
from harness.spec.entries import parse_entry
from harness.spec.recipes import overrides_between, resolve
from harness.spec.registry import get_plugin

PAIRS = [
    ("ce@common", "ce@short", "cifar10"),
    ("ce@common", "tvmf-k64@common", "cifar10"),
    ("gcl@paper", "gcl@common", "cifar100"),
    ("crt@common", "bbn@common", "mnist5k"),
    ("tvmf@short", "tvmf-k64@short", "cifar10"),
]


def test_one_key_with_its_two_places() -> None:
    one, other = (values(parse_entry(text), "cifar10") for text in ("tvmf@common", "tvmf-k64@common"))
    (found,) = differences(one, other)
    assert found.as_json() == {
        "key": "params.kappa",
        "values": [16.0, 64.0],
        "sources": ["methods/tvmf/recipes.yaml: params", "methods/tvmf/recipes.yaml: variants.k64"],
    }
    entries = parse_entry("tvmf@common"), parse_entry("tvmf-k64@common")
    assert describe("cifar10-lt-if100", entries, [found]) == [
        "cifar10-lt-if100: tvmf@common and tvmf-k64@common differ in 1 key",
        "params.kappa",
        "  tvmf@common      16.0  (methods/tvmf/recipes.yaml: params)",
        "  tvmf-k64@common  64.0  (methods/tvmf/recipes.yaml: variants.k64)",
    ]


def test_the_same_recipe() -> None:
    found = values(parse_entry("ce@common"), "mnist5k")
    assert differences(found, found) == []
    entry = parse_entry("ce@common")
    assert describe("mnist5k-lt-if100", (entry, entry), []) == [
        "mnist5k-lt-if100: ce@common and ce@common have the same recipe"
    ]


@pytest.mark.parametrize(("first", "second", "dataset"), PAIRS)
def test_no_difference_is_missing(first: str, second: str, dataset: str) -> None:
    """Against the differences that `--set` items would make, which are found another way."""
    recipes = [resolve(parse_entry(text), dataset).recipe.as_dict() for text in (first, second)]
    found = {one.key for one in differences(*(values(parse_entry(text), dataset) for text in (first, second)))}
    for item in overrides_between(*recipes):
        key = item.partition("=")[0]
        section, _, rest = key.partition(".")
        if section == "finetune" and (recipes[0]["finetune"] or {}).get(rest) == recipes[1]["finetune"].get(rest):
            continue  # it is the first stage's that changed
        full = key if section in ("params", "finetune") or key in recipes[1] else f"train.{key}"
        new_stage = section == "finetune" and not recipes[0]["finetune"]
        assert new_stage or any(one == full or one.startswith(f"{full}.") for one in found), item


@pytest.mark.parametrize(("text", "_", "dataset"), PAIRS)
def test_each_place_holds_the_value(text: str, _: str, dataset: str) -> None:
    """The section that a source names has the key, and the resolved value."""
    checked = 0
    for key, one in values(parse_entry(text), dataset).items():
        file, colon, section = one.source.partition(": ")
        if one.source == DEFAULT or not colon:
            continue
        content = read_yaml(PACKAGE.parent / file)
        if section == "params":
            content = {"params": content["params"]}
        else:
            for part in section.split(".", 2 if section.startswith("tracks") else 1):
                content = content[part]
        parts = key.split(".")
        paths = [parts[1:]] if parts[0] == "train" else [parts, parts[1:]] if parts[0] == "finetune" else [parts]
        value: Any = one.value
        held: list[Any] = [_at(content, path) for path in paths]
        assert value in held or any(float(value) == float(each) for each in held if each is not None), key
        checked += 1
    assert checked > 5
    assert get_plugin(parse_entry(text).method).folder.is_dir()


def _at(content: object, path: list[str]) -> object:
    for part in path:
        content = content.get(part) if isinstance(content, dict) else None
    return content
