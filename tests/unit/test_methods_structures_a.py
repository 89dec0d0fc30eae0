"""BBN, RIDE, CMO, Remix, SADE: reference values and gradients, networks, and what each part does."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from harness.api import Batch, Method, StepContext, Task
from harness.base.errors import RunSkipped
from harness.engine.backbones import create_backbone
from harness.spec.registry import get_method
from harness.toolbox.losses import class_balanced_loss_weights, inverse_prior, ldam_margins
from harness.toolbox.networks import Branched, cut_off, renewed, with_experts
from harness.toolbox.samplers import class_balanced_weights
from harness.toolbox.schedules import Steps
from methods.bbn.method import PairHead, bbn_loss, cumulative_alpha
from methods.remix.method import label_share
from methods.ride.losses import class_temperatures, divergence, individual_loss
from methods.ride.routing import RoutedHeads, routed_logits, router_loss, router_target
from methods.sade.method import expert_shifts
from tests.conformance.suite import Whole
from tests.unit import golden
from tests.unit.golden import f64, same

GOLDEN = golden.read("structures_a.json")
cases = partial(golden.cases, GOLDEN)
COUNTS = [40, 18, 8, 4]


def leaves(case: dict[str, Any], *names: str) -> list[Tensor]:
    return [f64(case["inputs"][name]).requires_grad_() for name in names]


def same_gradients(loss: Tensor, case: dict[str, Any], **inputs: Tensor) -> None:
    """Of the loss, with respect to inputs by their names in the case."""
    for name, gradient in zip(inputs, torch.autograd.grad(loss, [*inputs.values()]), strict=True):
        same(gradient, case[f"grad_{name}"])


def task(classes: int = 4, width: int = 64) -> Task:
    counts = COUNTS if classes == 4 else range(classes, 0, -1)
    return Task(classes, width, torch.tensor([*counts]))


def built(name: str, backbone: str, classes: int = 100, **params: Any) -> Any:
    """The method's network on a backbone."""
    network, width = create_backbone(backbone, (32, 32, 3))
    method = get_method(name)
    return method(task(classes, width), method.Params(**params)).build(network, "train")


def size(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def a_step(method: Method, model: Any, epoch: int, epochs: int) -> StepContext:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    return StepContext("train", epoch, epochs, 0, 0.05, model, optimizer, torch.Generator().manual_seed(epoch))


def batches(method: Method, rng: np.random.Generator, images: Tensor, labels: Tensor, mixup: float) -> list[Batch]:
    """One of eight images for each view; with mixup each mixed with the image opposite."""
    found = []
    for view in method.views(labels.numpy(), "train"):
        assert view.sampler is not None
        index = torch.from_numpy(view.sampler.order(rng)[:8])
        own, target = images[index], labels[index]
        mixed = mixup * own + (1 - mixup) * own.flip(0)
        found.append(Batch(mixed, target, index, target.flip(0), mixup) if mixup < 1 else Batch(own, target, index))
    return found


def trained(name: str, mixup: float = 1.0, steps: int = 6, **params: Any) -> Tensor:
    """What a tiny network predicts after a few steps, each an epoch of its own."""
    torch.manual_seed(0)
    cls, labels = get_method(name), torch.arange(4).repeat_interleave(torch.tensor(COUNTS))
    method, images = cls(task(), cls.Params(**params)), torch.randn(len(labels), 3, 8, 8)
    model = method.build(create_backbone("resnet8_cifar", (8, 8, 3))[0], "train")
    rng = np.random.default_rng(0)
    for epoch in range(steps):
        step = a_step(method, model, epoch, steps)
        views = batches(method, rng, images, labels, mixup)
        step.batch = views[0]
        loss = method.step_loss(Whole(step), tuple(views), step).mean()
        loss.backward()
        step.optimizer.step()
        step.optimizer.zero_grad()
    with torch.no_grad():
        return method.inference(model.eval()(images[::8]), "train")


@pytest.mark.parametrize(
    ("name", "without"),
    [
        ("bbn", {"sampler": "instance_balanced"}),
        ("bbn", {"decay": "equal"}),
        ("ride", {"experts": 1}),
        ("ride", {"diversity": 0.0}),
        ("ride", {"temperature_tilt": 0.0}),
        ("ride", {"collaborative": True}),
        ("ride", {"reweight_from": 1.0}),
        ("cmo", {"probability": 0.0}),
        ("cmo", {"foreground_power": 0.0}),
        ("cmo", {"loss": "ce_drw"}),
        ("cmo", {"loss": "balanced_softmax"}),
        ("cmo", {"loss": "ldam_drw"}),
        ("remix", {"tau": 0.0}),
        ("remix", {"kappa": 1000.0}),
        ("remix", {"batch_mean": True}),
        ("sade", {"tau": 0.0}),
        ("sade", {"width": 1.0}),
    ],
)
def test_every_part_changes_what_is_learned(name: str, without: dict[str, Any]) -> None:
    settings: dict[str, Any] = {"mixup": 0.4} if name == "remix" else {}
    settings |= {"skip_first": 0, "skip_last": 0, "probability": 1.0} if name == "cmo" else {}
    whole = trained(name, **settings)
    assert torch.equal(whole, trained(name, **settings)), "the same again without a change"
    assert (whole - trained(name, **(settings | without))).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("ride", {"experts": 0}),
        ("ride", {"width": 0.0}),
        ("ride", {"width": 1.5}),
        ("ride", {"beta": 1.0}),
        ("ride", {"temperature": 0.0}),
        ("ride", {"temperature_tilt": 1.0}),
        ("ride", {"experts": 1, "assign": True}),
        ("ride", {"router_logits": 0, "assign": True}),
        ("cmo", {"probability": 1.5}),
        ("cmo", {"foreground_power": -1.0}),
        ("cmo", {"skip_last": -1}),
        ("cmo", {"scale": 0.0}),
        ("remix", {"kappa": 0.5}),
        ("remix", {"tau": 1.5}),
        ("sade", {"tau": -1.0}),
        ("sade", {"width": 0.0}),
    ],
)
def test_bad_params_are_refused(name: str, params: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=str(next(iter(params.values())))):
        get_method(name).Params(**params)


