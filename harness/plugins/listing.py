"""What is registered, for `ltbench list`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from harness.base.errors import UserError, lookup
from harness.datasets._forms import FORMS
from harness.spec.recipe_layers import read_method_file
from harness.spec.registry import find_plugins, get_method
from harness.spec.suites import Suite, read_suites
from harness.splits import store


def items(what: str, *, check: bool = False) -> list[dict[str, Any]]:
    """Name and description of each registered method, data set, backbone or suite, and what else is known, as data.

    Of a method that is its variants and tracks, of a suite its splits, entries and seeds.

    Args:
        check: import the methods too, and say of those that do not import why. Their titles need no import.

    Raises:
        UserError: `what` is none of these.
    """
    listings: dict[str, Callable[[], dict[str, dict[str, Any]]]] = {
        "methods": partial(_methods, check),
        "datasets": _datasets,
        "backbones": _backbones,
        "suites": _suites,
    }
    found = lookup("list", what, listings)()
    return [{"name": name, **facts} for name, facts in found.items()]


def lines(found: list[dict[str, Any]]) -> list[str]:
    """What a person reads of items: a line each, with a method's variants behind its title."""
    width = max((len(item["name"]) for item in found), default=0)
    more = [f" (variants: {', '.join(item['variants'])})" if item.get("variants") else "" for item in found]
    return [f"{item['name']:<{width}}  {item['description']}{m}".rstrip() for item, m in zip(found, more, strict=True)]


def _methods(check: bool) -> dict[str, dict[str, Any]]:
    found = dict[str, dict[str, Any]]()
    for name, plugin in find_plugins().items():
        try:
            if check:
                get_method(name)
            file = read_method_file(plugin)
            found[name] = {
                "description": file.title,
                "paper": file.paper,
                "variants": sorted(file.variants),
                "tracks": list(file.tracks),
            }
        except UserError as error:
            found[name] = {"description": f"broken: {error}"}
    return found


def _described(texts: dict[str, str]) -> dict[str, dict[str, Any]]:
    return {name: {"description": text} for name, text in texts.items()}


def _datasets() -> dict[str, dict[str, Any]]:
    found = {name: store.get_dataset(name).title for name in store.available_datasets()}
    return _described(found | FORMS)


def _backbones() -> dict[str, dict[str, Any]]:
    import timm

    import harness.engine.backbones as ours

    registered = {name for name in dir(ours) if timm.is_model(name)}
    theirs = [name for name in timm.list_models() if name not in registered]
    return _described(dict.fromkeys(sorted(registered), "of this project") | dict.fromkeys(theirs, "timm"))


def _suites() -> dict[str, dict[str, Any]]:
    return {name: _suite(suite) for name, suite in sorted(read_suites().items())}


def _suite(suite: Suite) -> dict[str, Any]:
    entries = [entry for group in suite.groups for entry in group]
    but = f" without {', '.join(suite.without)}" if suite.without else ""
    parts = (", ".join(suite.splits), ", ".join(entries) + but, f"seeds {', '.join(map(str, suite.seeds))}")
    facts = {"splits": suite.splits, "entries": entries, "without": suite.without, "seeds": suite.seeds}
    return {"description": "; ".join(parts), **facts}
