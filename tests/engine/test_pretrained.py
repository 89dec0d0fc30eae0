"""Weights to start from: known by their hash, matched strictly, named in the record; and how images look for them."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import constants as hub
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from harness.base.errors import RunFailed, UserError
from harness.base.files import sha256_file
from harness.engine.backbones import create_backbone
from harness.engine.pretrained import start_backbone
from harness.feed.resize import normalised, resized
from harness.reading.dataset import Images
from harness.reporting.summary import PROTOCOL, _protocol
from harness.spec.entries import parse_entry
from harness.spec.pretrained import start_notes
from harness.spec.recipes import Recipe, overrides_between, resolve
from harness.spec.registry import get_method
from harness.splits.splits import Split
from tests.engine.test_tuning import Plain
from tests.engine.toys import job, start
from tests.factories import make_record

ImagesByPart = dict[str, Images]
SHAPE = (8, 8, 3)
FIRST_KEYS = ("backbone", "pretrained")


def weights(seed: int = 1, name: str = "resnet8_cifar") -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return create_backbone(name, SHAPE)[0].state_dict()


def with_head(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**state, "fc.weight": torch.randn(7, 64), "fc.bias": torch.randn(7)}


def under_other_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed = {f"net.{key.replace('layer', 'group')}": value for key, value in with_head(state).items()}
    return {key: value for key, value in renamed.items() if "num_batches" not in key}


def recipe(*overrides: str) -> Recipe:
    return resolve(parse_entry("ce@common"), "mnist5k", overrides).recipe


FORMS: dict[str, Any] = {
    "w.safetensors": lambda state, path: save_file({k: v.contiguous() for k, v in with_head(state).items()}, path),
    "w.pth": lambda state, path: torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, path),
    "w.th": lambda state, path: torch.save(under_other_names(state), path),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_run_starts_from_a_files_weights_and_a_fresh_head(
    name: str, tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path
) -> None:
    state = weights()
    FORMS[name](state, tmp_path / name)
    wanted = recipe(f"pretrained={tmp_path / name}").pretrained
    assert wanted == f"{name} sha256:{sha256_file(tmp_path / name)}"
    run = start(dataclasses.replace(job(Plain), pretrained=wanted), tiny_split, tiny_images, tmp_path / "run")
    scratch = start(job(Plain), tiny_split, tiny_images, tmp_path / "scratch")
    for key, value in run.model.backbone.state_dict().items():
        if "num_batches" not in key:
            torch.testing.assert_close(value, state[key], rtol=0, atol=0)
    assert torch.equal(run.model.head.weight, scratch.model.head.weight)
    first, fresh = (one.model.backbone.get_parameter("conv1.weight") for one in (run, scratch))
    assert not torch.equal(first, fresh)


def test_a_method_that_makes_parts_anew_does_not_take_them(
    tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path
) -> None:
    """Its row would name weights that it lost."""
    torch.save(weights(), tmp_path / "w.pth")
    wanted = recipe(f"pretrained={tmp_path / 'w.pth'}").pretrained
    for method in (get_method("bbn"), get_method("ride")):
        stage_job = dataclasses.replace(job(method), pretrained=wanted)
        with pytest.raises(
            RunFailed, match=rf"pretrained: '{method.name}' makes .* anew, so it would not start from w"
        ):
            start(stage_job, tiny_split, tiny_images, tmp_path / method.name)


def test_a_network_of_this_project_with_its_head_is_taken(
    tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path
) -> None:
    run = start(job(Plain), tiny_split, tiny_images, tmp_path / "run")
    state = {name: value.contiguous() for name, value in run.model.state_dict().items()}
    save_file(state, tmp_path / "our own.safetensors")
    wanted = recipe(f"pretrained={tmp_path / 'our own.safetensors'}").pretrained
    assert wanted.startswith("our own.safetensors sha256:")
    other = start(dataclasses.replace(job(Plain, seed=4), pretrained=wanted), tiny_split, tiny_images, tmp_path / "b")
    torch.testing.assert_close(other.model.backbone.state_dict(), run.model.backbone.state_dict(), rtol=0, atol=0)


class Code:
    def __reduce__(self) -> Any:
        return os.system, ("echo no",)


def misshapen() -> dict[str, Tensor]:
    return {name: torch.zeros(*value.shape, 2) for name, value in weights().items()}


BAD: dict[str, tuple[Any, str]] = {
    "other.pth": (lambda path: torch.save(weights(name="resnet20_cifar"), path), "not the weights of this network"),
    "wide.pth": (lambda path: torch.save(misshapen(), path), "not the weights of this network"),
    "code.pth": (lambda path: torch.save({"a": Code()}, path), "without executing code"),
    "cut.safetensors": (lambda path: path.write_bytes(b"\x09\x00\x00\x00\x00\x00\x00\x00{}"), "or damaged"),
    "empty.pt": (lambda path: path.write_bytes(b""), "cannot be read as weights"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_are_no_weights_of_the_network_is_refused_in_one_line(
    name: str, tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path
) -> None:
    make, message = BAD[name]
    make(tmp_path / name)
    wanted = recipe(f"pretrained={tmp_path / name}").pretrained
    with pytest.raises(UserError, match=message) as caught:
        start(dataclasses.replace(job(Plain), pretrained=wanted), tiny_split, tiny_images, tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


def test_a_pinned_file_is_found_by_name_and_checked_by_hash(
    tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LTBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("LTBENCH_MIRROR", raising=False)
    folder = tmp_path / "data" / "weights"
    folder.mkdir(parents=True)
    value = f"kept.pth sha256:{'0' * 64}"
    assert recipe(f"pretrained={value}").pretrained == value  # no file is needed to name it
    stage_job = dataclasses.replace(job(Plain), pretrained=value)
    with pytest.raises(UserError, match=r"kept.pth: missing; put it into .*weights"):
        start(stage_job, tiny_split, tiny_images, tmp_path / "run")
    torch.save(weights(), folder / "kept.pth")
    with pytest.raises(UserError, match=r"kept.pth: another file: expected sha256 0000"):
        start(stage_job, tiny_split, tiny_images, tmp_path / "run")
    with pytest.raises(UserError, match=r"pretrained: gone.pth: missing"):
        recipe("pretrained=gone.pth")


# ---- timm's weights ----------------------------------------------------------------------------------------------


def vit(*overrides: str) -> Recipe:
    return recipe("backbone=vit_tiny_patch16_224", "pretrained=augreg_in21k", *overrides)


def test_images_look_as_the_weights_want_unless_the_recipe_says_otherwise() -> None:
    found = vit()
    assert (found.image_size, found.interpolation) == (224, "bicubic")
    assert found.mean == found.std == (0.5, 0.5, 0.5)
    own = vit("image_size=64", "mean=[0.1, 0.2, 0.3]", "std=[1, 1, 1]", "interpolation=bilinear")
    assert (own.image_size, own.interpolation, own.mean, own.std) == (64, "bilinear", (0.1, 0.2, 0.3), (1, 1, 1))


def test_a_recorded_start_is_said_on_the_command_line_so_that_it_comes_out_the_same(tmp_path: Path) -> None:
    """Also where it has a value that another start would have had by itself."""
    path = tmp_path / "w.safetensors"
    save_file(weights(), path)
    half = "[0.5, 0.5, 0.5]"
    for other in (recipe(f"pretrained={path}", f"mean={half}", f"std={half}"), vit(f"mean={half}", f"std={half}")):
        for here in (recipe(), vit()):
            items = overrides_between(here.as_dict(), other.as_dict())
            started = [f"{key}={json.dumps(value)}" for key, value in here.as_dict().items() if key in FIRST_KEYS]
            assert recipe(*started, *items).sha256() == other.sha256()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["backbone=vit_tiny_patch16_2224", "pretrained=augreg_in21k"], "no backbone is named .*vit_tiny_patch16_224"),
        (["backbone=vit_tiny_patch16_224", "pretrained=augreg_in22k"], "augreg_in21k"),
        (["pretrained=in1k"], "timm has no weights for 'resnet8_cifar'; name a file"),
        (["mean=[0.5, 0.5, 0.5]"], "mean and std belong together"),
        (["mean=[0.5]", "std=[0]"], "std must be above 0"),
        (["mean=[.nan]", "std=[1]"], "mean and std must be finite numbers"),
    ],
)
def test_what_a_recipe_cannot_mean_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        recipe(*overrides)


def test_without_cache_and_network_it_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise OSError("no route to the hub\nsecond line")

    monkeypatch.setattr("timm.models._builder.load_pretrained", refused)
    with pytest.raises(UserError, match=r"in21k: neither in timm's cache nor to be had .*no route to the hub\); with"):
        create_backbone("vit_tiny_patch16_224", (224, 224, 3), tag="augreg_in21k")


def test_without_names_to_look_up_nothing_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def unknown_name(*_: Any) -> None:
        raise OSError("no name server")

    monkeypatch.setattr(socket, "getaddrinfo", unknown_name)
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("time.sleep", lambda _: pytest.fail("it tries again"))
    with pytest.raises(UserError, match="neither in timm's cache nor to be had from the network"):
        create_backbone("vit_tiny_patch16_224", (224, 224, 3), tag="augreg_in21k")
    assert not hub.HF_HUB_OFFLINE
    assert not caplog.records


def test_weights_for_images_of_another_size_are_refused_with_theirs(tmp_path: Path) -> None:
    made, _ = create_backbone("vit_tiny_patch16_224", (64, 64, 3))
    torch.save({"model": made.state_dict()}, tmp_path / "w.pth")
    with pytest.raises(UserError, match="its position embedding is for images of 64 pixels; set image_size=64"):
        start_backbone("vit_tiny_patch16_224", (32, 32, 3), recipe(f"pretrained={tmp_path / 'w.pth'}").pretrained)


@pytest.mark.parametrize("shape", [(), (192,), (1, 4), (1, 1, 4, 192)])
def test_a_position_embedding_of_another_kind_is_another_network(shape: tuple[int, ...], tmp_path: Path) -> None:
    made, _ = create_backbone("vit_tiny_patch16_224", (32, 32, 3))
    torch.save(made.state_dict() | {"pos_embed": torch.zeros(shape)}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"'pos_embed' \(.*\), where .* has 'pos_embed' .*: not the weights of this"):
        start_backbone("vit_tiny_patch16_224", (32, 32, 3), recipe(f"pretrained={tmp_path / 'w.pth'}").pretrained)


def test_the_tags_weights_are_timms(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(model: nn.Module, **_: Any) -> None:
        nn.init.constant_(model.norm.weight, 3.0)  # type: ignore[arg-type]

    monkeypatch.setattr("timm.models._builder.load_pretrained", load)
    model, width = create_backbone("vit_tiny_patch16_224", (224, 224, 3), tag="augreg_in21k")
    assert width == 192
    assert bool((model.norm.weight == 3.0).all())


# ---- what it leaves ----------------------------------------------------------------------------------------------


def test_a_transformer_takes_the_size_of_the_images() -> None:
    model, width = create_backbone("vit_tiny_patch16_224", (32, 32, 3))
    assert width == 192
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 192)
    with pytest.raises(UserError, match="does not accept 20x20 images"):
        create_backbone("vit_tiny_patch16_224", (20, 20, 3))


def test_old_recipes_keep_their_hash_and_first_stages_differ_by_their_start(tmp_path: Path) -> None:
    assert not {"pretrained", "mean", "std", "interpolation"} & set(recipe().as_dict())
    torch.save(weights(), tmp_path / "w.pth")
    cells = [resolve(parse_entry("ce@common"), "mnist5k", o) for o in ([], [f"pretrained={tmp_path / 'w.pth'}"])]
    assert cells[0].first_stage_identity() != cells[1].first_stage_identity()


def test_a_board_holds_one_kind_of_start() -> None:
    scratch = make_record()
    tuned = dataclasses.replace(scratch, recipe={**scratch.recipe, "pretrained": "augreg_in21k"})
    assert PROTOCOL[-1] == "pretrained"
    assert _protocol(scratch)[:-1] == _protocol(tuned)[:-1]
    assert _protocol(scratch) != _protocol(tuned)


def test_notes_say_what_else_was_seen() -> None:
    assert start_notes("", "cifar100") == []
    (note,) = start_notes("augreg_in21k", "cifar100")
    assert note.startswith("starts from pretrained weights (augreg_in21k)")
    assert start_notes("augreg_in21k", "tiny-imagenet-lt")[1] == (
        "augreg_in21k: trained on ImageNet, of which the images of tiny-imagenet-lt are a part"
    )
    unknown, pixels = start_notes(f"some.pth sha256:{'a' * 64}", "tiny-imagenet-lt")
    assert unknown.endswith("what they were is not known here")
    assert pixels.startswith("pixels are normalised by this split's mean and std")
    assert start_notes(f"some.pth sha256:{'a' * 64}", "tiny-imagenet-lt", (0.5, 0.5, 0.5)) == [unknown]


def test_normalisation_and_interpolation_reach_the_images(tiny_split: Split, tiny_images: ImagesByPart) -> None:
    assert normalised(tiny_split, (), ()) is tiny_split
    found = normalised(tiny_split, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert (found.mean, found.std, found.sha256) == ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6], tiny_split.sha256)
    grey = dataclasses.replace(tiny_split, image_shape=[8, 8, 1])
    assert normalised(grey, (0.1, 0.2, 0.6), (1.0, 1.0, 1.0)).mean == [pytest.approx(0.3)]
    with pytest.raises(UserError, match="images have 3 channels"):
        normalised(tiny_split, (0.1,), (0.4,))
    larger = resized(tiny_split, {"train": tiny_images["train"]}, 16, "bicubic")[1]["train"]
    assert isinstance(larger, Images)
    small = Image.fromarray(tiny_images["train"].pixels[0])
    expected = np.asarray(small.resize((16, 16), Image.Resampling.BICUBIC), np.int64)
    assert np.abs(larger.pixels[0] - expected).max() <= 1