# ---- networks that branch --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", ["resnet8_cifar", "resnet34_cifar", "resnet10", "resnet18", "resnext50_32x4d"])
def test_backbones_branch_at_their_last_block_and_before_their_last_two_stages(backbone: str) -> None:
    images = torch.randn(2, 3, 32, 32)
    network, width = create_backbone(backbone, (32, 32, 3))
    before = network.eval()(images)
    block = cut_off(network)
    assert torch.equal(Branched(network, [block]).eval()(images)[:, 0], before), "nothing is lost"
    network, width = create_backbone(backbone, (32, 32, 3))
    branched = with_experts(network, 2, 0.75)
    assert branched(images).shape == (2, 2, width * 3 // 4)
    assert branched(torch.stack([images, images], dim=1)).shape == (2, 2, width * 3 // 4)
    one, other = (branch.state_dict().values() for branch in branched.branches)
    assert any(not torch.equal(a, b) for a, b in zip(one, other, strict=True)), "experts start apart"


@pytest.mark.parametrize(
    ("backbone", "reason"),
    [
        ("vit_tiny_patch16_224", "VisionTransformer is no residual network that can be split"),
        ("resnetblur50", "cannot be given 0.75 of its channels: it has BlurPool2d"),
        ("res2net50_26w_4s", "cannot be given 0.75 of its channels: Given groups=1"),
    ],
)
def test_other_backbones_are_refused_in_one_line(backbone: str, reason: str) -> None:
    side = 224 if "224" in backbone else 32
    with pytest.raises(RunSkipped, match=reason) as refused:
        with_experts(create_backbone(backbone, (side, side, 3))[0], 2, 0.75)
    assert "\n" not in str(refused.value)


def test_a_batch_for_each_branch_is_normalised_by_itself() -> None:
    network, _ = create_backbone("resnet8_cifar", (8, 8, 3))
    block = cut_off(network)
    branched = Branched(network, [block, renewed(block)])
    one, other = torch.randn(2, 6, 3, 8, 8)
    apart = branched(torch.stack([one, other], dim=1))
    assert torch.equal(apart[:, 0], branched(one)[:, 0])
    assert torch.equal(apart[:, 1], branched(other)[:, 1])
    assert int(network.get_buffer("bn1.num_batches_tracked")) == 4


# ---- BBN -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", cases("bbn_mix"))
def test_bbn(case: dict[str, Any]) -> None:
    names = ("feature_conventional", "feature_reversed", "weight", "bias")
    conventional, other, weight, bias = leaves(case, *names)
    head = PairHead(weight.shape[1], weight.shape[0]).double()
    del head.weight, head.bias
    head.weight, head.bias = weight, bias  # type: ignore[assignment]
    alpha = cumulative_alpha(case["params"]["epoch_from_1"] - 1, case["params"]["max_epoch"])
    assert alpha == pytest.approx(case["alpha"], rel=1e-12)
    features = torch.stack([conventional, other], dim=1)
    logits = head.mixed(features, alpha)
    one, two = (torch.tensor(case["inputs"][f"target_{kind}"]) for kind in ("conventional", "reversed"))
    loss = bbn_loss(logits, one, two, alpha).mean()
    same(logits, case["logits"])
    same(head(features), case["logits_inference"])
    same(loss, case["loss"])
    same_gradients(loss, case, **dict(zip(names, (conventional, other, weight, bias), strict=True)))


@pytest.mark.parametrize("case", cases("bbn_reversed_sampler"))
def test_bbn_draws_a_class_at_the_inverse_of_its_count(case: dict[str, Any]) -> None:
    counts = torch.tensor(case["inputs"]["class_counts"])
    cls = get_method("bbn")
    labels = torch.arange(len(counts)).repeat_interleave(counts)
    sampler: Any = cls(Task(len(counts), 8, counts), cls.Params()).views(labels.numpy(), "train")[1].sampler
    first = torch.cat([counts.new_zeros(1), counts.cumsum(0)[:-1]])
    same(torch.from_numpy(sampler.probabilities)[first] * counts, case["class_probability"])
    same(torch.from_numpy(sampler.probabilities)[first], case["image_probability_of_each_class"])
    assert len(sampler.order(np.random.default_rng(0))) == len(labels)


def test_bbn_alpha_at_the_ends_of_training() -> None:
    """The last epoch's, as the published lengths have it; and the branch that has no weight learns nothing."""
    assert [cumulative_alpha(last, last + 1) for last in (199, 179, 89)] == pytest.approx([0.009975, 0.198975, 0.2079])
    cls = get_method("bbn")
    method = cls(task(), cls.Params())
    model: Any = method.build(create_backbone("resnet8_cifar", (8, 8, 3))[0], "train")
    step = a_step(method, model, 0, 4)
    views = tuple(Batch(torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 3]), torch.arange(4)) for _ in range(2))
    method.step_loss(Whole(step), views, step).mean().backward()
    assert all(not parameter.grad.any() for parameter in model.backbone.branches[1].parameters())
    assert not model.head.weight.grad[:, 64:].any()
    assert all(parameter.grad.any() for parameter in model.backbone.branches[0].parameters())


