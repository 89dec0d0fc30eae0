"""CDB-CE: Sinha et al., Class-Wise Difficulty-Balanced Loss for Solving Class-Imbalance, ACCV 2020."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.api import Batch, Classifier, Method, RunFailed, Sampler, Stage, StepContext, StepModel, View
from harness.toolbox.losses import check_batch, summing_to_classes


def dynamic_tau(class_accuracy: Tensor, form: str) -> Tensor:
    """tau from the bias b = max a / (min a + 0.01), a scalar; with s the logistic function.

    Args:
        class_accuracy: a, in [0, 1], shape (C,).
        form: "paper", 2 s(b - 1), also the released code's for ImageNet-LT; or "code", s(b), its for CIFAR.
    """
    bias = class_accuracy.max() / (class_accuracy.min() + 0.01)
    return torch.sigmoid(bias) if form == "code" else 2 * torch.sigmoid(bias - 1)


def difficulty_weights(class_accuracy: Tensor, tau: Tensor | float) -> Tensor:
    """w_c proportional to (1 - a_c)^tau, rescaled so that they sum to C; 1 if no class errs. Shape (C,)."""
    difficulty = (1 - class_accuracy).pow(tau)
    return torch.where(difficulty.sum() > 0, summing_to_classes(difficulty), torch.ones_like(difficulty))


class CDB(Method):
    """Classes are weighted by how badly they were predicted in the last epoch; how many images they have plays no part.

    Published with a balanced validation part. Without one, some training images of each class are predicted and not
    trained on: they pass through the network with their batch, at weight 0. A class is judged by the epoch's steps, and
    not by the network at its end. A class of which no image is judged counts as hard.
    """

    name = "cdb"

    @dataclass(frozen=True)
    class Params:
        """tau: exponent of the difficulty, unless `dynamic`. mean: of the loss, plain or divided by the weights.

        source: the part whose images are judged, `val_batch` a step of the validation part, or the training part's
        share `held_out` of each class; 0: all of them, though they are trained on.
        """

        tau: float = 1.5
        dynamic: Literal["none", "paper", "code"] = "none"
        mean: Literal["plain", "weighted"] = "plain"
        source: Literal["train", "val"] = "train"
        held_out: float = 0.1
        val_batch: int = 50

        def __post_init__(self) -> None:
            if not 0 <= self.held_out < 1:
                raise ValueError(f"held_out must lie in [0, 1), found {self.held_out}")
            if not 0 <= self.tau < float("inf") or self.val_batch < 1:
                raise ValueError(f"{self.tau=} must be at least 0, {self.val_batch=} at least 1")

    def sampler(self, labels: np.ndarray, stage: Stage) -> Sampler:
        """Instance-balanced; the first images of each class are held out, by their weight in the loss."""
        self.trained = torch.ones(len(labels), device=self.task.class_counts.device)
        if self.params.source == "train":
            for members in (np.flatnonzero(labels == c) for c in range(self.task.num_classes)):
                self.trained[members[: round(self.params.held_out * len(members))]] = 0
        self.trained /= self.trained.mean()
        return super().sampler(labels, stage)

    def views(self, labels: np.ndarray, stage: Stage) -> tuple[View, ...]:
        """With validation images, if they are judged; their classes are balanced."""
        judged = (View(balanced=self.params.val_batch, part="val"),) if self.params.source == "val" else ()
        return (*super().views(labels, stage), *judged)

    def on_stage_start(self, model: Classifier, stage: Stage) -> None:
        """Every class counts as hard."""
        device = self.task.class_counts.device
        self.correct, self.judged, self.accuracy = torch.zeros(3, self.task.num_classes, device=device)
        self.class_weights = torch.ones_like(self.accuracy)

    def loss(self, logits: Tensor, target: Tensor, step: StepContext) -> Tensor:
        """Mean of w_y CE over the images that are trained on.

        Raises:
            RunFailed: images held out would be mixed into others.
        """
        check_batch(logits, target)
        assert step.batch is not None
        weights = self.class_weights.to(logits)
        if self.params.held_out and step.batch.other is not None and self.params.source == "train":
            raise RunFailed(f"held_out must be 0 with mixup and CutMix, found {self.params.held_out}", agreed=True)
        losses = weights[target] * F.cross_entropy(logits, target, reduction="none")
        losses = losses * self.trained.to(logits)[step.batch.index]
        if self.params.mean == "plain":
            return losses.mean()
        return losses.sum() / weights[target].sum().clamp_min(1e-12) * step.relative_weight(weights, target)

    def step_loss(self, model: StepModel, views: tuple[Batch, ...], step: StepContext) -> Tensor:
        """Counts right predictions on the way."""
        step.features, logits = model.embed(views[0].images)
        if self.params.source == "val":
            step.model.eval()
            with torch.no_grad():
                predicted = step.model.head(model.extract(views[1].images)).argmax(1)
            step.model.train()
            self._count(model, predicted, views[1].target, torch.ones_like(predicted), len(predicted))
        else:
            judged = (self.trained[views[0].index] == 0) | (self.params.held_out == 0)
            whole = len(views[0].target if step.classes is None else step.classes)
            self._count(model, logits.detach().argmax(1), views[0].target, judged, whole)
        return views[0].mixed(lambda target: self.loss(logits, target, step))

    def _count(self, model: StepModel, predicted: Tensor, target: Tensor, judged: Tensor, whole: int) -> None:
        """Adds the images of this process's share of `whole` ones, times what makes it the sum over all processes."""
        share = judged.float() * whole / len(target)
        none = torch.zeros_like(self.judged)
        self.judged += model.average(none.index_add(0, target, share))
        self.correct += model.average(none.index_add(0, target, share * (predicted == target)))

    def on_epoch_end(self, step: StepContext) -> None:
        """New weights."""
        found = torch.where(self.judged > 0, self.correct / self.judged.clamp_min(1e-12), self.accuracy)
        self.accuracy.copy_(found)  # in place, as a graph over the step reads the same memory again
        dynamic = self.params.dynamic
        tau = self.params.tau if dynamic == "none" else dynamic_tau(self.accuracy, dynamic)
        self.class_weights.copy_(difficulty_weights(self.accuracy, tau))
        self.judged.zero_()
        self.correct.zero_()

    def class_quantities(self, model: Classifier) -> dict[str, Tensor]:
        """The loss weights at the end as well."""
        return {**super().class_quantities(model), "loss weight": self.class_weights}

    def state_dict(self) -> dict[str, Any]:
        """Counts of the running epoch, accuracies and weights."""
        return {name: getattr(self, name) for name in ("correct", "judged", "accuracy", "class_weights")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes them back."""
        for name, values in state.items():
            setattr(self, name, values.to(self.task.class_counts.device))
