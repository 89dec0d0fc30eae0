"""BCL: Zhu et al., Balanced Contrastive Learning for Long-Tailed Visual Recognition, CVPR 2022."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.api import Batch, Classifier, Method, Stage, StepContext, StepModel, View
from harness.toolbox.contrastive import Projector, pairs, sum_where
from harness.toolbox.heads import NormedHead
from harness.toolbox.losses import balanced_softmax_loss


def balanced_contrastive_loss(features: Tensor, target: Tensor, prototypes: Tensor, temperature: float) -> Tensor:
    """Contrast with the classes' mean exponentials, in which each class counts the same: a mean over the features.

    Args:
        features: of both contrastive views, of length 1, shape (2B, p).
        target: shape (2B,).
        prototypes: one more member of each class, of length 1, shape (C, p); they are no anchors.
    """
    classes = torch.arange(len(prototypes), device=target.device)
    contrast, contrast_target = torch.cat([features, prototypes]), torch.cat([target, classes])
    similarity, same = pairs(features, target, contrast, contrast_target, temperature)
    members = F.one_hot(contrast_target, len(classes)).sum(0) - F.one_hot(target, len(classes))  # (2B, C), no anchors
    log_sum = (similarity - members.to(features).log()[:, contrast_target]).logsumexp(1)
    return (log_sum - sum_where(similarity, same) / same.sum(1)).mean()


class Contrastive(Classifier):
    """With a projector of features, and one that makes prototypes of the head's weight vectors."""

    def __init__(self, backbone: nn.Module, head: nn.Module, projector: Projector, prototypes: Projector) -> None:
        super().__init__(backbone, head)
        self.projector, self.prototypes = projector, prototypes


class ScaledCosineHead(NormedHead):
    """Cosines times 30: the head on the large sets."""

    def forward(self, features: Tensor) -> Tensor:
        """Logits, shape (B, C)."""
        return 30 * super().forward(features)


class BCL(Method):
    """Logit compensation beside a contrastive loss in which each class has a prototype and the same weight."""

    name = "bcl"
    whole_batch = "its contrastive loss compares the images of a batch with each other"

    @dataclass(frozen=True)
    class Params:
        """alpha and beta weigh classification and contrast. hidden and projection: widths of the projectors."""

        temperature: float = 0.1
        alpha: float = 2.0
        beta: float = 0.6
        hidden: int = 512
        projection: int = 128
        cosine_head: bool = False

        def __post_init__(self) -> None:
            if not (self.temperature > 0 and self.alpha >= 0 and self.beta >= 0):
                raise ValueError(f"{self.temperature=} must be above 0, {self.alpha=} and {self.beta=} at least 0")
            if self.hidden < 1 or self.projection < 1:
                raise ValueError(f"{self.hidden=} and {self.projection=} must be at least 1")

    def head(self, stage: Stage) -> nn.Module:
        """Linear, or scaled cosines."""
        size = (self.task.feature_dim, self.task.num_classes)
        return ScaledCosineHead(*size) if self.params.cosine_head else nn.Linear(*size)

    def build(self, backbone: nn.Module, stage: Stage) -> Classifier:
        """With two projectors of the same shape, which inference does not use."""
        widths = (self.task.feature_dim, self.params.hidden, self.params.projection)
        projectors = [Projector(*widths, batch_norm=True) for _ in range(2)]
        return Contrastive(backbone, self.head(stage), *projectors)

    def views(self, labels: np.ndarray, stage: Stage) -> tuple[View, ...]:
        """Each image three times: to be classified, and twice to be contrasted."""
        return View(self.sampler(labels, stage)), View(augment="strong"), View(augment="strong")

    def step_loss(self, model: StepModel, views: tuple[Batch, ...], step: StepContext) -> Tensor:
        """a CE(z + log pi, y) + b L_con, as in the released code: all views go through the network together, logits
        are of the first, and the prototypes come from the live head."""
        network, p = cast(Contrastive, step.model), self.params
        features, logits = model.embed(torch.cat([view.images for view in views]))
        count = len(views[0].images)
        projected, prototypes = network.projector(features[count:]), network.prototypes(network.head.weight)
        contrast = balanced_contrastive_loss(projected, views[1].target.repeat(2), prototypes, p.temperature)
        counts = self.task.class_counts
        classified = views[0].mixed(lambda target: balanced_softmax_loss(logits[:count], target, counts))
        loss: Tensor = p.alpha * classified + p.beta * contrast
        return loss
