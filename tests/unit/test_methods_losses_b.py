"""VS, influence-balanced, LADE, equalization and CDB losses against the reference implementations and by hand."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.api import Batch, Method, StepContext, Task
from harness.base.errors import RunFailed, UserError
from harness.toolbox.losses import CLASS_WEIGHTS, balanced_softmax_loss, make_class_weights
from methods.cdb.method import CDB, difficulty_weights, dynamic_tau
from methods.equalization.method import Equalization, equalization_loss
from methods.ib.method import InfluenceBalanced, ib_loss
from methods.lade.method import LADE, prior_shift, ratio_regulariser
from methods.vs.method import VS, vs_adjustment
from tests.conformance.suite import Whole
from tests.unit import golden
from tests.unit.golden import f64, gradient, same

GOLDEN = golden.read("losses_b.json")
cases = partial(golden.cases, GOLDEN)


FEATURES, LOGITS = f64(GOLDEN["features"]), f64(GOLDEN["logits"])
TARGET, COUNTS = torch.tensor(GOLDEN["target"]), torch.tensor(GOLDEN["class_counts"])
ROW, ROW_COUNTS = f64([[1, 2, 3]]), torch.tensor([100, 10, 1])
ABSENT = torch.tensor([500, 120, 0, 12, 5])  # class 2 has no image
WITHOUT = torch.tensor([0, 1, 1, 4, 3, 4, 0, 3])  # and is absent from the batch


def leaf(values: Tensor) -> Tensor:
    return values.clone().requires_grad_()


def step_of(method: Method, epoch: int = 0, epochs: int = 200, features: Tensor | None = None) -> StepContext:
    """A step, its noise from seed 0."""
    model = method.build(nn.Identity(), "train")
    method.on_stage_start(model, "train")
    optimizer, generator = torch.optim.SGD(model.parameters(), lr=0.1), torch.Generator().manual_seed(0)
    return StepContext("train", epoch, epochs, 0, 0.1, model, optimizer, generator, features=features)


def loss_of(method: Method, logits: Tensor = LOGITS, target: Tensor = TARGET, epoch: int = 0) -> Tensor:
    return method.loss(logits, target, step_of(method, epoch, features=FEATURES))


def make(method: type[Method], counts: Tensor = COUNTS, /, **params: Any) -> Any:
    return method(Task(len(counts), FEATURES.shape[1], counts), method.Params(**params))


# ---- class weights by name ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLASS_WEIGHTS)
def test_class_weights_sum_to_the_number_of_classes(name: str) -> None:
    assert float(make_class_weights(name, COUNTS).sum()) == pytest.approx(5)
    same(make_class_weights(name, [7, 7, 7]), [1.0, 1.0, 1.0])


def test_class_weights_that_there_are_not() -> None:
    with pytest.raises(UserError, match="class weights"):
        make_class_weights("inverted", COUNTS)


# ---- VS loss --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", cases("vs"))
def test_vs_equals_the_reference(case: dict[str, Any]) -> None:
    gamma, tau = case["params"]["gamma"], case["params"]["tau"]
    temperature, offset = vs_adjustment(COUNTS, gamma, tau)
    same(temperature, case["temperature"])
    same(offset, case["offset"])
    weights, logits = "class_balanced" if case["params"]["weights"] else "none", leaf(LOGITS)
    loss = loss_of(make(VS, gamma=gamma, tau=tau, weights=weights), logits)
    same(loss, case["loss"])
    same(gradient(loss, logits), case["grad_logits"])


def test_vs_by_hand() -> None:
    temperature, offset = vs_adjustment(ROW_COUNTS, 0.2, 1.2)
    assert temperature.tolist() == pytest.approx([1, 1.584893, 2.511886], abs=1e-6)
    assert offset.tolist() == pytest.approx([-0.125232, -2.888334, -5.651436], abs=1e-6)
    method = make(VS, ROW_COUNTS, gamma=0.2, tau=1.2)
    assert float(loss_of(method, ROW, torch.tensor([2]))) == pytest.approx(5.415141, abs=1e-5)


@pytest.mark.parametrize("counts", [COUNTS, ABSENT])
def test_vs_has_cross_entropy_and_balanced_softmax_as_special_cases(counts: Tensor) -> None:
    plain = make(VS, counts, gamma=0.0, tau=0.0)
    torch.testing.assert_close(loss_of(plain, target=WITHOUT), F.cross_entropy(LOGITS, WITHOUT))
    balanced = make(VS, counts, gamma=0.0, tau=1.0)
    torch.testing.assert_close(loss_of(balanced, target=WITHOUT), balanced_softmax_loss(LOGITS, WITHOUT, counts))
    uniform = make(VS, torch.full((5,), 30), gamma=0.3, tau=1.2)
    torch.testing.assert_close(loss_of(uniform), F.cross_entropy(LOGITS, TARGET))


def test_vs_and_its_weights_begin_when_they_are_told_to() -> None:
    """`mixed` after epoch 6 of 200, `drw` after epoch 160."""
    mixed, drw = make(VS, vs_from=0.03), make(VS, weights="class_balanced", weights_from=0.8)
    assert float(loss_of(mixed, epoch=5)) == float(F.cross_entropy(LOGITS, TARGET))
    assert float(loss_of(mixed, epoch=6)) == float(loss_of(make(VS)))
    assert float(loss_of(drw, epoch=159)) == float(loss_of(make(VS)))
    assert float(loss_of(drw, epoch=160)) == float(loss_of(make(VS, weights="class_balanced")))


# ---- influence-balanced loss ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [*cases("ib"), *cases("ib_focal")])
def test_ib_equals_the_reference(case: dict[str, Any]) -> None:
    p, logits, features = case["params"], leaf(LOGITS), leaf(FEATURES)
    method = make(InfluenceBalanced, **(p | {"weights": p["weights"] or "none"}))
    same(method.class_weights, case["class_weights"])
    loss = method.loss(logits, TARGET, step_of(method, epoch=100, features=features))
    same(loss, case["loss"])
    same(gradient(loss, logits), case["grad_logits"])
    same(gradient(loss, features), case["grad_features"])
    assert not torch.allclose(gradient(loss, logits), f64(case["grad_logits_factor_detached"]))


def ib(logits: Tensor, target: Tensor, features: Tensor, **options: float) -> Tensor:
    """Without class weights."""
    return ib_loss(logits, target, features, torch.ones(logits.shape[1]).to(logits), **({"alpha": 1000.0} | options))


def test_ib_by_hand() -> None:
    assert float(ib(ROW, torch.tensor([0]), f64([[1, 2, 0]]))) == pytest.approx(440.887537, abs=1e-5)
    norm, uniform = float(FEATURES[0].abs().sum()), ib(torch.zeros(1, 5).double(), torch.tensor([3]), FEATURES[:1])
    assert float(uniform) == pytest.approx(1000 * math.log(5) / (2 * (1 - 1 / 5) * norm + 0.001))
    halved = ib(LOGITS, TARGET, 2 * FEATURES, epsilon=1e-12) / ib(LOGITS, TARGET, FEATURES, epsilon=1e-12)
    assert float(halved) == pytest.approx(0.5)


@pytest.mark.parametrize("focal_gamma", [0.0, 0.5, 1.0])
def test_ib_has_a_gradient_where_an_image_is_certain(focal_gamma: float) -> None:
    """p rounds to 1 there, or to 0."""
    logits, features = leaf(100 * F.one_hot(torch.tensor([0, 1]), 5).float()), leaf(FEATURES[:2].float())
    for target in ([0, 1], [2, 0]):
        loss = ib(logits, torch.tensor(target), features, focal_gamma=focal_gamma)
        assert bool(loss.isfinite())
        assert bool(gradient(loss, logits).isfinite().all() & gradient(loss, features).isfinite().all())


def test_ib_begins_in_the_middle() -> None:
    method = make(InfluenceBalanced)
    assert float(loss_of(method, epoch=99)) == float(F.cross_entropy(LOGITS, TARGET))
    assert float(loss_of(method, epoch=100)) > 100


# ---- LADE -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", cases("lade"))
def test_lade_equals_the_reference(case: dict[str, Any]) -> None:
    logits = leaf(LOGITS)
    regulariser = ratio_regulariser(logits, TARGET, COUNTS, case["params"]["remine_lambda"])
    same(regulariser, case["regulariser"])
    same(gradient(regulariser, logits), case["grad_logits_regulariser"])
    loss = loss_of(make(LADE, **case["params"]), logits)
    same(loss, case["loss"])
    same(gradient(loss, logits), case["grad_logits"])


@pytest.mark.parametrize("case", cases("prior_shift"))
def test_inference_under_another_prior_equals_the_reference(case: dict[str, Any]) -> None:
    target = case["params"]["target"]
    same(make(LADE, target_prior=target).inference(LOGITS, "train"), case["logits_lade_model"])
    softmax = make(LADE, form="pc_softmax", target_prior=target)
    same(softmax.inference(LOGITS, "finetune"), case["logits_softmax_model"])
    same(prior_shift(LOGITS, f64(case["target_prior"])), case["logits_lade_model"])


def test_lade_by_hand() -> None:
    logits, target = f64([[1, 0, 0], [0, 1, 0]]), torch.tensor([0, 1])
    assert float(ratio_regulariser(logits, target, ROW_COUNTS, 0.1)) == pytest.approx(-1.063926, abs=1e-5)
    level = torch.full((3, 3), 0.7).double()  # A = a, S = a + log(1 / (C pi))
    prior = ROW_COUNTS.double() / 111
    spread = 0.7 - (3 * prior).log()
    expected = -(prior * (0.7 - spread - 0.01 * spread**2)).sum()
    found = ratio_regulariser(level, torch.tensor([0, 1, 2]), ROW_COUNTS, 0.01)
    assert float(found) == pytest.approx(float(expected), abs=1e-6)


def test_lade_without_its_regulariser_is_balanced_softmax() -> None:
    balanced = balanced_softmax_loss(LOGITS, TARGET, COUNTS)
    torch.testing.assert_close(loss_of(make(LADE, alpha=0.0)), balanced, rtol=1e-6, atol=0)  # its offset
    assert float(loss_of(make(LADE))) != float(loss_of(make(LADE, alpha=0.0)))


def test_lade_pushes_down_classes_that_are_absent_from_the_batch_and_leaves_out_those_of_no_image() -> None:
    logits = leaf(LOGITS)
    pushed = gradient(ratio_regulariser(logits, WITHOUT, COUNTS, 0.01), logits)[:, 2]
    assert bool((pushed > 0).all())
    assert not gradient(ratio_regulariser(logits, WITHOUT, ABSENT, 0.01), logits)[:, 2].any()


def test_pc_softmax_with_the_training_prior_is_cross_entropys_own_prediction() -> None:
    method = make(LADE, form="pc_softmax", target_prior="train")
    torch.testing.assert_close(method.inference(LOGITS, "finetune"), LOGITS)
    assert (method.stages_of(method.params), method.first_stage_of(method.params)) == (("train", "finetune"), "ce")
    assert float(loss_of(method)) == float(F.cross_entropy(LOGITS, TARGET))
    assert make(LADE, ABSENT, form="pc_softmax").skip()


# ---- equalization loss ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", cases("softmax_equalization"))
def test_equalization_equals_the_reference(case: dict[str, Any]) -> None:
    method = make(Equalization, gamma=case["params"]["gamma"], rare_below=case["params"]["lambda"])
    assert method.rare.tolist() == [bool(tail) for tail in case["is_tail"]]
    logits, dropped = leaf(LOGITS), f64(case["uniform"]) < case["params"]["gamma"]
    loss = equalization_loss(logits, TARGET, method.rare, dropped)
    same(loss, case["loss"])
    same(gradient(loss, logits), case["grad_logits"])


def test_equalization_by_hand() -> None:
    target, none = torch.tensor([0]), torch.zeros(1, 3, dtype=torch.bool)
    rare = torch.tensor([False, False, True])
    assert float(equalization_loss(ROW, target, rare, none)) == pytest.approx(2.407606, abs=1e-5)
    assert float(equalization_loss(ROW, target, rare, ~none)) == pytest.approx(1.313262, abs=1e-5)
    large = 1000 * ROW  # e^z would overflow
    assert float(equalization_loss(large, target, rare, none)) == pytest.approx(2000)


@pytest.mark.parametrize("switched_off", [{"gamma": 0.0}, {"rare_below": 0.0}])
def test_equalization_switched_off_is_cross_entropy(switched_off: dict[str, float]) -> None:
    method = make(Equalization, **({"rare_below": 1.0} | switched_off))
    assert float(loss_of(method)) == float(F.cross_entropy(LOGITS, TARGET))


def test_equalization_with_everything_dropped_has_nothing_left_to_learn() -> None:
    logits = leaf(LOGITS)
    loss = loss_of(make(Equalization, gamma=1.0, rare_below=1.0), logits)
    assert loss.item() == 0
    assert not gradient(loss, logits).any()


def test_equalization_draws_for_each_image_and_class_anew() -> None:
    """A rare class is dropped at rate gamma; what is left out of no softmax is the target, and frequent classes."""
    method = make(Equalization, gamma=0.7, rare_below=0.2, share_of="largest")
    assert method.rare.tolist() == [False, False, True, True, True]
    target = torch.zeros(20_000, dtype=torch.long)
    logits, step = leaf(torch.zeros(20_000, 5)), step_of(method)
    pushed = gradient(method.loss(logits, target, step), logits) != 0
    assert bool(pushed[:, :2].all())
    assert pushed[:, 2:].float().mean(0).tolist() == pytest.approx([0.3] * 3, abs=0.02)
    assert float((pushed[:, 2] & pushed[:, 3]).float().mean()) == pytest.approx(0.09, abs=0.01)
    assert float(method.loss(LOGITS, TARGET, step)) != float(method.loss(LOGITS, TARGET, step))


# ---- CDB-CE ---------------------------------------------------------------------------------------------------------

LABELS = torch.repeat_interleave(torch.arange(3), torch.tensor([20, 10, 3]))


def cdb(**params: Any) -> tuple[CDB, StepContext]:
    """In a step on `LABELS`, whose images are features."""
    method = CDB(Task(3, 4, torch.tensor([20, 10, 3])), CDB.Params(**params))
    method.views(LABELS.numpy(), "train")
    torch.manual_seed(0)
    return method, step_of(method)


def batch(step: StepContext, index: Tensor) -> Batch:
    """Images of class c along axis c, whatever the network says to that."""
    step.batch = Batch(F.one_hot(LABELS[index], 4).float(), LABELS[index], index)
    return step.batch


@pytest.mark.parametrize("case", cases("cdb"))
@pytest.mark.parametrize(
    ("data", "form", "mean", "reduction"),
    [("cifar", "code", "plain", "plain_mean"), ("imagenet", "paper", "weighted", "weighted_mean")],
)
def test_cdb_equals_the_reference(case: dict[str, Any], data: str, form: str, mean: str, reduction: str) -> None:
    accuracy, tau = f64(case["class_accuracy"]), case["params"]["tau"]
    if tau == "dynamic":
        same(dynamic_tau(accuracy, form), case[f"tau_{data}"])
    weights = difficulty_weights(accuracy, case[f"tau_{data}"])
    same(weights, case[f"weights_{data}"])
    method, logits = make(CDB, mean=mean, held_out=0.0), leaf(LOGITS)
    method.views(TARGET.numpy(), "train")
    step = step_of(method)
    step.batch, method.class_weights = Batch(FEATURES, TARGET, torch.arange(len(TARGET))), weights
    loss = method.loss(logits, TARGET, step)
    same(loss, case[f"loss_{data}_{reduction}"])
    same(gradient(loss, logits), case[f"grad_logits_{data}"])


def test_cdb_by_hand() -> None:
    accuracy = f64([0.9, 0.5, 0.1])
    code, paper = dynamic_tau(accuracy, "code"), dynamic_tau(accuracy, "paper")
    assert (float(code), float(paper)) == pytest.approx((0.999720, 1.998481), abs=1e-6)
    assert difficulty_weights(accuracy, code).tolist() == pytest.approx([0.200104, 1.000069, 1.799827], abs=1e-5)
    assert difficulty_weights(accuracy, paper).tolist() == pytest.approx([0.028124, 0.701393, 2.270483], abs=1e-5)
    assert difficulty_weights(accuracy, 1.5).tolist() == pytest.approx([0.076569, 0.856068, 2.067363], abs=1e-5)


@pytest.mark.parametrize(("accuracy", "tau"), [([0.4] * 3, 1.5), ([0.9, 0.5, 1.0], 0.0), ([1.0] * 3, 1.5)])
def test_cdb_weighs_classes_of_one_difficulty_alike(accuracy: list[float], tau: float) -> None:
    assert difficulty_weights(f64(accuracy), tau).tolist() == pytest.approx([1.0] * 3)


def test_cdb_does_not_train_on_what_it_judges_by() -> None:
    """A tenth of each class: two images, one, and none of three, which counts as hard."""
    method, step = cdb(tau=1.0)
    held = torch.tensor([0, 1, 20])
    assert torch.equal(torch.nonzero(method.trained == 0).flatten(), held)
    assert float(method.trained.mean()) == pytest.approx(1)
    images = batch(step, torch.arange(33))
    logits = leaf(step.model.head(images.images).detach())
    pushed = gradient(method.loss(logits, images.target, step), logits)
    assert torch.equal(torch.nonzero(~pushed.any(1)).flatten(), held)
    method.step_loss(Whole(step), (images,), step)
    assert method.judged.tolist() == [2, 1, 0]
    with torch.no_grad():
        step.model.head.weight.copy_(10 * torch.eye(3, 4))
        step.model.head.weight[1] = 0  # classes 0 and 2 are always right, class 1 is not
    method.on_epoch_end(step)
    method.step_loss(Whole(step), (images,), step)
    method.on_epoch_end(step)
    assert method.accuracy.tolist() == [1, 0, 0]
    assert method.class_weights.tolist() == [0, 1.5, 1.5]
    step.batch = Batch(images.images, images.target, images.index, images.target, 0.5)
    with pytest.raises(RunFailed, match="held_out must be 0 with mixup"):
        method.loss(logits, images.target, step)


def test_cdb_judged_by_its_training_images_counts_all_of_them_over_the_epoch() -> None:
    method, step = cdb(held_out=0.0, tau=1.0)
    for index in torch.arange(33).split(8):
        method.step_loss(Whole(step), (batch(step, index),), step)
    assert method.judged.tolist() == [20, 10, 3]
    right = (step.model.head(batch(step, torch.arange(33)).images).argmax(1) == LABELS).double()
    state = method.state_dict()
    method.on_epoch_end(step)
    expected = torch.stack([right[c == LABELS].mean() for c in range(3)])
    torch.testing.assert_close(method.accuracy.double(), expected)
    again, other_step = cdb(held_out=0.0, tau=1.0)
    again.load_state_dict(state)
    again.on_epoch_end(other_step)
    assert torch.equal(again.class_weights, method.class_weights)


class Share(Whole):
    """The network of one of several processes; the averages of all of them add up to the whole batch's."""

    def __init__(self, step: StepContext, part: float) -> None:
        super().__init__(step)
        self.part = part

    def average(self, values: Tensor) -> Tensor:
        return values * self.part


