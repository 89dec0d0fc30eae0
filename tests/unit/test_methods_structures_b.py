"""Teachers, contrastive losses and mixed views: reference numbers, limiting cases, and that each part is there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.api import Classifier, Method, StepContext, Task
from harness.plugins.conformance import inputs, loss_in, prepared
from harness.spec.registry import get_method
from harness.toolbox.losses import balanced_softmax_loss, class_balanced_loss_weights
from methods.bcl.method import balanced_contrastive_loss
from methods.dive.method import balanced_kd_loss, dive_loss, kd_loss

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/structures_b.json").read_text())
COUNTS = [30, 12, 5, 2]
TARGET = torch.tensor([0, 1, 2, 3, 0, 0])


def cases(name: str) -> list[Any]:
    found = [case for case in GOLDEN["cases"] if case["name"] == name]
    assert found, name
    return [pytest.param(case, id=f"{name}{number}") for number, case in enumerate(found)]


def f64(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def given(case: dict[str, Any]) -> dict[str, Tensor]:
    """The inputs of a case; those that it has a gradient of want one."""
    found = {}
    for name, values in case["inputs"].items():
        whole = name == "class_counts" or name.endswith("target") or name.startswith("target")
        tensor = torch.tensor(values) if whole else f64(values)
        found[name] = tensor.requires_grad_() if f"grad_{name}" in case else tensor
    return found


def same(found: Tensor, expected: Any, tolerance: float = 1e-8) -> None:
    torch.testing.assert_close(found.detach(), f64(expected), rtol=tolerance, atol=1e-12)


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


def trained(name: str, stage: Any = "train", steps: int = 2, epoch: int = 0, **params: Any) -> Classifier:
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
    check(case, dive_loss(**x, **case["params"]), x)


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
    model, teacher = step.model, step.model.teacher
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
    dive = get_method("dive")
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
    model = prepared(method_of("bcl"), "train").model
    assert size(model.projector) == size(model.prototypes) == 64 * 512 + 512 + 2 * 512 + 512 * 128 + 128
    with_contrast, without = trained("bcl"), trained("bcl", beta=0.0)
    assert differ(with_contrast, without)
    start = prepared(method_of("bcl"), "train").model
    assert not torch.equal(with_contrast.prototypes[0].weight, start.prototypes[0].weight)
    assert torch.equal(without.prototypes[0].weight, start.prototypes[0].weight)


@pytest.mark.parametrize("params", [{"temperature": 0.0}, {"alpha": -1.0}, {"beta": -1.0}, {"hidden": 0}])
def test_bcl_refuses(params: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(params))):
        get_method("bcl").Params(**params)
