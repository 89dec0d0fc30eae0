"""What is registered, for `ltbench list`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from harness.base.errors import UserError, lookup
from harness.spec.recipe_layers import read_method_file
from harness.spec.registry import find_plugins, get_method
from harness.spec.suites import Suite, read_suites
from harness.splits import store


def items(what: str, *, check: bool = False) -> list[dict[str, str]]:
    """Name and description of each registered method, data set, backbone or suite.

    Args:
        check: import the methods too, and say of those that do not import why. Their titles need no import.

    Raises:
        UserError: `what` is none of these.
    """
    listings: dict[str, Callable[[], dict[str, str]]] = {
        "methods": partial(_methods, check),
        "datasets": _datasets,
        "backbones": _backbones,
        "suites": _suites,
    }
    found = lookup("list", what, listings)()
    return [{"name": name, "description": text} for name, text in found.items()]


def _methods(check: bool) -> dict[str, str]:
    found = {}
    for name, plugin in find_plugins().items():
        try:
            if check:
                get_method(name)
            file = read_method_file(plugin)
            more = f" (variants: {', '.join(sorted(file.variants))})" if file.variants else ""
            found[name] = f"{file.title}{more}"
        except UserError as error:
            found[name] = f"broken: {error}"
    return found


def _datasets() -> dict[str, str]:
    found = {name: store.get_dataset(name).title for name in store.available_datasets()}
    return found | {
        "folder:PATH": "your own images, train/<class>/ and test/<class>/; or a folder of classes with --holdout 0.2",
        "list:DIR": "your own images by lists train.csv, test.csv, val.csv with the columns path,label",
    }


def _backbones() -> dict[str, str]:
    import timm

    import harness.engine.backbones as ours

    registered = {name for name in dir(ours) if timm.is_model(name)}
    return dict.fromkeys(sorted(registered), "of this project") | {
        name: "timm" for name in timm.list_models() if name not in registered
    }


def _suites() -> dict[str, str]:
    return {name: _suite(suite) for name, suite in sorted(read_suites().items())}


def _suite(suite: Suite) -> str:
    entries = [entry for group in suite.groups for entry in group]
    return "; ".join((", ".join(suite.splits), ", ".join(entries), f"seeds {', '.join(map(str, suite.seeds))}"))
