"""Influence-balanced loss: Park et al., Influence-Balanced Loss for Imbalanced Visual Classification, ICCV 2021."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.api import Method, StepContext
from harness.toolbox.losses import check_batch, make_class_weights


def ib_loss(
    logits: Tensor,
    target: Tensor,
    features: Tensor,
    class_weights: Tensor,
    *,
    alpha: float,
    epsilon: float = 0.001,
    focal_gamma: float = 0.0,
) -> Tensor:
    """Mean of (1 - e^-v)^gamma v alpha / (u + epsilon), v = w_y CE(z, y), u = |p - onehot(y)|_1 |h|_1.

    u is how much the image moves the decision boundary. Nothing is detached: the gradient goes through u as well.
    Released code; gamma above 0 is its IB-Focal.

    Args:
        logits: z, shape (B, C).
        target: y, shape (B,).
        features: h, shape (B, d).
        class_weights: w, shape (C,).
    """
    check_batch(logits, target)
    ce = F.cross_entropy(logits, target, reduction="none")
    influence = -2 * torch.expm1(-ce) * features.abs().sum(1)  # |p - onehot|_1 = 2 (1 - p_y), exact where p_y is near 1
    weighted = class_weights[target] * ce
    missed = (-torch.expm1(-weighted)).clamp_min(torch.finfo(ce.dtype).tiny)
    return (missed.pow(focal_gamma) * weighted * alpha / (influence + epsilon)).mean()


class InfluenceBalanced(Method):
    """Cross-entropy first; then each image's is divided by its influence, so that none bends the boundary much."""

    name = "ib"

    @dataclass(frozen=True)
    class Params:
        """alpha brings the loss back to its usual size. ib_from: share of the epochs after which it begins."""

        alpha: float = 1000.0
        epsilon: float = 0.001
        ib_from: float = 0.5
        weights: Literal["inverse", "class_balanced", "none"] = "inverse"
        beta: float = 0.9999
        focal_gamma: float = 0.0

        def __post_init__(self) -> None:
            if not 0 <= self.beta < 1:
                raise ValueError(f"beta must lie in [0, 1), found {self.beta}")
            if not (self.alpha > 0 and self.epsilon > 0 and self.focal_gamma >= 0):
                raise ValueError(f"{self.alpha=} and {self.epsilon=} must be above 0, {self.focal_gamma=} at least 0")

    @cached_property
    def class_weights(self) -> Tensor:
        """The weight of each class, shape (C,)."""
        return make_class_weights(self.params.weights, self.task.class_counts, self.params.beta)

    def loss(self, logits: Tensor, target: Tensor, step: StepContext) -> Tensor:
        """Plain mean over the batch, class weights not divided out."""
        p = self.params
        if not step.passed(p.ib_from):
            return F.cross_entropy(logits, target)
        assert step.features is not None
        return ib_loss(
            logits,
            target,
            step.features,
            self.class_weights.to(logits),
            alpha=p.alpha,
            epsilon=p.epsilon,
            focal_gamma=p.focal_gamma,
        )
