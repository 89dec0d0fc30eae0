"""Expert assignment: RIDE's second stage, in which routers learn after how many experts to stop."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.toolbox.heads import ExpertHeads

HIDDEN = 16  # width of a router (released code)


class RoutedHeads(ExpertHeads):
    """Experts' heads, and a router after each but the last: features (B, E, d) -> (B, E, C + 1).

    Row e has the mean logits of the experts up to e, then a router's score: above 0, the next expert is asked. The
    last row's is 0. A router sees the `top` largest of those logits, and its expert's features normalised.
    """

    def __init__(self, experts: int, feature_dim: int, num_classes: int, scale: float, top: int) -> None:
        super().__init__(experts, feature_dim, num_classes, scale)
        self.top = min(top, num_classes)
        self.routers = nn.ModuleList(nn.Linear(feature_dim, HIDDEN) for _ in range(experts - 1))
        self.decide = nn.Linear(self.top + HIDDEN, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Means and scores."""
        logits = super().forward(features)
        experts = torch.arange(1, logits.shape[1] + 1, device=logits.device)[:, None]
        means = logits.cumsum(1) / experts
        own = zip(self.routers, F.normalize(features, dim=2).unbind(1)[:-1], strict=True)
        hidden = torch.stack([torch.relu(router(one)) for router, one in own], dim=1)
        scores = self.decide(torch.cat([means[:, :-1].topk(self.top, dim=2).values, hidden], dim=2))
        return torch.cat([means, F.pad(scores, (0, 0, 0, 1))], dim=2)


def router_loss(logits: Tensor, target: Tensor, positive_weight: float) -> Tensor:
    """Binary cross-entropy of the scores, averaged over routers and images.

    The next expert is wanted where the mean so far is wrong and that of some longer row of experts is right.

    Args:
        logits: what `RoutedHeads` gives, shape (B, E, C + 1).
        target: classes, shape (B,).
        positive_weight: of an image that wants the next expert.
    """
    scores = logits[:, :-1, -1]
    weight = torch.full_like(scores[0], positive_weight)
    return F.binary_cross_entropy_with_logits(scores, router_target(logits[..., :-1], target), pos_weight=weight)


def router_target(means: Tensor, target: Tensor) -> Tensor:
    """1 where the mean of the first experts is wrong and a later one right. Means (B, E, C) -> (B, E - 1)."""
    right = (means.argmax(2) == target[:, None]).to(means)
    later = right.flip(1).cummax(1).values.flip(1)[:, 1:]
    return (1 - right[:, :-1]) * later


def routed_logits(logits: Tensor) -> Tensor:
    """The mean logits at which each image stops. (B, E, C + 1) -> (B, C)."""
    asked = (logits[:, :-1, -1] > 0).cumprod(1).sum(1)  # experts after the first
    return logits[torch.arange(len(logits), device=logits.device), asked, :-1]
