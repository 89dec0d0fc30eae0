"""Every method's training steps on a pretended GPU: no device is mixed up, and a steady step waits for nothing.

The loop's own steps run, with the methods' hooks, on tensors that have a shape and a device but no values. The first
step of an epoch may do what is done once; the others may neither ask the device for a value nor copy between it and the
host, and all but the last one do the same to tensors of the same shapes. Not covered, since it takes a driver: values,
and all that depends on them; the engine of `backward` and its streams (the graph's nodes are run one by one instead);
the kernel of fused SGD (only the devices of its tensors are looked at), and that of Adam over many tensors, in whose
place its plain loop runs; the device's random generator; waits inside a kernel that PyTorch does not show; autocast to
bfloat16, `torch.compile`, several processes, images that are read from files, evaluation. `test_graph.py` replays steps
without a card, and `test_cuda.py` has what shows some of it on one.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.api import Method, Stage, StepContext
from harness.engine import loop, network
from harness.engine.job import StageJob
from harness.engine.loop import StageRun
from harness.reading.dataset import Images
from harness.spec.entries import parse_entry
from harness.spec.recipe_layers import read_method_file
from harness.spec.recipes import resolve
from harness.spec.registry import get_method, get_plugin
from harness.spec.spread import ONE_PROCESS, Spread
from harness.spec.stage_recipe import Augment
from harness.splits.splits import Split
from tests.conformance.suite import STAGES
from tests.engine import fake_cuda, toys
from tests.engine.fake_cuda import DEVICE, PretendedCuda, WaitError

ImagesByPart = dict[str, Images]
Train = Callable[[StageJob], StageRun]
EPOCHS = 5  # in the last fifth some methods change their loss


@pytest.fixture
def train(tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Train:
    """Trains the last epoch of a job on the pretended device, each step but the first one watched; and the first epoch
    too, if a step asks where it stands."""
    cuda, step, steady = PretendedCuda(), StageRun._train_step, list[Any]()
    generator = torch.Generator

    def watched(run: StageRun, *arguments: Any) -> None:
        if run.step == 0:
            step(run, *arguments)
            return
        with cuda.steady():
            step(run, *arguments)
        where = arguments[1]
        if where.stop - where.start == run.job.recipe.batch_size:
            steady.append(cuda.shapes)
            assert cuda.shapes == steady[0], "a step does other things than the one before it"

    def trained(job: StageJob) -> StageRun:
        with cuda:
            with monkeypatch.context() as changed:
                changed.setattr(torch, "Generator", lambda _device: generator())
                changed.setattr(loop, "default_generator", lambda _device: generator())
                run = StageRun(job, tiny_split, tiny_images, DEVICE, tmp_path)
            run.step_context.asked = {}
            for run.epoch in (job.recipe.epochs - 1, 0):
                run.step = 0
                steady.clear()
                run._train_steps()
                assert run.step >= 3, "some steady steps"
                if not run.step_context.asked:  # nothing hangs on the epoch
                    break
        return run

    monkeypatch.setattr(network, "arithmetic", lambda _device: {"tf32": False})  # else it would be held against float32
    monkeypatch.setattr(loop, "device_name", lambda _device: "pretended")
    monkeypatch.setattr(StageRun, "_train_step", watched)
    monkeypatch.setattr(Tensor, "backward", fake_cuda.backward)
    monkeypatch.setenv("LTBENCH_CHECKPOINT_SECONDS", "10000")  # there is nothing to save
    monkeypatch.setenv("LTBENCH_GRAPH", "off")
    return trained


def job(name: str, stage: Stage, spread: Spread = ONE_PROCESS, batch_size: int = 18, **params: Any) -> StageJob:
    """The stage with its common recipe, or that of cRT, but for its length; a stage of no epochs is given some."""
    common = not read_method_file(get_plugin(name)).listed_only
    recipe, other = (
        resolve(parse_entry(f"{entry}@common"), "mnist5k").recipe for entry in (name if common else "crt", "crt")
    )
    chosen = recipe.params if common else get_method(name).Params()
    chosen = dataclasses.replace(chosen, **params)
    own = recipe.train if stage == "train" else recipe.finetune or other.finetune
    assert own is not None
    own = dataclasses.replace(own, epochs=EPOCHS, iterations=0, batch_size=batch_size)
    return StageJob(stage, get_method(name), chosen, own, "resnet8_cifar", "float32", 0, name, spread=spread)


@pytest.mark.parametrize(("name", "stage"), STAGES)
def test_a_steady_step_neither_waits_nor_copies(name: str, stage: Stage, train: Train) -> None:
    run = train(job(name, stage))
    tuned = [parameter for parameter in run.model.parameters() if parameter.requires_grad]
    assert tuned
    assert all(parameter.device == DEVICE for parameter in run.model.parameters())
    assert all(parameter.grad is not None and parameter.grad.device == DEVICE for parameter in tuned)
    assert all(loss.device == DEVICE for loss in run.losses)


@pytest.mark.parametrize(
    ("name", "stage", "params"),
    [
        ("balms", "finetune", {"meta_source": "val"}),
        ("balms", "finetune", {"reweight": True}),
        ("cdb", "train", {"source": "val", "dynamic": "paper"}),
        ("hybrid_sc", "train", {"contrast": "prototypical"}),
        ("ride", "finetune", {"assign": True}),
        ("tde", "train", {"follow_rate": True}),
    ],
)
def test_nor_does_it_with_other_params(name: str, stage: Stage, params: dict[str, Any], train: Train) -> None:
    train(job(name, stage, **params))


def test_nor_does_it_to_weigh_the_parts_of_a_batch(train: Train) -> None:
    """By class weights, which `ldam_drw` divides by."""
    train(job("ldam_drw", "train", Spread(micro_batch=9)))


@pytest.mark.parametrize(
    "augment",
    [
        Augment(1, True, auto_augment="cifar10", cutout=4),
        Augment(0, True, resized_crop=True, color_jitter=0.4, lighting=0.1),
        Augment(1, True, rand_augment=10, rand_operations=2, random_erasing=0.5),
    ],
)
def test_nor_to_augment_images(augment: Augment, train: Train) -> None:
    train(toys.job(get_method("ce"), augment=augment, mixup_alpha=0.2))


def test_learning_rates_are_on_the_device(train: Train) -> None:
    run = train(job("ce", "train"))
    rates = [group["lr"] for group in run.network.optimizer.param_groups]
    assert all(isinstance(rate, Tensor) and rate.device == DEVICE for rate in rates)


# ---- that all this can fail ------------------------------------------------------------------------------------------


class Waiting(Method):
    """Looks at its loss in every step, though nothing comes of it."""

    name = "waiting"

    def loss(self, logits: Tensor, target: Tensor, step: StepContext) -> Tensor:
        loss = F.cross_entropy(logits, target)
        loss.item()
        return loss


class WaitingOnce(Method):
    """Looks at the class counts in its first step."""

    name = "waiting_once"
    looked = False

    def loss(self, logits: Tensor, target: Tensor, step: StepContext) -> Tensor:
        if not self.looked:
            self.looked = not bool((self.task.class_counts < 0).any())
        return F.cross_entropy(logits, target)


class WaitingInBackward(Method):
    """Looks at its gradient."""

    name = "waiting_in_backward"

    def loss(self, logits: Tensor, target: Tensor, step: StepContext) -> Tensor:
        return F.cross_entropy(_Looking.apply(logits), target)


class _Looking(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, logits: Tensor) -> Tensor:
        return logits.clone()

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        gradient.sum().item()
        return gradient


class WaitingAfter(Method):
    """Picks images by a mask after the step, from the second one on."""

    name = "waiting_after"

    def after_step(self, step: StepContext) -> None:
        assert step.batch is not None
        if step.step:
            step.batch.images[step.batch.target == 0].sum()


class ChangingShapes(Method):
    """Leaves an image more out of its loss in every step."""

    name = "changing_shapes"

    def loss(self, logits: Tensor, target: Tensor, step: StepContext) -> Tensor:
        return F.cross_entropy(logits[step.step :], target[step.step :])


class Copying(Method):
    """Keeps its prior on the host."""

    name = "copying"

    def loss(self, logits: Tensor, target: Tensor, step: StepContext) -> Tensor:
        return F.cross_entropy(logits + torch.zeros(logits.shape[1]).to(logits), target)


class MixingDevices(Method):
    """The same, without a copy: on a card an error."""

    name = "mixing_devices"

    def loss(self, logits: Tensor, target: Tensor, step: StepContext) -> Tensor:
        return F.cross_entropy(logits + torch.zeros(logits.shape[1]), target)


@pytest.mark.parametrize(
    ("method", "complaint"),
    [
        (Waiting, "_local_scalar_dense.default asks the device"),
        (WaitingInBackward, "_local_scalar_dense.default asks the device"),
        (WaitingAfter, "by a mask"),
        (Copying, "copies from cpu to cuda:0"),
    ],
)
def test_a_method_that_waits_is_found_out(method: type[Method], complaint: str, train: Train) -> None:
    with pytest.raises(WaitError, match=re.escape(complaint)):
        train(toys.job(method))


def test_a_method_whose_shapes_change_is_found_out(train: Train) -> None:
    with pytest.raises(AssertionError, match="other things"):
        train(toys.job(ChangingShapes))


def test_a_method_that_mixes_devices_is_found_out(train: Train) -> None:
    with pytest.raises(RuntimeError, match=r"cuda:0.*cpu"):
        train(toys.job(MixingDevices))


def test_a_method_that_waits_once_may(train: Train) -> None:
    method = train(toys.job(WaitingOnce)).method
    assert isinstance(method, WaitingOnce)
    assert method.looked


SLIPS: dict[str, Callable[[Tensor], object]] = {
    "item": lambda x: x.sum().item(),
    "float": lambda x: float(x.sum()),
    "bool": lambda x: bool((x > 0).all()),
    "if": lambda x: 1 if x.sum() > 0 else 0,
    "tolist": lambda x: x[0].tolist(),
    "nonzero": lambda x: x.nonzero(),
    "where": lambda x: torch.where(x > 0),
    "mask": lambda x: x[x > 0],
    "assigned mask": lambda x: x.__setitem__(x > 0, torch.ones(3, device=DEVICE)),
    "masked_select": lambda x: x.masked_select(x > 0),
    "unique": lambda x: x.unique(),
    "bincount": lambda x: torch.bincount(x[0].long()),
    "repeat_interleave": lambda x: x.repeat_interleave(torch.ones(3, device=DEVICE, dtype=torch.long), dim=1),
    "equal": lambda x: torch.equal(x, x + 1),
    "to the device": lambda x: torch.ones(3).to(DEVICE),
    "to another tensor's device": lambda x: torch.ones(3).to(x),
    "made of a list": lambda x: torch.tensor([1.0, 2.0, 3.0], device=DEVICE),
    "made of a number": lambda x: torch.tensor(1.0, device=DEVICE),
    "copy_": lambda x: x.copy_(torch.ones(2, 3)),
    "index from the host": lambda x: x[torch.tensor([0, 1])],
    "to the host": lambda x: x.cpu(),
    "copied to the host": lambda x: torch.ones(2, 3).copy_(x),
    "to the host without waiting": lambda x: x.to("cpu", non_blocking=True),
}


@pytest.mark.parametrize("slip", SLIPS)
def test_a_wait_or_a_copy_is_seen(slip: str) -> None:
    with PretendedCuda() as cuda:
        x = torch.ones(2, 3, device=DEVICE)
        with cuda.steady(), pytest.raises(WaitError):
            SLIPS[slip](x)


def test_what_neither_waits_nor_copies_is_left_alone() -> None:
    with PretendedCuda() as cuda:
        x, index = torch.ones(2, 3, device=DEVICE), torch.arange(2, device=DEVICE)
        host = torch.arange(3)
        with cuda.steady():
            y = torch.where(x > 0, x, 0.5) * torch.tensor(2.0) + x[index] + x.clamp_min(0.5).double().float()
            y[index] = 0.0
            y[x > 0] = 0.0  # fills by a mask, which needs no count
            y.copy_(x)
            assert float(host.sum()) == 3.0, "the host may look at what is its own"
            assert host[host > 0].tolist() == [1, 2]
        assert y.device == DEVICE


def test_gradients_are_those_of_pytorch(tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path) -> None:
    """What stands in for `backward` is right where both can run."""

    def gradients(backward: Callable[[Tensor], None]) -> list[Tensor]:
        run = toys.start(toys.job(get_method("wcdas")), tiny_split, tiny_images, tmp_path)
        images = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        step, target = run.step_context, torch.arange(6) % 4
        backward(run.method.loss(run.model(images), target, step) + 0.1 * run.model.head.weight.square().sum())
        return [parameter.grad for parameter in run.model.parameters() if parameter.grad is not None]

    ours, theirs = gradients(fake_cuda.backward), gradients(Tensor.backward)
    assert len(ours) == len(theirs) > 20
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their, rtol=0, atol=0)
