"""Light tuning against its published code: modules, a whole transformer, head and loss; what moves and what is kept."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from harness.api import Task
from harness.base.progress import Reporter
from harness.engine.backbones import create_backbone
from harness.engine.checkpoint import load_weights
from harness.engine.job import StageJob
from harness.engine.loop import StageRun
from harness.engine.seeding import seed_for
from harness.reading.dataset import Images
from harness.spec.entries import parse_entry
from harness.spec.recipes import resolve
from harness.spec.stage_recipe import Augment, StageRecipe
from harness.splits.splits import Split
from harness.toolbox.heads import ScaledCosine
from methods.lift.method import LIFT, lift_loss
from methods.lift.tuners import Adapter, LowRank, Prompts, attach, bottleneck
from tests.unit.golden import f64, read, same

CASES = read("lift.json")["cases"]
KINDS = {"adaptformer": "adaptformer", "lora": "lora", "vpt_deep": "deep_prompts"}
LISTS = dict.fromkeys(("adaptformer_list", "lora_list", "vpt_list"), "")
NAMES = {"down_proj": "down", "up_proj": "up", "lora_A": "a", "lora_B": "b"} | LISTS
TUNINGS = ("adaptformer", "adapter", "lora", "prompts", "deep_prompts", "norm", "bias", "none", "full")


def golden(name: str) -> list[dict[str, Any]]:
    return [case for case in CASES if case["name"] == name]


def ours(name: str) -> str:
    """A parameter's name here, from its name in the published code."""
    return ".".join(part for part in (NAMES.get(part, part) for part in name.split(".")) if part)


# ---- golden vectors ----------------------------------------------------------------------------------------------


def bare_module(kind: str, width: int, size: int) -> nn.Module:
    if kind == "lora":
        return LowRank(width, size)
    if kind == "vpt":
        return Prompts(nn.Identity(), width, size, 4, replaces=False)
    return Adapter(width, size, scaled=kind == "adaptformer")


@pytest.mark.parametrize("kind", ["adaptformer", "lora", "vpt"])
def test_modules(kind: str) -> None:
    for case in golden(f"lift_module_{kind}"):
        params = case["params"]
        module = bare_module(kind, params["width"], params["bottleneck_or_length"]).double()
        module.load_state_dict({ours(name): f64(value) for name, value in params["parameters"].items()})
        given = f64(case["inputs"]["input"]).requires_grad_()
        output = module.append(module, (given,))[0] if isinstance(module, Prompts) else module(given)
        same(output, case["output"])
        (output * f64(case["inputs"]["cotangent"])).sum().backward()
        assert given.grad is not None
        same(given.grad, case["grad_input"])
        for name, parameter in module.named_parameters():
            (theirs,) = (key for key in params["parameters"] if ours(key) == name)
            assert parameter.grad is not None
            same(parameter.grad, case[f"grad_parameter_{theirs.replace('.', '_')}"])


def filled(named: list[tuple[str, nn.Parameter]], first: int) -> None:
    """The rule by which the vectors' networks are filled: sines, by the rank of a name."""
    ones = ("norm1.weight", "norm2.weight", "norm.weight", "ln.weight", "scale")
    for m, (name, parameter) in enumerate(named, start=first):
        k = torch.arange(1, parameter.numel() + 1, dtype=torch.float64)
        values = 0.3 * torch.sin(0.7 * k + m)
        values = 1 + 0.1 * values if name.endswith(ones) else values
        parameter.data.copy_(values.view_as(parameter))


@pytest.mark.parametrize("case", golden("lift_vit"), ids=lambda case: case["params"]["kind"])
def test_a_whole_transformer(case: dict[str, Any]) -> None:
    p = case["params"]
    sizes = {name: p[name] for name in ("img_size", "patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio")}
    network = VisionTransformer(**sizes, num_classes=0).double()
    filled(sorted(network.named_parameters()), 0)
    names = {}
    if p["kind"] != "none":
        tuner = attach(network, KINDS[p["kind"]], p["bottleneck_or_length"]).double()
        names = {theirs: ours(theirs) for theirs in case["grad_tuner_sum"]}
        own = dict(tuner.named_parameters())
        filled([(theirs, own[names[theirs]]) for theirs in sorted(names)], 100)
    images = torch.cos(0.37 * torch.arange(1, 385, dtype=torch.float64)).view(2, 3, 8, 8)
    feature = network(images)
    same(feature, case["feature"])
    loss = (feature * torch.sin(1.3 * torch.arange(1, 17, dtype=torch.float64)).view(2, 8)).sum()
    same(loss, case["loss"])
    if names:
        loss.backward()
        for theirs, name in names.items():
            gradient = own[name].grad
            assert gradient is not None
            same(gradient.sum(), case["grad_tuner_sum"][theirs])
            same(gradient.norm(), case["grad_tuner_norm"][theirs])