def test_bbn_has_its_last_block_twice() -> None:
    """Numbers of the specification."""
    model = built("bbn", "resnet32_cifar")
    assert (size(model.backbone), size(model)) == (537_488, 550_388)
    assert built("bbn", "resnet50").head.weight.shape == (100, 4096)


@pytest.mark.parametrize("case", [*cases("lr_bbn_cifar"), *cases("lr_ride_cifar100")])
def test_published_schedules(case: dict[str, Any]) -> None:
    bbn = case["name"] == "lr_bbn_cifar"
    steps = Steps((0.595, 0.795), (0.01, 0.0001), 1 / 3) if bbn else Steps((0.8, 0.9), (0.01, 0.0001))
    same(f64([0.1 * steps.factor(epoch, 200, 5) for epoch in case["inputs"]["epoch_from_0"]]), case["learning_rate"])


# ---- RIDE ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", cases("ride_loss"))
def test_ride(case: dict[str, Any]) -> None:
    """Loss and gradient; with a diversity of 0 the reference trains the experts' mean."""
    given, (expert_logits,) = case["params"], leaves(case, "expert_logits")
    cls: Any = get_method("ride")
    counts = torch.tensor(case["inputs"]["class_counts"])
    margins, weights = ldam_margins(counts, given["max_margin"]), class_balanced_loss_weights(counts, 0.9999)
    same(margins, case["margins"])
    same(weights, case["class_weights"])
    tilt = given["reweight_factor"]
    same(class_temperatures(counts, given["base_temperature"], tilt), case["temperature"])
    params = cls.Params(
        experts=len(expert_logits), diversity=given["diversity_factor"], temperature_tilt=tilt, scale=given["scale"],
        collaborative=given["diversity_factor"] == 0, reweight_from=0.0 if given["reweighting_active"] else 1.0,
    )  # fmt: skip
    method = cls(Task(len(counts), 8, counts), params)
    target, step = torch.tensor(case["inputs"]["target"]), a_step(method, torch.nn.Linear(1, 1), 0, 200)
    loss = method.loss(expert_logits.transpose(0, 1), target, step)
    same(loss, case["loss"])
    same_gradients(loss, case, expert_logits=expert_logits)


