"""Weight balancing: Alshammari et al., Long-Tailed Recognition via Weight Balancing, CVPR 2022."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.api import Classifier, Method, Stage, StepContext, second_stage
from harness.toolbox.heads import tau_normalize
from harness.toolbox.losses import check_batch, class_balanced_loss_weights

__all__ = ["WeightBalancing", "class_balanced_loss", "max_norm_", "max_norm_radius", "tau_normalize"]


def max_norm_radius(weight: Tensor, threshold: float) -> Tensor:
    """min_c ||w_c|| + threshold * (max_c - min_c) of the rows of a weight (C, d), a scalar."""
    norms = weight.norm(dim=1)
    radius: Tensor = norms.min() + threshold * (norms.max() - norms.min())
    return radius


@torch.no_grad()
def max_norm_(weight: Tensor, radius: Tensor | float) -> Tensor:
    """Projects each row of a weight (C, d) onto the ball of that radius, in place (eq. 5)."""
    return weight.mul_((radius / weight.norm(dim=1, keepdim=True).clamp_min(1e-12)).clamp_max(1))


def class_balanced_loss(
    logits: Tensor, target: Tensor, class_counts: Tensor | Sequence[int], beta: float = 0.9999
) -> Tensor:
    """Binary cross-entropy on softmax probabilities, weighted by the target's class, averaged over batch and classes.

    The released code's loss, C times smaller in its gradient than weighted cross-entropy; weight decay 0.1 is tuned
    to it. Logits (B, C). Each log is cut off at -100.
    """
    check_batch(logits, target, class_counts)
    return _weighted_loss(logits, target, class_balanced_loss_weights(class_counts, beta).to(logits))


def _weighted_loss(logits: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    one_hot = F.one_hot(target, logits.shape[1]).to(logits)
    terms = F.binary_cross_entropy(F.softmax(logits, dim=1), one_hot, reduction="none")
    return (weights[target] * terms.mean(1)).mean()


class WeightBalancing(Method):
    """Stage 1: cross-entropy with tuned weight decay. Stage 2: class-balanced loss, decay and MaxNorm on the head."""

    name = "weight_balancing"
    stages = ("train", "finetune")

    @dataclass(frozen=True)
    class Params:
        """max_norm: when rows are projected; threshold: MaxNorm's; normalize: a post-hoc head, none is trained."""

        retrain: bool = second_stage(True)
        loss_2: Literal["class_balanced", "ce"] = second_stage("class_balanced")
        beta: float = second_stage(0.9999)
        max_norm: Literal["step", "epoch", "never"] = second_stage("step")
        threshold: float = second_stage(0.1)
        normalize: Literal["no", "l2", "tau"] = second_stage("no")
        tau: float = second_stage(1.9)

        def __post_init__(self) -> None:
            if not 0 <= self.beta < 1:
                raise ValueError(f"beta must lie in [0, 1), found {self.beta}")
            if not 0 <= self.threshold <= 1:
                raise ValueError(f"threshold must lie in [0, 1], found {self.threshold}")

    @classmethod
    def stages_of(cls, params: Any) -> tuple[Stage, ...]:
        """One stage for weight decay alone."""
        return cls.stages if params.retrain else ("train",)

    def continues_head(self) -> bool:
        """Weight and bias go on from stage 1."""
        return True

    @torch.no_grad()
    def on_stage_start(self, model: Classifier, stage: Stage) -> None:
        """Fixes MaxNorm's radius by stage 1's head, or normalises that head post hoc; the bias is kept."""
        if stage == "finetune":
            weight = model.head.weight
            self.radius = max_norm_radius(weight, self.params.threshold)
            if self.params.normalize != "no":
                weight.copy_(tau_normalize(weight, self.params.tau if self.params.normalize == "tau" else 1.0))

    @cached_property
    def class_weights(self) -> Tensor:
        """The weight of each class in the class-balanced loss, shape (C,)."""
        return class_balanced_loss_weights(self.task.class_counts, self.params.beta)

    def loss(self, logits: Tensor, target: Tensor, step: StepContext) -> Tensor:
        """Cross-entropy, then the class-balanced loss."""
        if step.stage == "train" or self.params.loss_2 == "ce":
            return super().loss(logits, target, step)
        check_batch(logits, target)
        return _weighted_loss(logits, target, self.class_weights.to(logits))

    def _project(self, step: StepContext, when: str) -> None:
        if step.stage == "finetune" and self.params.max_norm == when:
            max_norm_(step.model.head.weight, self.radius)

    def after_step(self, step: StepContext) -> None:
        """MaxNorm after every step, as the paper has it."""
        self._project(step, "step")

    def on_epoch_end(self, step: StepContext) -> None:
        """MaxNorm after every epoch, as the code has it."""
        self._project(step, "epoch")

    def state_dict(self) -> dict[str, Any]:
        """The radius, which a resumed run cannot compute again."""
        return {"radius": self.radius} if hasattr(self, "radius") else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes it back."""
        if "radius" in state:
            self.radius = state["radius"]
