"""Recipes: every number that a run depends on, merged from YAML layers into one typed, frozen value.

The layers are those of `harness.recipe_layers`, and last `--backbone` and `--set` of the command line.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from harness import config
from harness.data.store import recipes_of
from harness.engine.schedules import SCHEDULES, Steps, share, whole_epochs
from harness.entries import Entry
from harness.errors import UserError, unknown
from harness.files import sha256_json
from harness.recipe_layers import (
    Layers,
    files,
    merged,
    method_layers,
    own_layers,
    parse_override,
    shared_layers,
    with_bases,
)
from harness.registry import get_method, get_plugin

if TYPE_CHECKING:
    from harness.api import Method, Stage


@dataclass(frozen=True)
class Augment:
    """What is done to training images: (resized) crop, flip, and the others in this order; then they are normalised."""

    crop_padding: int = 0  # pixels of zero padding for the random crop; 0: no crop
    flip: bool = False  # mirrored with probability 1/2
    resized_crop: bool = False  # a part of random size and ratio, enlarged to the size of the image
    auto_augment: Literal["none", "cifar10"] = "none"  # AutoAugment's policy for this data set
    color_jitter: float = 0.0  # brightness, contrast and saturation change by up to this share; 0: none
    lighting: float = 0.0  # standard deviation of AlexNet's PCA lighting; 0: none
    cutout: int = 0  # side in pixels of the square that becomes black; 0: none

    def __post_init__(self) -> None:
        for name in ("crop_padding", "color_jitter", "lighting", "cutout"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"augment.{name} must be a number of at least 0, found {getattr(self, name)}")
        if self.auto_augment not in ("none", "cifar10"):
            raise ValueError(f"augment.auto_augment must be 'none' or 'cifar10', found {self.auto_augment!r}")
        if self.crop_padding and self.resized_crop:
            raise ValueError(f"either augment.crop_padding ({self.crop_padding}) or augment.resized_crop must be off")


@dataclass(frozen=True)
class StageRecipe:
    """The recipe of one stage.

    A length published in steps stands in `iterations` (then `epochs` is 0): the released code makes whole epochs of it
    by the number of batches in an epoch, with the last, partial batch (`count_partial_batch`) or without it.
    """

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    momentum: float = 0.9
    nesterov: bool = False
    schedule: str | Steps = "cosine"
    warmup_epochs: int = 0
    iterations: int = 0
    warmup_iterations: int = 0
    count_partial_batch: bool = True
    augment: Augment = field(default_factory=Augment)
    mixup_alpha: float = 0.0
    drop_last: bool = False  # leave out an epoch's last batch when it is not full
    eval_every: int = 1  # epochs; the last one is always evaluated
    frozen_bn: Literal["eval", "train_as_published"] = "eval"  # BatchNorm of a frozen backbone
    redraw: str = ""  # stage 2 only: trains on another subset, drawn by this rule (hash:<k> or pool-hash:<k>)
    flip_average: bool = False  # predict from the mean logits of an image and its mirror image
    eval_all_after: float = config.later(1.0)  # share of the epochs after which every one is evaluated; 1: never
    head_init: Literal["default", "kaiming_normal"] = config.later("default")  # of a linear head's weight

    def __post_init__(self) -> None:
        if isinstance(self.schedule, str) and self.schedule not in SCHEDULES:
            raise ValueError(str(unknown("schedule", self.schedule, SCHEDULES)))
        positive = {"batch_size": self.batch_size, "eval_every": self.eval_every}
        others = (
            "epochs",
            "lr",
            "weight_decay",
            "momentum",
            "warmup_epochs",
            "iterations",
            "warmup_iterations",
            "mixup_alpha",
        )
        for name, value in positive.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, found {value}")
        for name in others:
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be a number of at least 0, found {getattr(self, name)}")
        if self.epochs and self.warmup_epochs > self.epochs:
            raise ValueError(f"warmup_epochs {self.warmup_epochs} must not be more than epochs {self.epochs}")
        if self.epochs and self.iterations:
            raise ValueError(f"either epochs ({self.epochs}) or iterations ({self.iterations}) must be 0")
        if self.iterations and self.warmup_iterations > self.iterations:
            found = f"{self.warmup_iterations} must not be more than iterations {self.iterations}"
            raise ValueError(f"warmup_iterations {found}")
        if not re.fullmatch(r"((pool-)?hash:\d+)?", self.redraw):
            raise ValueError(f"redraw must be hash:<k>, pool-hash:<k> or empty, found {self.redraw!r}")
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0")
        if not 0 <= self.eval_all_after <= 1:
            raise ValueError(f"eval_all_after must be a share of the epochs from 0 to 1, found {self.eval_all_after}")

    def is_evaluated(self, epoch: int) -> bool:
        """Whether the network is evaluated after an epoch, counted from 1. The last one always is."""
        regular = epoch % self.eval_every == 0
        return regular or epoch == self.epochs or epoch > share(self.eval_all_after, self.epochs)

    def for_images(self, count: int) -> StageRecipe:
        """The recipe in whole epochs for a training part of so many images."""
        if not self.iterations:
            return self
        epochs, warmup = (
            whole_epochs(steps, count, self.batch_size, count_partial_batch=self.count_partial_batch)
            for steps in (self.iterations, self.warmup_iterations)
        )
        return dataclasses.replace(self, epochs=epochs, warmup_epochs=warmup, iterations=0, warmup_iterations=0)


@dataclass(frozen=True)
class _Layer(StageRecipe):
    """The keys that a recipe in YAML may have: those of the first stage, and these."""

    backbone: str = ""
    image_size: int = 0
    precision: Literal["float32", "bfloat16"] = "float32"
    params: dict[str, Any] = field(default_factory=dict)
    finetune: dict[str, Any] = field(default_factory=dict)


LAYER_KEYS = {key.name for key in dataclasses.fields(_Layer)} | {"base"}


@dataclass(frozen=True)
class Recipe:
    """A resolved recipe: all that a run depends on besides its split, its seed and the code."""

    backbone: str
    image_size: int  # pixels to which square images are resized; 0: as they are
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
            "image_size": self.recipe.image_size,
            "precision": self.recipe.precision,
            "recipe": config.as_dict(self.recipe.train),
        }


def resolve(entry: Entry, dataset: str, overrides: Sequence[str] = (), backbone: str | None = None) -> Cell:
    """The entry's recipe for a data set, validated.

    Args:
        overrides: `key=value` items of the command line; keys as in YAML, dots between levels, `recipe.` optional.

    Raises:
        UserError: no recipe for this track and data set, an unknown key or variant, a value of the wrong type or out
            of its domain; the message names the file and the key.
    """
    method, given, dataset = get_method(entry.method), dataset, recipes_of(dataset)
    if given != dataset and entry.track == "paper":
        raise UserError(f"{entry}: no paper has a recipe for {given}; the common one is {entry.path.name}@common")
    own = own_layers(entry, dataset)
    own += [("--backbone", {"backbone": backbone})] if backbone else []
    own += [(f"--set {item}", parse_override(item)) for item in overrides]
    params = _params(method, own)
    stages, first_stage = method.stages_of(params), _first_stage(method, params)
    layers = with_bases([*shared_layers(entry, dataset, first_stage.name), *own])
    for where, layer in layers:
        _check_layer(method, layer, where)
    recipe = _build(params, stages, layers, f"recipe of {entry} on {given}")
    first_params = _first_stage_params(entry, dataset, params, first_stage)
    return Cell(entry, recipe, method, first_stage, first_params, stages)


def _params(method: type[Method], layers: Layers) -> Any:
    for where, layer in layers:
        config.check(method.Params, layer.get("params", {}), f"{where}.params")
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
    config.check(_Layer, layer, where)
    config.check(StageRecipe, layer.get("finetune", {}), f"{where}.finetune")
    config.check(method.Params, layer.get("params", {}), f"{where}.params")


def _build(params: Any, stages: tuple[Stage, ...], layers: Layers, what: str) -> Recipe:
    where, values = f"{what} ({files(layers)})", merged(layers)
    extras = ("backbone", "image_size", "precision", "params", "finetune")
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
    return Recipe(values["backbone"], size, values.get("precision", "float32"), params, train, finetune)
