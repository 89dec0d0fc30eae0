"""A penalty on the length of features beside cross-entropy: a loss that reads `step.features`."""

import torch.nn.functional as F
from torch import Tensor

from harness.api import Method, StepContext


class ReadsFeatures(Method):
    """L = CE + 0.001 |h|^2."""

    name = "reads_features"

    def loss(self, logits: Tensor, target: Tensor, step: StepContext) -> Tensor:
        """Mean over images of both."""
        assert step.features is not None
        return F.cross_entropy(logits, target) + 0.001 * step.features.square().sum(1).mean()
