"""Every recipe of every method resolves, on every track and data set that has one."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

import pytest

from harness.base.errors import UserError
from harness.records.schema import Record, read_record, record_paths
from harness.spec.entries import TRACKS, Entry
from harness.spec.recipe_layers import has_recipe, variants
from harness.spec.recipes import Cell, Recipe, migrated, resolve
from harness.spec.registry import available_methods, get_plugin
from harness.splits.store import available_datasets
from harness.toolbox.schedules import Steps

IMPORTED = Path(__file__).parents[2] / "results/imported"
DATASETS = sorted({*available_datasets(), "imagenet-lt", "inat2018"})


@functools.cache
def cases() -> list[tuple[Entry, str]]:
    """Every entry, with each data set that it has a recipe for."""
    return [
        (Entry(method, variant, track), dataset)
        for method in available_methods()
        for track in TRACKS
        for dataset in DATASETS
        for variant in ["", *variants(get_plugin(method), track, dataset)]
        if has_recipe(Entry(method, variant, track), dataset)
    ]


@pytest.mark.parametrize("dataset", DATASETS)
def test_recipes_resolve(dataset: str) -> None:
    for entry, name in cases():
        if name == dataset:
            cell = resolve(entry, name)
            assert (cell.recipe.finetune is not None) == ("finetune" in cell.stages), entry


def recipe(entry: Entry, dataset: str) -> Recipe:
    return resolve(entry, dataset).recipe


def with_common_recipe() -> list[str]:
    """All methods but those that need pretrained weights."""
    return [name for name in available_methods() if name != "lift"]


def test_every_method_runs_on_the_common_and_the_short_track_of_cifar() -> None:
    for method in with_common_recipe():
        for track in ("common", "short"):
            for dataset in ("cifar10", "cifar100"):
                assert (Entry(method, "", track), dataset) in cases()


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
    for method in with_common_recipe():
        for track in ("common", "short"):
            found = recipe(Entry(method, "", track), "cifar10").train
            assert (found.head_init, found.eval_all_after) == ("default", 1.0)


def test_lws_on_inaturalist_is_decouplings() -> None:
    cell = resolve(Entry("lws", "", "paper"), "inat2018")
    second = cell.recipe.finetune
    assert second is not None
    assert (second.epochs, second.batch_size, second.lr, second.weight_decay) == (5, 512, 0.2, 1e-4)
    assert (second.schedule, second.frozen_bn) == ("cosine_epoch_to_0", "train_as_published")
    assert cell.first_stage_identity() == resolve(Entry("crt", "", "paper"), "inat2018").first_stage_identity()


def weight_balancing(variant: str, track: str = "paper", dataset: str = "cifar100") -> Cell:
    return resolve(Entry("weight_balancing", variant, track), dataset)


@pytest.mark.parametrize(
    ("variant", "normalize"), [("code-wd-flip", "no"), ("code-l2-flip", "l2"), ("code-tau-flip", "tau")]
)
def test_weight_balancings_printed_heads_are_the_codes_stage_1_seen_with_its_mirror_image(
    variant: str, normalize: str
) -> None:
    cell = weight_balancing(variant)
    assert cell.first_stage_identity() == weight_balancing("code").first_stage_identity(), "trained once for all"
    assert cell.recipe.finetune is not None
    assert (cell.recipe.finetune.epochs, cell.recipe.finetune.flip_average) == (0, True)
    assert (cell.recipe.params.normalize, cell.recipe.params.tau) == (normalize, 1.9)


def test_weight_balancings_code_seen_with_its_mirror_image_differs_in_nothing_else() -> None:
    plain, flipped = weight_balancing("code").recipe, weight_balancing("code-flip").recipe
    assert plain.finetune is not None
    assert flipped == replace(plain, finetune=replace(plain.finetune, flip_average=True))
    decayed, naive = weight_balancing("code-wd-flip").recipe, weight_balancing("code-naive-flip").recipe
    assert (naive.train, naive.params) == (replace(decayed.train, weight_decay=0.0), decayed.params)


@pytest.mark.parametrize("dataset", ["mnist5k", "cifar10", "imagenet-lt"])
def test_weight_balancing_with_the_released_product_has_cross_entropys_first_stage(dataset: str) -> None:
    """Rate times decay: 0.01 x 5e-3 as released, and ten times that in our default."""
    released = weight_balancing("code").recipe.train
    ours, other = (weight_balancing(variant, "common", dataset).recipe for variant in ("", "released-product"))
    assert other.train.lr * other.train.weight_decay == pytest.approx(released.lr * released.weight_decay)
    assert ours.train.lr * ours.train.weight_decay == pytest.approx(10 * released.lr * released.weight_decay)
    slow = weight_balancing("slow", "common", dataset).recipe.train
    assert (slow.lr, slow.weight_decay) == (released.lr, released.weight_decay)
    assert other.train == recipe(Entry("ce", "", "common"), dataset).train
    assert (other.finetune, other.params) == (ours.finetune, ours.params)


def test_variants_of_wcdas_differ_in_the_one_thing_they_are_named_for() -> None:
    for dataset in ("mnist5k", "cifar10"):
        plain, fast, scaled = (
            recipe(Entry("wcdas", variant, "common"), dataset) for variant in ("", "lr0.2", "scale30")
        )
        assert fast == replace(plain, train=replace(plain.train, lr=0.2))
        assert scaled == replace(plain, params=replace(plain.params, initial_scale=30.0))


def test_every_second_stage_of_mnist5k_that_trains_a_head_has_30_epochs() -> None:
    found = {
        (entry.method, cell.recipe.finetune.epochs)
        for entry, name in cases()
        if name == "mnist5k" and entry.method != "dive" and (cell := resolve(entry, name)).recipe.finetune
    }
    assert {epochs for method, epochs in found if method != "ncm"} == {0, 30}  # two passes, where nothing is trained
    assert {method for method, epochs in found if epochs} >= {"balms", "crt", "gcl", "lws", "tvmf", "wcdas"}


def imported() -> dict[Path, Record]:
    """One committed record of every entry that was measured elsewhere, by its folder."""
    first = {path.parent: path for path in record_paths(IMPORTED)}
    return {folder: read_record(path) for folder, path in first.items()}


def test_committed_records_were_made_with_the_recipes_that_are_here() -> None:
    """A key that comes later, or an edit of another recipe, must not orphan the runs of hours."""
    compared = []
    for folder, record in imported().items():
        entry = Entry(record.method, record.variant, record.track)
        try:
            here = recipe(entry, record.dataset)
        except UserError:  # a variant that is gone
            continue
        assert here.sha256() == record.recipe_sha256, folder
        compared.append(str(entry))
    assert len(compared) >= 40
    assert {"wcdas@short", "wcdas-one-stage@short", "weight_balancing-slow@short"} <= set(compared)


def test_a_recorded_recipe_is_read_under_todays_names() -> None:
    """Schedules were renamed, and a key that came later may be written out with its default or be missing."""
    now = resolve(Entry("crt", "", "paper"), "cifar100").recipe.as_dict()
    assert now["train"]["schedule"] == "cosine_epoch_to_0"
    old = {**now, "train": {**now["train"], "schedule": "warm_cos", "eval_all_after": 1.0, "head_init": "default"}}
    old["finetune"] = {**now["finetune"], "schedule": "cos_start1"}
    assert migrated(old) == now
    assert migrated(now) == now
    assert migrated({**now, "finetune": None})["finetune"] is None
    other = {**now, "train": {**now["train"], "head_init": "kaiming_normal"}}
    assert migrated(other) == other


def test_a_student_is_trained_as_long_as_its_teacher() -> None:
    students = [(entry, name) for entry, name in cases() if entry.method == "dive"]
    assert {entry.track for entry, _ in students} == set(TRACKS)
    for entry, name in students:
        student, teacher = recipe(entry, name).finetune, recipe(entry, name).train
        assert student is not None
        assert replace(student, eval_every=teacher.eval_every) == teacher, (entry, name)
