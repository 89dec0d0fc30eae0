"""Methods made for tests: they use every hook of the plugin contract."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.api import Batch, Classifier, Method, Sampler, Stage, StepContext, StepModel, View
from harness.base.progress import Reporter
from harness.engine.job import StageJob
from harness.engine.loop import StageRun
from harness.reading.dataset import Images
from harness.spec.stage_recipe import Augment, StageRecipe
from harness.splits.splits import Split
from harness.toolbox.samplers import ClassAwareSampler

RECIPE = StageRecipe(
    epochs=3, batch_size=16, lr=0.1, weight_decay=5e-4, augment=Augment(crop_padding=1, flip=True), mixup_alpha=0.0
)


class Everything(Method):
    """Noise in the loss, a meta batch in a bilevel step, own state, projections, parameter groups, own sampler."""

    name = "everything"
    stages = ("train", "finetune")

    def on_stage_start(self, model: Classifier, stage: Stage) -> None:
        self.psi = torch.zeros(self.task.num_classes)
        self.calls: list[str] = ["start"]

    def sampler(self, labels: np.ndarray, stage: Stage) -> Sampler:
        return ClassAwareSampler(labels, self.task.num_classes, k=3)

    def param_groups(self, model: Classifier, stage: Stage) -> list[dict[str, Any]]:
        body = [{"params": list(model.backbone.parameters()), "weight_decay": 0.0}] if stage == "train" else []
        return [*body, {"params": list(model.head.parameters()), "lr_scale": 2.0}]

    def views(self, labels: np.ndarray, stage: Stage) -> tuple[View, ...]:
        return *super().views(labels, stage), View(balanced=8)

    def step_loss(self, model: StepModel, views: tuple[Batch, ...], step: StepContext) -> Tensor:
        logits = model(views[0].images)
        with torch.no_grad():
            meta = step.model.head(step.model.backbone.eval()(views[1].images))
            step.model.backbone.train()
        self.psi += 0.1 * F.one_hot(meta.argmax(1), self.task.num_classes).float().mean(0)
        self.calls.append("step")
        return views[0].mixed(lambda target: self.loss(logits, target, step))

    def loss(self, logits: Tensor, target: Tensor, step: StepContext) -> Tensor:
        noise = torch.randn(logits.shape, generator=step.generator, device=logits.device)
        return F.cross_entropy(logits + self.psi + 0.1 * noise, target)

    def after_step(self, step: StepContext) -> None:
        with torch.no_grad():
            step.model.head.weight.clamp_(-0.2, 0.2)
        self.calls.append("after")

    def on_epoch_end(self, step: StepContext) -> None:
        self.calls.append("end")

    def state_dict(self) -> dict[str, Any]:
        return {"psi": self.psi}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.psi = state["psi"]


class Exploding(Method):
    """Loss turns NaN in epoch 2, step 3."""

    name = "exploding"

    def loss(self, logits: Tensor, target: Tensor, step: StepContext) -> Tensor:
        bad = step.epoch == 1 and step.step == 2
        return F.cross_entropy(logits, target) * (float("nan") if bad else 1.0)


class Killed(BaseException):
    """Stands for the kill."""


def job(method: type[Method], stage: Stage = "train", seed: int = 0, **changes: Any) -> StageJob:
    """A job on the tiny split; `changes` go to the recipe."""
    recipe = dataclasses.replace(RECIPE, **changes)
    return StageJob(stage, method, method.Params(), recipe, "resnet8_cifar", "float32", seed, f"{method.name}-{seed}")


def start(stage_job: StageJob, split: Split, images: dict[str, Images], folder: Path) -> StageRun:
    """A run on the CPU, not yet under way."""
    return StageRun(stage_job, split, images, torch.device("cpu"), folder)


def finish(stage_job: StageJob, split: Split, images: dict[str, Images], folder: Path) -> StageRun:
    """A finished run."""
    run = start(stage_job, split, images, folder)
    run.run(Reporter())
    return run


def kill_after(run: StageRun, steps: int) -> None:
    """Lets the run die before it takes another step."""
    left, step = iter(range(steps)), run._train_step

    def dying(*arguments: Any, **named: Any) -> None:
        if next(left, None) is None:
            raise Killed
        step(*arguments, **named)

    run._train_step = dying  # type: ignore[method-assign]


def results(folder: Path) -> tuple[bytes, bytes]:
    """The bytes that a run leaves."""
    return (folder / "weights.safetensors").read_bytes(), (folder / "predictions.npz").read_bytes()
