"""SADE: Zhang et al., Self-Supervised Aggregation of Diverse Experts for Test-Agnostic Long-Tailed Recognition.

NeurIPS 2022.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.api import Classifier, Method, Stage, StepContext
from harness.toolbox.heads import ExpertHeads
from harness.toolbox.losses import inverse_prior
from harness.toolbox.networks import with_experts

EXPERTS, EPSILON = 3, 1e-9


def expert_shifts(class_counts: Tensor, tau: float) -> Tensor:
    """What is added to the logits of each expert in training, shape (3, C).

    Nothing: the prior stays in. log pi: it is taken out. log pi - tau log inverse pi: it is turned around.
    """
    prior = class_counts.double() / class_counts.sum()
    uniform = (prior + EPSILON).log()
    return torch.stack([torch.zeros_like(prior), uniform, uniform - tau * (inverse_prior(prior) + EPSILON).log()])


class SADE(Method):
    """Three experts on a shared trunk, each trained for another class distribution; their mean predicts.

    Its aggregation at test time, which learns three weights from the unlabelled test images, is left out.
    """

    name = "sade"

    @dataclass(frozen=True)
    class Params:
        """tau: how far the third expert turns the prior around. width: of an expert's stages, as a share."""

        tau: float = 2.0
        width: float = 0.75
        scale: float = 30.0

        def __post_init__(self) -> None:
            if not (0 <= self.tau < float("inf") and self.scale > 0 and 0 < self.width <= 1):
                raise ValueError(f"{self.tau=} must be at least 0, {self.scale=} above 0, {self.width=} in (0, 1]")

    def build(self, backbone: nn.Module, stage: Stage) -> Classifier:
        """RIDE's network."""
        return Classifier(with_experts(backbone, EXPERTS, self.params.width), self.head(stage))

    def head(self, stage: Stage) -> nn.Module:
        """Scaled cosines of each expert."""
        width = int(self.params.width * self.task.feature_dim)
        return ExpertHeads(EXPERTS, width, self.task.num_classes, self.params.scale)

    @cached_property
    def shifts(self) -> Tensor:
        """Of the experts' logits, shape (3, C)."""
        return expert_shifts(self.task.class_counts, self.params.tau)

    def loss(self, logits: Tensor, target: Tensor, step: StepContext) -> Tensor:
        """The sum of the experts' cross-entropies. Logits (B, 3, C)."""
        shifted = (logits + self.shifts.to(logits)).flatten(0, 1)
        return EXPERTS * F.cross_entropy(shifted, target.repeat_interleave(EXPERTS))

    def inference(self, logits: Tensor, stage: Stage) -> Tensor:
        """The mean of the experts."""
        return logits.mean(1)
