"""Recipes: every number that a run depends on, merged from YAML layers into one typed, frozen value.

Layers, later ones win: the common recipe (`harness/recipes.yaml`, for the tracks that share it), the method's `params`
and `tracks.<track>` for every data set ("*") and for this one, its variant, and `--set` of the command line.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness import config
from harness.data.store import available_datasets
from harness.engine.schedules import SCHEDULES
from harness.errors import UserError, unknown
from harness.files import parse_yaml, read_yaml, sha256_json, shown
from harness.records.schema import entry_name
from harness.registry import Plugin, get_method, get_plugin

if TYPE_CHECKING:
    from harness.api import Method, Stage

COMMON_FILE = Path(__file__).with_name("recipes.yaml")
TRACKS = ("paper", "common", "short")


@dataclass(frozen=True)
class Augment:
    """What is done to training images."""

    crop_padding: int = 0  # pixels of zero padding for the random crop; 0: no crop
    flip: bool = False  # mirrored with probability 1/2


@dataclass(frozen=True)
class StageRecipe:
    """The recipe of one stage."""

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    momentum: float = 0.9
    nesterov: bool = False
    schedule: str = "cosine"
    warmup_epochs: int = 0
    augment: Augment = field(default_factory=Augment)
    mixup_alpha: float = 0.0
    drop_last: bool = False  # leave out an epoch's last batch when it is not full
    eval_every: int = 1  # epochs; the last one is always evaluated
    frozen_bn: Literal["eval", "train_as_published"] = "eval"  # BatchNorm of a frozen backbone

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise ValueError(str(unknown("schedule", self.schedule, SCHEDULES)))
        positive = {"batch_size": self.batch_size, "eval_every": self.eval_every}
        others = ("epochs", "lr", "weight_decay", "momentum", "warmup_epochs", "mixup_alpha")
        for name, value in positive.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, found {value}")
        for name in others:
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be a number of at least 0, found {getattr(self, name)}")
        if self.epochs and self.warmup_epochs > self.epochs:
            raise ValueError(f"warmup_epochs {self.warmup_epochs} must not be more than epochs {self.epochs}")
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0")
        if self.augment.crop_padding < 0:
            raise ValueError(f"augment.crop_padding must be at least 0, found {self.augment.crop_padding}")


@dataclass(frozen=True)
class _Layer(StageRecipe):
    """The keys that a recipe in YAML may have: those of the first stage, and these."""

    backbone: str = ""
    precision: Literal["float32", "bfloat16"] = "float32"
    params: dict[str, Any] = field(default_factory=dict)
    finetune: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _File:
    """The keys of a method's recipes.yaml."""

    title: str
    summary: str = ""
    params: dict[str, Any] = field(default_factory=dict)
    variants: dict[str, Any] = field(default_factory=dict)
    tracks: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """A row of a table: method[-variant]@track."""

    method: str
    variant: str
    track: str

    def __str__(self) -> str:
        return entry_name(self.method, self.variant, self.track)

    @property
    def path(self) -> Path:
        """The entry as a relative folder, <track>/<method[-variant]>."""
        return Path(self.track) / entry_name(self.method, self.variant, self.track).split("@")[0]


def parse_entry(text: str, *, where: str = "") -> Entry:
    """Reads method[-variant]@track.

    Raises:
        UserError: another form, an unknown method, or an unknown track.
    """
    match = re.fullmatch(r"([A-Za-z][A-Za-z0-9_]*)(?:-([A-Za-z0-9_.-]+))?@([a-z]+)", text)
    origin = f"{where}: " if where else ""
    if not match:
        raise UserError(
            f"{origin}{text!r} is not an entry; entries are written method[-variant]@track, e.g. tvmf-k64@common"
        )
    get_plugin(match[1], where=where)
    if match[3] not in TRACKS:
        raise unknown("track", match[3], TRACKS, where=where)
    return Entry(match[1], match[2] or "", match[3])


@dataclass(frozen=True)
class Recipe:
    """A resolved recipe: all that a run depends on besides its split, its seed and the code."""

    backbone: str
    precision: Literal["float32", "bfloat16"]
    params: Any  # the method's own Params
    train: StageRecipe
    finetune: StageRecipe | None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as records hold them."""
        return config.as_dict(self)

    def sha256(self) -> str:
        """The recipe's hash."""
        return sha256_json(self.as_dict())


