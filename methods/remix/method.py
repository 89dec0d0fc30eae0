"""Remix: Chou et al., Remix: Rebalanced Mixup, ECCV Workshops 2020."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.api import Batch, Method, StepContext, StepModel


def label_share(share: Tensor | float, counts: Tensor, other_counts: Tensor, kappa: float, tau: float) -> Tensor:
    """Share of an image's own class in its label: pushed to the rarer class where that is rarer by kappa at least.

    0 if n_i / n_j >= kappa and l < tau; 1 if n_i / n_j <= 1 / kappa and 1 - l < tau; else l.

    Args:
        share: l, of the image itself in the mixture.
        counts, other_counts: n_i and n_j, training images of the two classes, shape (B,).
    """
    ratio, weight = counts.double() / other_counts, torch.as_tensor(share, dtype=torch.float64, device=counts.device)
    pushed = torch.where((ratio >= kappa) & (weight < tau), 0.0, weight)
    return torch.where((ratio <= 1 / kappa) & (1 - weight < tau), 1.0, pushed)


class Remix(Method):
    """Mixup (by the recipe's mixup_alpha) whose labels favour the rarer class of the two."""

    name = "remix"

    @dataclass(frozen=True)
    class Params:
        """batch_mean: labels get the batch's mean share, which is what released code comes to."""

        kappa: float = 3.0
        tau: float = 0.5
        batch_mean: bool = False

        def __post_init__(self) -> None:
            if not self.kappa >= 1 or not 0 <= self.tau <= 1:
                raise ValueError(f"{self.kappa=} must be at least 1, {self.tau=} lie in [0, 1]")

    def step_loss(self, model: StepModel, views: tuple[Batch, ...], step: StepContext) -> Tensor:
        """One value an image."""
        batch, counts, p = views[0], self.task.class_counts, self.params
        step.features, logits = model.embed(batch.images)
        own = F.cross_entropy(logits, batch.target, reduction="none")
        if batch.other is None:
            return own
        share = label_share(batch.share, counts[batch.target], counts[batch.other], p.kappa, p.tau).to(logits)
        share = model.average(share.mean()) if p.batch_mean else share
        return share * own + (1 - share) * F.cross_entropy(logits, batch.other, reduction="none")
