"""Losses, gradients and sampler weights against vectors of the published reference implementations."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.toolbox.heads import CosineHead, cosine_similarity
from harness.toolbox.losses import balanced_softmax_loss
from harness.toolbox.samplers import cben_weights, class_balanced_weights, effective_number_weights
from methods.tvmf.method import TvMFHead, tvmf_similarity
from tests.unit import golden
from tests.unit.golden import f64, same

GOLDEN = golden.read("losses.json")
cases = partial(golden.cases, GOLDEN)


def case(name: str) -> dict[str, Any]:
    return next(case for case in GOLDEN["cases"] if case["name"] == name)


FEATURES, WEIGHT, LOGITS = f64(GOLDEN["features"]), f64(GOLDEN["weight"]), f64(GOLDEN["logits"])
TARGET, COUNTS = torch.tensor(GOLDEN["target"]), GOLDEN["class_counts"]


def head_of(case: dict[str, Any]) -> CosineHead:
    """The head that the case describes, in float64, with the golden weights."""
    classes, dim = WEIGHT.shape
    kappa = case["params"].get("kappa")
    head = (CosineHead(dim, classes) if kappa is None else TvMFHead(dim, classes, kappa)).double()
    with torch.no_grad():
        head.weight.copy_(WEIGHT)
        head.scale.raw.fill_(case["params"]["raw_scale"])
    return head


def test_cosine_is_the_golden_one() -> None:
    same(cosine_similarity(FEATURES, WEIGHT), GOLDEN["cosine"])


@pytest.mark.parametrize("case", [*cases("tvmf"), *cases("cosine_softmax")])
def test_cosine_heads_and_gradients(case: dict[str, Any]) -> None:
    head, features = head_of(case), FEATURES.clone().requires_grad_()
    logits = head(features)
    loss = F.cross_entropy(logits, TARGET)
    loss.backward()
    unscaled = case["similarity"] if "similarity" in case else case["logits_unscaled"]
    same(logits / head.scale(), unscaled)
    same(loss, case["loss"])
    assert features.grad is not None
    assert head.weight.grad is not None
    assert head.scale.raw.grad is not None
    same(features.grad, case["grad_features"])
    same(head.weight.grad, case["grad_weight"])
    if "grad_raw_scale" in case:
        same(head.scale.raw.grad, case["grad_raw_scale"])
        same(head.scale(), [case["scale"]])


@pytest.mark.parametrize("reduction", ["mean", "none", "sum"])
@pytest.mark.parametrize("counts", [COUNTS, torch.tensor(COUNTS), f64(COUNTS)], ids=["list", "int64", "float64"])
def test_balanced_softmax(reduction: str, counts: Any) -> None:
    expected = case("balanced_softmax")
    same(balanced_softmax_loss(LOGITS, TARGET, counts, reduction), expected[f"loss_{reduction}"])


def test_balanced_softmax_gradient() -> None:
    logits = LOGITS.clone().requires_grad_()
    balanced_softmax_loss(logits, TARGET, COUNTS).backward()
    assert logits.grad is not None
    same(logits.grad, case("balanced_softmax")["grad_logits"])


@pytest.mark.parametrize(
    ("name", "weights", "tolerance"),
    [
        ("sampler_balanced", class_balanced_weights(COUNTS), 1e-9),
        ("sampler_effective_number", effective_number_weights(COUNTS, 0.9999), 1e-9),
        ("sampler_cben", cben_weights(COUNTS, 0.9999, 1e-5), 1e-5),
    ],
)
def test_sampler_weights(name: str, weights: Tensor, tolerance: float) -> None:
    expected = case(name)
    same(weights, expected["sample_weight_per_class"], tolerance)
    mass = weights * f64(COUNTS)
    same(mass / mass.sum(), expected["class_probability"], tolerance)


# ---- vectors of the method descriptions (derived by hand, tolerance 1e-5) --------------------------------------------


def test_tvmf_by_hand() -> None:
    cosine = f64([1, 0.9, 0.5, 0, -0.5, -1])
    expected = [1, -0.269231, -0.833333, -0.941176, -0.980000, -1]
    torch.testing.assert_close(tvmf_similarity(cosine, 16), f64(expected), rtol=0, atol=1e-6)
    assert float(tvmf_similarity(f64(0.9), 64)) == pytest.approx(-0.743243, abs=1e-6)
    scaled = (1 + np.log(2)) * tvmf_similarity(f64([[0.9, 0.5, -0.2]]), 16)
    assert float(F.cross_entropy(scaled, torch.tensor([1]))) == pytest.approx(1.482828, abs=1e-5)


def test_tvmf_slope_at_one() -> None:
    cosine = f64([1.0]).requires_grad_()
    tvmf_similarity(cosine, 16).sum().backward()
    assert cosine.grad is not None
    assert float(cosine.grad) == pytest.approx(33, rel=1e-12)


@pytest.mark.parametrize("kappa", [-0.5, -1.0, float("nan"), float("inf"), float("-inf")])
def test_tvmf_refuses_kappa(kappa: float) -> None:
    with pytest.raises(ValueError, match="kappa"):
        tvmf_similarity(f64([0.5]), kappa)


def test_balanced_softmax_by_hand() -> None:
    logits, target = f64([[1, 2, 3]]), torch.tensor([2])
    assert float(balanced_softmax_loss(logits, target, [100, 10, 1])) == pytest.approx(2.902098, abs=1e-5)
    assert float(balanced_softmax_loss(logits, target, [7, 7, 7])) == pytest.approx(0.407606, abs=1e-5)  # plain CE


def test_balanced_softmax_gives_an_absent_class_no_probability() -> None:
    logits = f64([[1.0, 2.0, 30.0]]).requires_grad_()
    loss = balanced_softmax_loss(logits, torch.tensor([0]), [3, 1, 0])
    loss.backward()
    assert loss.item() == pytest.approx(float(F.cross_entropy(f64([[1 + np.log(3), 2.0]]), torch.tensor([0]))))
    assert logits.grad is not None
    assert float(logits.grad[0, 2]) == 0
    assert bool(logits.grad.isfinite().all())


@pytest.mark.parametrize("counts", [[1, 2], [1, 2, 3, 4], [1, 2, -3]])
def test_balanced_softmax_refuses_counts(counts: list[int]) -> None:
    with pytest.raises(ValueError, match="class_counts"):
        balanced_softmax_loss(torch.zeros(2, 3), torch.tensor([0, 1]), counts)


def test_cben_by_hand() -> None:
    counts = [5000, 500, 50]
    mass = cben_weights(counts, 0.9999, 1e-5) * f64(counts)
    torch.testing.assert_close(mass / mass.sum(), f64([0.385434, 0.310571, 0.303994]), rtol=0, atol=1e-5)
