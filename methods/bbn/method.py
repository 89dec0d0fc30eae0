"""BBN: Zhou et al., BBN: Bilateral-Branch Network with Cumulative Learning, CVPR 2020."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.api import Batch, Classifier, Method, Sampler, Stage, StepContext, StepModel, View
from harness.toolbox.networks import Branched, cut_off, renewed
from harness.toolbox.samplers import WeightedSampler, class_balanced_weights, make_sampler


def cumulative_alpha(epoch: int, epochs: int, decay: str = "parabolic") -> float:
    """Weight of the conventional branch in an epoch (from 0): from 1 to 0, by default 1 - (t / T)^2.

    T is the number of epochs, but 100 for 90 and 200 for 180, where the branch keeps a fifth (released code).
    """
    passed = epoch / {90: 100, 180: 200}.get(epochs, epochs)
    return {"parabolic": 1 - passed**2, "linear": 1 - passed, "equal": 0.5}[decay]


def bbn_loss(logits: Tensor, conventional: Tensor, reversed_: Tensor, alpha: float) -> Tensor:
    """alpha CE(z, y_c) + (1 - alpha) CE(z, y_r). Logits (B, C), both targets (B,) -> one value a pair, (B,)."""
    usual, rare = (F.cross_entropy(logits, target, reduction="none") for target in (conventional, reversed_))
    return alpha * usual + (1 - alpha) * rare


class PairHead(nn.Linear):
    """One linear layer on the features of both branches: (B, 2, d) -> logits (B, C)."""

    def forward(self, features: Tensor) -> Tensor:
        """z = W [f_c; f_r] + b."""
        return super().forward(features.flatten(1))

    def mixed(self, features: Tensor, alpha: float) -> Tensor:
        """z = W [2 alpha f_c; 2 (1 - alpha) f_r] + b; with alpha 1/2 the plain head."""
        conventional, other = features.unbind(1)
        logits: Tensor = self(torch.stack([2 * alpha * conventional, 2 * (1 - alpha) * other], dim=1))
        return logits


class BBN(Method):
    """Two branches with all but the last block in common: one sees the data as they are, one mostly rare classes."""

    name = "bbn"

    @dataclass(frozen=True)
    class Params:
        """decay: how the conventional branch's weight falls. sampler: of the other branch.

        "reversed" draws a class at a rate of 1/n_c and then one of its images; "class_balanced" each class alike.
        """

        decay: Literal["parabolic", "linear", "equal"] = "parabolic"
        sampler: Literal["reversed", "class_balanced", "instance_balanced"] = "reversed"

    def build(self, backbone: nn.Module, stage: Stage) -> Classifier:
        """The backbone with its last block twice."""
        block = cut_off(backbone)
        return Classifier(Branched(backbone, [block, renewed(block)]), self.head(stage))

    def head(self, stage: Stage) -> nn.Module:
        """Of twice the backbone's features."""
        return PairHead(2 * self.task.feature_dim, self.task.num_classes)

    def views(self, labels: np.ndarray, stage: Stage) -> tuple[View, ...]:
        """A batch for each branch, of the same size."""
        classes = self.task.num_classes
        if self.params.sampler == "reversed":  # an image's probability: 1/n_c of its class, times 1/n_c within it
            counts = torch.from_numpy(np.bincount(labels, minlength=classes))
            other: Sampler = WeightedSampler(labels, classes, class_balanced_weights(counts).square())
        else:
            other = make_sampler(self.params.sampler, labels, classes)
        return View(self.sampler(labels, stage)), View(other)

    def step_loss(self, model: StepModel, views: tuple[Batch, ...], step: StepContext) -> Tensor:
        """Each branch gets its own batch; one value for each pair of images."""
        alpha = cumulative_alpha(step.epoch, step.epochs, self.params.decay)
        step.features, _ = model.embed(torch.stack([view.images for view in views], dim=1))
        logits = step.model.head.mixed(step.features, alpha)
        return views[0].mixed(lambda target: bbn_loss(logits, target, views[1].target, alpha))
