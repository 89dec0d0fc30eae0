"""Balanced Softmax: Ren et al., Balanced Meta-Softmax for Long-Tailed Visual Recognition, NeurIPS 2020."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from harness.api import Method, Stage, StepContext
from harness.toolbox.losses import balanced_softmax_loss


class BalancedSoftmax(Method):
    """The class prior enters the training logits, z + log n (eq. 4); at test time z alone decides."""

    name = "balanced_softmax"

    @dataclass(frozen=True)
    class Params:
        """decoupled: only a new head is trained with it, on cross-entropy's frozen features."""

        decoupled: bool = False

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
        return balanced_softmax_loss(logits, target, self.task.class_counts)
