"""Balanced Softmax: Ren et al., Balanced Meta-Softmax for Long-Tailed Visual Recognition, NeurIPS 2020."""

from torch import Tensor

from harness.api import Method, StepContext
from harness.engine.losses import balanced_softmax_loss


class BalancedSoftmax(Method):
    """The class prior enters the training logits, z + log n (eq. 4); at test time z alone decides."""

    name = "balanced_softmax"

    def loss(self, logits: Tensor, target: Tensor, step: StepContext) -> Tensor:
        """Mean Balanced Softmax loss of a batch."""
        return balanced_softmax_loss(logits, target, self.task.class_counts)
