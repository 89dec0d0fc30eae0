"""The methods' own mathematics against the reference implementations' numbers and against autograd."""

from __future__ import annotations

import math
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.api import Batch, Classifier, StepContext, Task
from harness.toolbox.heads import CosineHead, cosine_similarity
from harness.toolbox.losses import ldam_margins
from methods.balms.method import BALMS, draw_slots
from methods.focal.method import focal_loss
from methods.gcl.clouds import CLOUD_SIZES
from methods.gcl.method import GCL, cloud_size, gcl_loss
from methods.wcdas.method import WCDAS, WCDASHead, wrapped_cauchy_density
from methods.weight_balancing.method import class_balanced_loss, max_norm_, max_norm_radius, tau_normalize
from tests.conformance.suite import Whole
from tests.unit import golden
from tests.unit.golden import same

GOLDEN = golden.read("losses.json")
cases = partial(golden.cases, GOLDEN)
SHARED = {name: torch.tensor(GOLDEN[name], dtype=torch.float64) for name in ("features", "weight", "logits", "cosine")}
TARGET = torch.tensor(GOLDEN["target"])
COUNTS = torch.tensor(GOLDEN["class_counts"])


def wcdas_method(**params: Any) -> WCDAS:
    return WCDAS(Task(5, 6, torch.tensor([10, 8, 6, 4, 2])), WCDAS.Params(**params))


def wcdas(case: dict[str, Any], pi: float) -> dict[str, Tensor]:
    features, weight = (SHARED[name].clone().requires_grad_() for name in ("features", "weight"))
    raw = torch.tensor(case["params"]["raw_gamma"], dtype=torch.float64, requires_grad=True)
    scale = F.softplus(torch.tensor(0.0, dtype=torch.float64)) + 1 if case["params"]["scale_trainable"] else 250.0
    logits = scale * wrapped_cauchy_density(cosine_similarity(features, weight), torch.sigmoid(raw), pi)
    loss = F.cross_entropy(logits, TARGET)
    grads = torch.autograd.grad(loss, [features, weight, raw])
    return {"logits": logits, "loss": loss} | dict(
        zip(("grad_features", "grad_weight", "grad_raw_gamma"), grads, strict=True)
    )


@pytest.mark.parametrize("case", cases("wcdas"))
def test_wcdas_equals_the_reference(case: dict[str, Any]) -> None:
    """Exactly with its constant 3.14; with pi itself within two thousandths, gradients by norm."""
    for name, value in wcdas(case, pi=3.14).items():
        same(value.detach(), case[name])
    for name, value in wcdas(case, pi=math.pi).items():
        expected = torch.tensor(case[name], dtype=torch.float64)
        if name.startswith("grad"):
            assert float((value - expected).norm() / expected.norm()) < 2e-3
        else:
            torch.testing.assert_close(value.detach(), expected, rtol=2e-3, atol=0)


@pytest.mark.parametrize("cosine", [-1.0000001, -1.0, 1.0, 1.0000001])
def test_wcdas_gradient_at_the_bounds_is_the_derivative_there(cosine: float) -> None:
    """df/dc = rho (1 - rho^2) / (pi D^2), also where rounding put a cosine beyond its bounds."""
    at = torch.tensor([cosine], dtype=torch.float64, requires_grad=True)
    density = wrapped_cauchy_density(at, 0.6)
    bound = math.copysign(1.0, cosine)
    assert density.item() == pytest.approx((1 - 0.36) / (1 + 0.36 - 1.2 * bound) / (2 * math.pi), rel=1e-12)
    (slope,) = torch.autograd.grad(density.sum(), at)
    assert slope.item() == pytest.approx(0.6 * (1 - 0.36) / (math.pi * (1 + 0.36 - 1.2 * bound) ** 2), rel=1e-6)