def test_ride_with_experts_that_agree_is_ldam_times_their_number() -> None:
    logits, target = torch.randn(6, 1, 5, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 0, 4])
    margins, temperatures = torch.rand(5), torch.rand(5) + 0.5
    three = logits.expand(-1, 3, -1)
    assert float(divergence(three, temperatures)) == pytest.approx(0, abs=1e-12)
    torch.testing.assert_close(individual_loss(three, target, margins), 3 * individual_loss(logits, target, margins))


@pytest.mark.parametrize("case", cases("ride_expert_assignment"))
def test_ride_routers(case: dict[str, Any]) -> None:
    (scores,) = leaves(case, "router_score")
    logits = f64(case["inputs"]["expert_logits"]).transpose(0, 1)
    means = logits.cumsum(1) / torch.arange(1, 4)[:, None]
    target = torch.tensor(case["inputs"]["target"])
    same(router_target(means, target), case["router_target"])
    given = torch.cat([means, torch.nn.functional.pad(scores, (0, 1))[..., None]], dim=2)
    loss = router_loss(given, target, case["params"]["pos_weight"])
    same(loss, case["loss"])
    same_gradients(loss, case, router_score=scores)


def test_ride_asks_as_many_experts_as_its_routers_say() -> None:
    means = torch.arange(3.0).expand(4, 3).unsqueeze(2).expand(-1, -1, 2)
    scores = torch.tensor([[-1.0, 5, 0], [5, -1, 0], [5, 5, 0], [0, 0, 0]])
    assert routed_logits(torch.cat([means, scores[..., None]], dim=2))[:, 0].tolist() == [0, 1, 2, 0]


def test_ride_routers_start_from_stage_1_and_are_all_that_stage_2_trains() -> None:
    cls: Any = get_method("ride")
    method = cls(task(), cls.Params(assign=True))
    assert method.stages_of(method.params) == ("train", "finetune")
    first, second = (
        method.build(create_backbone("resnet8_cifar", (8, 8, 3))[0], stage) for stage in method.stages_of(method.params)
    )
    assert second.state_dict().keys() > first.state_dict().keys()
    assert isinstance(second.head, RoutedHeads)
    (group,) = method.param_groups(second, "finetune")
    assert sum(parameter.numel() for parameter in group["params"]) == 2 * (48 * 16 + 16) + 4 + 16 + 1


def test_ride_has_experts() -> None:
    """Numbers of the specification, for 2, 3 and 4 narrow experts and 3 full ones on CIFAR-100."""
    found = [size(built("ride", "resnet32_cifar", experts=experts)) for experts in (2, 3, 4)]
    assert [*found, size(built("ride", "resnet32_cifar", width=1.0))] == [530_512, 783_856, 1_037_200, 1_362_064]


# ---- CMO and Remix ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", cases("power_sampler"))
def test_cmo_draws_foregrounds_at_a_power_of_the_inverse_count(case: dict[str, Any]) -> None:
    counts = torch.tensor(case["inputs"]["class_counts"])
    cls: Any = get_method("cmo")
    labels = torch.arange(len(counts)).repeat_interleave(counts)
    method = cls(Task(len(counts), 8, counts), cls.Params(foreground_power=float(case["params"]["exponent"])))
    sampler: Any = method.views(labels.numpy(), "train")[1].sampler
    of_class = torch.zeros(len(counts), dtype=torch.float64).index_add(
        0, labels, torch.from_numpy(sampler.probabilities)
    )
    same(of_class, case["class_probability"])


class Given(Whole):
    """A network that gives these logits, whatever it sees."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits

    def embed(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The images as their own features."""
        self.images = images
        return images, self.logits


def boxed(share: float) -> Any:
    """A mask that leaves so much of an image of 16 by 16 pixels."""
    return lambda images, generator: torch.arange(256).reshape(16, 16) < 256 * (1 - share)


