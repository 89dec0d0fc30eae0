"""Backbones through timm, and the small residual networks of this field that timm does not have.

Importing this module registers `resnet8_cifar` ... `resnet56_cifar`, `resnet32_cifar_two_block`, `resnet32_cifar_wide`,
`resnet34_cifar` and `resnet10` with timm.
"""

from __future__ import annotations

import logging
import math
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast
from urllib.parse import urlsplit
from urllib.request import getproxies

import timm
import torch
import torch.nn.functional as F
from huggingface_hub import constants as hub
from timm.models import register_model
from timm.models.resnet import BasicBlock, ResNet
from torch import Tensor, nn

from harness.base.errors import UserError, unknown


class PaddedShortcutBlock(nn.Module):
    """Basic block with the parameter-free shortcut (option A): every second pixel, channels padded with zeros."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride = stride

    @property
    def padding(self) -> int:
        """Zero channels on each side of the shortcut."""
        return (self.conv1.out_channels - self.conv1.in_channels) // 2

    def forward(self, x: Tensor) -> Tensor:
        """Feature maps in, feature maps out."""
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn2(self.conv2(out))
        if self.padding or self.stride > 1:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.padding, self.padding))
        return F.relu(out + x, inplace=True)


class SideBySide(nn.ModuleList):
    """Blocks that all see the same maps; the channels of their outputs are concatenated in the blocks' order."""

    def forward(self, x: Tensor) -> Tensor:
        """Feature maps in, feature maps out."""
        return torch.cat([block(x) for block in self], dim=1)


