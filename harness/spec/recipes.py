"""Recipes: every number that a run depends on, merged from YAML layers into one typed, frozen value.

The layers are those of `harness.spec.recipe_layers`, and last `--backbone` and `--set` of the command line.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from harness.base import config
from harness.base.errors import UserError, unknown
from harness.base.files import sha256_json
from harness.spec.entries import Entry
from harness.spec.pretrained import PINNED, pinned, timm_config
from harness.spec.recipe_layers import (
    Layers,
    files,
    merged,
    method_layers,
    own_layers,
    parse_override,
    shared_layers,
    with_bases,
)
from harness.spec.registry import get_method, get_plugin
from harness.spec.stage_recipe import LAYER_KEYS, Layer, StageRecipe
from harness.splits.store import recipes_of

if TYPE_CHECKING:
    from harness.api import Method, Stage


@dataclass(frozen=True)
class Recipe:
    """A resolved recipe: all that a run depends on besides its split, its seed and the code."""

    backbone: str
    image_size: int  # pixels to which square images are resized; 0: as they are
    precision: Literal["float32", "bfloat16"]
    params: Any  # the method's own Params
    train: StageRecipe
    finetune: StageRecipe | None
    pretrained: str = config.later("")  # weights that the backbone starts from: `harness.spec.pretrained`
    mean: tuple[float, ...] = config.later(())  # of each channel; empty: the split's
    std: tuple[float, ...] = config.later(())
    interpolation: Literal["bilinear", "bicubic"] = config.later("bilinear")
    reader: Literal["", "exact", "fast"] = config.later("")  # of image files; empty: the exact one, where they are read

    @property
    def start(self) -> dict[str, Any]:
        """What the backbone starts from and sees, where that is not the usual: for identities."""
        return {name: value for name, value in self.as_dict().items() if name in START}

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as records hold them."""
        return config.as_dict(self)

    def shape_of(self, images: Sequence[int]) -> tuple[int, int, int]:
        """Height, width and channels of what is trained on, from those of the images."""
        return (self.image_size or images[0], self.image_size or images[1], images[2])

    def sha256(self) -> str:
        """The recipe's hash."""
        return sha256_json(self.as_dict())


START = ("pretrained", "mean", "std", "interpolation", "reader")
RENAMED = {"cos_start0": "cosine_epoch", "cos_start1": "cosine_epoch_to_0", "warm_cos": "cosine_epoch_to_0"}
"""Schedules, by the names that recipes once had for them."""


