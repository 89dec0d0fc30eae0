"""DisAlign: Zhang et al., Distribution Alignment: A Unified Framework for Long-tail Visual Recognition, CVPR 2021."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.api import Classifier, Method, Stage, StepContext, second_stage
from harness.toolbox.heads import CosineHead
from harness.toolbox.losses import check_batch


def reweighting(class_counts: Tensor | Sequence[int], rho: float) -> Tensor:
    """Generalised re-weighting: pi_c^-rho, rescaled to sum C, float64, shape (C,). A class without an image has 0."""
    counts = torch.as_tensor(class_counts).double()
    weights = torch.where(counts > 0, (counts.clamp_min(1) / counts.sum()).pow(-rho), 0.0)
    return len(weights) * weights / weights.sum()


class Alignment(nn.Module):
    """Calibrated logits of an image: between a and s_c a_c + m_c by a confidence sigma = sigmoid(v . h + v0).

    released: z_c = (1 + sigma s_c) a_c + sigma m_c, which starts at (1 + sigma) a.
    convex: z_c = sigma (s_c a_c + m_c) + (1 - sigma) a_c, which starts at a: the same with s_c - 1 for s_c.
    """

    def __init__(self, feature_dim: int, num_classes: int, form: str) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(num_classes))
        self.margin = nn.Parameter(torch.zeros(num_classes))
        self.confidence_weight = nn.Parameter(torch.full((feature_dim,), 0.1))
        self.confidence_bias = nn.Parameter(torch.empty(()).uniform_(-(feature_dim**-0.5), feature_dim**-0.5))
        self.form = form

    def confidence(self, features: Tensor) -> Tensor:
        """Features (B, d) -> sigma, shape (B, 1)."""
        return torch.sigmoid(features @ self.confidence_weight + self.confidence_bias)[:, None]

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        """Features (B, d) and logits a (B, C) -> logits (B, C)."""
        scale = self.scale if self.form == "released" else self.scale - 1
        return logits + self.confidence(features) * (scale * logits + self.margin)


class AlignedLinear(nn.Linear):
    """Linear logits, aligned."""

    def __init__(self, feature_dim: int, num_classes: int, form: str) -> None:
        super().__init__(feature_dim, num_classes)
        self.alignment = Alignment(feature_dim, num_classes, form)

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, d) -> logits (B, C)."""
        aligned: Tensor = self.alignment(features, super().forward(features))
        return aligned


class AlignedCosine(CosineHead):
    """Scaled cosines, aligned; the confidence sees normalised features."""

    def __init__(self, feature_dim: int, num_classes: int, form: str) -> None:
        super().__init__(feature_dim, num_classes)
        self.alignment = Alignment(feature_dim, num_classes, form)

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, d) -> logits (B, C)."""
        aligned: Tensor = self.alignment(F.normalize(features, dim=1), super().forward(features))
        return aligned


class DisAlign(Method):
    """Backbone and head of stage 1 stay as they are; a scale and a margin for each class and a confidence of each image
    are learned on images as they come, with weights that fall with a class's frequency."""

    name = "disalign"
    stages = ("train", "finetune")

    @dataclass(frozen=True)
    class Params:
        """classifier: "linear" starts from cross-entropy; "cosine" has a first stage of its own, its learned scale
        starting at 20 (the author's advice)."""

        classifier: Literal["linear", "cosine"] = "linear"
        rho: float = second_stage(1.2)
        form: Literal["released", "convex"] = second_stage("released")

        def __post_init__(self) -> None:
            if not 0 <= self.rho < float("inf"):
                raise ValueError(f"rho must be at least 0, found {self.rho}")

    @classmethod
    def first_stage_of(cls, params: Any) -> str:
        """Cross-entropy for a linear head."""
        return "ce" if params.classifier == "linear" else ""

    def head(self, stage: Stage) -> nn.Module:
        """Stage 1's head, and what aligns its logits."""
        size, form = (self.task.feature_dim, self.task.num_classes), self.params.form
        if self.params.classifier == "linear":
            return AlignedLinear(*size, form)
        head = AlignedCosine(*size, form) if stage == "finetune" else CosineHead(*size)
        nn.init.constant_(head.scale.raw, 19.0)  # softplus(19) + 1
        return head

    def continues_head(self) -> bool:
        """It is what is aligned."""
        return True

    def param_groups(self, model: Classifier, stage: Stage) -> list[dict[str, Any]]:
        """In stage 2 the alignment alone."""
        aligned = stage == "finetune"
        return [{"params": list(model.head.alignment.parameters())}] if aligned else super().param_groups(model, stage)

    @cached_property
    def class_weights(self) -> Tensor:
        """Of the loss in stage 2, shape (C,)."""
        return reweighting(self.task.class_counts, self.params.rho)

    def loss(self, logits: Tensor, target: Tensor, step: StepContext) -> Tensor:
        """Cross-entropy; in stage 2 with class weights, by the sum of which it is divided."""
        if step.stage == "train":
            return super().loss(logits, target, step)
        check_batch(logits, target)
        weights = self.class_weights.to(logits)
        return F.cross_entropy(logits, target, weight=weights) * step.relative_weight(weights, target)

    def class_quantities(self, model: Classifier) -> dict[str, Tensor]:
        """The scales and margins as well."""
        alignment = model.head.alignment
        learned = {"logit scale": alignment.scale, "logit margin": alignment.margin}
        return {**super().class_quantities(model), **learned}
