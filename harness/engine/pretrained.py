"""Weights from outside onto our networks, without a table of names: read as data only, matched one to one."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from harness.api import Classifier
from harness.base.errors import UserError, reason
from harness.engine.backbones import create_backbone
from harness.spec.pretrained import find

LEFT_OUT = "num_batches_tracked"  # older files have none, and inference does not use it
PREFIXES = ("module.", "backbone.", "model.")  # that wrappers put before each name
WRAPPERS = ("state_dict", "model")  # keys under which training scripts keep the network


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file in its own order, without `num_batches_tracked`. Nothing in it is executed.

    Raises:
        UserError: unreadable, asks for code, or holds no tensors by name.
    """
    try:
        if path.suffix == ".safetensors":
            return {key: tensor for key, tensor in load_file(path).items() if _last(key) != LEFT_OUT}
        with warnings.catch_warnings(action="ignore"):  # of the pickle's protocol, say
            value: Any = torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise UserError(f"{path}: not a safetensors file, or damaged ({error})") from None
    except Exception as error:  # damaged files raise nearly anything
        text = reason(error)
        if asked := re.search(r"GLOBAL (\S+) was not an allowed", text):
            raise UserError(f"{path}: asks for {asked[1]}, which is code; only plain tensors are loaded") from None
        raise UserError(f"{path}: cannot be read as weights without executing code ({text[:150]})") from None
    state = next((value[key] for key in WRAPPERS if key in value), value) if isinstance(value, Mapping) else value
    if not isinstance(state, Mapping) or not all(isinstance(one, Tensor) for one in state.values()):
        raise UserError(f"{path}: expected tensors by name, at the top or under {' or '.join(map(repr, WRAPPERS))}")
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
    ours = list(model.state_dict().items())
    return _paired(theirs, ours, str(path), backbone, f"; the data set has {num_classes} classes")


def start_backbone(
    name: str, image_shape: tuple[int, int, int], pretrained: str, drop_path: float = 0.0, *, fetch: bool = True
) -> tuple[nn.Module, int]:
    """As `create_backbone`, with the weights that a recipe names.

    Args:
        pretrained: as recipes hold it.
        fetch: False leaves out weights that timm would have to fetch.

    Raises:
        UserError: as `find`, `create_backbone` and `load_backbone`.
    """
    file = find(pretrained)
    backbone, feature_dim = create_backbone(name, image_shape, drop_path, pretrained if fetch and file is None else "")
    if file is not None:
        load_backbone(backbone, file, name)
    return backbone, feature_dim


def load_backbone(network: nn.Module, path: Path, name: str) -> None:
    """Gives a network without head the weights of a file, whose own head is left out.

    Tensors are matched by name, after a prefix that all of the file's have in common; where the names are of another
    code base, by the rule of `match`.

    Raises:
        UserError: as `match`.
    """
    ours, theirs = network.state_dict(), read_tensors(path)
    inside = {key: value for key, value in theirs.items() if key.startswith("backbone.")}
    theirs = inside or theirs  # a network with its head beside it, as this project saves it
    prefix = next((some for some in PREFIXES if theirs and all(key.startswith(some) for key in theirs)), "")
    named = {key.removeprefix(prefix): tensor for key, tensor in theirs.items()}
    wanted = [key for key in ours if _last(key) != LEFT_OUT]
    _check_positions(network, ours, named, str(path))
    if set(wanted) <= set(named):
        pairs = [(key, named[key]) for key in wanted]
        head = [key for key in named if key not in ours]
    else:
        pairs = list(theirs.items())[: len(wanted)] if _is_head(list(theirs)[len(wanted) :]) else list(theirs.items())
        head = []
    if not _is_head(head):
        raise UserError(f"{path}: '{head[0]}' has no place in {name}, and is no head: not the weights of this network")
    network.load_state_dict(ours | _paired(pairs, list(ours.items()), str(path), name))


def _check_positions(network: nn.Module, ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], where: str) -> None:
    """Refuses a transformer's weights for images of another size, and says which they are for."""
    there, here = theirs.get("pos_embed"), ours.get("pos_embed")
    patches: Any = getattr(network, "patch_embed", None)
    if there is None or here is None or there.ndim != here.ndim or not patches:
        return
    if there.shape[1] != here.shape[1]:
        side = math.isqrt(there.shape[1]) * patches.patch_size[0]
        raise UserError(f"{where}: its position embedding is for images of {side} pixels; set image_size={side}")


def _is_head(keys: Sequence[str]) -> bool:
    """Whether these are one linear layer, or nothing."""
    return len(keys) <= 2 and {_last(key) for key in keys} <= {"weight", "bias"}


def _paired(
    theirs: Sequence[tuple[str, Tensor]], ours: Sequence[tuple[str, Tensor]], where: str, name: str, head: str = ""
) -> dict[str, Tensor]:
    """Their tensors under our names, in float32; order, shape and last name part agree one to one."""
    ours = [(key, tensor) for key, tensor in ours if _last(key) != LEFT_OUT]
    for place, ((their, found), (our, wanted)) in enumerate(zip(theirs, ours, strict=False), start=1):
        if _last(their) != _last(our) or found.shape != wanted.shape:
            classes = head if our.startswith("head.") else ""
            raise UserError(
                f"{where}: tensor {place} is '{their}' {tuple(found.shape)}, where {name} has '{our}' "
                f"{tuple(wanted.shape)}{classes}: not the weights of this network"
            )
        if found.layout != torch.strided or not found.is_floating_point() or not torch.isfinite(found).all():
            raise UserError(f"{where}: '{their}' holds values that are not finite numbers")
    if len(theirs) != len(ours):
        which = theirs[len(ours)][0] if len(theirs) > len(ours) else ours[len(theirs)][0]
        raise UserError(
            f"{where}: {len(theirs)} tensors, where {name} has {len(ours)}; the first without a partner is '{which}'"
        )
    return {our: found.float() for (our, _), (_, found) in zip(ours, theirs, strict=True)}


def _last(key: str) -> str:
    return key.rpartition(".")[2]
