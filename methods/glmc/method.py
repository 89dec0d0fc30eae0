"""GLMC: Du et al., Global and Local Mixture Consistency Cumulative Learning for Long-tailed Visual Recognitions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.api import Batch, Classifier, Method, RunFailed, Sampler, Stage, StepContext, StepModel, View
from harness.toolbox.losses import check_batch
from harness.toolbox.mixing import cutmix_mask
from harness.toolbox.samplers import WeightedSampler, power_weights


def consistency_loss(projection: Tensor, prediction: Tensor) -> Tensor:
    """-mean cos(p_g, v_l) - mean cos(p_l, v_g); v is a constant.

    Args:
        projection, prediction: v and p = predictor(v), of the mixup images, then of the CutMix images; shape (2B, p).
    """
    other = torch.cat(projection.detach().chunk(2)[::-1])
    return -2 * F.cosine_similarity(prediction, other).mean()


def mixed_loss(
    logits: Tensor, target: Tensor, second: Tensor, share: Tensor | float, weights: Tensor | None = None
) -> Tensor:
    """CE with labels mixed by `share`, of mixup plus of CutMix images; class weights, if any, are not normalised again.

    Args:
        logits: of the mixup images, then of the CutMix images, shape (2B, C).
        target, second: classes of the first and of the second images, shape (B,).
        weights: of the classes, shape (C,).
    """
    check_batch(logits, target.repeat(2))
    one, other = (F.one_hot(classes, logits.shape[1]).to(logits) for classes in (target, second))
    label = share * one + (1 - share) * other
    label = label if weights is None else label * weights.to(logits)
    return 2 * F.cross_entropy(logits, label.repeat(2, 1))


def glmc_loss(
    logits: Tensor,
    logits_reweighted: Tensor,
    projection: Tensor,
    prediction: Tensor,
    target: Tensor,
    second: Tensor,
    class_weights: Tensor,
    *,
    share: Tensor | float,
    alpha: float,
    contrast_weight: float = 4.0,
) -> Tensor:
    """a L_plain + (1 - a) L_weighted + gamma L_consistency (released code); see the three terms for the shapes."""
    plain = mixed_loss(logits, target, second, share)
    weighted = mixed_loss(logits_reweighted, target, second, share, class_weights)
    return alpha * plain + (1 - alpha) * weighted + contrast_weight * consistency_loss(projection, prediction)


class TwoHeads(Classifier):
    """`head` learns from weighted labels and is what inference uses; beside it one for plain labels."""

    def __init__(self, backbone: nn.Module, head: nn.Module, plain_head: nn.Module, feature_dim: int, width: int):
        super().__init__(backbone, head)
        self.plain_head = plain_head
        self.projector, self.predictor = nn.Linear(feature_dim, width), nn.Linear(width, width)


class GLMC(Method):
    """A mixup and a CutMix image of the same pair must project alike; labels move from plain to class-weighted ones."""

    name = "glmc"
    whole_batch = "one mixing ratio and one box serve a whole batch"
    detached = "the projections are constants within the consistency loss"

    @dataclass(frozen=True)
    class Params:
        """The second batch draws an image of class c at rate n_c^-resample; its label weighs n_c^-label_exponent.

        weights_mean: over what these weights have mean 1; over images, most of them frequent ones, they are larger.
        contrast_weight: gamma, of the consistency loss. projection: width of projector and predictor.
        """

        resample: float = 0.0
        label_exponent: float = 1.2
        weights_mean: Literal["classes", "images"] = "classes"
        contrast_weight: float = 4.0
        projection: int = 128

        def __post_init__(self) -> None:
            for name in ("resample", "label_exponent", "contrast_weight"):
                if not 0 <= getattr(self, name) < float("inf"):
                    raise ValueError(f"{name} must be at least 0, found {getattr(self, name)}")
            if self.projection < 1:
                raise ValueError(f"projection must be at least 1, found {self.projection}")

    @cached_property
    def class_weights(self) -> Tensor:
        """n_c^-r, with mean 1, shape (C,)."""
        counts = self.task.class_counts.double()
        weights = power_weights(counts, 1 - self.params.label_exponent)
        by_class = self.params.weights_mean == "classes"
        return weights / (weights.mean() if by_class else (weights * counts).sum() / counts.sum())

    def build(self, backbone: nn.Module, stage: Stage) -> Classifier:
        """Two linear heads, projector and predictor."""
        return TwoHeads(backbone, self.head(stage), self.head(stage), self.task.feature_dim, self.params.projection)

    def views(self, labels: np.ndarray, stage: Stage) -> tuple[View, ...]:
        """Two views of a usual batch, and two of a re-balanced one."""
        counts = np.bincount(labels, minlength=self.task.num_classes).tolist()
        weights = power_weights(counts, 1 - self.params.resample)
        second = WeightedSampler(labels, self.task.num_classes, weights)
        return View(Sampler(labels, self.task.num_classes)), View(), View(second), View(second)

    def step_loss(self, model: StepModel, views: tuple[Batch, ...], step: StepContext) -> Tensor:
        """One ratio l ~ Beta(1, 1) mixes images and labels, also where CutMix's box was clipped (as published)."""
        network, (first, again, second, second_again) = cast(TwoHeads, step.model), views
        if first.other is not None:
            raise RunFailed("glmc mixes images itself; mixup_alpha and cutmix_alpha must be 0", agreed=True)
        share, row, column = (
            torch.rand((), generator=step.generator, device=first.images.device, dtype=first.images.dtype)
            for _ in range(3)
        )
        height, width = first.images.shape[-2:]
        centre = ((row * height).floor(), (column * width).floor())
        pasted = cutmix_mask(share, centre, (height, width), "ceil")
        mixup = share * first.images + (1 - share) * second.images
        cutmix = torch.where(pasted, second_again.images, again.images)

        features, logits = model.embed(torch.cat([mixup, cutmix]))
        projection = network.projector(features)
        return glmc_loss(
            network.plain_head(features),
            logits,
            projection,
            network.predictor(projection),
            first.target,
            second.target,
            self.class_weights,
            share=share,
            alpha=1 - (step.epoch / step.epochs) ** 2,
            contrast_weight=self.params.contrast_weight,
        )