def migrated(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """A recorded recipe with today's names, and without keys that came later and have their default."""
    found = dict(recorded)
    for stage in ("train", "finetune"):
        if isinstance(value := found.get(stage), Mapping):
            schedule = value.get("schedule")
            renamed = {"schedule": RENAMED.get(schedule, schedule)} if isinstance(schedule, str) else {}
            found[stage] = config.without_later(StageRecipe, {**value, **renamed})
    return found


def overrides_between(here: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """The `key=value` items of `--set` that make one recipe, as `Recipe.as_dict` gives it, the other."""
    top = {key for key in wanted if key not in ("train", "finetune", "params")}
    found = [("", {key: here.get(key) for key in top}, {key: wanted[key] for key in top})]
    found += [(prefix, _values(here, key), _values(wanted, key)) for prefix, key in SECTIONS]
    changed = {key for _, one, other in found[:2] for key in other if one.get(key) != other[key]}
    # What would follow another key: of a second stage the first one's, and what timm says of other weights.
    other_start = wanted.get("pretrained") and changed & {"pretrained", "backbone"}
    follows = {"finetune.": changed, "": {*START, "image_size"} if other_start else set()}
    return [
        f"{prefix}{key}={json.dumps(value)}"
        for prefix, one, other in found
        for key, value in sorted(other.items())
        if one.get(key) != value or key in follows.get(prefix, ())
    ]


def _values(recipe: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Empty where there is none, or where a record that came from elsewhere has something else."""
    return dict(value) if isinstance(value := recipe.get(key), Mapping) else {}


SECTIONS = (("", "train"), ("finetune.", "finetune"), ("params.", "params"))  # of keys: as typed, and in recipes


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
            "image_size": self.recipe.image_size,
            "precision": self.recipe.precision,
            "recipe": config.as_dict(self.recipe.train),
            **self.recipe.start,
        }


def resolve(entry: Entry, dataset: str, overrides: Sequence[str] = (), backbone: str | None = None) -> Cell:
    """The entry's recipe for a data set, validated.

    Args:
        overrides: `key=value` items of the command line; keys as in YAML, dots between levels, `recipe.` optional.

    Raises:
        UserError: no recipe for this track and data set, an unknown key or variant, a value of the wrong type or out
            of its domain; the message names the file and the key.
    """
    return resolve_with_layers(entry, dataset, overrides, backbone)[0]


def resolve_with_layers(
    entry: Entry, dataset: str, overrides: Sequence[str] = (), backbone: str | None = None
) -> tuple[Cell, Layers]:
    """As `resolve`, and the layers that the recipe is merged from."""
    method, given, dataset = get_method(entry.method), dataset, recipes_of(dataset)
    if given != dataset and entry.track == "paper":
        raise UserError(f"{entry}: no paper has a recipe for {given}; try a method on track 'common'")
    own = own_layers(entry, dataset)
    own += [("--backbone", {"backbone": backbone})] if backbone else []
    typed = [(f"--set {item}", parse_override(item)) for item in overrides]
    own += [*typed, *_shortened_warmup(own, typed, shared_layers(entry, dataset, entry.method))]
    params = _params(method, own)
    stages, first_stage = method.stages_of(params), _first_stage(method, params)
    layers = with_bases([*shared_layers(entry, dataset, first_stage.name), *own])
    for where, layer in layers:
        _check_layer(method, layer, where)
    what = f"recipe of {entry} on {given} ({files(layers)})"
    recipe = _build(params, stages, merged(layers), what)
    _check_optimizers(recipe, method, first_stage, what)
    _check_smoothing(recipe, method, first_stage, what)
    first_params = _first_stage_params(entry, dataset, params, first_stage)
    return Cell(entry, recipe, method, first_stage, first_params, stages), layers


def _check_optimizers(recipe: Recipe, method: type[Method], first_stage: type[Method], where: str) -> None:
    """Refuses unknown optimizers, and all but unclipped SGD where a method needs that."""
    for stage, owners in ((recipe.train, (method, first_stage)), (recipe.finetune, (method,))):
        if stage is None:
            continue
        if stage.optimizer != "sgd":
            from timm.optim import list_optimizers  # type: ignore[attr-defined]  # slow to import

            if stage.optimizer not in (known := ["sgd", *map(str, list_optimizers())]):
                raise unknown("optimizer", stage.optimizer, known, where=where)
        key = "optimizer" if stage.optimizer != "sgd" else "clip_grad" if stage.clip_grad else ""
        for owner in owners:
            if key and owner.only_sgd:
                raise UserError(f"{where}: {key} {getattr(stage, key)}: not with '{owner.name}': {owner.only_sgd}")


def _check_smoothing(recipe: Recipe, method: type[Method], first_stage: type[Method], where: str) -> None:
    """Refuses label smoothing where a method has a loss of its own, which knows nothing of it."""
    from harness.api import Method as Plain  # slow to import

    for stage, owner in ((recipe.train, first_stage), (recipe.finetune, method)):
        own = owner.loss is not Plain.loss or owner.step_loss is not Plain.step_loss
        if stage is not None and stage.label_smoothing and own:
            raise UserError(f"{where}: label_smoothing: '{owner.name}' has a loss of its own")


def _shortened_warmup(own: Layers, given: Layers, shared: Layers) -> Layers:
    """A warm-up that is longer than the length that somebody asks for becomes shorter, in proportion, and says so."""
    before, asked, found = merged(with_bases([*shared, *own])), merged(given), Layers()
    for section in ("", "finetune"):
        old, new = _stage(before, section), _stage(merged([("", before), *given, *found]), section)
        typed = asked.get(section) if section else asked
        for unit in ("epochs", "iterations"):
            key = f"warmup_{unit}"
            was, length, warmup = old.get(unit), new.get(unit), new.get(key)
            if not (isinstance(was, int) and isinstance(length, int) and isinstance(warmup, int)):
                continue  # not there, or a mistake that is named later
            if 0 < length < min(was, warmup) and not (isinstance(typed, Mapping) and key in typed):
                shorter = {key: warmup * length // was}
                _say_once(f"note: warm-up of {warmup} {unit} becomes {shorter[key]}, as the run is shorter")
                found.append(("shortened warm-up", {section: shorter} if section else shorter))
    return found


def _stage(values: Mapping[str, Any], section: str) -> dict[str, Any]:
    """The keys of a stage, of which nothing is checked yet."""
    own = values.get(section)
    return config.merge(values, own) if isinstance(own, Mapping) else dict(values)


@functools.cache
def _say_once(text: str) -> None:
    print(text, file=sys.stderr)


def _params(method: type[Method], layers: Layers) -> Any:
    for where, layer in layers:
        config.check(method.Params, layer.get("params", {}), _section(where, "params"))
    values = merged(layers).get("params", {})
    return config.build(method.Params, values, f"params of '{method.name}' ({files(layers)})")


def _first_stage(method: type[Method], params: Any) -> type[Method]:
    name = method.first_stage_of(params)
    if not name:
        return method
    get_plugin(name, where=f"first stage of method '{method.name}'")
    return get_method(name)


def _first_stage_params(entry: Entry, dataset: str, params: Any, first_stage: type[Method]) -> Any:
    """Params of the first stage: those of the method that is shared, or the method's own.

    Second-stage fields of its own stand at their defaults, so that they cannot tell first stages apart.
    """
    if first_stage.name != entry.method:
        return _params(first_stage, method_layers(first_stage.name, entry.track, dataset))
    own = {f.name: getattr(params, f.name) for f in dataclasses.fields(params) if f.metadata.get("stage") != "finetune"}
    return type(params)(**own)


def _check_layer(method: type[Method], layer: Mapping[str, Any], where: str) -> None:
    if misplaced := {f.name for f in dataclasses.fields(method.Params)} & layer.keys() - LAYER_KEYS:
        key = sorted(misplaced)[0]
        raise UserError(f"{where}: '{key}' is a parameter of method '{method.name}': write params.{key}")
    config.check(Layer, layer, where)
    config.check(StageRecipe, layer.get("finetune", {}), _section(where, "finetune"))
    config.check(method.Params, layer.get("params", {}), _section(where, "params"))


def _section(where: str, name: str) -> str:
    """What was typed names its section itself."""
    return where if where.startswith("--") else f"{where}.{name}"


def _build(params: Any, stages: tuple[Stage, ...], values: dict[str, Any], where: str) -> Recipe:
    extras = ("backbone", "image_size", "precision", "params", "finetune", *START)
    first = {key: value for key, value in values.items() if key not in extras}
    if not values.get("backbone"):
        raise UserError(f"{where}: key 'backbone' is missing")
    finetune = None
    if "finetune" in stages:
        if "finetune" not in values:
            raise UserError(f"{where}: there is a second stage; key 'finetune' is missing")
        finetune = config.build(StageRecipe, config.merge(first, values["finetune"]), f"{where}.finetune")
    train = config.build(StageRecipe, first, where)
    if train.epochs < 1 and not train.iterations:
        raise UserError(f"{where}: epochs must be at least 1 in the first stage, found {train.epochs}")
    if train.redraw:
        raise UserError(f"{where}: redraw is for the second stage; write it under 'finetune'")
    size = values.get("image_size", 0)
    if size < 0:
        raise UserError(f"{where}: image_size must be at least 0, found {size}")
    start = _start(values, where)
    size = start.pop("image_size", size)
    return Recipe(values["backbone"], size, values.get("precision", "float32"), params, train, finetune, **start)


def _start(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The weights to start from, pinned, and how images must look for them by timm, where nothing else is set."""
    given: dict[str, Any] = {key: values[key] for key in START if values.get(key)}
    given |= {key: tuple(map(float, given[key])) for key in ("mean", "std") if key in given}
    if ("mean" in given) != ("std" in given):
        raise UserError(f"{where}: mean and std belong together; give both or neither")
    if not all(math.isfinite(value) for value in (*given.get("mean", ()), *given.get("std", ()))):
        raise UserError(f"{where}: mean and std must be finite numbers, found {values['mean']} and {values['std']}")
    if not all(value > 0 for value in given.get("std", ())):
        raise UserError(f"{where}: std must be above 0, found {values['std']}")
    if "pretrained" not in given:
        return given
    given["pretrained"] = pinned(given["pretrained"], values["backbone"], where)
    if PINNED.fullmatch(given["pretrained"]):
        return given
    theirs = timm_config(values["backbone"], given["pretrained"], where)
    found: dict[str, Any] = {"mean": tuple(theirs["mean"]), "std": tuple(theirs["std"])}
    found["interpolation"] = "bicubic" if theirs["interpolation"] == "bicubic" else "bilinear"
    size = {} if values.get("image_size") else {"image_size": theirs["input_size"][-1]}
    return {**found, **size, **given}
