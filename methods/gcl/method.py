"""GCL: Li et al., Long-tailed Visual Recognition via Gaussian Clouded Logit Adjustment, CVPR 2022."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.api import Classifier, Method, Sampler, Stage, StepContext, second_stage
from harness.toolbox.heads import NormedHead
from harness.toolbox.losses import check_batch
from harness.toolbox.samplers import cloud_size, make_sampler
from methods.gcl.clouds import CLOUD_SIZES

__all__ = ["GCL", "cloud_size", "gcl_loss"]

SIGMA = 1 / 3  # of the noise: three of them reach the clamp at 1


def gcl_loss(
    cosine: Tensor,
    target: Tensor,
    cloud_size: Tensor,
    noise: Tensor,
    *,
    scale: float,
    noise_scale: float,
    margin: float = 0.0,
    focal_gamma: float = 0.0,
) -> Tensor:
    """Mean of (1 - p)^gamma CE(s z, y) with z_c = cos_c - k |eps_c| delta_c - m 1[c = y]; the factor is detached.

    Args:
        cosine: shape (B, C).
        target: shape (B,).
        cloud_size: delta, in [0, 1], shape (C,).
        noise: eps, shape (B, C), drawn from Normal(0, 1/3) and clamped to [-1, 1] here.
        scale, noise_scale, margin, focal_gamma: s, k, m, gamma.
    """
    check_batch(cosine, target)
    if cloud_size.shape != cosine.shape[1:] or noise.shape != cosine.shape:
        shapes = f"cloud_size {tuple(cloud_size.shape)} and noise {tuple(noise.shape)}"
        raise ValueError(f"{shapes} must be (C,) and (B, C), with cosine {tuple(cosine.shape)}")
    lowered = noise_scale * noise.clamp(-1, 1).abs() * cloud_size + margin * F.one_hot(target, cosine.shape[1]).to(
        cosine
    )
    ce = F.cross_entropy(scale * (cosine - lowered), target, reduction="none")
    return ((1 - torch.exp(-ce.detach())).pow(focal_gamma) * ce).mean()


class ScaledNormedHead(NormedHead):
    """Logits f_c s cos_c with one learned factor for each class, starting at 1: LWS on a head of cosines."""

    def __init__(self, feature_dim: int, num_classes: int, scale: float) -> None:
        super().__init__(feature_dim, num_classes)
        self.scale = scale
        self.class_scale = nn.Parameter(torch.ones(num_classes))

    def forward(self, features: Tensor) -> Tensor:
        """Logits, shape (B, C)."""
        return self.scale * self.class_scale * super().forward(features)


class GCL(Method):
    """Noise blurs each class's logit by a cloud that is larger for rarer classes; then the head is re-balanced."""

    name = "gcl"
    stages = ("train", "finetune")
    detached = "no gradient goes through the focal factor of stage 2"
    not_compiled = "its noise comes from a generator of its own, which torch.compile does not take"

    @dataclass(frozen=True)
    class Params:
        """The suffix _2 marks stage 2. head_2: go on with the head (the code), or a new linear one (paper's text).

        With head_2 "scaled" only a factor for each class is learned, by cross-entropy, as in LWS. That is our
        combination: the released path, switched off there, scales raw cosines and keeps GCL's loss of stage 2.
        """

        scale: float = 30.0
        noise_scale: float = 0.5
        cloud: Literal["log", "power13", "power14", "cosine"] = "log"
        scale_2: float = second_stage(20.0)
        margin_2: float = second_stage(0.1)
        focal_gamma_2: float = second_stage(1.0)
        sampler_2: Literal["cben", "effective_number", "class_balanced", "instance_balanced"] = second_stage("cben")
        head_2: Literal["continued", "linear", "scaled"] = second_stage("continued")
        retrain: bool = second_stage(True)

        def __post_init__(self) -> None:
            if not (self.scale > 0 and self.scale_2 > 0 and self.noise_scale >= 0):
                raise ValueError(f"{self.scale=} and {self.scale_2=} must be above 0, {self.noise_scale=} at least 0")

    @classmethod
    def stages_of(cls, params: Any) -> tuple[Stage, ...]:
        """One stage when nothing is retrained."""
        return cls.stages if params.retrain else ("train",)

    def _plain(self, stage: Stage) -> bool:
        """Whether the head gives logits and cross-entropy trains it, instead of clouded cosines."""
        return stage == "finetune" and self.params.head_2 != "continued"

    def head(self, stage: Stage) -> nn.Module:
        """Cosines; or a linear head where the paper's text is followed in stage 2; or scaled cosines."""
        size = (self.task.feature_dim, self.task.num_classes)
        if not self._plain(stage):
            return NormedHead(*size)
        return super().head(stage) if self.params.head_2 == "linear" else ScaledNormedHead(*size, self.params.scale)

    def continues_head(self) -> bool:
        """As the code does."""
        return bool(self.params.head_2 != "linear")

    def param_groups(self, model: Classifier, stage: Stage) -> list[dict[str, Any]]:
        """The factors alone, where there are some."""
        scaled = isinstance(model.head, ScaledNormedHead)
        return [{"params": [model.head.class_scale]}] if scaled else super().param_groups(model, stage)

    def sampler(self, labels: np.ndarray, stage: Stage) -> Sampler:
        """Instance-balanced, then the class-based effective number or another."""
        name = "instance_balanced" if stage == "train" else self.params.sampler_2
        return make_sampler(name, labels, self.task.num_classes)

    @cached_property
    def cloud(self) -> Tensor:
        """The cloud size of each class, shape (C,)."""
        return CLOUD_SIZES[self.params.cloud](self.task.class_counts)

    def loss(self, logits: Tensor, target: Tensor, step: StepContext) -> Tensor:
        """Clouded logits with fresh noise for every image and class on each call."""
        if self._plain(step.stage):
            return super().loss(logits, target, step)
        p, second = self.params, step.stage == "finetune"
        noise = SIGMA * torch.empty_like(logits).normal_(generator=step.generator)
        scale, margin, gamma = (p.scale_2, p.margin_2, p.focal_gamma_2) if second else (p.scale, 0.0, 0.0)
        return gcl_loss(
            logits,
            target,
            self.cloud.to(logits),
            noise,
            scale=scale,
            noise_scale=p.noise_scale,
            margin=margin,
            focal_gamma=gamma,
        )

    def inference(self, logits: Tensor, stage: Stage) -> Tensor:
        """Clean cosines at the stage's scale; logits as they are."""
        if self._plain(stage):
            return logits
        return logits * float(self.params.scale if stage == "train" else self.params.scale_2)
