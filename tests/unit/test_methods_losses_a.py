"""MiSLAS, De-confound-TDE, DisAlign and Seesaw: reference vectors, hand-computed values, and what each part does."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.api import Task
from harness.plugins.conformance import prepared
from harness.spec.entries import Entry
from harness.spec.recipes import resolve
from harness.toolbox.heads import ScaledLinear
from harness.toolbox.schedules import Steps
from methods.mislas.method import MiSLAS, label_smoothing, smoothed_cross_entropy

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/losses_a.json").read_text())
COUNTS = torch.tensor(GOLDEN["class_counts"])
TARGET = torch.tensor(GOLDEN["target"])


def f64(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


FEATURES, WEIGHT, LOGITS = (f64(GOLDEN[name]) for name in ("features", "weight", "logits"))
TASK = Task(len(COUNTS), FEATURES.shape[1], COUNTS)


def cases(name: str) -> list[Any]:
    return [pytest.param(case, id=json.dumps(case["params"])[:70]) for case in GOLDEN["cases"] if case["name"] == name]


def same(found: Tensor, expected: Any, tolerance: float = 1e-8) -> None:
    torch.testing.assert_close(found.detach(), f64(expected).reshape(found.shape), rtol=tolerance, atol=1e-12)


def gradient(loss: Tensor, of: Tensor) -> Tensor:
    return torch.autograd.grad(loss, of, retain_graph=True)[0]


# ---- MiSLAS ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", cases("label_aware_smoothing"))
def test_label_aware_smoothing(case: dict[str, Any]) -> None:
    p, logits = case["params"], LOGITS.clone().requires_grad_()
    smoothing = label_smoothing(COUNTS, p["smooth_head"], p["smooth_tail"], p["shape"], p["power"] or 1.0)
    same(smoothing, case["smoothing_per_class"])
    loss = smoothed_cross_entropy(logits, TARGET, smoothing)
    same(loss, case["loss"])
    same(gradient(loss, logits), case["grad_logits"])


@pytest.mark.parametrize("case", cases("mislas_head"))
def test_mislas_trains_the_old_head_and_its_scales(case: dict[str, Any]) -> None:
    head, p = ScaledLinear(FEATURES.shape[1], len(COUNTS)).double(), case["params"]
    head.load_state_dict({"weight": WEIGHT, "bias": f64(case["bias"]), "class_scale": f64(case["class_scale"])})
    logits = head(FEATURES)
    same(logits, case["logits"])
    loss = MiSLAS(TASK, MiSLAS.Params(**p)).loss(logits, TARGET, None)  # type: ignore[arg-type]
    same(loss, case["loss"])
    for name, parameter in head.named_parameters():
        same(gradient(loss, parameter), case[f"grad_{name}"])


@pytest.mark.parametrize(
    ("shape", "head", "tail", "expected"),
    [
        ("concave", 0.3, 0.0, [0.3, 0.042694, 0]),
        ("linear", 0.3, 0.0, [0.3, 0.027273, 0]),
        ("convex", 0.4, 0.1, [0.4, 0.103054, 0.1]),
        ("exp", 0.3, 0.0, [0.3, 0.002479, 0]),
    ],
)
def test_smoothing_by_hand(shape: str, head: float, tail: float, expected: list[float]) -> None:
    found = label_smoothing([100, 10, 1], head, tail, shape, power=2)
    torch.testing.assert_close(found, f64(expected), rtol=0, atol=1e-6)


def test_smoothing_of_equal_counts_is_that_of_the_largest_class() -> None:
    assert label_smoothing([7, 7, 7], 0.3, 0.1).tolist() == pytest.approx([0.3] * 3)


def test_the_codes_smoothing_and_the_papers() -> None:
    """The paper's keeps the whole e away from the target."""
    logits, target = f64([[1, 2, 3]]), torch.tensor([0])
    equal = Task(3, 2, torch.tensor([5, 5, 5]))
    for others_only, expected in ((False, 2.107606), (True, 1.957606)):
        method = MiSLAS(equal, MiSLAS.Params(smooth_head=0.3, others_only=others_only))
        assert float(method.loss(logits, target, None)) == pytest.approx(expected, abs=1e-6)  # type: ignore[arg-type]


def test_smoothed_cross_entropy_at_its_ends() -> None:
    same(smoothed_cross_entropy(LOGITS, TARGET, torch.zeros(5)), float(F.cross_entropy(LOGITS, TARGET)))
    for amount in (0.0, 0.3, 0.9):
        uniform = smoothed_cross_entropy(torch.ones_like(LOGITS), TARGET, torch.full((5,), amount))
        assert float(uniform) == pytest.approx(math.log(5))


@pytest.mark.parametrize("wrong", [{"smooth_head": 1.0}, {"smooth_tail": -0.1}, {"power": 0.0}, {"head_rate": -1.0}])
def test_mislas_refuses(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        MiSLAS.Params(**wrong)


def test_mislas_step_moves_scales_at_the_full_rate_and_the_old_head_at_its_share() -> None:
    method = MiSLAS(TASK, MiSLAS.Params(head_rate=0.2))
    step = prepared(method, "finetune")
    old, scales = method.param_groups(step.model, "finetune")
    head = step.model.head
    assert (old["lr_scale"], scales.get("lr_scale", 1.0)) == (0.2, 1.0)
    assert [p is q for p, q in zip(old["params"], (head.weight, head.bias), strict=True)] == [True, True]
    assert sum(parameter.numel() for parameter in scales["params"]) == len(COUNTS)


def test_mislas_recipe() -> None:
    cell = resolve(Entry("mislas", "", "paper"), "cifar100")
    second = cell.recipe.finetune
    assert second is not None
    mixup = resolve(Entry("ce_mixup", "mislas", "paper"), "cifar100")
    assert cell.first_stage_identity() == mixup.first_stage_identity()
    assert (cell.recipe.train.batch_size, cell.recipe.train.schedule) == (128, Steps((0.8, 0.9), (0.1, 0.01)))
    assert (cell.recipe.train.mixup_alpha, second.mixup_alpha) == (1.0, 0.0)
    assert (second.epochs, second.lr, second.schedule) == (10, 0.1, "cosine_epoch")
    assert second.frozen_bn == "train_as_published"
    p = cell.recipe.params
    assert (p.smooth_head, p.smooth_tail, p.head_rate) == (0.4, 0.1, 0.2)
    ten = resolve(Entry("mislas", "cifar10-if50", "paper"), "cifar10").recipe
    assert ten.finetune is not None
    assert (ten.params.smooth_head, ten.params.smooth_tail, ten.params.head_rate) == (0.2, 0.0, 0.2)
    assert ten.finetune.frozen_bn == "eval"
    for track in ("common", "short"):
        common = resolve(Entry("mislas", "", track), "cifar100")
        assert common.first_stage_identity() == resolve(Entry("ce_mixup", "", track), "cifar100").first_stage_identity()
