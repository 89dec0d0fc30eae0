"""Training as timm's users know it: rates and decay by layer, averaged weights, smoothed labels, stochastic depth."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay  # type: ignore[attr-defined]
from torch import nn

from harness.api import Classifier, Method, StepContext
from harness.base.errors import RunFailed, UserError
from harness.base.progress import Reporter
from harness.engine.backbones import create_backbone
from harness.engine.tuning import by_layer
from harness.reading.dataset import Images
from harness.spec.entries import parse_entry
from harness.spec.recipes import resolve
from harness.spec.stage_recipe import Augment, StageRecipe
from harness.splits.splits import Split
from tests.engine.toys import RECIPE, Killed, finish, job, kill_after, results, start

ImagesByPart = dict[str, Images]
VIT = {"drop_path": 0.2, "gradient_checkpointing": True, "optimizer": "adamw", "lr": 1e-3, "augment": Augment()}
CHANGES: dict[str, dict[str, Any]] = {
    "ema": {"ema": 0.9},
    "layers": {"layer_decay": 0.7, "decay_all": False},
    "smoothing": {"label_smoothing": 0.1},
    "cutmix": {"cutmix_alpha": 1.0},
    "cutmix or mixup": {"cutmix_alpha": 1.0, "mixup_alpha": 0.2},
    "rand_augment": {"augment": Augment(crop_padding=2, rand_augment=9, random_erasing=0.5)},
}


class Plain(Method):
    name = "plain"


def small_vit(job_of: Any) -> Any:
    return dataclasses.replace(job_of, backbone="vit_of_8_pixels", recipe=dataclasses.replace(job_of.recipe, **VIT))


@timm.models.register_model
def vit_of_8_pixels(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """A transformer for the tiny split's images."""
    kwargs = {key: kwargs[key] for key in ("num_classes", "in_chans", "drop_path_rate") if key in kwargs}
    return timm.models.vision_transformer.VisionTransformer(
        img_size=8, patch_size=4, embed_dim=16, depth=3, num_heads=2, **kwargs
    )