def test_head_and_loss() -> None:
    for case in golden("lift_head_loss"):
        given, params = case["inputs"], case["params"]
        feature = f64(given["feature"]).requires_grad_()
        head = ScaledCosine(feature.shape[1], len(given["weight"]), params["scale"]).double()
        head.weight.data = f64(given["weight"])
        logits = head(feature)
        same(logits, case["logits"])
        loss = lift_loss(logits, torch.tensor(given["target"]), f64(given["class_counts"]), params["tau"])
        same(loss, case["loss"])
        loss.backward()
        assert feature.grad is not None
        assert head.weight.grad is not None
        same(feature.grad, case["grad_feature"])
        same(head.weight.grad, case["grad_weight"])


def test_bottleneck() -> None:
    (case,) = golden("lift_bottleneck")
    for row in case["rows"]:
        assert bottleneck(row["classes"], row["blocks"]) == row["bottleneck"]


def test_adapters_of_a_base_transformer_have_the_known_number_of_parameters() -> None:
    with torch.device("meta"):
        network = VisionTransformer(num_classes=0)
        for classes, wanted in ((100, 101_436), (1000, 617_868), (8142, 4_749_324)):
            tuner = attach(copy.deepcopy(network), "adaptformer", bottleneck(classes, 12))
            assert sum(parameter.numel() for parameter in tuner.parameters()) == wanted


# ---- what is attached --------------------------------------------------------------------------------------------


def small(**changes: Any) -> VisionTransformer:
    torch.manual_seed(0)
    return VisionTransformer(img_size=8, patch_size=4, embed_dim=8, depth=3, num_heads=2, num_classes=0, **changes)


@pytest.mark.parametrize("kind", ["adaptformer", "adapter", "lora"])
def test_fresh_adapters_leave_the_features_as_they_are(kind: str) -> None:
    network, images = small(), torch.randn(2, 3, 8, 8)
    before = network(images)
    tuner = attach(network, kind, 2)
    assert torch.equal(network(images), before)
    for parameter in tuner.parameters():
        nn.init.normal_(parameter)
    assert not torch.allclose(network(images), before)


@pytest.mark.parametrize(("kind", "tokens"), [("prompts", [8, 8, 8]), ("deep_prompts", [8, 8, 8])])
def test_prompts_stand_behind_the_images_tokens_and_are_renewed(kind: str, tokens: list[int]) -> None:
    network, seen = small(), list[int]()
    tuner = attach(network, kind, 3)
    for block in network.blocks:
        block.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[1]))
    network(torch.randn(2, 3, 8, 8))
    assert seen == tokens  # four patches, a class token, three prompts
    assert len(tuner) == (1 if kind == "prompts" else 3)


def test_a_copy_is_a_network_of_its_own() -> None:
    """As averaged weights need it: the copy's hooks are its own adapters'."""
    model = nn.ModuleList([network := small()])
    model.append(attach(network, "adaptformer", 2))
    twin = copy.deepcopy(model)
    nn.init.normal_(model[1][0].up.weight)  # type: ignore[index]
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(twin[0](images), small()(images))
    assert not torch.allclose(model[0](images), twin[0](images))


def test_what_nothing_attaches_to_is_refused() -> None:
    with pytest.raises(ValueError, match="lora attaches to the blocks of timm's transformers; CifarResNet has none"):
        attach(create_backbone("resnet8_cifar", (8, 8, 3))[0], "lora", 2)
    with pytest.raises(ValueError, match="need the features of a class token, found those of 'avg'"):
        attach(small(global_pool="avg", class_token=False), "prompts", 2)
    method = LIFT(Task(4, 64, torch.tensor([9, 5, 3, 1])), LIFT.Params(tuning="lora"))
    with pytest.raises(ValueError, match="lora attaches"):
        method.build(create_backbone("resnet8_cifar", (8, 8, 3))[0], "train")  # before anything is trained


