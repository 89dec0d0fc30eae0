"""LDAM-DRW: Cao et al., Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss, NeurIPS 2019."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch.nn.functional as F
from torch import Tensor, nn

from harness.api import Method, Stage, StepContext
from harness.toolbox.heads import NormedHead
from harness.toolbox.losses import check_batch, class_balanced_loss_weights, ldam_margins, with_margin


class LDAMDRW(Method):
    """A larger margin for rarer classes, and class-balanced weights in the last fifth of training (deferred)."""

    name = "ldam_drw"

    @dataclass(frozen=True)
    class Params:
        """largest_margin: of the rarest class, in cosine. reweight_from: share of the epochs after which DRW begins."""

        largest_margin: float = 0.5
        scale: float = 30.0
        beta: float = 0.9999
        reweight_from: float = 0.8

        def __post_init__(self) -> None:
            if not 0 <= self.beta < 1:
                raise ValueError(f"beta must lie in [0, 1), found {self.beta}")
            if not self.scale > 0 or not 0 <= self.largest_margin < float("inf"):
                raise ValueError(f"scale {self.scale} must be above 0, largest_margin {self.largest_margin} at least 0")

    def head(self, stage: Stage) -> nn.Module:
        """Cosines."""
        return NormedHead(self.task.feature_dim, self.task.num_classes)

    @cached_property
    def margins(self) -> Tensor:
        """The margin of each class, shape (C,)."""
        return ldam_margins(self.task.class_counts, self.params.largest_margin)

    @cached_property
    def class_weights(self) -> Tensor:
        """The weight of each class once re-weighting has begun, shape (C,)."""
        return class_balanced_loss_weights(self.task.class_counts, self.params.beta)

    def loss(self, logits: Tensor, target: Tensor, step: StepContext) -> Tensor:
        """CE of s (cos - m_y at the target), weighted once re-weighting has begun; the weights are divided out."""
        check_batch(logits, target)
        lowered = self.params.scale * with_margin(logits, target, self.margins)
        if not step.passed(self.params.reweight_from):
            return F.cross_entropy(lowered, target)
        weights = self.class_weights.to(logits)
        return F.cross_entropy(lowered, target, weight=weights) * step.relative_weight(weights, target)

    def inference(self, logits: Tensor, stage: Stage) -> Tensor:
        """Scaled cosines, without margins."""
        return logits * float(self.params.scale)