def test_cdb_counts_of_processes_add_up_to_those_of_the_batch() -> None:
    alone, step = cdb(held_out=0.0)
    alone.step_loss(Whole(step), (batch(step, torch.arange(33)),), step)
    judged, correct = torch.zeros(3), torch.zeros(3)
    for index in (torch.arange(24), torch.arange(24, 33)):
        method, step = cdb(held_out=0.0)
        step.classes = LABELS
        method.step_loss(Share(step, len(index) / 33), (batch(step, index),), step)
        judged, correct = judged + method.judged, correct + method.correct
    torch.testing.assert_close(judged, alone.judged)
    torch.testing.assert_close(correct, alone.correct)


def test_cdb_judges_validation_images_by_the_network_at_rest() -> None:
    """BatchNorm does not count them, and goes on with the training images."""
    method, step = cdb(source="val", val_batch=6)
    _, judged = method.views(LABELS.numpy(), "train")
    assert (judged.balanced, judged.part) == (6, "val")
    assert bool((method.trained == 1).all())
    step.model.backbone = nn.BatchNorm1d(4)
    training, held_out = batch(step, torch.arange(33)), Batch(torch.randn(6, 4), torch.arange(6) % 3, torch.arange(6))
    alone = nn.BatchNorm1d(4)
    alone(training.images)
    method.step_loss(Whole(step), (training, held_out), step)
    assert torch.equal(step.model.backbone.get_buffer("running_mean"), alone.get_buffer("running_mean"))
    assert step.model.backbone.training
    assert method.judged.tolist() == [2, 2, 2]


# ---- params ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "params"),
    [
        (VS, {"gamma": -0.1}),
        (VS, {"tau": float("nan")}),
        (VS, {"beta": 1.0}),
        (InfluenceBalanced, {"alpha": 0.0}),
        (InfluenceBalanced, {"epsilon": 0.0}),
        (InfluenceBalanced, {"beta": 1.0}),
        (LADE, {"alpha": -1.0}),
        (CDB, {"held_out": 1.0}),
        (CDB, {"tau": -0.5}),
        (CDB, {"val_batch": 0}),
        (Equalization, {"gamma": 1.1}),
        (Equalization, {"rare_below": -0.1}),
    ],
)
def test_params_out_of_range_are_refused(method: type[Method], params: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(params))):
        method.Params(**params)