@pytest.mark.parametrize("raw_gamma", [8.0, 10.0, 12.0, 15.0])
def test_wcdas_is_exact_in_float32_where_the_concentration_is_close_to_one(raw_gamma: float) -> None:
    cosine = torch.tensor([1.0, 0.999, 0.0, -1.0])
    found = wrapped_cauchy_density(cosine, torch.sigmoid(torch.tensor(raw_gamma)))
    rho = torch.sigmoid(torch.tensor(raw_gamma)).double()  # the concentration that float32 can hold
    exact = (1 - rho**2) / (1 + rho**2 - 2 * rho * cosine.double()) / (2 * math.pi)
    torch.testing.assert_close(found.double(), exact, rtol=1e-3, atol=0)  # 0.999 itself is rounded, and 1 - cos with it


def test_wcdas_head_is_that_function_and_trains_its_concentration() -> None:
    head = WCDASHead(6, 5, -1.0, None).double()
    logits = head(SHARED["features"])
    expected = (1 + math.log(2)) * wrapped_cauchy_density(
        cosine_similarity(SHARED["features"], head.weight), 1 / (1 + math.e)
    )
    torch.testing.assert_close(logits, expected)
    logits.sum().backward()
    assert all(p.grad is not None for p in head.parameters())
    fixed = WCDASHead(6, 5, 1.0, 250.0)
    assert {name for name, p in fixed.named_parameters() if p.requires_grad} == {"weight", "raw_gamma"}


@pytest.mark.parametrize("scale", [1.001, 5.0, 30.0, 250.0])
def test_wcdas_initial_scale_is_that_of_its_logits_and_goes_on_from_there(scale: float) -> None:
    head = WCDASHead(6, 5, 0.0, None, initial_scale=scale)
    features = SHARED["features"].float()
    density = wrapped_cauchy_density(cosine_similarity(features, head.weight), 0.5)
    logits = head(features)
    torch.testing.assert_close(logits, scale * density)
    logits.sum().backward()
    assert head.scale.raw.grad is not None


def test_wcdas_without_an_initial_scale_starts_with_the_same_bits_as_every_learned_scale() -> None:
    heads: list[Any] = []
    for made in (lambda: WCDASHead(6, 5, 0.0, None), lambda: CosineHead(6, 5), lambda: wcdas_method().head("train")):
        torch.manual_seed(0)
        heads.append(made())
    assert all(torch.equal(head.weight, heads[0].weight) for head in heads)
    assert all(torch.equal(head.scale.raw, torch.zeros(1)) for head in heads)
    torch.manual_seed(0)
    asked: Any = wcdas_method(initial_scale=30.0).head("train")
    assert torch.equal(asked.weight, heads[0].weight), "and an initial scale moves no other number"
    assert float(asked.scale().detach()) == 30.0


def test_wcdas_at_its_start_moves_a_logit_by_little() -> None:
    """Scale 1 + ln 2, concentration 0.5: at cosine 0 by 0.129 per unit of cosine, where a cosine head has 1.69."""
    slopes = {}
    for scale in (1 + math.log(2), 30.0):
        cosine = torch.zeros(1, dtype=torch.float64, requires_grad=True)
        (scale * wrapped_cauchy_density(cosine, 0.5)).sum().backward()
        assert cosine.grad is not None
        slopes[scale] = float(cosine.grad)
    assert list(slopes.values()) == pytest.approx([0.1293, 2.2918], abs=1e-4)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"initial_scale": 1.0}, "initial_scale must be a number above 1, found 1.0"),
        ({"initial_scale": math.inf}, "above 1, found inf"),
        ({"initial_scale": math.nan}, "above 1, found nan"),
        ({"initial_scale": 30.0, "fixed_scale": 250.0}, "either fixed_scale .250.0. or initial_scale"),
    ],
)
def test_wcdas_refuses_an_initial_scale_that_cannot_be(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WCDAS.Params(**params)


def test_wcdas_shared_concentration_is_one_number_for_all_classes() -> None:
    head, shared = WCDASHead(6, 5, -1.0, None), WCDASHead(6, 5, -1.0, None, shared=True)
    shared.load_state_dict(head.state_dict() | {"raw_gamma": torch.tensor([-1.0])})
    features = SHARED["features"].float()
    torch.testing.assert_close(shared(features), head(features))  # at the start the two are one function ...
    for which in (head, shared):
        which(features)[:, 0].sum().backward()
    assert head.raw_gamma.grad is not None
    assert shared.raw_gamma.grad is not None
    assert int(head.raw_gamma.grad.count_nonzero()) == 1  # ... and here one class moves alone, there all move
    torch.testing.assert_close(shared.raw_gamma.grad, head.raw_gamma.grad.sum()[None])


@pytest.mark.parametrize("case", cases("gcl"))
def test_gcl_equals_the_reference(case: dict[str, Any]) -> None:
    cosine = SHARED["cosine"].clone().requires_grad_()
    noise, size = (torch.tensor(case[name], dtype=torch.float64) for name in ("noise", "cloud_size"))
    loss = gcl_loss(cosine, TARGET, size, noise, **case["params"])
    same(loss.detach(), case["loss"])
    same(torch.autograd.grad(loss, cosine)[0], case["grad_cosine"])


def test_gcl_worked_example() -> None:
    size = cloud_size([100, 10, 1])
    torch.testing.assert_close(size, torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64))
    cosine, noise = (torch.tensor([row], dtype=torch.float64) for row in ([0.5, 0.2, -0.1], [0.3, -0.6, 0.9]))
    target = torch.tensor([2])
    assert float(gcl_loss(cosine, target, size, noise, scale=30, noise_scale=0.5)) == pytest.approx(31.500001, abs=1e-6)
    second = {"scale": 20, "noise_scale": 0.5, "margin": 0.1, "focal_gamma": 1.0}
    assert float(gcl_loss(cosine, target, size, noise, **second)) == pytest.approx(23.000123, abs=1e-6)
    assert float(gcl_loss(cosine, torch.tensor([0]), size, noise, **second)) == pytest.approx(8.304028e-7, rel=1e-6)


