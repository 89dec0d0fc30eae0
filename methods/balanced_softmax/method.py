"""Balanced Softmax: Ren et al., Balanced Meta-Softmax for Long-Tailed Visual Recognition, NeurIPS 2020."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from harness.api import Method, Stage, StepContext, later
from harness.toolbox.losses import balanced_softmax_loss


class BalancedSoftmax(Method):
    """The class prior enters the training logits, z + log n (eq. 4); at test time z alone decides."""

    name = "balanced_softmax"

    @dataclass(frozen=True)
    class Params:
        """decoupled: only a new head is trained with it, on cross-entropy's frozen features.

        prior_power p: the loss is CE(z + p log n, y); 1/4 is the paper's other form, from eq. 10.
        """

        decoupled: bool = False
        prior_power: float = later(1.0)

        def __post_init__(self) -> None:
            if not 0 <= self.prior_power < float("inf"):
                raise ValueError(f"prior_power must be at least 0, found {self.prior_power}")

    @classmethod
    def stages_of(cls, params: Any) -> tuple[Stage, ...]:
        """End to end, or two stages."""
        return ("train", "finetune") if params.decoupled else ("train",)

    @classmethod
    def first_stage_of(cls, params: Any) -> str:
        """Cross-entropy's, when decoupled."""
        return "ce" if params.decoupled else ""

    def loss(self, logits: Tensor, target: Tensor, step: StepContext) -> Tensor:
        """Mean Balanced Softmax loss of a batch."""
        return balanced_softmax_loss(logits, target, self.task.class_counts, prior_power=self.params.prior_power)
