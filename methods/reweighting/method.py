"""Class-balanced weighting: cross-entropy weighted by inverse class frequency, a baseline of many papers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch.nn.functional as F
from torch import Tensor

from harness.api import Method, StepContext
from harness.toolbox.losses import check_batch
from harness.toolbox.samplers import power_weights


class Reweighting(Method):
    """Cross-entropy with weight n_c^-power for class c, divided by the sum of the batch's weights."""

    name = "reweighting"

    @dataclass(frozen=True)
    class Params:
        """power: 1 is inverse frequency, 1/2 inverse square root, 0 plain cross-entropy."""

        power: float = 1.0

        def __post_init__(self) -> None:
            if not 0 <= self.power < float("inf"):
                raise ValueError(f"power must be at least 0, found {self.power}")

    @cached_property
    def class_weights(self) -> Tensor:
        """The weight of each class, shape (C,); they sum to C."""
        weights = power_weights(self.task.class_counts, 1 - self.params.power)
        return weights * len(weights) / weights.sum()

    def loss(self, logits: Tensor, target: Tensor, step: StepContext) -> Tensor:
        """Weighted mean over the batch: the weights are divided out."""
        check_batch(logits, target)
        weights = self.class_weights.to(logits)
        return F.cross_entropy(logits, target, weight=weights) * step.relative_weight(weights, target)
