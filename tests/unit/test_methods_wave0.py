"""Table rows made of parts: samplers, weights, class means, and other forms of losses that are there already."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from harness.api import Batch, Classifier, StepContext, Task
from harness.base import config
from harness.base.errors import RunFailed
from harness.base.progress import Reporter
from harness.reading.dataset import Images
from harness.spec.entries import parse_entry
from harness.spec.recipes import resolve
from harness.splits.splits import Split
from harness.toolbox.losses import balanced_softmax_loss
from harness.toolbox.samplers import (
    ProgressiveSampler,
    WeightedSampler,
    make_sampler,
    power_weights,
    progressive_probabilities,
)
from methods.balanced_softmax.method import BalancedSoftmax
from methods.balms.method import BALMS
from methods.class_balanced_focal.method import ClassBalancedFocal, class_balanced_focal_loss
from methods.ldam_drw.method import LDAMDRW
from methods.lws.method import LWS
from methods.ncm.method import NCM
from methods.resampling.method import Resampling
from methods.reweighting.method import Reweighting
from tests.conformance.suite import Whole
from tests.engine.toys import Killed, finish, job, kill_after, results, start
from tests.unit import golden
from tests.unit.golden import f64, same

GOLDEN = golden.read("wave0.json")
cases = partial(golden.cases, GOLDEN)
FORMS = {"weighted_inside": "inside", "weighted_outside": "outside", "sigmoid": "sigmoid"}


LOGITS, COSINE, COUNTS = f64(GOLDEN["logits"]), f64(GOLDEN["cosine"]), torch.tensor(GOLDEN["class_counts"])
FEATURES, WEIGHT, TARGET = f64(GOLDEN["features"]), f64(GOLDEN["weight"]), torch.tensor(GOLDEN["target"])
TASK = Task(5, 6, COUNTS)


def a_step(model: Classifier, epoch: int = 0, epochs: int = 2, **sgd: Any) -> StepContext:
    optimizer = torch.optim.SGD(model.parameters(), **{"lr": 0.1, **sgd})
    return StepContext("finetune", epoch, epochs, 0, optimizer.defaults["lr"], model, optimizer, torch.Generator())


STEP = a_step(Classifier(nn.Identity(), nn.Linear(6, 5)))


def assert_loss(loss: Callable[[Tensor], Tensor], at: Tensor, expected: float, gradient: Any) -> None:
    """Value and gradient."""
    given = at.clone().requires_grad_()
    value = loss(given)
    same(value, expected)
    same(torch.autograd.grad(value, given)[0], gradient)


# ---- losses ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", cases("balanced_softmax_power"))
def test_balanced_softmax_with_a_power_of_the_prior(case: dict[str, Any]) -> None:
    power = case["params"]["exponent"]
    balanced = BalancedSoftmax(TASK, BalancedSoftmax.Params(prior_power=power))
    balms = BALMS(TASK, BALMS.Params(prior_power=power))
    for method in (balanced, balms):
        assert_loss(partial(method.loss, target=TARGET, step=STEP), LOGITS, case["loss"], case["grad_logits"])


def test_power_0_is_plain_cross_entropy_also_with_a_class_of_none() -> None:
    counts = torch.tensor([500, 120, 40, 12, 0])
    target = TARGET.clamp(max=3)
    loss = balanced_softmax_loss(LOGITS, target, counts, prior_power=0.0)
    torch.testing.assert_close(loss, F.cross_entropy(LOGITS, target))
    quarter = balanced_softmax_loss(LOGITS, target, counts, prior_power=0.25)
    torch.testing.assert_close(quarter, F.cross_entropy(LOGITS[:, :4] + counts[:4].log() / 4, target))


def test_quarter_lowers_the_margins_by_a_quarter_of_the_log() -> None:
    loss = balanced_softmax_loss(f64([[0.0, 0.0]]), torch.tensor([1]), [16, 1], prior_power=0.25)
    assert float(loss) == pytest.approx(np.log(3))  # 16^(1/4) = 2 against 1


@pytest.mark.parametrize("case", cases("ldam"))
def test_ldam_without_reweighting(case: dict[str, Any]) -> None:
    from_ = 1.0 if case["params"]["weights"] == "none" else 0.0
    method = LDAMDRW(TASK, LDAMDRW.Params(reweight_from=from_))
    same(method.margins, case["margins"])
    last = a_step(STEP.model, epoch=1)
    assert_loss(lambda cos: method.loss(cos, TARGET, last), COSINE, case["loss"], case["grad_cosine"])
    assert resolve(parse_entry("ldam_drw-no-drw@paper"), "cifar10").recipe.params.reweight_from == 1.0


@pytest.mark.parametrize("case", cases("class_balanced_focal"))
def test_class_balanced_focal_forms(case: dict[str, Any]) -> None:
    given = case["params"]
    params = ClassBalancedFocal.Params(FORMS[given["form"]], given["beta"], given["gamma"])  # type: ignore[arg-type]
    method = ClassBalancedFocal(TASK, params)
    same(method.class_weights, case["class_weights"], tolerance=1e-6)
    assert_loss(lambda z: method.loss(z, TARGET, STEP), LOGITS, case["loss"], case["grad_logits"])


def test_class_balanced_focal_by_hand() -> None:
    """z = (1, 2, 3), y = 2, n = (100, 10, 1), gamma 1: weight inside .735437, outside .368752; sigmoid from its sum."""
    logits, target = f64([[1, 2, 3]]), torch.tensor([2])
    method = ClassBalancedFocal(Task(3, 4, torch.tensor([100, 10, 1])), ClassBalancedFocal.Params())
    w = method.class_weights
    assert float(class_balanced_focal_loss(logits, target, w, 1.0, "inside")) == pytest.approx(0.735437, abs=1e-6)
    assert float(class_balanced_focal_loss(logits, target, w, 1.0, "outside")) == pytest.approx(0.368752, abs=1e-6)
    p = torch.sigmoid(logits[0])
    right = torch.stack([1 - p[0], 1 - p[1], p[2]])
    expected = w[2] * ((1 - right) ** 2 * -right.log()).sum()
    torch.testing.assert_close(class_balanced_focal_loss(logits, target, w, 2.0, "sigmoid"), expected)


@pytest.mark.parametrize("form", ["sigmoid", "inside", "outside"])
def test_class_balanced_focal_is_finite_far_out(form: Any) -> None:
    logits = f64([[800.0, -800, 0], [-800, 800, 0]]).requires_grad_()
    loss = class_balanced_focal_loss(logits, torch.tensor([0, 0]), torch.ones(3), 0.5, form)
    assert torch.isfinite(loss)
    assert torch.isfinite(torch.autograd.grad(loss, logits)[0]).all()


def test_sigmoids_start_at_one_in_c_and_their_bias_does_not_decay() -> None:
    method = ClassBalancedFocal(Task(100, 6, torch.ones(100)), ClassBalancedFocal.Params())
    model = Classifier(nn.Linear(6, 6), method.head("train"))
    assert torch.sigmoid(model.head.bias).tolist() == pytest.approx([0.01] * 100)
    rest, bias = method.param_groups(model, "train")
    assert bias == {"params": [model.head.bias], "weight_decay": 0.0}
    assert len(rest["params"]) == 3
    plain = ClassBalancedFocal(method.task, ClassBalancedFocal.Params(form="inside"))
    assert [len(group["params"]) for group in plain.param_groups(model, "train")] == [4]


@pytest.mark.parametrize("case", cases("inverse_frequency_weighting"))
def test_class_balanced_weighting(case: dict[str, Any]) -> None:
    method = Reweighting(TASK, Reweighting.Params())
    same(method.class_weights, case["class_weights"])
    if case["params"]["reduction"] == "weighted_mean":
        assert_loss(lambda z: method.loss(z, TARGET, STEP), LOGITS, case["loss"], case["grad_logits"])


def test_square_root_weighting_and_a_class_of_none() -> None:
    method = Reweighting(Task(4, 2, torch.tensor([16, 4, 1, 0])), Reweighting.Params(power=0.5))
    assert method.class_weights.tolist() == pytest.approx([4 * w / 1.75 for w in (0.25, 0.5, 1, 0)])


# ---- samplers --------------------------------------------------------------------------------------------------------

LABELS = np.repeat(np.arange(5), COUNTS.numpy())


@pytest.mark.parametrize("case", cases("sampling_mass"))
def test_sampling_mass(case: dict[str, Any]) -> None:
    given = case["params"]
    if given["kind"] == "power":
        image = power_weights(f64(GOLDEN["class_counts"]), given["q"])
        same(image / (image * COUNTS).sum(), case["image_probability_per_class"])
    else:
        shares = progressive_probabilities(COUNTS, given["epoch"], given["epochs"])
        same(shares, case["class_probability"])


def test_power_weights_reach_from_instance_to_class_balanced() -> None:
    counts = f64([400, 25, 1, 0])
    assert power_weights(counts, 1.0).tolist() == [1, 1, 1, 0]
    assert power_weights(counts, 0.5).tolist() == pytest.approx([1 / 20, 1 / 5, 1, 0])
    assert power_weights(counts, 0.0).tolist() == pytest.approx([1 / 400, 1 / 25, 1, 0])


def test_square_root_draws_by_the_root() -> None:
    sampler = make_sampler("square_root", LABELS, 5)
    assert isinstance(sampler, WeightedSampler)
    drawn = np.concatenate([LABELS[sampler.order(np.random.default_rng(epoch))] for epoch in range(60)])
    expected = np.sqrt(COUNTS.numpy()) / np.sqrt(COUNTS.numpy()).sum()
    assert np.bincount(drawn) / len(drawn) == pytest.approx(expected, abs=0.01)


def test_progressive_goes_from_the_data_to_balance() -> None:
    sampler = make_sampler("progressive", LABELS, 5)
    sampler.epochs = 90
    shares = [np.bincount(LABELS[sampler.order(np.random.default_rng(epoch))]) / 677 for epoch in range(90)]
    assert np.mean(shares[:10], 0) == pytest.approx(np.mean([*map(_share(90), range(10))], 0), abs=0.02)
    assert np.mean(shares[-10:], 0) == pytest.approx(np.mean([*map(_share(90), range(80, 90))], 0), abs=0.02)
    assert _share(90)(0) == pytest.approx(COUNTS.numpy() / 677)
    assert _share(90)(89) == pytest.approx([0.2] * 5)


def _share(epochs: int) -> Callable[[int], Any]:
    return lambda epoch: progressive_probabilities(COUNTS, epoch, epochs).numpy()


@given(st.integers(1, 4), st.integers(1, 5))
def test_progressive_goes_on_where_it_stood(before: int, epochs: int) -> None:
    """The cycles and the epoch are its state."""
    labels = np.repeat(np.arange(4), [6, 3, 0, 1])
    whole, first, second = (ProgressiveSampler(labels, 4) for _ in range(3))
    for sampler in (whole, first, second):
        sampler.epochs = epochs
    orders = [whole.order(np.random.default_rng(epoch)) for epoch in range(before + 1)]
    for epoch in range(before):
        assert np.array_equal(first.order(np.random.default_rng(epoch)), orders[epoch])
    second.load_state_dict(first.state_dict())
    assert np.array_equal(second.order(np.random.default_rng(before)), orders[before])


def test_progressive_takes_each_image_of_a_class_in_turn() -> None:
    sampler = ProgressiveSampler(np.repeat(np.arange(2), [7, 3]), 2)
    drawn = np.concatenate([sampler.order(np.random.default_rng(epoch)) for epoch in range(20)])
    times = np.bincount(drawn, minlength=10)
    assert np.ptp(times[:7]) <= 1
    assert np.ptp(times[7:]) <= 1


class Progressive(Resampling):
    """As a variant of it."""

    name = "progressive"

    @dataclass(frozen=True)
    class Params(Resampling.Params):
        """Another default."""

        sampler: Any = "progressive"


def test_the_loop_says_how_many_epochs_there_are_and_resumes_the_sampler(
    tiny_split: Split, tiny_images: dict[str, Images], tmp_path: Path
) -> None:
    whole = finish(job(Progressive), tiny_split, tiny_images, tmp_path / "whole")
    (sampler,) = whole.batches._samplers
    assert isinstance(sampler, ProgressiveSampler)
    assert (sampler.epochs, sampler.state_dict()["epoch"]) == (3, 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LTBENCH_CHECKPOINT_SECONDS", "0")
        cut = start(job(Progressive), tiny_split, tiny_images, tmp_path / "cut")
        kill_after(cut, 3 * len(whole.batches.positions(whole.batches.plan(0))) // 2)
        with pytest.raises(Killed):
            cut.run(Reporter())
    finish(job(Progressive), tiny_split, tiny_images, tmp_path / "cut")
    assert results(tmp_path / "cut") == results(tmp_path / "whole")


@pytest.mark.parametrize("name", ["class_aware", "class_balanced", "square_root", "progressive"])
def test_resampling_has_the_samplers_by_name(name: Any) -> None:
    method = Resampling(TASK, Resampling.Params(sampler=name, k=2))
    ours, theirs = method.sampler(LABELS, "train"), make_sampler(name, LABELS, 5, k=2)
    assert type(ours) is type(theirs)
    assert np.array_equal(ours.order(np.random.default_rng(0)), theirs.order(np.random.default_rng(0)))


# ---- nearest class mean ----------------------------------------------------------------------------------------------


def trained(method: NCM, features: Tensor, target: Tensor, size: int = 5) -> Classifier:
    """The model after the stage's two epochs over these features."""
    model = Classifier(nn.Identity(), method.head("finetune")).double()
    method.on_stage_start(model, "finetune")
    for epoch in range(2):
        step = a_step(model, epoch)
        for index in torch.randperm(len(features)).split(size):
            method.step_loss(Whole(step), (Batch(features[index], target[index], index),), step)
        method.on_epoch_end(step)
    return model


