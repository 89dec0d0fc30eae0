"""Heads that more than one method uses, and operations on a classifier's weights. C classes, d features."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def cosine_similarity(features: Tensor, weight: Tensor) -> Tensor:
    """Cosines of features (B, d) and class weights (C, d), shape (B, C); both normalisations are differentiated."""
    return F.linear(F.normalize(features, dim=1, eps=1e-12), F.normalize(weight, dim=1, eps=1e-12))


class LearnedScale(nn.Module):
    """s = softplus(raw) + 1 with raw starting at 0, hence s = 1 + ln 2 (Kobayashi, CVPR 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.raw = nn.Parameter(torch.zeros(1))

    def forward(self) -> Tensor:
        """The scale, shape (1,)."""
        return F.softplus(self.raw) + 1


class CosineHead(nn.Module):
    """Scaled cosine logits s * cos(h, w_c), without bias. Features (B, d) -> logits (B, C)."""

    def __init__(self, feature_dim: int, num_classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.Linear(feature_dim, num_classes, bias=False).weight.detach().clone())
        self.scale = LearnedScale()

    def similarity(self, cosine: Tensor) -> Tensor:
        """What replaces the cosine in a subclass; here the cosine itself."""
        return cosine

    def forward(self, features: Tensor) -> Tensor:
        """Logits, scale included, so that their softmax is the model's confidence."""
        logits: Tensor = self.scale() * self.similarity(cosine_similarity(features, self.weight))
        return logits


class NormedHead(nn.Module):
    """Plain cosines cos(h, w_c), without bias or scale: GCL and LDAM scale them in the loss.

    The weight is drawn from U(-1, 1) and brought to unit norm once; the forward pass normalises it again.
    """

    def __init__(self, feature_dim: int, num_classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(F.normalize(torch.empty(num_classes, feature_dim).uniform_(-1, 1), dim=1))

    def forward(self, features: Tensor) -> Tensor:
        """Cosines, shape (B, C)."""
        return cosine_similarity(features, self.weight)


class ScaledCosine(NormedHead):
    """s cos(h, w_c) with a fixed s."""

    def __init__(self, feature_dim: int, num_classes: int, scale: float) -> None:
        super().__init__(feature_dim, num_classes)
        self.scale = scale

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, d) -> logits (B, C)."""
        return self.scale * super().forward(features)


class ExpertHeads(nn.Module):
    """A head of scaled cosines for each expert: features (B, E, d) -> logits (B, E, C) = s cos (RIDE, SADE)."""

    def __init__(self, experts: int, feature_dim: int, num_classes: int, scale: float) -> None:
        super().__init__()
        self.heads = nn.ModuleList(NormedHead(feature_dim, num_classes) for _ in range(experts))
        self.scale = scale

    def forward(self, features: Tensor) -> Tensor:
        """Logits of each expert, shape (B, E, C)."""
        own = zip(self.heads, features.unbind(1), strict=True)
        return self.scale * torch.stack([head(one) for head, one in own], dim=1)


class ScaledLinear(nn.Linear):
    """z_c = f_c (w_c . h + b_c): one learned scale for each class of a linear head, bias included. Starts at 1."""

    def __init__(self, feature_dim: int, num_classes: int) -> None:
        super().__init__(feature_dim, num_classes)
        self.class_scale = nn.Parameter(torch.ones(num_classes))

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, d) -> logits (B, C)."""
        return self.class_scale * super().forward(features)


def initialise(head: nn.Module, how: str, num_classes: int) -> None:
    """Gives the linear layers that a fresh head ends in the weights that a recipe asks for.

    Args:
        how: "default", torch's uniform distribution; or "kaiming_normal", standard deviation sqrt(2 / d), as the
            released code of LDAM-DRW and GCL has it. Biases, and heads of cosines, stay as they are.
    """
    if how == "kaiming_normal":
        for module in head.modules():
            if isinstance(module, nn.Linear) and module.out_features == num_classes:
                nn.init.kaiming_normal_(module.weight)


def tau_normalize(weight: Tensor, tau: float) -> Tensor:
    """Rows w_c / ||w_c||^tau of a classifier's weight (C, d) (Kang et al., ICLR 2020, eq. 4); tau 1 is the L2 norm."""
    norms: Tensor = weight.norm(dim=1, keepdim=True).clamp_min(1e-12)
    return weight / norms.pow(tau)