def outcomes(split: Split, images: ImagesByPart, folder: Path, stage_job: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A run's results, undisturbed and after a kill in its second epoch."""
    finish(stage_job, split, images, folder / "whole")
    monkeypatch.setenv("LTBENCH_CHECKPOINT_SECONDS", "0")
    run = start(stage_job, split, images, folder / "parts")
    kill_after(run, 7)
    with pytest.raises(Killed):
        run.run(Reporter())
    finish(stage_job, split, images, folder / "parts")
    return results(folder / "whole"), results(folder / "parts")


@pytest.mark.parametrize("name", CHANGES)
def test_each_key_changes_the_weights_and_resumes_to_the_same_bits(
    name: str, tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = job(Plain, epochs=3, **CHANGES[name])
    whole, parts = outcomes(tiny_split, tiny_images, tmp_path, changed, monkeypatch)
    assert whole == parts
    finish(job(Plain, epochs=3), tiny_split, tiny_images, tmp_path / "without")
    assert results(tmp_path / "without")[0] != whole[0]


def test_a_transformer_with_stochastic_depth_resumes_to_the_same_bits(
    tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = outcomes(tiny_split, tiny_images, tmp_path, small_vit(job(Plain, epochs=3)), monkeypatch)
    assert whole == parts


# ---- groups of parameters ----------------------------------------------------------------------------------------


def groups_of(backbone: nn.Module, **changes: Any) -> tuple[Classifier, dict[nn.Parameter, dict[str, Any]]]:
    model = Classifier(backbone, nn.Linear(8, 3))
    recipe = dataclasses.replace(RECIPE, **changes)
    groups = by_layer([{"params": list(model.parameters()), "lr_scale": 2.0}], model, recipe)
    return model, {parameter: group for group in groups for parameter in group["params"]}


def test_rates_fall_layer_by_layer_towards_the_image() -> None:
    """As in timm's whole models: the head's layer is above that of the last of three blocks, which has the norm."""
    model, groups = groups_of(timm.create_model("vit_of_8_pixels", num_classes=0), layer_decay=0.5)
    rate = {name: groups[parameter]["lr_scale"] for name, parameter in model.named_parameters()}
    assert rate["head.weight"] == 2.0
    assert rate["backbone.norm.weight"] == 1.0
    blocks = [rate[f"backbone.blocks.{number}.mlp.fc1.weight"] for number in range(3)]
    assert blocks == [0.25, 0.5, 1.0]
    assert rate["backbone.patch_embed.proj.weight"] == rate["backbone.cls_token"] == 0.125
    assert not any("weight_decay" in group for group in groups.values())  # the recipe's
    whole = timm.create_model("vit_of_8_pixels", num_classes=3)
    theirs = {
        p: layer["lr_scale"] for layer in param_groups_layer_decay(whole, layer_decay=0.5) for p in layer["params"]
    }
    for name, parameter in whole.named_parameters():
        assert 2 * theirs[parameter] == rate[name if name.startswith("head") else f"backbone.{name}"], name


def test_what_does_not_decay() -> None:
    model, groups = groups_of(timm.create_model("vit_of_8_pixels", num_classes=0), decay_all=False)
    exempt = {name for name, parameter in model.named_parameters() if groups[parameter].get("weight_decay") == 0.0}
    wanted = {name for name, p in model.named_parameters() if p.ndim <= 1} | {
        "backbone.cls_token",
        "backbone.pos_embed",
    }
    assert exempt == wanted
    assert {group["lr_scale"] for group in groups.values()} == {2.0}


def test_every_parameter_stays_in_one_group_and_none_is_cut_without_need() -> None:
    for changes in ({"layer_decay": 0.5, "decay_all": False}, {"layer_decay": 0.9}):
        model, groups = groups_of(create_backbone("resnet8_cifar", (8, 8, 3))[0], **changes)
        assert groups.keys() == set(model.parameters())
    given = [{"params": list(model.parameters())}]
    assert by_layer(given, model, RECIPE) is given


# ---- averaged weights --------------------------------------------------------------------------------------------


class Writes(Plain):
    """Writes into the head once an epoch, as methods do that learn nothing, and after each step."""

    def after_step(self, step: StepContext) -> None:
        with torch.no_grad():
            step.model.head.weight.clamp_(-0.01, 0.01)

    def on_epoch_end(self, step: StepContext) -> None:
        with torch.no_grad():
            step.model.head.bias.fill_(float(step.epoch + 7))


def test_what_a_method_writes_itself_is_in_the_average(
    tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path
) -> None:
    run = finish(job(Writes, epochs=2, ema=0.9), tiny_split, tiny_images, tmp_path)
    module = run.network.average_weights.module
    assert module is not None
    assert bool((module.head.bias == 8.0).all())
    assert not bool((module.head.weight == run.model.head.weight).all())


class Kept(Plain):
    """Keeps the weights after each step."""

    def on_stage_start(self, model: Classifier, stage: Any) -> None:
        self.weights = [{name: value.clone() for name, value in model.state_dict().items()}]

    def after_step(self, step: StepContext) -> None:
        self.weights.append({name: value.clone() for name, value in step.model.state_dict().items()})


def test_averaged_weights_are_evaluated_and_saved(tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path) -> None:
    run = finish(job(Kept, epochs=2, ema=0.4), tiny_split, tiny_images, tmp_path)
    average = dict(run.method.weights[0])  # type: ignore[attr-defined]
    for weights in run.method.weights[1:]:  # type: ignore[attr-defined]
        for name, value in weights.items():
            average[name] = 0.4 * average[name] + 0.6 * value if value.is_floating_point() else value
    found = run.network.average_weights.module
    assert found is not None
    for name, value in found.state_dict().items():
        torch.testing.assert_close(value, average[name], rtol=1e-5, atol=1e-6)
    found.eval()
    logits = torch.cat([found(batch) for batch in run.data["test"].in_order(50, range(len(run.data["test"])))])
    assert np.array_equal(logits.argmax(1).numpy(), run.history.test[-1])
    plain = finish(job(Plain, epochs=2), tiny_split, tiny_images, tmp_path / "plain")
    raw = 100 * (plain.history.test[-1] == tiny_split.test.targets()).mean()
    assert run.notes == (f"train: averaged weights (ema 0.4); the raw ones end at {raw:.2f} %",)


@pytest.mark.parametrize(("images", "ema"), [(640, 0.95), (6400, 0.99), (1, 0.5)])
def test_an_average_reaches_over_no_more_than_a_fifth_of_the_steps(images: int, ema: float) -> None:
    recipe = StageRecipe(epochs=10, batch_size=64, lr=0.1, weight_decay=0.0, ema=0.99)
    assert recipe.for_images(images).ema == ema
    assert dataclasses.replace(recipe, ema=0.0).for_images(images).ema == 0.0


# ---- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stage_job", "message"),
    [
        (job(Plain, drop_path=0.1), r"resnet8_cifar has no stochastic depth \(drop_path\)"),
        (job(Plain, gradient_checkpointing=True), "backbone 'resnet8_cifar' has BatchNorm"),
    ],
)
def test_what_cannot_be_done_is_refused(
    stage_job: Any, message: str, tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path
) -> None:
    with pytest.raises((RunFailed, UserError), match=message):
        start(stage_job, tiny_split, tiny_images, tmp_path)


@pytest.mark.parametrize("entry", ["focal@common", "disalign@common", "tde@common"])
def test_label_smoothing_is_refused_where_a_method_has_a_loss_of_its_own(entry: str) -> None:
    with pytest.raises(UserError, match=rf"label_smoothing: '{entry.partition('@')[0]}' has a loss of its own"):
        resolve(parse_entry(entry), "mnist5k", ["label_smoothing=0.1"])
    assert resolve(parse_entry("crt@common"), "mnist5k", ["label_smoothing=0.1"]).recipe.train.label_smoothing == 0.1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer_decay": 0.0}, "layer_decay must be above 0 and at most 1, found 0.0"),
        ({"layer_decay": 1.5}, "layer_decay must be above 0 and at most 1, found 1.5"),
        ({"ema": 1.0}, "ema must be below 1, found 1.0"),
        ({"label_smoothing": 1.0}, "label_smoothing must be below 1"),
        ({"drop_path": -0.1}, "drop_path must be a number of at least 0"),
        ({"cutmix_alpha": -1.0}, "cutmix_alpha must be a number of at least 0"),
    ],
)
def test_values_out_of_their_domain_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(RECIPE, **changes)
