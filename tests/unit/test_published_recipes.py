"""Every recipe of every method resolves, on every track and data set that has one."""

from __future__ import annotations

import pytest

from harness.data.store import available_datasets
from harness.engine.schedules import Steps
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
    assert (gcl.train.weight_decay, gcl.train.warmup_epochs, gcl.train.mixup_alpha) == (2e-4, 5, 1.0)
    assert gcl.train.schedule == Steps((0.8, 0.9), (0.1, 0.01))
    assert gcl.finetune is not None
    assert (gcl.finetune.epochs, gcl.finetune.lr, gcl.finetune.mixup_alpha) == (30, 0.002, 1.0)
    assert (gcl.finetune.schedule, gcl.finetune.warmup_epochs) == ("cosine_epoch", 0)
    assert gcl.finetune.frozen_bn == "eval"
    balms = recipe(Entry("balms", "", "paper"), "cifar100")
    assert (balms.train.iterations, balms.train.warmup_iterations, balms.train.batch_size) == (13000, 800, 512)
    assert (balms.train.weight_decay, balms.train.schedule, balms.train.nesterov) == (5e-4, "cosine_epoch_to_0", False)
    assert balms.finetune is not None
    assert (balms.finetune.iterations, balms.finetune.schedule) == (2000, "cosine_epoch_to_0")
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


@pytest.mark.parametrize("entry", ["ce", "ce_mixup", "focal", "gcl", "ldam_drw", "crt-gcl", "tau_norm-on-ce"])
def test_recipes_of_gcl_and_ldam_on_cifar(entry: str) -> None:
    """Linear heads start as in the released code; the epochs that are evaluated are those of their note."""
    method, _, variant = entry.partition("-")
    found = recipe(Entry(method, variant, "paper"), "cifar100")
    assert found.train.head_init == "kaiming_normal"
    assert found.backbone == "resnet32_cifar"
    assert [e for e in range(1, 201) if found.train.is_evaluated(e)] == [*range(10, 161, 10), *range(161, 201)]
    if found.finetune is not None:
        assert all(found.finetune.is_evaluated(epoch) for epoch in range(1, found.finetune.epochs + 1))


def test_common_and_short_recipes_have_the_usual_head() -> None:
    for method in available_methods():
        for track in ("common", "short"):
            found = recipe(Entry(method, "", track), "cifar10").train
            assert (found.head_init, found.eval_all_after) == ("default", 1.0)
