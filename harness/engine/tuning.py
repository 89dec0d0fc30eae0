"""What a recipe says of tuning weights: the optimizer, rates and decay by layer, and the average of the weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from timm.optim import create_optimizer_v2, param_groups_layer_decay  # type: ignore[attr-defined]
from timm.utils.model_ema import ModelEmaV3
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from harness.api import Classifier
from harness.base.errors import UserError
from harness.engine.device import replays
from harness.spec.stage_recipe import StageRecipe

Groups = list[dict[str, Any]]


def by_layer(groups: Groups, model: Classifier, recipe: StageRecipe) -> Groups:
    """The method's groups, cut further by layer (`layer_decay`) and by whether weights decay (`decay_all`).

    The layers are timm's. What lies outside the backbone has the full rate, and a method's own `weight_decay` and
    `lr_scale` hold for what is left of its group.

    Raises:
        UserError: a network whose layers are not known.
    """
    if recipe.decay_all and recipe.layer_decay == 1:
        return groups
    if recipe.layer_decay < 1 and not hasattr(model.backbone, "group_matcher"):
        raise UserError(f"layer_decay: {type(model.backbone).__name__} does not say what its layers are")
    exempt: set[str] = getattr(model.backbone, "no_weight_decay", set)()
    marks = dict[nn.Parameter, tuple[float, bool]]()
    for layer in param_groups_layer_decay(model.backbone, 1.0, exempt, layer_decay=recipe.layer_decay):
        rate = recipe.layer_decay * layer["lr_scale"]  # the head is one layer more
        marks |= dict.fromkeys(layer["params"], (rate, recipe.decay_all or layer["weight_decay"] > 0))
    found: Groups = []
    for group in groups:
        pieces = dict[tuple[float, bool], list[nn.Parameter]]()
        for parameter in group["params"]:
            mark = marks.get(parameter, (1.0, recipe.decay_all or parameter.ndim > 1))
            pieces.setdefault(mark, []).append(parameter)
        for (scale, decays), parameters in pieces.items():
            piece = {**group, "params": parameters, "lr_scale": scale * group.get("lr_scale", 1.0)}
            found.append(piece if decays else {**piece, "weight_decay": 0.0})
    return found


def make_optimizer(groups: Groups, recipe: StageRecipe, device: torch.device) -> torch.optim.Optimizer:
    """The recipe's optimizer over the groups."""
    if recipe.optimizer != "sgd":
        options = {"lr": recipe.lr, "weight_decay": recipe.weight_decay, "momentum": recipe.momentum}
        return capturable(create_optimizer_v2(groups, opt=recipe.optimizer, **options), device)  # type: ignore[arg-type]
    return torch.optim.SGD(
        groups,
        lr=recipe.lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.nesterov,
        fused=replays(device),  # one kernel for all parameters, which reads the rate on the device
    )


def capturable(optimizer: torch.optim.Optimizer, device: torch.device) -> torch.optim.Optimizer:
    """The optimizer, before its first step, with its counts of steps on the device where it can have them there."""
    for group in optimizer.param_groups:
        if "capturable" in group:
            group["capturable"] = device.type == "cuda"
    return optimizer


def recompute_activations(backbone: nn.Module, name: str) -> None:
    """Makes a network compute its activations again in the backward pass.

    Raises:
        UserError: it has BatchNorm, or timm cannot do that with it.
    """
    where = f"gradient_checkpointing: backbone '{name}'"
    if any(isinstance(module, _BatchNorm) for module in backbone.modules()):
        raise UserError(f"{where} has BatchNorm, whose statistics would move twice in a step")
    try:
        backbone.set_grad_checkpointing(True)  # type: ignore[operator]
    except (AttributeError, AssertionError):
        raise UserError(f"{where} cannot do that") from None


class Average:
    """The moving average of a model's weights and statistics, with which it is evaluated; nothing with decay 0."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._model, self._ema = model, ModelEmaV3(model, decay=decay) if decay else None

    @property
    def module(self) -> nn.Module | None:
        """The model with averaged weights, None where there is no average."""
        return None if self._ema is None else self._ema.module

    def state_dict(self) -> dict[str, Any]:
        """The averaged weights, for a resumed run."""
        return {} if self._ema is None else self._ema.module.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes back what `state_dict` gave."""
        if self._ema is not None:
            self._ema.module.load_state_dict(state)

    def update(self) -> None:
        """After a step."""
        if self._ema is not None:
            self._ema.update(self._model)

    @contextmanager
    def taking_over(self) -> Iterator[None]:
        """What is written into the model meanwhile, outside of the optimizer's steps, is not averaged but copied."""
        before = {} if self._ema is None else {name: value.clone() for name, value in self._model.state_dict().items()}
        yield
        if self._ema is not None:
            averaged = self._ema.module.state_dict()
            for name, value in self._model.state_dict().items():
                if not torch.equal(value, before[name]):
                    averaged[name].copy_(value)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Puts the averaged weights into the model for a while."""
        if self._ema is None:
            yield
            return
        raw = {name: value.clone() for name, value in self._model.state_dict().items()}
        self._model.load_state_dict(self._ema.module.state_dict())
        try:
            yield
        finally:
            self._model.load_state_dict(raw)
