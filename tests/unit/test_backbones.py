"""Backbones: the small residual networks as described, any timm model beside them, and clear refusals."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import nn

from harness.base.errors import UserError
from harness.engine.backbones import PaddedShortcutBlock, create_backbone


@pytest.mark.parametrize(
    ("name", "size", "parameters", "features"),
    [
        ("resnet32_cifar", 32, 463_504, 64),
        ("resnet32_cifar_two_block", 32, 463_504 + 73_984, 128),
        ("resnet32_cifar_wide", 32, 7_383_616, 256),
        ("resnet10", 64, 4_905_792, 512),
        ("resnet34_cifar", 32, 21_276_992, 512),
    ],
)
def test_published_sizes(name: str, size: int, parameters: int, features: int) -> None:
    model, dim = create_backbone(name, (size, size, 3))
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert dim == features
    assert model.training
    with torch.no_grad():
        found = model(torch.randn(2, 3, size, size))
    assert found.shape == (2, features)
    assert float(found.min()) >= 0, "the last ReLU is kept"
    assert float(found.max()) > 0


@pytest.mark.parametrize("depth", [8, 20, 32, 44, 56])
def test_cifar_family(depth: int) -> None:
    model: Any = timm.create_model(f"resnet{depth}_cifar", num_classes=10, in_chans=1)
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) + 1 == depth, "depth counts convolutions and the head"
    assert all(conv.bias is None for conv in convolutions)
    assert model(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    assert model.forward_features(torch.zeros(1, 1, 32, 32)).shape == (1, 64, 8, 8)
    model.reset_classifier(0)
    assert model(torch.zeros(2, 1, 28, 28)).shape == (2, 64)


def test_two_last_blocks_stand_side_by_side() -> None:
    """The first 64 features are those of the first one alone."""
    both: Any = timm.create_model("resnet32_cifar_two_block", num_classes=10).eval()
    alone = timm.create_model("resnet32_cifar", num_classes=0).eval()
    named = {name.replace("layer3.4.0.", "layer3.4."): value for name, value in both.state_dict().items()}
    assert set(named) - set(alone.state_dict()) >= {"layer3.4.1.conv1.weight", "fc.weight"}
    alone.load_state_dict({name: value for name, value in named.items() if name in alone.state_dict()})
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert both(images).shape == (2, 10)
        both.reset_classifier(0)
        found = both(images)
        assert torch.equal(found[:, :64], alone(images))
    assert not torch.equal(found[:, :64], found[:, 64:])
    weight = both.layer3[4][1].conv2.weight
    assert float(weight.detach().std()) == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.03)


def test_cifar_initialisation_is_kaiming_normal() -> None:
    torch.manual_seed(0)
    weight = timm.create_model("resnet56_cifar", num_classes=0).get_parameter("layer3.3.conv2.weight")
    assert float(weight.detach().std()) == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.03)


def test_resnet10_initialisation_goes_by_the_outputs() -> None:
    torch.manual_seed(0)
    weight = timm.create_model("resnet10", num_classes=0).get_parameter("layer4.0.conv1.weight")
    assert float(weight.detach().std()) == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.02)


@pytest.mark.parametrize("name", ["resnet10", "resnet18", "resnet50"])
def test_every_batchnorm_scale_starts_at_one(name: str) -> None:
    """As in this field's code; timm itself starts the last one of each block of its ResNets at 0."""
    model, _ = create_backbone(name, (64, 64, 3))
    scales = [module.weight for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert scales
    assert all(bool((scale == 1).all()) for scale in scales)


def test_resnet34_cifar_has_no_max_pool() -> None:
    model: Any = timm.create_model("resnet34_cifar", num_classes=0)
    assert model.forward_features(torch.zeros(1, 3, 32, 32)).shape == (1, 512, 4, 4)
    assert not any(isinstance(module, nn.MaxPool2d) for module in model.modules())


def silent_block(inputs: int, outputs: int, stride: int) -> PaddedShortcutBlock:
    """A block whose convolutions give nothing, so that only the shortcut is seen."""
    block = PaddedShortcutBlock(inputs, outputs, stride).eval()
    nn.init.zeros_(block.conv2.weight)
    return block


@pytest.mark.parametrize("size", [4, 5])
def test_shortcut_takes_every_second_pixel_and_pads_channels_on_both_sides(size: int) -> None:
    x = torch.rand(2, 4, size, size)
    with torch.no_grad():
        out = silent_block(4, 8, stride=2)(x)
    half = (size + 1) // 2
    assert out.shape == (2, 8, half, half)
    for channel in range(8):
        for row in range(half):
            for col in range(half):
                inside = 2 <= channel < 6  # width / 4 zeros on each side
                expected = x[:, channel - 2, 2 * row, 2 * col] if inside else torch.zeros(2)
                assert torch.equal(out[:, channel, row, col], expected)


def test_shortcut_is_the_identity_where_nothing_changes() -> None:
    x = torch.rand(2, 4, 3, 3)
    with torch.no_grad():
        assert torch.equal(silent_block(4, 4, stride=1)(x), x)


def test_any_timm_model_takes_grey_images() -> None:
    model, dim = create_backbone("resnet18", (28, 28, 1))
    assert dim == 512
    with torch.no_grad():
        assert model(torch.zeros(2, 1, 28, 28)).shape == (2, 512)


def test_creating_a_backbone_leaves_its_statistics_fresh() -> None:
    model, _ = create_backbone("resnet8_cifar", (28, 28, 1))
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            assert not buffer.any()
        if name.endswith("num_batches_tracked"):
            assert int(buffer) == 0


def test_same_seed_same_weights() -> None:
    made = []
    for _ in range(2):
        torch.manual_seed(3)
        made.append(create_backbone("resnet8_cifar", (28, 28, 1))[0].state_dict())
    assert all(torch.equal(made[0][key], made[1][key]) for key in made[0])


@pytest.mark.parametrize(("name", "near"), [("resnet8_cifr", "resnet8_cifar"), ("resnet_18", "resnet18")])
def test_unknown_name(name: str, near: str) -> None:
    with pytest.raises(UserError, match=near) as caught:
        create_backbone(name, (32, 32, 3))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300, "a thousand timm names are not listed"


@pytest.mark.parametrize(("name", "shape"), [("vit_tiny_patch16_224", (28, 28, 1)), ("resnet50", (0, 0, 3))])
def test_images_of_a_wrong_size(name: str, shape: tuple[int, int, int]) -> None:
    with pytest.raises(UserError, match=f"backbone '{name}' does not accept {shape[0]}x{shape[1]} images") as caught:
        create_backbone(name, shape)
    assert "\n" not in str(caught.value)
