"""MiSLAS, De-confound-TDE, DisAlign and Seesaw: reference vectors, hand-computed values, and what each part does."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.api import Batch, Task
from harness.spec.entries import Entry
from harness.spec.recipes import resolve
from harness.toolbox.heads import ScaledLinear
from harness.toolbox.schedules import Steps
from methods.disalign.method import AlignedCosine, AlignedLinear, Alignment, DisAlign, reweighting
from methods.mislas.method import MiSLAS, label_smoothing, smoothed_cross_entropy
from methods.seesaw.method import Seesaw, seesaw_loss
from methods.tde.method import TDE, CausalHead
from tests.conformance.suite import Whole, inputs, loss_in, prepared
from tests.unit import golden
from tests.unit.golden import f64, gradient, same

GOLDEN = golden.read("losses_a.json")
cases = partial(golden.cases, GOLDEN)
COUNTS = torch.tensor(GOLDEN["class_counts"])
TARGET = torch.tensor(GOLDEN["target"])


FEATURES, WEIGHT, LOGITS = (f64(GOLDEN[name]) for name in ("features", "weight", "logits"))
TASK = Task(len(COUNTS), FEATURES.shape[1], COUNTS)


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
def test_mislas_refuses(wrong: dict[str, Any]) -> None:
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


# ---- De-confound-TDE -------------------------------------------------------------------------------------------------


def causal_head(weight: Tensor, mean: Tensor, **constants: float) -> CausalHead:
    head = CausalHead(weight.shape[1], len(weight), **constants).double()  # type: ignore[arg-type]
    head.load_state_dict({"weight": weight, "mean": mean})
    return head


@pytest.mark.parametrize("case", cases("tde"))
def test_tde(case: dict[str, Any]) -> None:
    p, features = case["params"], FEATURES.clone().requires_grad_()
    head = causal_head(
        WEIGHT, f64(case["embed"]), heads=p["num_heads"], tau=p["tau"], gamma=p["gamma"], alpha=p["alpha"]
    )
    logits = head(features)
    same(logits, case["logits_train"])
    loss = F.cross_entropy(logits, TARGET)
    same(loss, case["loss"])
    same(gradient(loss, features), case["grad_features"])
    same(gradient(loss, head.weight), case["grad_weight"])
    same(head.eval()(FEATURES), case["logits_test"])


@pytest.mark.parametrize("case", cases("tde_moving_average"))
def test_tde_moving_mean(case: dict[str, Any]) -> None:
    """Without the factor 1 - mu: only its direction counts."""
    method = TDE(TASK, TDE.Params(mean_momentum=case["params"]["mu"]))
    step = prepared(method, "train")
    for batch in case["batches"]:
        loss_in(method, step, f64(batch), torch.zeros(len(batch), dtype=torch.long))
        method.after_step(step)
    same(step.model.head.mean, case["embed"])
    same(F.normalize(step.model.head.mean, dim=0), case["direction"])


def test_tde_by_hand() -> None:
    x, weight, mean = f64([[3, 4]]), f64([[0, 2], [1, 0]]), f64([1, 0])
    head = causal_head(weight, mean, heads=1, tau=16, gamma=1 / 32, alpha=1.5)
    same(head(x), [[12.603077, 9.309091]], 1e-6)
    same(head.eval()(x), [[12.603077, -4.654545]], 1e-6)


def test_tde_at_its_ends() -> None:
    plain = causal_head(WEIGHT, FEATURES[0], heads=1, tau=16, gamma=0, alpha=0)
    cosine = F.normalize(FEATURES, dim=1) @ F.normalize(WEIGHT, dim=1).T
    same(plain(FEATURES), (16 * cosine).tolist())
    assert torch.equal(plain.eval()(FEATURES), plain.train()(FEATURES)), "nothing is taken out"
    whole = causal_head(WEIGHT, FEATURES[0], heads=1, tau=16, gamma=0, alpha=1).eval()
    assert float(whole(FEATURES[:1]).detach().abs().max()) < 1e-12, "an image along the mean has nothing left"
    assert bool(whole(torch.zeros(1, 6, dtype=torch.float64)).isfinite().all())


@pytest.mark.parametrize(("rate", "follow", "kept"), [(0.2, True, 0.9), (0.01, True, 0.95), (0.01, False, 0.9)])
def test_tde_forgets_less_at_a_low_rate(rate: float, follow: bool, kept: float) -> None:
    method = TDE(TASK, TDE.Params(follow_rate=follow))
    step = prepared(method, "train")
    step.learning_rate = rate
    step.model.head.mean.fill_(1.0)
    loss_in(method, step, torch.zeros_like(FEATURES), TARGET)
    method.after_step(step)
    assert step.model.head.mean.tolist() == pytest.approx([kept] * 6)


def test_tde_takes_out_what_it_has_seen() -> None:
    """A few steps: the buffer has d numbers; without the effect other logits come out, from the same weights."""

    def trained(alpha: float) -> tuple[Tensor, Tensor]:
        method = TDE(TASK, TDE.Params(alpha=alpha))
        step = prepared(method, "train")
        for seed in range(3):
            step.optimizer.zero_grad()
            loss = loss_in(method, step, inputs(method, 8, seed=seed)[:, :6] + 1, TARGET)
            loss.backward()
            step.optimizer.step()
            method.after_step(step)
        head = step.model.head
        assert [(name, buffer.numel()) for name, buffer in head.named_buffers()] == [("mean", 6)]
        assert "mean" in head.state_dict()
        return head.eval()(FEATURES), head.weight

    (with_effect, weight), (without, same_weight) = trained(1.0), trained(0.0)
    assert torch.equal(weight, same_weight)
    assert bool((with_effect - without).abs().max() > 0.1)


@pytest.mark.parametrize(
    "wrong", [{"heads": 0}, {"tau": 0.0}, {"gamma": -1.0}, {"alpha": -1.0}, {"mean_momentum": 1.0}]
)
def test_tde_refuses(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TDE.Params(**wrong)  # type: ignore[arg-type]


def test_tde_skips_features_that_make_no_equal_parts() -> None:
    assert TDE(TASK, TDE.Params(heads=3)).skip() is None
    assert TDE(TASK, TDE.Params(heads=4)).skip() == "6 features do not make 4 equal parts"


def test_tde_recipe() -> None:
    found = resolve(Entry("tde", "", "paper"), "cifar100").recipe
    assert found.backbone == "resnet32_cifar_two_block"
    assert (found.train.batch_size, found.train.lr, found.train.weight_decay, found.train.epochs) == (
        256,
        0.2,
        5e-4,
        200,
    )
    assert (found.train.drop_last, found.params.alpha) == (True, 1.5)
    assert resolve(Entry("tde", "", "paper"), "cifar10").recipe.params.alpha == 1.0
    large = resolve(Entry("tde", "", "paper"), "imagenet-lt").recipe
    assert (large.backbone, large.params.alpha, large.params.follow_rate) == ("resnext50_32x4d", 3.0, True)


# ---- DisAlign --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", cases("disalign"))
def test_disalign(case: dict[str, Any]) -> None:
    p, head = case["params"], AlignedLinear(6, 5, case["params"]["form"]).double()
    names = {
        "scale": "logit_scale",
        "margin": "logit_margin",
        "confidence_weight": "confidence_weight",
        "confidence_bias": "confidence_bias",
    }
    head.load_state_dict(
        {"weight": WEIGHT, "bias": f64(case["bias"])} | {f"alignment.{name}": f64(case[names[name]]) for name in names}
    )
    logits = head(FEATURES)
    same(logits, case["logits"])
    same(head.alignment.confidence(FEATURES).squeeze(1), case["confidence"])
    same(reweighting(COUNTS, p["rho"]), case["class_weights"])
    step = prepared(DisAlign(TASK, DisAlign.Params()), "finetune")
    loss = DisAlign(TASK, DisAlign.Params(rho=p["rho"])).loss(logits, TARGET, step)
    same(loss, case["loss"])
    for name, parameter in head.alignment.named_parameters():
        same(gradient(loss, parameter), case[f"grad_{names[name]}"])


def test_disalign_by_hand() -> None:
    for rho, expected in ((1.2, [0.011192, 0.177389, 2.811419]), (1.5, [0.002905, 0.091871, 2.905224])):
        torch.testing.assert_close(reweighting([100, 10, 1], rho), f64(expected), rtol=0, atol=1e-6)
    assert reweighting([100, 10, 1], 0).tolist() == [1, 1, 1]
    assert float(reweighting([100, 10, 0], 1.2)[2]) == 0, "no image, no weight"
    for form, expected_logit in (("released", 3.244918), ("convex", 2.0)):
        alignment = Alignment(1, 1, form).double()
        with torch.no_grad():
            alignment.confidence_weight.fill_(1.0)
            alignment.confidence_bias.zero_()
        assert alignment(f64([[0.5]]), f64([[2.0]])).item() == pytest.approx(expected_logit, abs=1e-6)


def test_one_form_of_disalign_is_the_other_with_a_scale_moved_by_one() -> None:
    released, convex = Alignment(6, 5, "released").double(), Alignment(6, 5, "convex").double()
    torch.nn.init.normal_(released.margin)
    torch.nn.init.normal_(released.scale)
    convex.load_state_dict(released.state_dict() | {"scale": released.scale + 1})
    torch.testing.assert_close(released(FEATURES, LOGITS), convex(FEATURES, LOGITS))
    released.load_state_dict(released.state_dict() | {"scale": torch.zeros(5), "margin": torch.zeros(5)})
    assert torch.equal(released(FEATURES, LOGITS), LOGITS), "stage 1 as it was"


def test_disalign_trains_the_alignment_alone() -> None:
    method = DisAlign(TASK, DisAlign.Params())
    step = prepared(method, "finetune")
    (group,) = method.param_groups(step.model, "finetune")
    assert sum(parameter.numel() for parameter in group["params"]) == 2 * 5 + 6 + 1
    before = {name: value.clone() for name, value in step.model.state_dict().items()}
    step.optimizer = torch.optim.SGD(group["params"], lr=0.1)
    for _ in range(3):
        step.optimizer.zero_grad()
        loss_in(method, step, FEATURES, TARGET).backward()
        step.optimizer.step()
    moved = {name for name, value in step.model.state_dict().items() if not torch.equal(value, before[name])}
    parts = {"scale", "margin", "confidence_weight", "confidence_bias"}
    assert moved == {f"head.alignment.{name}" for name in parts}
    assert method.class_quantities(step.model).keys() == {"weight norm", "logit scale", "logit margin"}


def test_the_cosine_form_of_disalign() -> None:
    """Its scale starts at 20; the confidence does not know how long a feature vector is."""
    method = DisAlign(TASK, DisAlign.Params(classifier="cosine"))
    assert (method.first_stage_of(method.params), method.first_stage_of(DisAlign.Params())) == ("", "ce")
    first, second = method.head("train").double(), method.head("finetune").double()
    assert float(first.get_submodule("scale")().detach()) == pytest.approx(20, abs=1e-6)
    assert isinstance(second, AlignedCosine)
    second.load_state_dict(second.state_dict() | first.state_dict())
    torch.testing.assert_close(second(FEATURES), second(3 * FEATURES))
    off = {"alignment.scale": torch.zeros(5), "alignment.margin": torch.zeros(5)}
    second.load_state_dict(second.state_dict() | off)
    torch.testing.assert_close(second(FEATURES), first(FEATURES))
    model = prepared(method, "train").model
    assert method.class_quantities(model).keys() == {"weight norm"}, "nothing is aligned yet"
    assert len(method.param_groups(model, "train")[0]["params"]) == 2


@pytest.mark.parametrize("rho", [-0.1, math.inf, math.nan])
def test_disalign_refuses(rho: float) -> None:
    with pytest.raises(ValueError, match="rho must be at least 0"):
        DisAlign.Params(rho=rho)


def test_disalign_recipes() -> None:
    common = resolve(Entry("disalign", "", "common"), "cifar100")
    assert common.first_stage_identity() == resolve(Entry("ce", "", "common"), "cifar100").first_stage_identity()
    large = resolve(Entry("disalign", "", "paper"), "imagenet-lt").recipe
    third = resolve(Entry("disalign", "", "paper"), "cifar100").recipe
    assert large.finetune is not None
    assert third.finetune is not None
    assert (large.backbone, large.params.rho, large.finetune.epochs) == ("resnext50_32x4d", 1.2, 10)
    assert (third.params.classifier, third.params.rho) == ("cosine", 1.5)
    assert third.train.schedule == Steps((0.8, 0.9), (0.01, 0.0001))
    for stage in (third.train, third.finetune):
        assert (stage.batch_size, stage.lr, stage.weight_decay, stage.nesterov) == (128, 0.1, 5e-4, True)


# ---- Seesaw ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", cases("seesaw"))
def test_seesaw(case: dict[str, Any]) -> None:
    """The loss sees the counts with this batch in them."""
    method, logits = Seesaw(TASK, Seesaw.Params(**case["params"])), LOGITS.clone().requires_grad_()
    step = prepared(method, "train")
    method.load_state_dict({"seen": torch.tensor(case["counts_before"]).long()})
    loss_in(method, step, FEATURES, TARGET)
    assert method.state_dict()["seen"].tolist() == case["counts_after"]
    loss = method.loss(logits, TARGET, step)
    same(loss, case["loss"])
    same(gradient(loss, logits), case["grad_logits"])


def test_seesaw_by_hand() -> None:
    constants, logits = {"p": 0.8, "q": 2.0, "epsilon": 0.01}, f64([[1, 2, 3]])
    frequent, rare = (
        seesaw_loss(logits, torch.tensor([y]), torch.tensor([100, 10, 1]), **constants).item() for y in (0, 2)
    )
    assert (frequent, rare) == pytest.approx((2.661449, 0.407606), abs=1e-6)


def test_seesaw_at_its_ends() -> None:
    plain = F.cross_entropy(LOGITS, TARGET).item()
    assert seesaw_loss(LOGITS, TARGET, COUNTS, p=0, q=0, epsilon=0.01).item() == pytest.approx(plain)
    sure = 9.0 * F.one_hot(TARGET, 5).double()
    equal = torch.full((5,), 7)
    expected = F.cross_entropy(sure, TARGET).item()
    assert seesaw_loss(sure, TARGET, equal, p=0.8, q=2, epsilon=0.01).item() == pytest.approx(expected)
    none_yet = seesaw_loss(LOGITS, TARGET, torch.zeros(5), p=0.8, q=0, epsilon=0.01)
    assert none_yet.item() == pytest.approx(plain), "a class that was not seen counts as one image"


def test_seesaw_counts_a_batch_once() -> None:
    """Also with mixup, which calls the loss twice, and where this process holds a share of the batch."""
    method = Seesaw(TASK, Seesaw.Params())
    step = prepared(method, "train")
    target = torch.tensor([0, 0, 3])
    mixed = Batch(FEATURES[:3], target, torch.arange(3), other=torch.tensor([1, 1, 1]), share=0.7)
    method.step_loss(Whole(step), (mixed,), step)
    assert method.seen.tolist() == [2, 0, 0, 1, 0]
    step.classes = torch.tensor([0, 0, 3, 4, 4])
    method.step_loss(Whole(step), (mixed,), step)
    assert method.seen.tolist() == [4, 0, 0, 2, 2]
    prior = Seesaw(TASK, Seesaw.Params(counts="prior"))
    loss_in(prior, prepared(prior, "train"), FEATURES, TARGET)
    assert torch.equal(prior.seen, COUNTS), "the class counts stay"


def test_seesaw_spares_rare_classes() -> None:
    """An image of a frequent class pushes the logit of a rare one less than cross-entropy does, a mistake excepted."""
    logits, counts = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True), torch.tensor([100, 10, 1])
    spared = gradient(seesaw_loss(logits, torch.tensor([0]), counts, p=0.8, q=2, epsilon=0.01), logits)[0]
    assert spared[2] < spared[1] < 1 / 3
    mistaken = f64([[0.0, 0.0, 3.0]]).requires_grad_()
    plain = gradient(F.cross_entropy(mistaken, torch.tensor([0])), mistaken)[0]
    pushed = gradient(seesaw_loss(mistaken, torch.tensor([0]), counts, p=0.8, q=2, epsilon=0.01), mistaken)[0]
    assert pushed[2] > plain[2]


@pytest.mark.parametrize(("name", "value"), [("p", -1.0), ("q", math.nan), ("epsilon", 0.0), ("epsilon", 1.0)])
def test_seesaw_refuses(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        Seesaw.Params(**{name: value})  # type: ignore[arg-type]