class CifarResNet(nn.Module):
    """ResNet for 32x32 images (He et al., CVPR 2016, section 4.2): depth 6n + 2, widths 16, 32, 64, or multiples.

    Follows timm's conventions: `num_features`, `forward_features`, `forward_head`, `reset_classifier`; with
    `num_classes=0` it returns pooled features, shape (B, 64), non-negative because the last ReLU is kept. With more
    than one of the last block, in parallel, there are 64 features of each.
    """

    def __init__(
        self, depth: int, num_classes: int = 10, in_chans: int = 3, last_blocks: int = 1, width: int = 16
    ) -> None:
        super().__init__()
        self.num_classes, self.num_features = num_classes, 4 * width * last_blocks
        self.head_hidden_size = self.num_features
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(in_chans, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = self._layer(width, width, blocks, 1)
        self.layer2 = self._layer(width, 2 * width, blocks, 2)
        self.layer3 = self._layer(2 * width, 4 * width, blocks, 2)
        if last_blocks > 1:
            self.layer3[-1] = SideBySide(PaddedShortcutBlock(4 * width, 4 * width, 1) for _ in range(last_blocks))
        self.fc: nn.Module = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight)

    @staticmethod
    def group_matcher(coarse: bool = False) -> dict[str, Any]:
        """What timm takes for layers: the stem, and each block."""
        return {"stem": r"^(?:conv1|bn1)", "blocks": r"^layer(\d+)" if coarse else r"^layer(\d+)\.(\d+)"}

    @staticmethod
    def _layer(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
        first = PaddedShortcutBlock(inputs, outputs, stride)
        return nn.Sequential(first, *(PaddedShortcutBlock(outputs, outputs, 1) for _ in range(blocks - 1)))

    def get_classifier(self) -> nn.Module:
        """The head."""
        return self.fc

    def reset_classifier(self, num_classes: int) -> None:
        """A new head, or none with 0 classes."""
        self.num_classes = num_classes
        self.fc = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def forward_features(self, x: Tensor) -> Tensor:
        """Feature maps, shape (B, d, H/4, W/4)."""
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out: Tensor = self.layer3(self.layer2(self.layer1(x)))
        return out

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Global average pool, then the head."""
        x = x.mean(dim=(2, 3))
        return x if pre_logits else self.fc(x)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, or pooled features when there are no classes."""
        return self.forward_head(self.forward_features(x))


def _cifar_resnet(depth: int, pretrained: bool, **kwargs: Any) -> CifarResNet:
    if pretrained:
        raise UserError(f"resnet{depth}_cifar has no pretrained weights")
    if kwargs.get("drop_path_rate"):
        raise UserError(f"resnet{depth}_cifar has no stochastic depth (drop_path)")
    known = {key: kwargs[key] for key in ("num_classes", "in_chans", "last_blocks", "width") if key in kwargs}
    return CifarResNet(depth, **known)


@register_model
def resnet8_cifar(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """ResNet-8, 75 thousand parameters."""
    return _cifar_resnet(8, pretrained, **kwargs)


@register_model
def resnet20_cifar(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """ResNet-20, 0.27 million parameters."""
    return _cifar_resnet(20, pretrained, **kwargs)


@register_model
def resnet32_cifar(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """ResNet-32, 463,504 parameters without head: the backbone of the CIFAR-LT papers."""
    return _cifar_resnet(32, pretrained, **kwargs)


@register_model
def resnet32_cifar_two_block(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """ResNet-32 with two last blocks side by side: 128 features, 73,984 parameters more.

    BBN's network (Zhou et al., CVPR 2020) as a single branch: so De-confound-TDE's and LADE's code for CIFAR-LT.
    """
    return _cifar_resnet(32, pretrained, last_blocks=2, **kwargs)


@register_model
def resnet32_cifar_wide(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """ResNet-32 with 64, 128 and 256 channels, 7.4 million parameters: what GLMC's code calls ResNet-32."""
    return _cifar_resnet(32, pretrained, width=64, **kwargs)


@register_model
def resnet44_cifar(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """ResNet-44, 0.66 million parameters."""
    return _cifar_resnet(44, pretrained, **kwargs)


@register_model
def resnet56_cifar(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """ResNet-56, 0.85 million parameters."""
    return _cifar_resnet(56, pretrained, **kwargs)


@register_model
def resnet34_cifar(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """ResNet-34, 3x3 stride-1 stem, no max-pool (weight balancing's code); 21,276,992 parameters without head."""
    if pretrained:
        raise UserError("resnet34_cifar has no pretrained weights")
    model: Any = ResNet(cast(Any, BasicBlock), (3, 4, 6, 3), zero_init_last=False, **_without_timm_extras(kwargs))
    model.conv1 = nn.Conv2d(kwargs.get("in_chans", 3), 64, 3, 1, 1, bias=False)
    model.maxpool = nn.Identity()
    return cast(ResNet, model)


@register_model
def resnet10(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """ResNet-10 with the ImageNet stem: one basic block a stage; 4,905,792 parameters without head, 512 features."""
    if pretrained:
        raise UserError("resnet10 has no pretrained weights")
    model = ResNet(cast(Any, BasicBlock), (1, 1, 1, 1), zero_init_last=False, **_without_timm_extras(kwargs))
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
            nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / fan_out))
    return model


def register_backbones() -> None:
    """Makes our networks known to timm, so that `timm.create_model("resnet32_cifar", num_classes=0)` finds them.

    There is nothing left to do: importing this module has registered them.
    """


def _without_timm_extras(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Drops the arguments about pretrained weights that timm's factory passes on."""
    return {key: value for key, value in kwargs.items() if not key.startswith("pretrained_cfg") and key != "cache_dir"}


def _options(name: str, image_shape: tuple[int, int, int], drop_path: float) -> dict[str, Any]:
    """What timm is told besides the name."""
    options: dict[str, Any] = {"num_classes": 0, "in_chans": image_shape[2]}
    if timm.model_entrypoint(name).__module__ == ResNet.__module__:
        options["zero_init_last"] = False  # this field's BatchNorm scales all start at 1, timm's last of a block at 0
    if drop_path:
        options["drop_path_rate"] = drop_path
    known = timm.get_pretrained_cfg(name, allow_unregistered=True)
    if known is not None and known.fixed_input_size:  # a transformer's position embedding is made for one size
        options["img_size"] = image_shape[:2]
    return options


def _check_patches(model: Any, height: int, width: int) -> None:
    """Refuses images of which patches would leave a border out, without a word."""
    rows, cols = getattr(getattr(model, "patch_embed", None), "patch_size", (1, 1))
    if height % rows or width % cols:
        raise ValueError(f"its patches have {rows}x{cols} pixels; a border would be left out")


def _with_weights(name: str, options: dict[str, Any]) -> nn.Module:
    """A model with timm's pretrained weights, from its cache or the network."""
    try:
        with _patient_only_online():
            return timm.create_model(name, pretrained=True, **options)
    except (TypeError, AssertionError):  # of options
        raise
    except Exception as error:  # of the network, the hub's library, a damaged cache
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"pretrained: {name}: neither in timm's cache nor to be had from the network ({reason[:120]}); with the "
            "file at hand: --set pretrained=FILE"
        ) from None


@contextmanager
def _patient_only_online() -> Iterator[None]:
    """Where no name can be looked up the hub's library would try for a minute, and say so each time."""
    logger, offline = logging.getLogger("huggingface_hub"), hub.HF_HUB_OFFLINE
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        if not getproxies():
            socket.getaddrinfo(urlsplit(hub.ENDPOINT).hostname, None)
    except OSError:
        hub.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        logger.setLevel(level)
        hub.HF_HUB_OFFLINE = offline


def create_backbone(
    name: str, image_shape: tuple[int, int, int], drop_path: float = 0.0, tag: str = ""
) -> tuple[nn.Module, int]:
    """A timm model without head, and its feature dimension d. Maps (B, channels, H, W) to (B, d).

    Args:
        image_shape: height, width, channels of the images it must accept.
        drop_path: rate of stochastic depth.
        tag: of timm's pretrained weights; empty: random ones.

    Raises:
        UserError: timm knows no such name; or the model does not accept images of that size or
            has no stochastic depth.
    """
    architecture, _, named = name.partition(".")
    if named and timm.is_model(architecture):
        raise UserError(
            f"backbone '{name}': '{named}' names pretrained weights; say backbone {architecture}, pretrained {named}"
        )
    if not timm.is_model(name):
        raise unknown("backbone", name, timm.list_models())
    height, width, channels = image_shape
    options = _options(name, image_shape, drop_path)
    try:
        model = _with_weights(f"{name}.{tag}", options) if tag else timm.create_model(name, pretrained=False, **options)
        _check_patches(model, height, width)
        model.eval()
        with torch.no_grad():
            features = model(torch.zeros(2, channels, height, width))
    except (RuntimeError, AssertionError, ValueError, TypeError, IndexError) as error:
        if "drop_path_rate" in str(error):
            raise UserError(f"backbone '{name}' has no stochastic depth (drop_path)") from None
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"backbone '{name}' does not accept {height}x{width} images with {channels} channels: {reason}"
        ) from None
    if features.ndim != 2:
        raise UserError(f"backbone '{name}' gives features of shape {tuple(features.shape)}, expected (images, d)")
    return model.train(), int(features.shape[1])
