"""Class-balanced loss: Cui et al., Class-Balanced Loss Based on Effective Number of Samples, CVPR 2019."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch.nn.functional as F
from torch import Tensor

from harness.api import Method, StepContext
from harness.toolbox.losses import check_batch, class_balanced_loss_weights


class ClassBalancedLoss(Method):
    """Cross-entropy weighted by the inverse effective number of the target's class (eq. 4 to 6)."""

    name = "class_balanced_loss"

    @dataclass(frozen=True)
    class Params:
        """beta: in [0, 1); 0 is no weighting, towards 1 is inverse frequency."""

        beta: float = 0.9999

        def __post_init__(self) -> None:
            if not 0 <= self.beta < 1:
                raise ValueError(f"beta must lie in [0, 1), found {self.beta}")

    @cached_property
    def class_weights(self) -> Tensor:
        """The weight of each class, shape (C,); they sum to C."""
        return class_balanced_loss_weights(self.task.class_counts, self.params.beta)

    def loss(self, logits: Tensor, target: Tensor, step: StepContext) -> Tensor:
        """Plain mean over the batch: the sum of the weights is not divided out."""
        check_batch(logits, target)
        return (self.class_weights.to(logits)[target] * F.cross_entropy(logits, target, reduction="none")).mean()
