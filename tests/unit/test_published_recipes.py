"""Every recipe of every method resolves, on every track and data set that has one."""

from __future__ import annotations

import pytest

from harness.data.store import available_datasets
from harness.entries import TRACKS, Entry
from harness.recipe_layers import has_recipe, variants
from harness.recipes import Recipe, resolve
from harness.registry import available_methods, get_plugin

DATASETS = sorted({*available_datasets(), "imagenet-lt", "inat2018"})
CASES = [
    (Entry(method, variant, track), dataset)
    for method in available_methods()
    for track in TRACKS
    for dataset in DATASETS
    for variant in ["", *variants(get_plugin(method), track, dataset)]
    if has_recipe(Entry(method, variant, track), dataset)
]


@pytest.mark.parametrize("dataset", DATASETS)
def test_recipes_resolve(dataset: str) -> None:
    for entry, name in CASES:
        if name == dataset:
            cell = resolve(entry, name)
            assert (cell.recipe.finetune is not None) == ("finetune" in cell.stages), entry


def recipe(entry: Entry, dataset: str) -> Recipe:
    return resolve(entry, dataset).recipe


def test_every_method_runs_on_the_common_and_the_short_track_of_cifar() -> None:
    for method in available_methods():
        for track in ("common", "short"):
            for dataset in ("cifar10", "cifar100"):
                assert (Entry(method, "", track), dataset) in CASES


def test_first_stages_that_papers_share_are_the_same() -> None:
    def first(method: str, variant: str = "") -> dict[str, object]:
        return resolve(Entry(method, variant, "paper"), "cifar10").first_stage_identity()

    assert first("balms") == first("balanced_softmax", "decoupled") == first("crt") == first("ce", "balms")
    assert first("crt", "gcl") == first("ce_mixup")
    assert first("ce") != first("ce", "balms")


def test_numbers_of_the_released_codes() -> None:
    """A sample of methods.md, read independently of the files that hold them."""
    gcl = recipe(Entry("gcl", "", "paper"), "cifar10")
    assert (gcl.backbone, gcl.train.epochs, gcl.train.batch_size, gcl.train.lr) == ("resnet32_cifar", 200, 64, 0.1)
    assert (gcl.train.weight_decay, gcl.train.schedule, gcl.train.mixup_alpha) == (2e-4, "step_gcl", 1.0)
    assert gcl.finetune is not None
    assert (gcl.finetune.epochs, gcl.finetune.schedule, gcl.finetune.mixup_alpha) == (30, "cos_gcl2", 1.0)
    assert gcl.finetune.frozen_bn == "eval"
    balms = recipe(Entry("balms", "", "paper"), "cifar100")
    assert (balms.train.iterations, balms.train.warmup_iterations, balms.train.batch_size) == (13000, 800, 512)
    assert (balms.train.weight_decay, balms.train.schedule, balms.train.nesterov) == (5e-4, "warm_cos", False)
    assert balms.finetune is not None
    assert (balms.finetune.iterations, balms.finetune.schedule) == (2000, "cos_start1")
    assert balms.finetune.frozen_bn == "train_as_published"
    wcdas = recipe(Entry("wcdas", "", "paper"), "cifar100")
    assert (wcdas.train.epochs, wcdas.train.batch_size, wcdas.train.lr, wcdas.train.weight_decay) == (
        700,
        256,
        0.2,
        1e-4,
    )
    assert wcdas.finetune is not None
    assert (wcdas.finetune.epochs, wcdas.finetune.lr) == (30, 0.005)
    decay = recipe(Entry("weight_balancing", "", "paper"), "cifar100")
    assert (decay.backbone, decay.train.epochs, decay.train.lr, decay.train.weight_decay) == (
        "resnet34_cifar", 200, 0.01, 5e-3,
    )  # fmt: skip
    assert decay.finetune is not None
    assert (decay.finetune.epochs, decay.finetune.weight_decay, decay.finetune.lr) == (10, 0.1, 0.01)
    assert recipe(Entry("weight_balancing", "code", "paper"), "cifar100").train.epochs == 320
