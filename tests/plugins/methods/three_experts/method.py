"""Three experts that branch inside the backbone, each with a head; their logits are averaged at test time."""

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.api import Classifier, Method, Stage, StepContext

EXPERTS = 3


class Branches(nn.Module):
    """The last stage of a residual network several times, on one trunk: features (B, experts, d)."""

    trunk: Any  # an nn.Module with `forward_features`

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        layers = [copy.deepcopy(backbone.get_submodule("layer3")) for _ in range(EXPERTS)]
        for layer in layers:
            for module in layer.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight)
        backbone.layer3 = nn.Identity()
        self.trunk, self.branches = backbone, nn.ModuleList(layers)

    def forward(self, images: Tensor) -> Tensor:
        """Features, shape (B, experts, d)."""
        shared = self.trunk.forward_features(images)
        return torch.stack([branch(shared).mean((2, 3)) for branch in self.branches], dim=1)


class Heads(nn.Module):
    """A linear head for each expert: (B, experts, d) -> (B, experts, C)."""

    def __init__(self, feature_dim: int, num_classes: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(feature_dim, num_classes) for _ in range(EXPERTS))

    def forward(self, features: Tensor) -> Tensor:
        """Logits, shape (B, experts, C)."""
        return torch.stack([head(h) for head, h in zip(self.heads, features.unbind(1), strict=True)], dim=1)


class ThreeExperts(Method):
    """The sum of the experts' cross-entropies, each with the log prior: a small RIDE without its diversity term."""

    name = "three_experts"

    def build(self, backbone: nn.Module, stage: Stage) -> Classifier:
        """Trunk, branches, heads."""
        return Classifier(Branches(backbone), Heads(self.task.feature_dim, self.task.num_classes))

    def loss(self, logits: Tensor, target: Tensor, step: StepContext) -> Tensor:
        """Logits (B, experts, C)."""
        prior = self.task.class_counts.clamp_min(1).to(logits).log()
        first, *others = (F.cross_entropy(one + prior, target) for one in logits.unbind(1))
        return sum(others, first)

    def inference(self, logits: Tensor, stage: Stage) -> Tensor:
        """Their mean."""
        return logits.mean(1)
