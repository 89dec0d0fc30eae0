"""Residual networks taken apart: a trunk that is shared, and branches that have its end to themselves."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from harness.base.errors import RunSkipped


def cut_off(backbone: nn.Module, stages: int = 0) -> nn.Sequential:
    """Takes the end off a residual network, which stays behind without it, and returns that end.

    Args:
        backbone: a network of this project's or timm's ResNets: stages `layer1`, `layer2`, ... of blocks, and timm's
            `forward_features` and `forward_head`.
        stages: how many whole stages; 0: the last block of the last stage.

    Raises:
        RunSkipped: the backbone is no such network, or has too few stages; it says which.
    """
    names = [name for name, child in backbone.named_children() if name[:5] == "layer" and name[5:].isdigit()]
    layers = [getattr(backbone, name) for name in names]
    sound = all(isinstance(layer, nn.Sequential) and len(layer) for layer in layers)
    if not layers or not sound or not hasattr(backbone, "forward_head") or len(layers) <= stages:
        kind = f"{type(backbone).__name__} is no residual network that can be split into branches"
        raise RunSkipped(f"{kind}: that takes stages layer1, layer2, ..., more than {stages} of them", agreed=True)
    if stages:
        for name in names[-stages:]:
            setattr(backbone, name, nn.Identity())
        return nn.Sequential(*layers[-stages:])
    block, layers[-1][-1] = layers[-1][-1], nn.Identity()
    return nn.Sequential(nn.Sequential(block))


def renewed(part: nn.Sequential, width: float = 1.0) -> nn.Sequential:
    """A copy of what `cut_off` returned, with weights of its own and a share of the channels.

    Convolutions start as He et al. (ICCV 2015) say, normal with variance 2 / fan-in; everything else as torch has it.

    Args:
        width: the share, of all channels but those that come in.

    Raises:
        RunSkipped: the part has layers whose channels cannot be changed.
    """
    part = copy.deepcopy(part)
    if width != 1:
        _narrow(part, width)
    for module in part.modules():
        reset = getattr(module, "reset_parameters", None)
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        elif callable(reset):
            reset()
    return part


def _narrow(part: nn.Sequential, width: float) -> None:
    first = {name for name, _ in part.named_modules() if name.startswith(("0.0.conv1", "0.0.downsample"))}
    entry: Any = part.get_submodule("0.0.conv1")
    try:
        for name, module in part.named_modules():
            if [*module.parameters(recurse=False), *module.buffers(recurse=False)]:
                parent, _, leaf = name.rpartition(".")
                setattr(part.get_submodule(parent), leaf, _narrowed(module, width, takes_input=name in first))
        with torch.no_grad():
            part(torch.zeros(2, entry.in_channels, 8, 8))
    except (RuntimeError, ValueError, TypeError) as error:
        text = str(error).splitlines()[0]
        raise RunSkipped(f"the backbone cannot be given {width:g} of its channels: {text}", agreed=True) from None


def _narrowed(module: nn.Module, width: float, *, takes_input: bool) -> nn.Module:
    """A layer of the same kind with a share of the channels."""
    if isinstance(module, nn.BatchNorm2d):
        return type(module)(int(width * module.num_features), module.eps, module.momentum)
    if not isinstance(module, nn.Conv2d):
        raise TypeError(f"it has {type(module).__name__}")
    inputs = module.in_channels if takes_input else int(width * module.in_channels)
    keys = ("kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
    same: dict[str, Any] = {key: getattr(module, key) for key in keys}
    return type(module)(inputs, int(width * module.out_channels), bias=module.bias is not None, **same)


class Branched(nn.Module):
    """A trunk, and branches that go on from it: images (B, channels, H, W) -> features (B, branches, d).

    Images of shape (B, branches, channels, H, W) are a batch for each branch. They pass through the trunk one batch
    after the other, so that its BatchNorms normalise each by itself.
    """

    def __init__(self, trunk: nn.Module, branches: Sequence[nn.Module]) -> None:
        super().__init__()
        self.trunk: Any = trunk
        self.branches = nn.ModuleList(branches)

    def forward(self, images: Tensor) -> Tensor:
        """Pooled features of each branch."""
        if images.ndim == 5:
            maps = [self.trunk.forward_features(own) for own in images.unbind(1)]
        else:
            maps = [self.trunk.forward_features(images)] * len(self.branches)
        ends = [branch(shared) for branch, shared in zip(self.branches, maps, strict=True)]
        return torch.stack([self.trunk.forward_head(end, pre_logits=True) for end in ends], dim=1)


def with_experts(backbone: nn.Module, experts: int, width: float) -> Branched:
    """The backbone with its last two stages once for each expert, each with a share `width` of the channels (RIDE).

    Raises:
        RunSkipped: the backbone cannot be split like this.
    """
    part = cut_off(backbone, stages=2)
    return Branched(backbone, [renewed(part, width) for _ in range(experts)])