@dataclass(frozen=True)
class Cell:
    """An entry with its recipe for one data set, and the method classes of its stages."""

    entry: Entry
    recipe: Recipe
    method: type[Method]
    first_stage: type[Method]  # whose first stage is run: the method's own, or the one it shares
    first_stage_params: Any
    stages: tuple[Stage, ...]

    def first_stage_identity(self) -> dict[str, Any]:
        """What the first stage depends on besides split, seed and code: equal for entries that share it."""
        return {
            "method": self.first_stage.name,
            "params": config.as_dict(self.first_stage_params),
            "backbone": self.recipe.backbone,
            "precision": self.recipe.precision,
            "recipe": config.as_dict(self.recipe.train),
        }


def read_method_file(plugin: Plugin) -> _File:
    """A method's recipes.yaml, its top level checked."""
    path = plugin.folder / "recipes.yaml"
    return config.build(_File, read_yaml(path), shown(path))


def variants(plugin: Plugin) -> list[str]:
    """Names of a method's variants besides the default."""
    return sorted(read_method_file(plugin).variants)


def has_recipe(entry: Entry, dataset: str) -> bool:
    """Whether the entry's track has a recipe for the data set: a common one that it takes part in, or its own."""
    plugin = get_plugin(entry.method)
    tracks, path = read_method_file(plugin).tracks, shown(plugin.folder / "recipes.yaml")
    for name in tracks:
        if name not in TRACKS:
            raise unknown("track", name, TRACKS, where=f"{path}: tracks")
    if entry.track not in tracks:
        return False
    own, common = _mapping(tracks[entry.track], f"{path}: tracks.{entry.track}"), _common(entry.track)
    for name in set(own) & {key.name for key in dataclasses.fields(_Layer)}:
        hint = f'tracks.{entry.track}: {{"*": {{{name}: ...}}}} for every data set, or the name of one for "*"'
        raise UserError(f"{path}: tracks.{entry.track}.{name}: expected the name of a data set; write {hint}")
    known = {*available_datasets(), *common}
    for name in set(own) - known - {"*"}:  # a data set may be registered later; a slip of the keyboard never is
        if difflib.get_close_matches(str(name), known, n=1, cutoff=0.85):
            raise unknown("data set", str(name), known, where=f"{path}: tracks.{entry.track}")
    return dataset in own or dataset in common


def resolve(entry: Entry, dataset: str, overrides: Sequence[str] = (), backbone: str | None = None) -> Cell:
    """The entry's recipe for a data set, validated.

    Args:
        overrides: `key=value` items of the command line; keys as in YAML, dots between levels, `recipe.` optional.

    Raises:
        UserError: no recipe for this track and data set, an unknown key or variant, a value of the wrong type or out
            of its domain; the message names the file and the key.
    """
    method = get_method(entry.method)
    own = _own_layers(entry, dataset, method)
    own += [("--backbone", {"backbone": backbone})] if backbone else []
    own += [(f"--set {item}", parse_override(item)) for item in overrides]
    params = _params(method, own)
    stages, first_stage = method.stages_of(params), _first_stage(method, params)
    layers = [*_shared_layers(entry, dataset, method, first_stage), *own]
    for where, layer in layers:
        _check_layer(method, layer, where)
    recipe = _build(params, stages, layers, f"recipe of {entry} on {dataset}")
    first_params = _first_stage_params(entry, dataset, params, stages, first_stage)
    return Cell(entry, recipe, method, first_stage, first_params, stages)


Layers = list[tuple[str, dict[str, Any]]]


def _params(method: type[Method], layers: Layers) -> Any:
    for where, layer in layers:
        config.check(method.Params, layer.get("params", {}), f"{where}.params")
    merged = config.merge({}, *(layer.get("params", {}) for _, layer in layers))
    return config.build(method.Params, merged, f"params of '{method.name}' ({_files(layers)})")


def _files(layers: Layers) -> str:
    """The files that layers stand in, for a message about what they add up to."""
    return ", ".join(dict.fromkeys(where.split(":")[0] for where, _ in layers))


def _first_stage(method: type[Method], params: Any) -> type[Method]:
    name = method.first_stage_of(params)
    if not name:
        return method
    get_plugin(name, where=f"first stage of method '{method.name}'")
    return get_method(name)