# ---- runs --------------------------------------------------------------------------------------------------------

FIRST = StageRecipe(epochs=1, batch_size=16, lr=0.01, weight_decay=5e-4, augment=Augment())
SECOND = dataclasses.replace(FIRST, epochs=2, lr=0.05, augment=Augment(flip=True))


def run(folder: Path, split: Split, images: dict[str, Images], **changes: Any) -> StageRun:
    params = changes.pop("params", LIFT.Params())
    job = StageJob("train", LIFT, params, FIRST, "vit_tiny_patch16_224", "float32", 0, "key")
    found = StageRun(dataclasses.replace(job, **changes), split, images, torch.device("cpu"), folder)
    found.run(Reporter())
    return found


@pytest.fixture(scope="module")
def larger(tiny_split: Split, tiny_images: dict[str, Images]) -> tuple[Split, dict[str, Images]]:
    """Images of 16 pixels: a patch of the smallest of timm's transformers."""
    from harness.feed.resize import resized

    shaped, images = resized(tiny_split, tiny_images, 16)
    return shaped, {name: some for name, some in images.items() if isinstance(some, Images)}


@pytest.fixture(scope="module")
def first(larger: Any, tmp_path_factory: pytest.TempPathFactory) -> StageRun:
    return run(tmp_path_factory.mktemp("first"), *larger)


def test_the_first_stage_gives_the_class_means(first: StageRun, larger: Any) -> None:
    features = torch.cat(list(first.network.part_features("train", range(len(first.data["train"])))))
    labels = torch.from_numpy(larger[1]["train"].labels)
    means = torch.stack([features[labels == c].double().mean(0) for c in range(4)])
    torch.testing.assert_close(first.model.head.weight.detach(), F.normalize(means, dim=1).float())


@pytest.mark.parametrize("tuning", TUNINGS)
def test_only_what_is_tuned_moves(tuning: Any, first: StageRun, larger: Any, tmp_path: Path) -> None:
    start = load_weights(first.folder / "weights.safetensors", "key")
    params = LIFT.Params(tuning=tuning, size=2)
    tuned = run(tmp_path, *larger, stage="finetune", params=params, recipe=SECOND, start=start)
    moved = {name for name, value in tuned.model.state_dict().items() if name in start and not value.equal(start[name])}
    groups = {p for group in tuned.network.optimizer.param_groups for p in group["params"]}
    named = {name for name, parameter in tuned.model.named_parameters() if parameter in groups}
    assert moved == named & set(start)
    assert "head.weight" in moved
    wanted = {"none": set(), "full": set(start)}.get(tuning)
    if wanted is not None:
        assert named - {"head.weight"} == wanted - {"head.weight"}
    if tuning in ("norm", "bias"):
        assert named > {"head.weight"}
        assert all("blocks" in name for name in named - {"head.weight"})
        assert all("norm" in name if tuning == "norm" else name.endswith("bias") for name in named - {"head.weight"})
    torch.manual_seed(seed_for(0, "finetune", "head"))
    fresh = LIFT(tuned.method.task, params).build(create_backbone("vit_tiny_patch16_224", (16, 16, 3))[0], "finetune")
    began = {name: value for name, value in fresh.state_dict().items() if name.startswith("tuner.")}
    learned = {
        name for name, value in tuned.model.state_dict().items() if name in began and not value.equal(began[name])
    }
    assert learned >= {name for name in began if name.endswith(("up.weight", "b", "prompt"))}
    assert tuned.network.frozen_backbone == (tuning == "none")
    if tuning in TUNINGS[:5]:
        assert named == {"head.weight", *(name for name in named if name.startswith("tuner."))}
        assert len(named) > 1


