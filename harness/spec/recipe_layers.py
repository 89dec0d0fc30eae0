"""Where a recipe's keys come from: layers of YAML, of which later ones win.

Those of `harness/recipes.yaml` (its section of the track: the same for every method) come first, then a method's own
`params` and `tracks.<track>`, for every data set ("*") and for this one, then its variant. A layer with `base: <name>`
starts over from a published recipe of that file. The track `short` is the common recipe, shortened: there each layer of
`common` comes before that of `short`.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.base import config
from harness.base.errors import UserError, lookup, unknown
from harness.base.files import PACKAGE, parse_yaml, read_yaml, shown
from harness.spec.entries import TRACKS, Entry
from harness.spec.registry import Plugin, get_plugin
from harness.spec.stage_recipe import LAYER_KEYS
from harness.splits.store import available_datasets, recipes_of

COMMON_FILE = PACKAGE / "recipes.yaml"
SHORTENED = {"short": "common"}  # a track that is another one with fewer epochs

Layers = list[tuple[str, dict[str, Any]]]  # where it stands, its keys


@dataclass(frozen=True)
class AppliesTo:
    """Where a variant makes sense; everywhere by default."""

    tracks: list[str] = field(default_factory=list)
    datasets: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class MethodFile:
    """The keys of a method's recipes.yaml."""

    title: str
    summary: str = ""
    equation: str = ""  # as plain text
    paper: str = ""  # authors, title, where it appeared
    link: str = ""
    params: dict[str, Any] = field(default_factory=dict)
    variants: dict[str, Any] = field(default_factory=dict)
    tracks: dict[str, Any] = field(default_factory=dict)
    tuned_on_test: dict[str, str] = field(default_factory=dict)  # data set -> which value was chosen on its test part
    listed_only: bool = False  # no shared recipe will do: only data sets under `tracks` have one


def read_method_file(plugin: Plugin) -> MethodFile:
    """A method's recipes.yaml, its top level checked."""
    path = plugin.folder / "recipes.yaml"
    return config.build(MethodFile, read_yaml(path), shown(path))


def variants(plugin: Plugin, track: str, dataset: str) -> list[str]:
    """Names of a method's variants, besides the default, that apply to a track and a data set."""
    found = read_method_file(plugin).variants
    return sorted(name for name in found if _applies(plugin, name, found[name], track, dataset))


def has_recipe(entry: Entry, dataset: str) -> bool:
    """Whether the entry's track has a recipe for the data set: a shared one that it takes part in, or its own.

    A variant with a `base` brings a recipe along, also where the method without it has none.
    """
    plugin, dataset = get_plugin(entry.method), recipes_of(dataset)
    file, path = read_method_file(plugin), shown(plugin.folder / "recipes.yaml")
    for name in file.tracks:
        if name not in TRACKS:
            raise unknown("track", name, TRACKS, where=f"{path}: tracks")
    taken = [track for track in family(entry.track) if track in file.tracks]
    if entry.variant in file.variants:
        if entry.variant not in variants(plugin, entry.track, dataset):
            return False
        if "base" in file.variants[entry.variant]:
            return True
    if not taken:
        return False
    shared = _section(entry.track)
    for track in taken:
        _check_dataset_names(_mapping(file.tracks[track], f"{path}: tracks.{track}"), shared, f"{path}: tracks.{track}")
    own = any(dataset in (file.tracks[track] or {}) for track in taken)
    return own or (dataset in shared and not file.listed_only)


def _check_dataset_names(own: dict[str, Any], shared: dict[str, Any], where: str) -> None:
    for name in set(own) & LAYER_KEYS:
        hint = f'{where.split(": ")[1]}: {{"*": {{{name}: ...}}}} for every data set, or the name of one for "*"'
        raise UserError(f"{where}.{name}: expected the name of a data set; write {hint}")
    known = {*available_datasets(), *shared}
    for name in set(own) - known - {"*"}:  # a data set may be registered later; a typo never is
        if _is_meant(str(name), known):
            raise unknown("data set", str(name), known, where=where)


def _is_meant(name: str, known: set[str]) -> bool:
    """Whether a known data set is meant: written in another way (`iNaturalist2018`), cut short, or mistyped."""
    text, *plain = (re.sub(r"[\W_]", "", one.lower()) for one in (name, *known))
    longer = (re.sub(r"(\d+)$", r"[a-z]*\1", one) for one in plain)
    written = any(one.startswith(text) for one in plain) or any(re.fullmatch(one, text) for one in longer)
    return written or bool(difflib.get_close_matches(text, plain, n=1, cutoff=0.85))


def shared_layers(entry: Entry, dataset: str, first_stage: str) -> Layers:
    """The recipe that all methods share, and what a first stage that the method takes over brings along."""
    layers = [(f"{shown(COMMON_FILE)}: {t}.{dataset}", _section(t).get(dataset)) for t in family(entry.track)]
    if first_stage != entry.method:
        for where, layer in method_layers(first_stage, entry.track, dataset):
            if kept := {key: layer[key] for key in layer if key not in ("params", "finetune")}:
                layers.append((where, kept))
    return [(where, _mapping(layer, where)) for where, layer in layers]


