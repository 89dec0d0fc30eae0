"""De-confound-TDE: Tang et al., Long-Tailed Classification by Keeping the Good and Removing the Bad Momentum Causal
Effect, NeurIPS 2020."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.api import Batch, Method, Stage, StepContext, StepModel


class CausalHead(nn.Module):
    """Normalised logits of K equal parts of the features; in evaluation without what lies along their mean direction.

    z_c = tau/K sum_k <x^k/|x^k| - alpha cos(x^k, e^k) e^k/|e^k|, w_c^k / (|w_c^k| + gamma)> with alpha = 0 in training,
    where x^k, w_c^k and e^k are the k-th parts of a feature vector, of a class's weights and of the moving mean.

    Args:
        heads, tau, gamma, alpha: K and the constants above.
    """

    mean: Tensor

    def __init__(
        self, feature_dim: int, num_classes: int, *, heads: int, tau: float, gamma: float, alpha: float
    ) -> None:
        super().__init__()
        bound = feature_dim**-0.5
        self.weight = nn.Parameter(torch.empty(num_classes, feature_dim).uniform_(-bound, bound))
        self.register_buffer("mean", torch.zeros(feature_dim))
        self.heads, self.tau, self.gamma, self.alpha = heads, tau, gamma, alpha

    def _parts(self, rows: Tensor) -> Tensor:
        """(N, d) -> (N, K, d / K)."""
        return rows.reshape(len(rows), self.heads, -1)

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, d) -> logits (B, C)."""
        image = F.normalize(self._parts(features), dim=2)
        if not self.training:
            direction = F.normalize(self._parts(self.mean[None]), dim=2)
            image = image - self.alpha * (image * direction).sum(2, keepdim=True) * direction
        weight = self._parts(self.weight)
        weight = weight / (weight.norm(dim=2, keepdim=True) + self.gamma)
        return self.tau / self.heads * F.linear(image.flatten(1), weight.flatten(1))


class TDE(Method):
    """While cross-entropy trains, a moving mean of the features is kept: the direction in which momentum drags them,
    towards the frequent classes. At test time each feature vector's component along it is taken out."""

    name = "tde"

    @dataclass(frozen=True)
    class Params:
        """mean_momentum mu: e <- mu e + a batch's mean features, of which only the direction counts.

        follow_rate: mu = 1 - (1 - mean_momentum) min(50 rate, 1), as released for all but CIFAR: where the rate is low,
        it forgets less. alpha may change without training anew.
        """

        heads: int = 2
        tau: float = 16.0
        gamma: float = 1 / 32
        alpha: float = 1.0
        mean_momentum: float = 0.9
        follow_rate: bool = False

        def __post_init__(self) -> None:
            if self.heads < 1 or not self.tau > 0:
                raise ValueError(f"{self.heads=} must be at least 1, {self.tau=} above 0")
            if not 0 <= self.mean_momentum < 1:
                raise ValueError(f"mean_momentum must lie in [0, 1), found {self.mean_momentum}")
            if not (self.gamma >= 0 and self.alpha >= 0):
                raise ValueError(f"{self.gamma=} and {self.alpha=} must be at least 0")

    def skip(self) -> str | None:
        """The features must fall into equal parts."""
        left = self.task.feature_dim % self.params.heads
        return f"{self.task.feature_dim} features do not make {self.params.heads} equal parts" if left else None

    def head(self, stage: Stage) -> nn.Module:
        """Normalised parts, with the moving mean as a buffer."""
        p, size = self.params, (self.task.feature_dim, self.task.num_classes)
        return CausalHead(*size, heads=p.heads, tau=p.tau, gamma=p.gamma, alpha=p.alpha)

    def step_loss(self, model: StepModel, views: tuple[Batch, ...], step: StepContext) -> Tensor:
        """Cross-entropy; notes the batch's mean features."""
        loss = super().step_loss(model, views, step)
        assert step.features is not None
        self.batch_mean = model.average(step.features.detach().mean(0))
        return loss

    def after_step(self, step: StepContext) -> None:
        """The moving mean: in the head, so that it belongs to the checkpoint."""
        forgets: float | Tensor = 1 - self.params.mean_momentum
        if self.params.follow_rate:
            rate = 50 * step.learning_rate
            forgets *= rate.clamp(max=1.0) if isinstance(rate, Tensor) else min(rate, 1.0)
        step.model.head.mean.mul_(1 - forgets).add_(self.batch_mean)
