"""Runs for `test_ranks.py`, as one process of several or alone; importable by started processes."""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.api import Classifier, Method, Sampler, Stage, StepContext
from harness.base.errors import RunFailed
from harness.base.launch import free_port
from harness.base.progress import Reporter
from harness.engine.job import StageJob
from harness.engine.loop import StageRun
from harness.engine.parallel import forward_pass
from harness.engine.ranks import ALONE, Ranks, joined
from harness.reading.dataset import Images
from harness.spec.spread import Spread
from harness.spec.stage_recipe import Augment
from harness.splits.splits import Split
from harness.toolbox.samplers import ClassAwareSampler
from methods.balanced_softmax.method import BalancedSoftmax
from methods.balms.method import BALMS
from methods.ldam_drw.method import LDAMDRW
from methods.seesaw.method import Seesaw
from methods.tde.method import TDE
from methods.weight_balancing.method import WeightBalancing
from tests.engine.toys import job

WORLD = 2
LIMIT = 300.0  # seconds until ranks that wait for each other are killed


class Exact(StageRun):
    """In float64, with BatchNorm in evaluation mode: what looks across a batch cannot be equal on shares of it."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        network = self.network
        self.model.double()
        self.model.backbone.register_forward_pre_hook(exactly)
        self.method.on_stage_start(self.model, self.job.stage)
        network.joint = forward_pass(self.model, network.extract, network.frozen_backbone, self.ranks, self.device)


def exactly(backbone: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    """What it is given in float64, whatever mode the loop has set."""
    backbone.eval()
    return (inputs[0].double(),)


class Balanced(BalancedSoftmax):
    """With class-aware batches."""

    name = "balanced"

    def sampler(self, labels: Any, stage: Stage) -> Sampler:
        return ClassAwareSampler(labels, self.task.num_classes)


class Planned(BALMS):
    """BALMS whose draws follow the plan, with soft weights made up from the index: equal however a batch is shared."""

    name = "planned"

    def choose(self, index: Tensor, step: StepContext) -> Tensor:
        shares = torch.stack([(index + c + 1) % 7 / 7 for c in range(self.task.num_classes)], 1).double()
        self.weight, self.class_share = 0.3 + 0.01 * index.double(), shares / shares.sum(1, keepdim=True)
        return index

    def on_stage_start(self, model: Classifier, stage: Stage) -> None:
        super().on_stage_start(model, stage)
        self.omega = self.omega.detach().double().requires_grad_()
        self.adam = torch.optim.Adam([self.omega], lr=0.05)


class Noisy(Balanced):
    """Draws noise of its own in each step."""

    name = "noisy"

    def loss(self, logits: Tensor, target: Tensor, step: StepContext) -> Tensor:
        noise = torch.randn(logits.shape, generator=step.generator, dtype=logits.dtype)
        return super().loss(logits + 0.1 * noise, target, step)


class WB(WeightBalancing):
    name = "wb"


class LDAM(LDAMDRW):
    """Divides by the sum of its weights, which no share of a batch knows."""

    name = "ldam"


REWEIGHTED = LDAMDRW.Params(reweight_from=0.3)  # in the second of three epochs
CASES: dict[str, StageJob] = {
    "mixup, crops, uneven batches": job(Balanced, batch_size=14, mixup_alpha=1.0),
    "last batch smaller than the number of ranks": job(Balanced, batch_size=23, augment=Augment()),
    "BALMS": job(Planned, "finetune", batch_size=15),
    "LDAM, shares of different numbers of parts": dataclasses.replace(
        job(LDAM, batch_size=11, mixup_alpha=1.0, lr=0.01), params=REWEIGHTED
    ),
    "LDAM, last batch smaller than the number of ranks": dataclasses.replace(
        job(LDAM, batch_size=23, lr=0.01), params=REWEIGHTED
    ),
    "averaged weights, CutMix, layers": job(
        Balanced, batch_size=14, mixup_alpha=0.5, cutmix_alpha=1.0, ema=0.9, layer_decay=0.7, decay_all=False
    ),
    "MaxNorm": job(WB, "finetune", batch_size=16, weight_decay=0.1),
    "TDE, the mean of all features": job(TDE, batch_size=23, augment=Augment()),
    "Seesaw, counts of the whole batch": job(Seesaw, batch_size=14, mixup_alpha=1.0),
}


def outcome(run: StageRun) -> dict[str, Any]:
    """What two runs are compared by."""
    method = {name: value for name, value in run.method.state_dict().items() if isinstance(value, Tensor)}
    return {
        "model": {name: value.clone() for name, value in run.model.state_dict().items()},
        "method": method,
        "logits": run.evaluation.last_logits,
        "epochs": run.history.epochs,
        "loss": run.history.loss,
    }


class BadNews(BalancedSoftmax):
    """On the second rank the loss is NaN, or something is raised, in one step."""

    name = "bad_news"

    @dataclass(frozen=True)
    class Params:
        kind: str = "nan"

    def loss(self, logits: Tensor, target: Tensor, step: StepContext) -> Tensor:
        loss = F.cross_entropy(logits, target)
        if os.environ["RANK"] == "0" or (step.epoch, step.step) != (1, 2):
            return loss
        if self.params.kind == "nan":
            return loss * float("nan")
        raise {"failure": RunFailed("a reader was killed"), "bug": KeyError("a bug")}[self.params.kind]


def train_on_bad_news(kind: str, ranks: Ranks, split: Split, images: dict[str, Images], folder: Path) -> str:
    """The reason that all ranks agree on."""
    bad = dataclasses.replace(job(BadNews), params=BadNews.Params(kind))
    try:
        StageRun(bad, split, images, torch.device("cpu"), folder, ranks).run(Reporter())
    except RunFailed as failure:
        if failure.agreed:
            return failure.reason
        raise
    return ""


Work = Callable[[Ranks, Split, dict[str, Images], Path], Any]


def train_cases(ranks: Ranks, split: Split, images: dict[str, Images], folder: Path) -> dict[str, Any]:
    """All cases, in float64."""
    found = {}
    for name, one in CASES.items():
        run = Exact(one, split, images, torch.device("cpu"), folder / name, ranks)
        run.run(Reporter())
        found[name] = outcome(run)
    return found


def train_in_parts(ranks: Ranks, split: Split, images: dict[str, Images], folder: Path) -> dict[str, Any]:
    """All cases with at most five images at once, but for methods that need the features of a whole batch."""
    found = {}
    for name, one in CASES.items():
        if one.stage == "train" and one.method.step_loss is not Method.step_loss:
            continue
        small = dataclasses.replace(one, spread=Spread(ranks.world, micro_batch=5))
        run = Exact(small, split, images, torch.device("cpu"), folder / name, ranks)
        run.run(Reporter())
        found[name] = outcome(run)
    return found


class StoppedError(Exception):
    """Stands for a kill that all ranks see."""


def train_and_stop(ranks: Ranks, split: Split, images: dict[str, Images], folder: Path) -> dict[str, Any]:
    """Once undisturbed; once stopped in the middle of an epoch and begun again. BatchNorm as it is, own noise."""
    one = job(Noisy, batch_size=4, mixup_alpha=1.0)
    whole = StageRun(one, split, images, torch.device("cpu"), folder / "whole", ranks)
    whole.run(Reporter())

    class Stopping(StageRun):
        def _train_step(self, *arguments: Any) -> None:
            if (self.epoch, self.step) == (1, 12):
                raise StoppedError
            super()._train_step(*arguments)

    with contextlib.suppress(StoppedError):
        Stopping(one, split, images, torch.device("cpu"), folder / "stopped", ranks).run(Reporter())
    again = StageRun(one, split, images, torch.device("cpu"), folder / "stopped", ranks)
    said: list[str] = []
    listening = Reporter()
    listening.note = lambda text: said.append(text) if "resumed" in text else None  # type: ignore[method-assign]
    again.run(listening)
    return {"whole": outcome(whole), "again": outcome(again), "said": said}


def together(work: Work, split: Split, images: dict[str, Images], folder: Path) -> list[Any]:
    """What `work` returns on each rank."""
    assert exit_codes(work, split, images, folder) == [0] * WORLD
    return [pickle.loads((folder / f"rank{rank}").read_bytes()) for rank in range(WORLD)]


def exit_codes(work: Work, split: Split, images: dict[str, Images], folder: Path) -> list[int | None]:
    """How each rank ends; one that hangs is killed after a while, and ends so."""
    spawn = multiprocessing.get_context("spawn")
    arguments = (work, split, images, folder, free_port())
    processes = [spawn.Process(target=_one, args=(rank, *arguments)) for rank in range(WORLD)]
    for process in processes:
        process.start()
    deadline = time.monotonic() + LIMIT
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
        if process.is_alive():
            process.kill()
            process.join()
    return [process.exitcode for process in processes]


def alone(work: Work, split: Split, images: dict[str, Images], folder: Path) -> Any:
    """The same in this process."""
    return work(ALONE, split, images, folder)


def _one(rank: int, work: Work, split: Split, images: dict[str, Images], folder: Path, port: int) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(WORLD), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ["TORCH_CPP_LOG_LEVEL"] = "ERROR"
    os.environ["LTBENCH_CHECKPOINT_SECONDS"] = "0.0001"
    torch.set_num_threads(1)
    with joined(torch.device("cpu")) as ranks:
        found = work(ranks, split, images, folder)
    (folder / f"rank{rank}").write_bytes(pickle.dumps(found))