@pytest.mark.parametrize("case", cases("cmo_balanced_softmax_loss"))
def test_cmo(case: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """With a patch of the given area; the loss weighs classes by area, and the images are put together."""
    cls: Any = get_method("cmo")
    (logits,) = leaves(case, "logits")
    counts = torch.tensor(case["inputs"]["class_counts"])
    method = cls(Task(len(counts), 8, counts), cls.Params(loss="balanced_softmax"))
    share = case["params"]["lambda_by_area"]
    monkeypatch.setattr(method, "mask", boxed(share))
    background, foreground = torch.zeros(4, 3, 16, 16).double(), torch.ones(4, 3, 16, 16).double()
    targets = (torch.tensor(case["inputs"][name]) for name in ("target", "target_foreground"))
    views = tuple(
        Batch(images, target, torch.arange(4)) for images, target in zip((background, foreground), targets, strict=True)
    )
    given = Given(logits)
    loss = method.step_loss(given, views, a_step(method, torch.nn.Linear(1, 1), 5, 10)).mean()
    same(loss, case["loss"])
    same_gradients(loss, case, logits=logits)
    assert float(given.images.mean()) == 1 - share


def test_cmo_is_switched_off_in_the_first_and_the_last_epochs() -> None:
    cls: Any = get_method("cmo")
    method = cls(task(), cls.Params(probability=1.0))
    target, mixed = torch.tensor([0, 1]), []
    views = tuple(Batch(torch.full((2, 3, 16, 16), value), target, torch.arange(2)) for value in (0.0, 1.0))
    for epoch in range(10):
        given = Given(torch.zeros(2, 4))
        method.step_loss(given, views, a_step(method, torch.nn.Linear(1, 1), epoch, 10))
        mixed.append(bool(given.images.any()))
    assert mixed == [3 < epoch < 7 for epoch in range(10)]


def test_cmo_boxes_are_uniform_in_area_before_they_are_clipped() -> None:
    """A patch covers half of a batch's images as often as said, and where it does the mean share is that of CutMix."""
    cls: Any = get_method("cmo")
    method, generator = cls(task(), cls.Params()), torch.Generator().manual_seed(0)
    images = torch.zeros(1, 3, 32, 32)
    areas = torch.stack([method.mask(images, generator).double().mean() for _ in range(400)])
    assert 0.4 < float((areas > 0).double().mean()) < 0.6
    assert 0.25 < float(areas[areas > 0].mean()) < 0.45
    assert float(areas.max()) < 1.01


@pytest.mark.parametrize("case", cases("remix_loss"))
def test_remix(case: dict[str, Any]) -> None:
    """Per image, the method; and by the batch's mean share, the released code."""
    cls: Any = get_method("remix")
    given, counts = case["params"], torch.tensor(case["inputs"]["class_counts"])
    (logits,) = leaves(case, "logits")
    target, other = (torch.tensor(case["inputs"][name]) for name in ("target", "target_partner"))
    same(
        label_share(given["lambda"], counts[target], counts[other], given["kappa"], given["tau"]), case["lambda_label"]
    )
    batch = Batch(logits, target, torch.arange(len(target)), other, given["lambda"])
    for batch_mean, name in ((True, "loss_as_released"), (False, "loss")):
        params = cls.Params(kappa=given["kappa"], tau=given["tau"], batch_mean=batch_mean)
        method = cls(Task(len(counts), 8, counts), params)
        loss = method.step_loss(Given(logits), (batch,), a_step(method, torch.nn.Linear(1, 1), 0, 1)).mean()
        same(loss, case[name])
    same_gradients(loss, case, logits=logits)


# ---- SADE ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", cases("sade_loss"))
def test_sade(case: dict[str, Any]) -> None:
    (expert_logits,), counts = leaves(case, "expert_logits"), torch.tensor(case["inputs"]["class_counts"])
    cls: Any = get_method("sade")
    method = cls(Task(len(counts), 8, counts), cls.Params(tau=float(case["params"]["tau"])))
    same(inverse_prior(counts.double() / counts.sum()), case["inverse_prior"])
    target = torch.tensor(case["inputs"]["target"])
    loss = method.loss(expert_logits.transpose(0, 1), target, a_step(method, torch.nn.Linear(1, 1), 0, 1))
    same(loss, case["loss"])
    same_gradients(loss, case, expert_logits=expert_logits)


def test_sade_with_equal_counts_is_cross_entropy_for_each_expert() -> None:
    shifts = expert_shifts(torch.full((5,), 7), 2.0)
    torch.testing.assert_close(shifts.softmax(1), torch.full_like(shifts, 0.2))


def test_sade_reverses_ties_in_the_order_of_classes() -> None:
    assert inverse_prior(f64([3, 1, 1, 5])).tolist() == [1, 5, 3, 1]


def test_sade_has_three_experts() -> None:
    """As many parameters as RIDE with three."""
    model = built("sade", "resnet32_cifar")
    assert (len(model.backbone.branches), size(model)) == (3, 783_856)


def test_weights_of_absent_classes_do_no_harm() -> None:
    counts = torch.tensor([5, 0, 3])
    assert class_balanced_weights(counts).square().isfinite().all()
    assert class_temperatures(counts, 1.0, 0.05).isfinite().all()
    assert (class_temperatures(counts, 1.0, 0.05) > 0).all()
    assert expert_shifts(counts, 2.0).isfinite().all()
    assert label_share(0.3, counts[[0, 2]], counts[[2, 0]], 3.0, 0.5).tolist() == pytest.approx([0.3, 0.3])