@pytest.mark.parametrize("name", CLOUD_SIZES)
def test_cloud_sizes_run_from_the_head_to_the_tail(name: str) -> None:
    size = CLOUD_SIZES[name]([500, 100, 20, 5])
    assert size[0] == 0
    assert size[-1] == 1
    assert bool((size.diff() > 0).all())
    assert CLOUD_SIZES[name]([7, 7, 7]).tolist() == [0, 0, 0]


@pytest.mark.parametrize("case", cases("max_norm"))
def test_max_norm_equals_the_reference(case: dict[str, Any]) -> None:
    radius = max_norm_radius(SHARED["weight"], case["params"]["threshold"])
    same(radius, case["radius"])
    weight = torch.tensor(case["weight_before"], dtype=torch.float64)
    same(max_norm_(weight, radius), case["weight_after"])
    assert bool((weight.norm(dim=1) <= radius * (1 + 1e-12)).all())


@pytest.mark.parametrize("case", cases("tau_normalize"))
def test_tau_normalize_equals_the_reference(case: dict[str, Any]) -> None:
    same(tau_normalize(SHARED["weight"], case["params"]["tau"]), case["weight_after"])


@pytest.mark.parametrize("case", cases("class_balanced_softmax_bce"))
def test_class_balanced_loss_equals_the_reference(case: dict[str, Any]) -> None:
    logits = SHARED["logits"].clone().requires_grad_()
    loss = class_balanced_loss(logits, TARGET, COUNTS, case["params"]["beta"])
    same(loss.detach(), case["loss"])
    same(torch.autograd.grad(loss, logits)[0], case["grad_logits"])


def test_weight_balancing_worked_examples() -> None:
    logits = torch.tensor([[2.0, 1, 0], [0, 1, 2]], dtype=torch.float64)
    assert float(class_balanced_loss(logits, torch.tensor([0, 2]), [500, 50, 5])) == pytest.approx(0.355996, abs=1e-6)
    weight = torch.diag(torch.tensor([1.0, 2, 3], dtype=torch.float64))
    assert float(max_norm_radius(weight, 0.1)) == pytest.approx(1.2)
    assert max_norm_(weight, 1.2).diag().tolist() == pytest.approx([1, 1.2, 1.2])


def test_focal_loss() -> None:
    logits, target = SHARED["logits"], TARGET
    torch.testing.assert_close(focal_loss(logits, target, 0.0), F.cross_entropy(logits, target))
    p = F.softmax(logits, 1).gather(1, target[:, None])[:, 0]
    torch.testing.assert_close(focal_loss(logits, target, 2.0), ((1 - p) ** 2 * -p.log()).mean())


