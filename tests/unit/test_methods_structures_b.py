"""Teachers, contrastive losses and mixed views: reference numbers, limiting cases, and that each part is there."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.api import Batch, Classifier, Method, StepContext, Task
from harness.base.errors import RunFailed
from harness.spec.entries import parse_entry
from harness.spec.recipes import resolve
from harness.spec.registry import get_method
from harness.toolbox.contrastive import KeyQueue, follow_, supervised_contrastive_loss
from harness.toolbox.losses import balanced_softmax_loss, class_balanced_loss_weights
from harness.toolbox.mixing import cutmix_mask
from harness.toolbox.samplers import power_weights
from harness.toolbox.schedules import learning_rate
from methods.bcl.method import balanced_contrastive_loss
from methods.dive.method import balanced_kd_loss, dive_loss, kd_loss
from methods.glmc.method import consistency_loss, glmc_loss, mixed_loss
from methods.gpaco.method import gpaco_loss
from methods.hybrid_sc.method import prototypical_contrastive_loss
from methods.paco.method import paco_loss
from tests.conformance.suite import Whole, inputs, loss_in, prepared
from tests.unit import golden
from tests.unit.golden import f64, same

Loss = Callable[..., Tensor]
GOLDEN = golden.read("structures_b.json")
cases = partial(golden.cases, GOLDEN)
COUNTS = [30, 12, 5, 2]
TARGET = torch.tensor([0, 1, 2, 3, 0, 0])


def given(case: dict[str, Any]) -> dict[str, Tensor]:
    """The inputs of a case; those that it has a gradient of want one."""
    found = {}
    for name, values in case["inputs"].items():
        whole = name == "class_counts" or name.endswith("target") or name.startswith("target")
        tensor = torch.tensor(values) if whole else f64(values)
        found[name] = tensor.requires_grad_() if f"grad_{name}" in case else tensor
    return found


def check(case: dict[str, Any], loss: Tensor, of: dict[str, Tensor], tolerance: float = 1e-8) -> None:
    """Loss and all gradients of a case."""
    same(loss, case["loss"], tolerance)
    names = [name for name in of if f"grad_{name}" in case]
    assert names
    for name, gradient in zip(names, torch.autograd.grad(loss, [of[name] for name in names]), strict=True):
        same(gradient, case[f"grad_{name}"], tolerance)


def method_of(name: str, counts: list[int] | None = None, **params: Any) -> Method:
    counts = counts or COUNTS
    method = get_method(name)
    return method(Task(len(counts), 64, torch.tensor(counts)), method.Params(**params))


def trained(name: str, stage: Any = "train", steps: int = 2, epoch: int = 0, **params: Any) -> Any:
    """The network after a few steps on random images, in float64."""
    method = method_of(name, **params)
    step = prepared(method, stage)
    step.epoch = epoch
    for number in range(steps):
        step.optimizer.zero_grad()
        loss_in(method, step, inputs(method, len(TARGET), seed=number), TARGET).backward()
        step.optimizer.step()
        method.after_step(step)
    return step.model


def differ(one: Classifier, other: Classifier) -> bool:
    """Whether what inference uses has other weights."""
    pairs = zip(
        [*one.backbone.parameters(), *one.head.parameters()],
        [*other.backbone.parameters(), *other.head.parameters()],
        strict=True,
    )
    return any(not torch.equal(a, b) for a, b in pairs)


def size(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


# ---- distillation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", cases("dive_loss"))
def test_dive_equals_the_reference(case: dict[str, Any]) -> None:
    x = given(case)
    params: dict[str, Any] = x | case["params"]
    check(case, dive_loss(**params), x)


@pytest.mark.parametrize("case", [*cases("kd_loss"), *cases("balanced_kd_loss")])
def test_distillation_equals_the_reference(case: dict[str, Any]) -> None:
    x, p = given(case), case["params"]
    counts, logits = x.pop("class_counts"), (x["student_logits"], x["teacher_logits"], x["target"])
    scale = {"temperature": p["temperature"], "alpha": p["alpha"]}
    if case["name"] == "kd_loss":
        check(case, kd_loss(*logits, **scale), x)
    else:
        check(case, balanced_kd_loss(*logits, class_balanced_loss_weights(counts, p["beta"]), **scale), x)


def test_a_teacher_who_agrees_teaches_nothing() -> None:
    logits, target = f64([[1.0, -2.0, 0.5], [0.0, 3.0, 1.0]]), torch.tensor([0, 2])
    assert float(kd_loss(logits, logits, target)) == pytest.approx(float(F.cross_entropy(logits, target)), abs=1e-12)
    counts = [5, 3, 1]
    half = 0.5 * balanced_softmax_loss(logits, target, counts)
    same(dive_loss(logits, logits, target, counts, power=1.0), float(half))
    for teacher in (logits, logits.flip(1)):
        same(dive_loss(logits, teacher, target, counts, alpha=0.0), float(2 * half))


def test_uniform_class_weights_make_balanced_distillation_plain() -> None:
    student, teacher, target = f64([[1.0, 0.0, 2.0]]), f64([[3.0, 1.0, -1.0]]), torch.tensor([1])
    same(balanced_kd_loss(student, teacher, target, torch.full((3,), 0.2)), float(kd_loss(student, teacher, target)))


def test_the_teacher_is_a_network_of_its_own_and_stays_as_stage_1_left_it() -> None:
    method = method_of("dive")
    step: StepContext = prepared(method, "finetune")
    model: Any = step.model
    teacher = model.teacher
    assert size(teacher) == size(model.backbone) + size(model.head)
    before = {name: value.clone() for name, value in model.state_dict().items() if not name.startswith("teacher.")}
    fresh = {name: value.clone() for name, value in teacher.state_dict().items()}
    with torch.no_grad():
        model.head.weight.fill_(7.0)  # as if it came from stage 1
    method.on_stage_start(model, "finetune")
    assert bool((teacher.head.weight == 7).all())
    assert torch.equal(model.head.weight, fresh["head.weight"])
    assert before.keys() == fresh.keys()
    loss_in(method, step, inputs(method, len(TARGET)), TARGET).backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(parameter.grad is not None for parameter in model.backbone.parameters())
    tuned = {parameter for group in method.param_groups(model, "finetune") for parameter in group["params"]}
    assert not tuned & set(teacher.parameters())


def test_students_learn_from_the_teacher() -> None:
    alone = trained("dive", "finetune", alpha=0.0)
    assert differ(alone, trained("dive", "finetune"))
    assert differ(trained("dive", "finetune", loss="kd"), trained("dive", "finetune", loss="balanced_kd"))


def test_each_teacher_has_its_own_first_stage() -> None:
    dive: Any = get_method("dive")
    assert dive.first_stage_of(dive.Params()) == "balanced_softmax"
    assert dive.first_stage_of(dive.Params(teacher="ce")) == "ce"


@pytest.mark.parametrize(
    "params", [{"temperature": 0.0}, {"power": 0.0}, {"alpha": -0.1}, {"alpha": 1.1}, {"beta": 1.0}]
)
def test_dive_refuses(params: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(params))):
        get_method("dive").Params(**params)


# ---- BCL -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", cases("bcl_loss"))
def test_bcl_equals_the_reference(case: dict[str, Any]) -> None:
    x, p = given(case), case["params"]
    views, target = torch.cat([x["view1"], x["view2"]]), x["target"].repeat(2)
    contrast = balanced_contrastive_loss(views, target, x["prototypes"], p["temperature"])
    classified = balanced_softmax_loss(x["logits"], x["target"], x["class_counts"])
    same(contrast, case["contrastive"])
    same(classified, case["logit_compensated"])
    check(case, p["alpha"] * classified + p["beta"] * contrast, x)


def test_every_class_stands_in_the_denominator_with_one_term() -> None:
    """One image in two views among C classes, all at right angles: log sum is log(mean of own class + C - 1)."""
    axes = torch.eye(5, dtype=torch.float64)
    loss = balanced_contrastive_loss(axes[[4, 4]], torch.tensor([1, 1]), axes[:4], 1.0)
    own = (torch.e + 1) / 2  # the other view, and the class's prototype
    same(loss, float(torch.log(f64(own + 3)) - 0.5))


def test_bcl_has_two_projectors_and_its_contrast_acts() -> None:
    model: Any = prepared(method_of("bcl"), "train").model
    assert size(model.projector) == size(model.prototypes) == 64 * 512 + 512 + 2 * 512 + 512 * 128 + 128
    with_contrast, without = trained("bcl"), trained("bcl", beta=0.0)
    assert differ(with_contrast, without)
    start: Any = prepared(method_of("bcl"), "train").model
    assert not torch.equal(with_contrast.prototypes[0].weight, start.prototypes[0].weight)
    assert torch.equal(without.prototypes[0].weight, start.prototypes[0].weight)


@pytest.mark.parametrize("params", [{"temperature": 0.0}, {"alpha": -1.0}, {"beta": -1.0}, {"hidden": 0}])
def test_bcl_refuses(params: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(params))):
        get_method("bcl").Params(**params)


# ---- PaCo and GPaCo --------------------------------------------------------------------------------------------------

CENTRES: dict[str, Loss] = {"paco": paco_loss, "gpaco": gpaco_loss}


@pytest.mark.parametrize("case", [*cases("paco_loss"), *cases("gpaco_loss")])
def test_paco_and_gpaco_equal_the_reference(case: dict[str, Any]) -> None:
    """Within 1e-6: the reference adds 1e-12 within its logarithm."""
    x, params = given(case), {name: value for name, value in case["params"].items() if name != "queue"}
    check(case, CENTRES[case["name"].removesuffix("_loss")](**x, **params), x, tolerance=1e-6)


def centre_inputs(name: str, places: int = 5) -> dict[str, Tensor]:
    """Inputs of either loss, and a queue of so many places."""
    generator = torch.Generator().manual_seed(0)
    target, queue_target = torch.tensor([0, 2, 2]), torch.tensor([2, 0, 1, 3, 2])[:places]
    rows = {"query": 3, "key": 3, "queue": places}
    logits = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    found = {
        part: F.normalize(torch.randn(count, 4, generator=generator, dtype=torch.float64), dim=1)
        for part, count in rows.items()
    }
    found["center_logits"] = logits[: 3 if name == "paco" else 6]
    return found | {"target": target, "queue_target": queue_target, "class_counts": torch.tensor(COUNTS)}


@pytest.mark.parametrize("name", CENTRES)
def test_without_pairs_they_are_balanced_softmax(name: str) -> None:
    x = centre_inputs(name)
    target = x["target"] if name == "paco" else x["target"].repeat(2)
    expected = balanced_softmax_loss(x["center_logits"], target, COUNTS)
    same(CENTRES[name](**x, alpha=0.0, gamma=0.0), float(expected), tolerance=1e-6)
    assert float(CENTRES[name](**x, alpha=0.0, gamma=1.0)) > float(expected)  # only denominators grow


@pytest.mark.parametrize("name", CENTRES)
def test_empty_places_of_the_queue_do_not_count(name: str) -> None:
    x, none = centre_inputs(name), centre_inputs(name, places=0)
    loss = CENTRES[name]
    same(loss(**(x | {"queue_target": torch.full((5,), -1)})), float(loss(**none)))
    assert float(loss(**x)) != float(loss(**none))


@pytest.mark.parametrize("case", cases("queue_ring"))
def test_the_queue_is_a_ring(case: dict[str, Any]) -> None:
    queue = KeyQueue(case["params"]["K"], 1, 1000, "empty").double()
    queue.keys.copy_(f64(case["inputs"]["content_before"])[:, None])
    for number, after in enumerate(case["after_each_step"]):
        batch = torch.arange(2) + 2 * number
        queue.push(batch[:, None].double(), batch)
        same(queue.keys[:, 0], after["content"])
        assert int(queue.pointer) == after["pointer"]
    assert queue.target.tolist() == [6, 7, 2, 3, 4, 5]


def test_a_queue_takes_partial_and_oversized_batches() -> None:
    queue = KeyQueue(4, 1, 10, "empty")
    for first, count in ((0, 3), (3, 2), (5, 7)):
        batch = torch.arange(first, first + count)
        queue.push(batch[:, None].float(), batch)
        assert queue.target[queue.keys[:, 0].long() == batch[-1]].tolist() == [first + count - 1]
    assert sorted(queue.target.tolist()) == [8, 9, 10, 11]


def test_a_random_queue_starts_as_the_released_code_has_it() -> None:
    queue = KeyQueue(64, 8, 5, "random")
    same(queue.keys.double().norm(dim=0), [1.0] * 8, tolerance=1e-6)
    assert 0 <= int(queue.target.min()) < int(queue.target.max()) <= 4


@pytest.mark.parametrize("case", cases("momentum_update"))
def test_momentum_update_equals_the_reference(case: dict[str, Any]) -> None:
    copy, source = (torch.nn.Linear(3, 1, bias=False).double() for _ in range(2))
    with torch.no_grad():
        copy.weight.copy_(f64([case["inputs"]["key_before"]]))
        for query in case["inputs"]["query_each_step"]:
            source.weight.copy_(f64([query]))
            follow_(copy, source, case["params"]["m"])
    same(copy.weight[0], case["key_after"])


def test_paco_has_a_momentum_copy_that_follows_and_a_queue_that_fills() -> None:
    start: Any = prepared(method_of("paco"), "train").model
    model = trained("paco", momentum=0.9)
    assert size(start.key_network) == size(start.backbone) + size(start.projector)
    assert not any(parameter.requires_grad for parameter in model.key_network.parameters())
    keys, live = (network[0].conv1.weight.detach() for network in (model.key_network, [model.backbone]))
    before = start.backbone.conv1.weight.detach()
    moved = (live - before).norm()
    assert 0 < float((keys - before).norm()) < float(moved)
    assert {"queue.keys", "queue.target", "queue.pointer"} <= model.state_dict().keys()
    assert int(model.queue.pointer) == 2 * len(TARGET)
    assert torch.equal(model.queue.target[: len(TARGET)], TARGET)
    assert torch.equal(model.queue.keys[len(TARGET) * 2 :], start.queue.keys[len(TARGET) * 2 :])


def test_gpaco_has_no_copy_but_a_queue() -> None:
    model = trained("gpaco", queue_start="empty")
    assert not hasattr(model, "key_network")
    assert int((model.queue.target >= 0).sum()) == 2 * len(TARGET)
    assert size(model) - size(model.backbone) - size(model.head) == 2 * (64 * 64 + 64) + 64 * 32 + 32


@pytest.mark.parametrize("name", CENTRES)
def test_pairs_queue_and_projector_act(name: str) -> None:
    usual = trained(name)
    assert differ(usual, trained(name, alpha=0.0, gamma=0.0))
    assert differ(usual, trained(name, queue_start="empty"))


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("paco", {"temperature": 0.0}),
        ("paco", {"momentum": 1.1}),
        ("paco", {"alpha": -1.0}),
        ("gpaco", {"queue": 0}),
        ("gpaco", {"smoothing": 1.0}),
    ],
)
def test_paco_and_gpaco_refuse(name: str, params: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(params))):
        get_method(name).Params(**params)


@pytest.mark.parametrize("case", cases("lr_paco_cifar100"))
def test_paco_has_the_learning_rates_of_its_code(case: dict[str, Any]) -> None:
    """But in the eleventh epoch, where the code goes beyond the full rate."""
    recipe = resolve(parse_entry("paco@paper"), "cifar100").recipe.train
    found = {
        epoch: learning_rate(recipe.schedule, recipe.lr, epoch=epoch, epochs=recipe.epochs, warmup=recipe.warmup_epochs)
        for epoch in case["inputs"]["epoch_from_0"]
    }
    expected = dict(zip(found, case["learning_rate"], strict=True)) | {10: 0.05}
    assert found == pytest.approx(expected, rel=1e-12)


# ---- GLMC ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", cases("glmc_loss"))
def test_glmc_equals_the_reference(case: dict[str, Any]) -> None:
    x, p = given(case), case["params"]

    def both(kind: str, ending: str = "") -> Tensor:
        return torch.cat([x[f"{kind}_{mix}{ending}"] for mix in ("mixup", "cutmix")])

    weights = power_weights(x["class_counts"].double(), 1 - p["label_exponent"])
    weights = weights / weights.mean()
    same(weights, case["class_weights"])
    plain, reweighted = both("logits"), both("logits", "_reweighted")
    projection, prediction = both("projection"), both("prediction")
    labels, share = (x["target"], x["target_second"]), p["lambda"]
    same(mixed_loss(plain, *labels, share), case["balanced"])
    same(mixed_loss(reweighted, *labels, share, weights), case["rebalanced"])
    same(consistency_loss(projection, prediction), case["consistency"])
    loss = glmc_loss(
        plain,
        reweighted,
        projection,
        prediction,
        *labels,
        weights,
        share=share,
        alpha=1 - (p["epoch_from_0"] / p["epochs"]) ** 2,
        contrast_weight=p["contrast_weight"],
    )
    loss.backward()
    same(loss, case["loss"])
    for name, value in x.items():
        if f"grad_{name}" in case:
            same(torch.zeros_like(value) if value.grad is None else value.grad, case[f"grad_{name}"])


@pytest.mark.parametrize("case", cases("cutmix_box"))
def test_cutmix_pastes_the_reference_box(case: dict[str, Any]) -> None:
    size, (row, column) = case["params"]["size"], f64(case["inputs"]["center"])
    pasted = cutmix_mask(f64(case["inputs"]["lambda"]), (row, column), (size, size), case["params"]["rounding"])
    box, expected = case["box_rows_then_columns"], torch.zeros(size, size, dtype=torch.bool)
    expected[slice(*box["rows"]), slice(*box["columns"])] = True
    assert torch.equal(pasted, expected)
    same(1 - pasted.double().mean(), case["lambda_by_area"])


@pytest.mark.parametrize(("rounding", "side"), [("truncate", 2), ("ceil", 4)])
def test_sides_of_the_box_are_rounded_as_asked(rounding: Any, side: int) -> None:
    """A side of 3.5 pixels."""
    pasted = cutmix_mask(f64(1 - 0.35**2), (f64(5.0), f64(5.0)), (10, 10), rounding)
    assert int(pasted.sum()) == side**2
    assert not bool(cutmix_mask(f64(1.0), (f64(5.0), f64(5.0)), (10, 10), rounding).any())


def test_equal_projections_are_consistent() -> None:
    values = F.normalize(torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64), dim=1)
    same(consistency_loss(values.repeat(2, 1), 3 * values.repeat(2, 1)), -2.0)


def test_glmc_draws_each_of_its_two_batches_twice() -> None:
    labels = np.repeat(np.arange(4), COUNTS)
    first, again, second, second_again = method_of("glmc", resample=0.2).views(labels, "train")
    assert first.sampler is not None
    assert again.sampler is None
    assert second.sampler is second_again.sampler
    assert second.sampler is not first.sampler


def test_glmc_has_two_heads_of_which_the_weighted_one_starts_late() -> None:
    start: Any = prepared(method_of("glmc"), "train").model
    first, later = trained("glmc"), trained("glmc", epoch=1)
    assert size(start) - size(start.backbone) == 2 * (64 * 4 + 4) + (64 * 128 + 128) + (128 * 128 + 128)
    assert torch.equal(first.head.weight, start.head.weight)  # alpha is 1 in the first epoch
    assert not torch.equal(later.head.weight, start.head.weight)
    assert not torch.equal(first.plain_head.weight, start.plain_head.weight)
    assert differ(first, trained("glmc", contrast_weight=0.0))


def test_label_weights_of_glmc_have_mean_1_over_classes_or_images() -> None:
    methods: list[Any] = [method_of("glmc", weights_mean=over) for over in ("classes", "images")]
    by_class, by_image = (method.class_weights for method in methods)
    same(by_class.mean(), 1.0)
    same((by_image * f64(COUNTS)).sum() / sum(COUNTS), 1.0)
    same(by_class / by_class[0], (f64(COUNTS) / COUNTS[0]).pow(-1.2).tolist())
    same(by_image / by_image[0], (by_class / by_class[0]).tolist())


def test_glmc_refuses_mixup_on_top() -> None:
    method = method_of("glmc")
    step = prepared(method, "train")
    batch = Batch(inputs(method, 6), TARGET, torch.arange(6), other=TARGET, share=0.5)
    with pytest.raises(RunFailed, match="mixup_alpha"):
        method.step_loss(Whole(step), (batch,) * 4, step)


@pytest.mark.parametrize(
    "params", [{"resample": -1.0}, {"label_exponent": -1.0}, {"contrast_weight": float("nan")}, {"projection": 0}]
)
def test_glmc_refuses(params: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(params))):
        get_method("glmc").Params(**params)


# ---- hybrid contrastive ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", cases("hybrid_sc_loss"))
def test_hybrid_sc_equals_the_reference(case: dict[str, Any]) -> None:
    x, p = given(case), case["params"]
    views = torch.cat([x["view1"], x["view2"]])
    contrast = supervised_contrastive_loss(views, x["target"].repeat(2), p["temperature"])
    same(contrast, case["supervised_contrastive"])
    alpha = 1 - (p["epoch"] / p["epochs"]) ** 2
    classified = F.cross_entropy(x["logits_balanced_batch"], x["target_balanced_batch"])
    check(case, alpha * contrast + (1 - alpha) * classified, x)


@pytest.mark.parametrize("case", cases("prototypical_sc_loss"))
def test_hybrid_psc_equals_the_formula(case: dict[str, Any]) -> None:
    x = given(case)
    loss = prototypical_contrastive_loss(x["feature"], x["prototypes"], x["target"], case["params"]["temperature"])
    check(case, loss, x)


def test_supervised_contrast_of_two_classes_at_right_angles() -> None:
    views, temperature = torch.eye(2, dtype=torch.float64).repeat(2, 1), 0.5
    loss = supervised_contrastive_loss(views, torch.tensor([0, 1, 0, 1]), temperature)
    same(loss, float(torch.log(torch.exp(f64(1 / temperature)) + 2) - 1 / temperature))


def test_an_image_without_a_positive_costs_nothing() -> None:
    views = torch.eye(3, dtype=torch.float64).requires_grad_()
    loss = supervised_contrastive_loss(views, torch.tensor([0, 1, 2]), 0.1)
    loss.backward()
    assert loss.item() == 0
    assert views.grad is not None
    assert bool((views.grad == 0).all())


@pytest.mark.parametrize(("contrast", "views"), [("supervised", 3), ("prototypical", 2)])
def test_hybrid_moves_from_contrast_to_classification(contrast: str, views: int) -> None:
    labels = np.repeat(np.arange(4), COUNTS)
    assert len(method_of("hybrid_sc", contrast=contrast).views(labels, "train")) == views
    start: Any = prepared(method_of("hybrid_sc", contrast=contrast), "train").model
    first, later = trained("hybrid_sc", contrast=contrast), trained("hybrid_sc", epoch=1, contrast=contrast)
    assert torch.equal(first.head.weight, start.head.weight)  # alpha is 1 in the first epoch
    assert not torch.equal(later.head.weight, start.head.weight)
    assert not torch.equal(first.projector[0].weight, start.projector[0].weight)
    assert size(first.projector) == 64 * 64 + 64 + 64 * 128 + 128
    found = None if first.prototypes is None else first.prototypes.shape
    assert found == (None if contrast == "supervised" else (4, 128))


def test_hybrid_contrasts_act() -> None:
    assert differ(trained("hybrid_sc"), trained("hybrid_sc", contrast="prototypical"))
    assert differ(trained("hybrid_sc"), trained("hybrid_sc", temperature=1.0))


@pytest.mark.parametrize("params", [{"temperature": 0.0}, {"projection": 0}])
def test_hybrid_refuses(params: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(params))):
        get_method("hybrid_sc").Params(**params)