def own_layers(entry: Entry, dataset: str) -> Layers:
    """The method's own layers, its variant's last.

    Raises:
        UserError: no recipe for this track and data set, or no such variant.
    """
    plugin = get_plugin(entry.method)
    file, path = read_method_file(plugin), shown(plugin.folder / "recipes.yaml")
    if entry.variant and entry.variant not in file.variants:
        raise unknown(f"variant of '{entry.method}'", entry.variant, file.variants, where=path)
    if not has_recipe(entry, dataset):
        what = f"'{entry.method}'" + (f", variant '{entry.variant}'," if entry.variant else "")
        missing = f"{what} has no recipe on track '{entry.track}' for data set '{dataset}'"
        raise UserError(f"{path}: {missing}; it has: {_recipes_there_are(entry)}")
    layers = method_layers(entry.method, entry.track, dataset)
    if entry.variant:
        where = f"{path}: variants.{entry.variant}"
        variant = _mapping(file.variants[entry.variant], where)
        layers.append((where, {key: value for key, value in variant.items() if key != "applies_to"}))
    return layers


def _recipes_there_are(entry: Entry) -> str:
    """The tracks and data sets for which an entry's method and variant have a recipe, for a message."""
    found = {
        track: [name for name in available_datasets() if has_recipe(dataclasses.replace(entry, track=track), name)]
        for track in TRACKS
    }
    return "; ".join(f"@{track}: {', '.join(names)}" for track, names in found.items() if names) or "none"


def method_layers(method: str, track: str, dataset: str) -> Layers:
    """A method's layers without a variant's."""
    plugin = get_plugin(method)
    file, path = read_method_file(plugin), shown(plugin.folder / "recipes.yaml")
    layers: Layers = [(f"{path}: params", {"params": file.params})]
    for name in family(track):
        own = _mapping(file.tracks.get(name), f"{path}: tracks.{name}")
        layers += [(f"{path}: tracks.{name}.{key}", own[key]) for key in ("*", dataset) if key in own]
    return [(where, _mapping(layer, where)) for where, layer in layers]


def with_bases(layers: Layers) -> Layers:
    """The layers with each `base` replaced by its published recipe; of what stood before it only `params` are left."""
    found: Layers = []
    for where, layer in layers:
        if "base" in layer:
            base = str(layer["base"])
            published = lookup("published recipe", base, _section("published"), where=f"{where}.base")
            found = [(w, {"params": kept["params"]}) for w, kept in found if "params" in kept]
            origin = f"{shown(COMMON_FILE)}: published.{base}"
            found.append((origin, _mapping(published, origin)))
        found.append((where, {key: value for key, value in layer.items() if key != "base"}))
    return found


def parse_override(item: str) -> dict[str, Any]:
    """`a.b=value` as a nested mapping; the value is read as YAML, numbers with commas between them as a list."""
    key, equals, text = item.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", key.strip()):
        raise UserError(f"--set {item}: expected key=value, e.g. recipe.epochs=2 or params.kappa=64")
    names = key.strip().removeprefix("recipe.").split(".")
    numbers = re.fullmatch(r"\s*-?[\d.]+(e-?\d+)?(\s*,\s*-?[\d.]+(e-?\d+)?)+\s*", text)
    value = parse_yaml(f"[{text}]" if numbers else text, f"--set {item}")
    for name in reversed(names):
        value = {name: value}
    return value  # type: ignore[no-any-return]


def family(track: str) -> list[str]:
    """The tracks whose layers make up a track's recipes, its own last."""
    return [SHORTENED[track], track] if track in SHORTENED else [track]


def _section(name: str) -> dict[str, Any]:
    return _mapping(read_yaml(COMMON_FILE).get(name), f"{shown(COMMON_FILE)}: {name}")


def _applies(plugin: Plugin, name: str, variant: Any, track: str, dataset: str) -> bool:
    where = f"{shown(plugin.folder / 'recipes.yaml')}: variants.{name}"
    value = _mapping(variant, where).get("applies_to", {})
    limits = config.build(AppliesTo, value, f"{where}.applies_to")
    return all(not allowed or name in allowed for allowed, name in ((limits.tracks, track), (limits.datasets, dataset)))


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise UserError(f"{where}: expected keys and values, found {value!r}")
    return dict(value)


def merged(layers: Layers) -> dict[str, Any]:
    """What the layers add up to."""
    return config.merge({}, *(layer for _, layer in layers))


def files(layers: Layers) -> str:
    """The files that layers stand in, for a message about what they add up to."""
    return ", ".join(dict.fromkeys(where.split(":")[0] for where, _ in layers))