def test_ldam_margins() -> None:
    margins = ldam_margins([625, 16, 1], 0.5)
    assert margins.tolist() == pytest.approx([0.5 / 5, 0.5 / 2, 0.5])


def test_gcl_heads_of_stage_2() -> None:
    """The code's cosines go on; the paper's linear head is new; LWS learns C factors."""
    task, features = Task(3, 4, torch.tensor([9, 4, 2])), torch.randn(5, 4)
    cosines = GCL(task, GCL.Params()).head("train")
    scaled, linear = (GCL(task, GCL.Params(head_2=name)) for name in ("scaled", "linear"))
    assert scaled.continues_head()
    assert not linear.continues_head()
    model = Classifier(nn.Identity(), scaled.head("finetune"))
    model.head.load_state_dict(model.head.state_dict() | cosines.state_dict())
    torch.testing.assert_close(scaled.inference(model(features), "finetune"), 30 * cosines(features))
    (group,) = scaled.param_groups(model, "finetune")
    assert [tuple(p.shape) for p in group["params"]] == [(3,)]
    target, step = (
        torch.tensor([0, 1, 2, 0, 1]),
        cast(StepContext, SimpleNamespace(stage="finetune", label_smoothing=0.0)),
    )
    assert torch.equal(scaled.loss(model(features), target, step), F.cross_entropy(model(features), target))


# ---- the Meta Sampler -----------------------------------------------------------------------------------------------

LABELS = torch.repeat_interleave(torch.arange(3), torch.tensor([12, 5, 3]))


def meta_step(nesterov: bool) -> tuple[BALMS, StepContext, Batch, Tensor]:
    """A BALMS step in float64 with a momentum buffer, and autograd's gradient through the whole step."""
    torch.manual_seed(3)
    method = BALMS(Task(3, 4, torch.tensor([12, 5, 3])), BALMS.Params(meta_batch_size=6, initial_power=0.2))
    model = Classifier(nn.Identity(), nn.Linear(4, 3)).double()
    method.sampler(LABELS.numpy(), "finetune")
    method.on_stage_start(model, "finetune")
    method.omega = method.omega.detach().double().requires_grad_()
    method.adam = torch.optim.Adam([method.omega], lr=0.01)
    sgd = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9, weight_decay=0.01, nesterov=nesterov)
    for parameter in model.parameters():
        sgd.state[parameter]["momentum_buffer"] = torch.randn_like(parameter)
    images, meta = torch.randn(20, 4).double(), torch.randn(6, 4).double()
    held_out = Batch(meta, torch.tensor([0, 1, 2, 0, 1, 2]), torch.arange(6))
    step = StepContext("finetune", 0, 1, 0, 0.3, model, sgd, torch.Generator().manual_seed(5))
    index = method.choose(torch.arange(8), step)
    step.batch = Batch(images[index], LABELS[index], index)
    step.features = images[index]

    noise = torch.empty(8, 20, dtype=torch.float64).exponential_(generator=torch.Generator().manual_seed(5))
    gumbel = F.logsigmoid(method.omega)[LABELS] - noise.log()
    assert torch.equal(gumbel.argmax(1), index)
    soft = gumbel.softmax(1)[torch.arange(8), index]
    straight_through = soft / soft.detach()  # value 1, the soft weight's relative gradient ...
    straight_through = 1 + (straight_through - 1) * soft.detach()  # ... times the soft weight: that of the soft weight
    prior = torch.tensor([12.0, 5, 3]).double().log()
    losses = F.cross_entropy(model.head(step.features) + prior, step.batch.target, reduction="none")
    grads = torch.autograd.grad((straight_through * losses).mean(), list(model.head.parameters()), create_graph=True)
    stepped = []
    for parameter, grad in zip(model.head.parameters(), grads, strict=True):
        full = grad + 0.01 * parameter
        velocity = 0.9 * sgd.state[parameter]["momentum_buffer"] + full
        stepped.append(parameter - 0.3 * (full + 0.9 * velocity if nesterov else velocity))
    meta_loss = F.cross_entropy(meta @ stepped[0].T + stepped[1], held_out.target)
    (expected,) = torch.autograd.grad(meta_loss, method.omega)
    return method, step, held_out, expected


