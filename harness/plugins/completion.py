"""What the shell offers after a TAB: names of splits, entries, methods, data sets and suites. No torch, no numpy."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from harness.base.errors import UserError
from harness.datasets._forms import KINDS
from harness.spec.entries import TRACKS, Entry
from harness.spec.recipe_layers import family, has_recipe, read_method_file, variants
from harness.spec.registry import available_methods, get_plugin
from harness.spec.suites import SPLITS, read_suites
from harness.splits.store import available_datasets


def names(what: str, given: Mapping[str, Any], typed: str) -> list[str]:
    """What can stand there and begins with what has been typed; nothing where a file that it is read from is broken.

    Args:
        what: splits, cells (splits, or data sets for their usual split), entries, methods, datasets or suites.
        given: the other arguments and options; a `split` limits the entries to those with a recipe for its data.
        typed: the beginning.
    """
    known: dict[str, Callable[[], list[str]]] = {
        "splits": _splits,
        "cells": lambda: [*_splits(), *_datasets()],
        "entries": lambda: list(_entries(str(given.get("split") or ""), typed)),
        "methods": available_methods,
        "datasets": _datasets,
        "suites": lambda: list(read_suites()),
    }
    try:
        return sorted(name for name in known[what]() if name.startswith(typed))
    except UserError:
        return []


def _splits() -> list[str]:
    """Those that are drawn here, and those of the suites."""
    drawn = {path.stem for path in SPLITS.glob("*.json")}
    return list(drawn.union(*(suite.splits for suite in read_suites().values())))


def _datasets() -> list[str]:
    return [*available_datasets(), *(f"{kind}:" for kind in KINDS)]


def _entries(split: str, typed: str) -> Iterator[str]:
    """Methods that begin so; of the only one, or the one that is typed out, its entries."""
    dataset = next((name for name in available_datasets() if re.fullmatch(rf"{name}(-lt-if.+|-cut.+)?", split)), "")
    base = typed.partition("@")[0].partition("-")[0]
    methods = [name for name in available_methods() if name.startswith(base)]
    for method in methods:
        if method != base and methods[1:]:
            yield method
        else:
            yield from (str(entry) for track in TRACKS for entry in _of_track(method, track, dataset))


def _of_track(method: str, track: str, dataset: str) -> Iterator[Entry]:
    """A method's entries on a track; those with a recipe for the data set, where it is known."""
    plugin, plain = get_plugin(method), Entry(method, "", track)
    file = read_method_file(plugin)
    if not dataset:
        taken = any(name in file.tracks for name in family(track))
        yield from (Entry(method, name, track) for name in ["", *file.variants] if taken)
        return
    if has := has_recipe(plain, dataset):
        yield plain
    for name in variants(plugin, track, dataset):
        if has or ("base" in file.variants[name] and has_recipe(Entry(method, name, track), dataset)):
            yield Entry(method, name, track)