def _first_stage_params(
    entry: Entry, dataset: str, params: Any, stages: tuple[Stage, ...], first_stage: type[Method]
) -> Any:
    """Params of the first stage: those of the method that is shared, or the method's own.

    Second-stage fields of its own stand at their defaults, so that they cannot tell first stages apart.
    """
    if first_stage.name != entry.method:
        file, path = read_method_file(get_plugin(first_stage.name)), _recipes_path(first_stage)
        shared = [(f"{path}: params", {"params": file.params}), *_track_layers(first_stage, entry, dataset)]
        return _params(first_stage, shared)
    if "finetune" not in stages:
        return params
    own = {f.name: getattr(params, f.name) for f in dataclasses.fields(params) if f.metadata.get("stage") != "finetune"}
    return type(params)(**own)


def _shared_layers(entry: Entry, dataset: str, method: type[Method], first_stage: type[Method]) -> Layers:
    """The common recipe, and what a shared first stage brings along."""
    layers = [(f"{shown(COMMON_FILE)}: {entry.track}.{dataset}", _common(entry.track).get(dataset, {}))]
    if first_stage is not method:
        for where, layer in _track_layers(first_stage, entry, dataset):
            layers.append((where, {key: layer[key] for key in layer if key not in ("params", "finetune")}))
    return [(where, _mapping(layer, where)) for where, layer in layers]


def _own_layers(entry: Entry, dataset: str, method: type[Method]) -> Layers:
    """The method's own layers, each with where it stands."""
    file, path = read_method_file(get_plugin(entry.method)), _recipes_path(method)
    if not has_recipe(entry, dataset):
        raise UserError(f"{path}: '{method.name}' has no recipe on track '{entry.track}' for data set '{dataset}'")
    layers = [(f"{path}: params", {"params": file.params}), *_track_layers(method, entry, dataset)]
    if entry.variant:
        if entry.variant not in file.variants:
            raise unknown(f"variant of '{entry.method}'", entry.variant, file.variants, where=path)
        layers.append((f"{path}: variants.{entry.variant}", file.variants[entry.variant]))
    return [(where, _mapping(layer, where)) for where, layer in layers]


def _common(track: str) -> dict[str, Any]:
    return _mapping(read_yaml(COMMON_FILE).get(track), f"{shown(COMMON_FILE)}: {track}")


def _recipes_path(method: type[Method]) -> str:
    return shown(get_plugin(method.name).folder / "recipes.yaml")


def _track_layers(method: type[Method], entry: Entry, dataset: str) -> Layers:
    path = _recipes_path(method)
    own = _mapping(read_method_file(get_plugin(method.name)).tracks.get(entry.track), f"{path}: tracks.{entry.track}")
    found = [(f"{path}: tracks.{entry.track}.{key}", own[key]) for key in ("*", dataset) if key in own]
    return [(where, _mapping(layer, where)) for where, layer in found]


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise UserError(f"{where}: expected keys and values, found {value!r}")
    return dict(value)


def _check_layer(method: type[Method], layer: Mapping[str, Any], where: str) -> None:
    config.check(_Layer, layer, where)
    config.check(StageRecipe, layer.get("finetune", {}), f"{where}.finetune")
    config.check(method.Params, layer.get("params", {}), f"{where}.params")


def parse_override(item: str) -> dict[str, Any]:
    """`a.b=value` as a nested mapping; the value is read as YAML."""
    key, equals, text = item.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", key.strip()):
        raise UserError(f"--set {item}: expected key=value, e.g. recipe.epochs=2 or params.kappa=64")
    names = key.strip().removeprefix("recipe.").split(".")
    value = parse_yaml(text, f"--set {item}")
    for name in reversed(names):
        value = {name: value}
    return value  # type: ignore[no-any-return]


def _build(params: Any, stages: tuple[Stage, ...], layers: Layers, what: str) -> Recipe:
    where = f"{what} ({_files(layers)})"
    merged = config.merge({}, *(layer for _, layer in layers))
    extras = ("backbone", "precision", "params", "finetune")
    first = {key: value for key, value in merged.items() if key not in extras}
    if not merged.get("backbone"):
        raise UserError(f"{where}: key 'backbone' is missing")
    finetune = None
    if "finetune" in stages:
        if "finetune" not in merged:
            raise UserError(f"{where}: there is a second stage; key 'finetune' is missing")
        finetune = config.build(StageRecipe, config.merge(first, merged["finetune"]), f"{where}.finetune")
    train = config.build(StageRecipe, first, where)
    if train.epochs < 1:
        raise UserError(f"{where}: epochs must be at least 1 in the first stage, found {train.epochs}")
    return Recipe(merged["backbone"], merged.get("precision", "float32"), params, train, finetune)