@pytest.mark.parametrize("case", cases("nearest_class_mean"))
def test_nearest_class_mean(case: dict[str, Any]) -> None:
    method = NCM(TASK, NCM.Params(**case["params"]))
    model = trained(method, f64(case["train_features"]), torch.tensor(case["train_target"]))
    if case["params"]["feature"] == "cl2n":
        same(model.head.mean, case["train_mean"])
    same(model.head.weight, case["centroids"])
    same(model(f64(case["test_features"])), case["scores"])


def test_two_clusters_are_told_apart_whatever_their_sizes() -> None:
    torch.manual_seed(0)
    features = torch.cat([torch.randn(50, 6) + 4, torch.randn(3, 6) - 4]).double()
    target = torch.repeat_interleave(torch.arange(2), torch.tensor([50, 3]))
    model = trained(NCM(Task(2, 6, torch.tensor([50, 3])), NCM.Params()), features, target)
    assert torch.equal(model(features).argmax(1), target)


def test_the_optimiser_moves_no_class_mean() -> None:
    method = NCM(TASK, NCM.Params())
    model = Classifier(nn.Identity(), method.head("finetune"))
    (group,) = method.param_groups(model, "finetune")
    assert (group["lr_scale"], group["weight_decay"]) == (0.0, 0.0)
    assert method.skip() is None
    assert NCM(Task(2, 6, torch.tensor([3, 0])), NCM.Params()).skip()


