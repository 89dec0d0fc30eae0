"""Weights of other code bases onto our networks, without a table of names: read as data only, matched one to one."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from harness.api import Classifier
from harness.base.errors import UserError
from harness.engine.backbones import create_backbone

LEFT_OUT = "num_batches_tracked"  # older files have none, and inference does not use it
WRAPPER = "state_dict"  # key under which training scripts keep the network


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file in its own order, without `num_batches_tracked`. Nothing in it is executed.

    Raises:
        UserError: unreadable, asks for code, or holds no tensors by name.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # of the pickle's protocol, say
            value: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files raise nearly anything
        text = " ".join(str(error).split()) or type(error).__name__
        if asked := re.search(r"GLOBAL (\S+) was not an allowed", text):
            raise UserError(f"{path}: asks for {asked[1]}, which is code; only plain tensors are loaded") from None
        raise UserError(f"{path}: cannot be read as weights without executing code ({text[:150]})") from None
    state = value.get(WRAPPER, value) if isinstance(value, Mapping) else value
    if not isinstance(state, Mapping) or not all(isinstance(one, Tensor) for one in state.values()):
        raise UserError(f"{path}: expected tensors by name, at the top or under '{WRAPPER}'")
    return {str(key): tensor for key, tensor in state.items() if _last(str(key)) != LEFT_OUT}


def match(path: Path, backbone: str, image_shape: tuple[int, int, int], num_classes: int) -> dict[str, Tensor]:
    """The file's tensors under the names of our backbone and a linear head, in float32.

    Order, shape and last name part must agree one to one: order and shape alone would accept swapped BatchNorm
    vectors. A head without bias stays without one.

    Raises:
        UserError: as `read_tensors`; or another network than this one, with the first mismatch.
    """
    theirs = list(read_tensors(path).items())
    network, feature_dim = create_backbone(backbone, image_shape)
    bias = bool(theirs) and _last(theirs[-1][0]) == "bias"
    model = Classifier(network, nn.Linear(feature_dim, num_classes, bias=bias))
    ours = [(key, tensor) for key, tensor in model.state_dict().items() if _last(key) != LEFT_OUT]
    for place, ((their, found), (our, wanted)) in enumerate(zip(theirs, ours, strict=False), start=1):
        if _last(their) != _last(our) or found.shape != wanted.shape:
            classes = f"; the data set has {num_classes} classes" if our.startswith("head.") else ""
            raise UserError(
                f"{path}: tensor {place} is '{their}' {tuple(found.shape)}, where {backbone} has '{our}' "
                f"{tuple(wanted.shape)}{classes}: not the weights of this network"
            )
        if found.layout != torch.strided or not found.is_floating_point() or not torch.isfinite(found).all():
            raise UserError(f"{path}: '{their}' holds values that are not finite numbers")
    if len(theirs) != len(ours):
        which = theirs[len(ours)][0] if len(theirs) > len(ours) else ours[len(theirs)][0]
        raise UserError(
            f"{path}: {len(theirs)} tensors, where {backbone} has {len(ours)}; the first without a partner is '{which}'"
        )
    return {our: found.float() for (our, _), (_, found) in zip(ours, theirs, strict=True)}


def _last(key: str) -> str:
    return key.rpartition(".")[2]
