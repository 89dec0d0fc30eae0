"""Hybrid-SC and Hybrid-PSC: Wang et al., Contrastive Learning based Hybrid Networks for Long-Tailed Image
Classification, CVPR 2021."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.api import Batch, Classifier, Method, Stage, StepContext, StepModel, View
from harness.toolbox.contrastive import Projector, supervised_contrastive_loss
from harness.toolbox.losses import check_batch
from harness.toolbox.samplers import make_sampler


def prototypical_contrastive_loss(features: Tensor, prototypes: Tensor, target: Tensor, temperature: float) -> Tensor:
    """-v . c_y / T + log sum_{k != y} exp(v . c_k / T), a mean over images: the own class is not in the denominator.

    Args:
        features: v, of length 1, shape (B, p).
        prototypes: c, of length 1, shape (C, p).
        target: shape (B,).
    """
    similarity = features @ prototypes.T / temperature
    check_batch(similarity, target)
    own = F.one_hot(target, len(prototypes)).bool()
    others = similarity.masked_fill(own, -torch.inf).logsumexp(1)
    return (others - similarity.gather(1, target[:, None])[:, 0]).mean()


class Hybrid(Classifier):
    """With a projector and, for the prototypical loss, a vector of each class; that it is learned is our choice."""

    prototypes: nn.Parameter

    def __init__(self, backbone: nn.Module, head: nn.Module, projector: Projector, prototypes: Tensor | None) -> None:
        super().__init__(backbone, head)
        self.projector = projector
        self.register_parameter("prototypes", None if prototypes is None else nn.Parameter(prototypes))


class HybridSC(Method):
    """From a contrastive branch on the images as they are to a classifier on class-balanced ones."""

    name = "hybrid_sc"
    whole_batch = "its contrastive loss compares the images of a batch with each other"

    @dataclass(frozen=True)
    class Params:
        """contrast: "supervised", between two views of a batch; or "prototypical", of one view with prototypes."""

        contrast: Literal["supervised", "prototypical"] = "supervised"
        temperature: float = 0.1
        projection: int = 128

        def __post_init__(self) -> None:
            if not self.temperature > 0 or self.projection < 1:
                raise ValueError(f"{self.temperature=} must be above 0, {self.projection=} at least 1")

    @property
    def supervised(self) -> bool:
        """Whether images are contrasted with each other."""
        return bool(self.params.contrast == "supervised")

    def build(self, backbone: nn.Module, stage: Stage) -> Classifier:
        """Inference uses backbone and head alone."""
        width, p = self.task.feature_dim, self.params
        prototypes = None if self.supervised else torch.randn(self.task.num_classes, p.projection)
        return Hybrid(backbone, self.head(stage), Projector(width, width, p.projection), prototypes)

    def views(self, labels: np.ndarray, stage: Stage) -> tuple[View, ...]:
        """Instance-balanced images to contrast, twice if with each other; class-balanced ones to classify."""
        balanced = View(make_sampler("class_balanced", labels, self.task.num_classes))
        return View(self.sampler(labels, stage)), *([View()] if self.supervised else []), balanced

    def step_loss(self, model: StepModel, views: tuple[Batch, ...], step: StepContext) -> Tensor:
        """a L_contrast + (1 - a) CE, a = 1 - (t / T)^2; all images go through the network together."""
        network, (*contrasted, balanced) = cast(Hybrid, step.model), views
        features, logits = model.embed(torch.cat([view.images for view in views]))
        count = len(balanced.images)
        projected = network.projector(features[:-count])

        def contrast(target: Tensor) -> Tensor:
            if not self.supervised:
                prototypes = F.normalize(network.prototypes, dim=1)
                return prototypical_contrastive_loss(projected, prototypes, target, self.params.temperature)
            targets = torch.cat([target, contrasted[1].target])
            return supervised_contrastive_loss(projected, targets, self.params.temperature)

        share = 1 - (step.epoch / step.epochs) ** 2
        classified = F.cross_entropy(logits[-count:], balanced.target)
        return share * views[0].mixed(contrast) + (1 - share) * classified