def test_one_pass_is_refused() -> None:
    method = NCM(TASK, NCM.Params())
    model = Classifier(nn.Identity(), method.head("finetune"))
    method.on_stage_start(model, "finetune")
    with pytest.raises(RunFailed, match="two passes"):
        method.on_epoch_end(a_step(model, epochs=1))


# ---- meta reweighting ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", cases("meta_reweighter_gradient"))
def test_meta_reweighter_gradient(case: dict[str, Any]) -> None:
    given = case["params"]
    power = {"balanced_softmax": 1.0, "softmax": 0.0}[given["base"]]
    method = BALMS(TASK, BALMS.Params(reweight=True, prior_power=power))
    method.sampler(LABELS, "finetune")
    head = nn.Linear(6, 5).double()
    with torch.no_grad():
        head.weight.copy_(WEIGHT)
        head.bias.copy_(f64(case["bias"]))
    model = Classifier(nn.Identity(), head)
    method.on_stage_start(model, "finetune")
    method.omega = f64(case["omega"]).requires_grad_()
    method.adam = torch.optim.Adam([method.omega], lr=0.01)
    step = a_step(model, lr=given["learning_rate"], momentum=given["momentum"], weight_decay=given["weight_decay"])
    if given["momentum"]:
        step.optimizer.state[head.weight]["momentum_buffer"] = f64(case["momentum_weight"])
        step.optimizer.state[head.bias]["momentum_buffer"] = f64(case["momentum_bias"])
    index = torch.arange(len(TARGET))
    assert torch.equal(method.choose(index, step), index)
    same(method.loss(model(FEATURES), TARGET, step), case["inner_loss"])
    meta = Batch(f64(case["meta_features"]), torch.tensor(case["meta_target"]), torch.arange(10))
    loss = method.step_loss(Whole(step), (Batch(FEATURES, TARGET, index), meta), step)
    assert method.omega.grad is not None
    same(method.omega.grad, case["grad_omega"])
    assert torch.equal(loss, method.loss(model(FEATURES), TARGET, step))  # the real step has the weights just moved
    assert "loss weight" in method.class_quantities(model)


def test_what_is_learned_is_drawn_or_weighs_but_not_both() -> None:
    with pytest.raises(ValueError, match="sampler is class_aware, not meta"):
        BALMS.Params(sampler="class_aware", reweight=True)


# ---- what was there before -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [BalancedSoftmax, BALMS, LWS])
def test_new_params_are_not_in_old_recipes(method: Any) -> None:
    """A record made before them has the hash of today's default."""
    assert not {"prior_power", "reweight", "first_stage"} & set(config.as_dict(method.Params()))


@pytest.mark.parametrize(
    ("params", "values"),
    [
        (BalancedSoftmax.Params, {"prior_power": -1.0}),
        (BALMS.Params, {"prior_power": float("inf")}),
        (Resampling.Params, {"k": 0}),
        (Reweighting.Params, {"power": -0.5}),
        (ClassBalancedFocal.Params, {"beta": 1.0}),
        (ClassBalancedFocal.Params, {"gamma": -1.0}),
    ],
)
def test_values_out_of_range_are_refused(params: Any, values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must "):
        params(**values)
