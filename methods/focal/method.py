"""Focal loss: Lin et al., Focal Loss for Dense Object Detection, ICCV 2017."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from harness.api import Method, StepContext
from harness.toolbox.losses import check_batch, focal_term


def focal_loss(logits: Tensor, target: Tensor, gamma: float) -> Tensor:
    """Mean of (1 - p)^gamma CE with p the target's probability, the gradient going through p. Logits (B, C)."""
    check_batch(logits, target)
    return focal_term(F.cross_entropy(logits, target, reduction="none"), gamma).mean()


class Focal(Method):
    """Down-weights images that are classified well already."""

    name = "focal"

    @dataclass(frozen=True)
    class Params:
        """gamma: focusing exponent, at least 0; 1 is LDAM's long-tailed baseline, 2 the detection paper's."""

        gamma: float = 1.0

        def __post_init__(self) -> None:
            if not 0 <= self.gamma < float("inf"):
                raise ValueError(f"gamma must be at least 0, found {self.gamma}")

    def loss(self, logits: Tensor, target: Tensor, step: StepContext) -> Tensor:
        """Mean focal loss."""
        return focal_loss(logits, target, self.params.gamma)
