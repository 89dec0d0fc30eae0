"""Nearest class mean: Kang et al., Decoupling Representation and Classifier for Long-Tailed Recognition, ICLR 2020."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.api import Batch, Classifier, Method, RunFailed, Stage, StepContext, StepModel
from harness.toolbox.class_means import ClassMeans


class NearestMean(nn.Module):
    """Features (B, d) -> scores (B, C): -|g - c|^2, or g . c / d, of g, the (centred, normalised) features."""

    mean: Tensor  # of all training features, (d,)

    def __init__(self, feature_dim: int, num_classes: int, feature: str, distance: str) -> None:
        super().__init__()
        self.feature, self.distance = feature, distance
        self.weight = nn.Parameter(torch.zeros(num_classes, feature_dim))  # the class means of g, not normalised again
        self.register_buffer("mean", torch.zeros(feature_dim))

    def transform(self, features: Tensor) -> Tensor:
        """g: "un", the features h; "l2n", h / |h|; "cl2n", (h - mean) / |h - mean|."""
        if self.feature == "un":
            return features
        return F.normalize(features - self.mean if self.feature == "cl2n" else features, dim=1)

    def forward(self, features: Tensor) -> Tensor:
        """The scores."""
        g = self.transform(features)
        products = g @ self.weight.T
        if self.distance == "cos":
            return products / features.shape[1]
        return 2 * products - g.square().sum(1, keepdim=True) - self.weight.square().sum(1)


class NCM(Method):
    """Cross-entropy's backbone; the nearest class mean of its training features predicts. Nothing is learned.

    Two passes over the training images, not augmented: the mean of all, then the mean of each class.
    """

    name = "ncm"
    stages = ("train", "finetune")
    first_stage = "ce"

    @dataclass(frozen=True)
    class Params:
        """feature and distance: see `NearestMean`; the paper's code tries all of them."""

        feature: Literal["cl2n", "l2n", "un"] = "cl2n"
        distance: Literal["l2", "cos"] = "l2"

    def skip(self) -> str | None:
        """A class without an image has no mean."""
        return "a class has no training image" if bool((self.task.class_counts == 0).any()) else None

    def head(self, stage: Stage) -> nn.Module:
        """The class means, 0 until they are known."""
        return NearestMean(self.task.feature_dim, self.task.num_classes, self.params.feature, self.params.distance)

    def param_groups(self, model: Classifier, stage: Stage) -> list[dict[str, Any]]:
        """The optimiser leaves the means where they are."""
        return [{"params": [model.head.weight], "lr_scale": 0.0, "weight_decay": 0.0}]

    def on_stage_start(self, model: Classifier, stage: Stage) -> None:
        """The sums of the running epoch."""
        self.means = ClassMeans(self.task.num_classes, self.task.feature_dim, self.task.class_counts.device)

    def step_loss(self, model: StepModel, views: tuple[Batch, ...], step: StepContext) -> Tensor:
        """Adds a batch to the sums; the loss is cross-entropy of the scores, for the log alone."""
        if views[0].other is not None:
            raise RunFailed(
                "ncm takes class means of images as they are; mixup_alpha and cutmix_alpha must be 0", agreed=True
            )
        (features, logits), target = model.embed(views[0].images), views[0].target
        g = features if step.epoch == 0 else step.model.head.transform(features)
        whole = len(target if step.classes is None else step.classes)  # images of all processes
        self.means.add(g, target, model.average, whole)
        return F.cross_entropy(logits, target)

    @torch.no_grad()
    def on_epoch_end(self, step: StepContext) -> None:
        """The first epoch gives the mean of all features, later ones the class means."""
        head = step.model.head
        if step.epochs < 2:
            raise RunFailed(f"ncm takes two passes over the training images, found finetune.epochs {step.epochs}")
        if step.epoch == 0:
            head.mean.copy_(self.means.of_all)
        else:
            head.weight.copy_(self.means.of_classes)
        self.means.clear()

    def state_dict(self) -> dict[str, Any]:
        """The running sums."""
        return self.means.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes them back."""
        self.means.load_state_dict(state)