def test_balms_with_a_fixed_sampler_follows_its_plan_and_learns_no_rates() -> None:
    method = BALMS(Task(3, 4, torch.tensor([12, 5, 3])), BALMS.Params(sampler="class_balanced"))
    model = Classifier(nn.Identity(), nn.Linear(4, 3))
    sampler = method.sampler(LABELS.numpy(), "finetune")
    drawn = np.concatenate([LABELS[sampler.order(np.random.default_rng(epoch))] for epoch in range(200)])
    assert np.bincount(drawn) / len(drawn) == pytest.approx([1 / 3] * 3, abs=0.04)
    method.on_stage_start(model, "finetune")
    step = StepContext("finetune", 0, 1, 0, 0.3, model, torch.optim.SGD(model.parameters()), torch.Generator())
    index = torch.tensor([3, 1, 2])
    assert torch.equal(method.choose(index, step), index)
    assert len(method.views(LABELS.numpy(), "finetune")) == 1
    method.step_loss(Whole(step), (Batch(torch.randn(3, 4), LABELS[index], index),), step)
    assert not method.omega.grad
    assert "sampling rate" not in method.class_quantities(model)


@pytest.mark.parametrize("nesterov", [False, True])
def test_meta_gradient_in_closed_form_equals_autograd(nesterov: bool) -> None:
    """Through the straight-through sample, the inner SGD step with momentum and decay, and the meta loss."""
    method, step, held_out, expected = meta_step(nesterov)
    head = {name: value.clone() for name, value in step.model.head.state_dict().items()}
    assert step.batch is not None
    method.step_loss(Whole(step), (step.batch, held_out), step)
    assert method.omega.grad is not None
    torch.testing.assert_close(method.omega.grad, expected, rtol=1e-9, atol=1e-15)
    assert all(torch.equal(value, head[name]) for name, value in step.model.head.state_dict().items())


def test_meta_sampler_draws_by_its_rates() -> None:
    log_psi = torch.log(torch.tensor([0.1, 0.3, 0.9], dtype=torch.float64))
    index, weight, share = draw_slots(log_psi, LABELS, 40_000, torch.Generator().manual_seed(0))
    mass = torch.tensor([12 * 0.1, 5 * 0.3, 3 * 0.9])
    found = torch.bincount(LABELS[index], minlength=3) / 40_000
    np.testing.assert_allclose(found, mass / mass.sum(), atol=0.01)
    torch.testing.assert_close(share.sum(1), torch.ones(40_000, dtype=torch.float64))
    assert bool((weight <= share.gather(1, LABELS[index][:, None])[:, 0] + 1e-12).all())


def test_meta_sampler_in_chunks_is_the_same_distribution() -> None:
    log_psi = torch.log(torch.tensor([0.5, 0.5, 0.5], dtype=torch.float64))
    whole = draw_slots(log_psi, LABELS, 30_000, torch.Generator().manual_seed(1))
    parts = draw_slots(log_psi, LABELS, 30_000, torch.Generator().manual_seed(2), chunk=30_000 * 7)
    for a, b in zip(whole[1:], parts[1:], strict=True):
        np.testing.assert_allclose(a.mean(0), b.mean(0), atol=0.01)
    found, expected = (torch.bincount(x[0], minlength=20) / 30_000 for x in (whole, parts))
    np.testing.assert_allclose(found, expected, atol=0.01)


@pytest.mark.parametrize(
    ("power", "expected"),
    [(0, [0.5, 0.5, 0.5]), (0.1, [0.386863, 0.487032, 0.613137]), (0.3, [0.200760, 0.400569, 0.799240])],
)
def test_meta_sampler_starts_where_the_code_does(power: float, expected: list[float]) -> None:
    method = BALMS(Task(3, 4, torch.tensor([100, 10, 1])), BALMS.Params(initial_power=power))
    method.on_stage_start(Classifier(nn.Identity(), nn.Linear(4, 3)), "finetune")
    assert torch.sigmoid(method.omega).tolist() == pytest.approx(expected, abs=1e-6)