def test_where_weights_are_pretrained_only_the_rest_is_saved(larger: Any, tmp_path: Path) -> None:
    """The base stays a file that the recipe names by its hash; a second stage puts both together."""
    torch.manual_seed(3)
    torch.save(create_backbone("vit_tiny_patch16_224", (16, 16, 3))[0].state_dict(), tmp_path / "base.pth")
    overrides = ["backbone=vit_tiny_patch16_224", f"pretrained={tmp_path / 'base.pth'}"]
    base = resolve(parse_entry("ce@common"), "mnist5k", overrides).recipe.pretrained
    run(tmp_path / "one", *larger, pretrained=base)
    with safe_open(tmp_path / "one" / "weights.safetensors", framework="pt") as file:
        assert [name for name in file.keys() if not name.startswith("method.")] == ["head.weight"]  # noqa: SIM118
    start = load_weights(tmp_path / "one" / "weights.safetensors", "key")
    given: dict[str, Any] = {"stage": "finetune", "recipe": SECOND, "pretrained": base}
    two = run(tmp_path / "two", *larger, start=start, **given)
    with safe_open(tmp_path / "two" / "weights.safetensors", framework="pt") as file:
        assert all(name.startswith(("head.", "tuner.", "method.")) for name in file.keys())  # noqa: SIM118
    assert (tmp_path / "two" / "weights.safetensors").stat().st_size < 200_000
    full = run(tmp_path / "full", *larger, start=start, **given, params=LIFT.Params(tuning="full"))
    with safe_open(full.folder / "weights.safetensors", framework="pt") as file:
        assert set(file.keys()) > set(full.model.state_dict())
    assert two.network.as_pretrained
    tuned = sum(parameter.numel() for parameter in two.model.get_submodule("tuner").parameters())
    assert two.network.parameters[0] == tuned + 4 * 192
    assert not full.network.as_pretrained


def test_it_resumes_to_the_same_bits(first: StageRun, larger: Any, tmp_path: Path, monkeypatch: Any) -> None:
    from tests.engine.toys import Killed, kill_after, results

    start = load_weights(first.folder / "weights.safetensors", "key")
    recipe = dataclasses.replace(SECOND, ema=0.9, gradient_checkpointing=True)
    given: dict[str, Any] = {"stage": "finetune", "recipe": recipe, "start": start}
    run(tmp_path / "whole", *larger, **given)
    monkeypatch.setenv("LTBENCH_CHECKPOINT_SECONDS", "0")
    job = dataclasses.replace(first.job, **given)
    stopped = StageRun(job, larger[0], larger[1], torch.device("cpu"), tmp_path / "parts")
    kill_after(stopped, 6)
    with pytest.raises(Killed):
        stopped.run(Reporter())
    run(tmp_path / "parts", *larger, **given)
    assert results(tmp_path / "whole") == results(tmp_path / "parts")


# ---- recipes -----------------------------------------------------------------------------------------------------


def test_the_published_recipe_names_its_weights_and_how_images_look() -> None:
    recipe = resolve(parse_entry("lift@paper"), "cifar100").recipe
    assert (recipe.backbone, recipe.pretrained, recipe.image_size) == ("vit_base_patch16_224", "augreg_in21k", 224)
    assert recipe.mean == recipe.std == (0.5, 0.5, 0.5)
    assert recipe.finetune is not None
    assert (recipe.train.epochs, recipe.finetune.epochs, recipe.train.augment) == (1, 10, Augment())
    assert recipe.finetune.augment == Augment(resized_crop=True, flip=True)
    assert resolve(parse_entry("lift-full@paper"), "imagenet-lt").recipe.finetune.lr == 5e-4
    other = resolve(parse_entry("lift@paper"), "inat2018").recipe.finetune
    assert other is not None
    assert other.epochs == 20


def test_on_a_network_without_blocks_auto_tunes_the_norms() -> None:
    method = LIFT(Task(4, 64, torch.tensor([9, 5, 3, 1])), LIFT.Params())
    model = method.build(create_backbone("resnet8_cifar", (8, 8, 3))[0], "finetune")
    tuned = {id(parameter) for group in method.param_groups(model, "finetune") for parameter in group["params"]}
    names = {name for name, parameter in model.named_parameters() if id(parameter) in tuned}
    assert names == {"head.weight", *(name for name, _ in model.named_parameters() if "bn" in name)}
