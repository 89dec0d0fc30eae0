"""WCDAS: Han, Wrapped Cauchy Distributed Angular Softmax for Long-Tailed Visual Recognition, ICML 2023."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from harness.api import Classifier, Method, Sampler, Stage, later, second_stage
from harness.toolbox.heads import CosineHead, cosine_similarity
from harness.toolbox.samplers import ClassAwareSampler


def wrapped_cauchy_density(cosine: Tensor, rho: Tensor | float, pi: float = math.pi) -> Tensor:
    """f = (1 / 2 pi) (1 - rho^2) / (1 + rho^2 - 2 rho cos), the wrapped Cauchy density at the angle of `cosine`.

    The denominator is taken as (1 - rho)^2 + 2 rho (1 - cos), which stays exact where rho is close to 1.

    Args:
        cosine: shape (..., C), clamped to [-1, 1] here; rounding beyond the bounds costs no gradient.
        rho: concentration in (0, 1), a number or one for each class, shape (C,).
        pi: the published code types 3.14; pass that for bit parity.
    """
    cosine = cosine + (cosine.clamp(-1, 1) - cosine).detach()
    return (1 - rho) * (1 + rho) / ((1 - rho) ** 2 + 2 * rho * (1 - cosine)) / (2 * pi)


def raw_scale(scale: float) -> float:
    """The raw value r with softplus(r) + 1 = scale, for a scale above 1."""
    above = scale - 1
    return above + math.log(-math.expm1(-above))


class WCDASHead(CosineHead):
    """Logits s * f_c with a trainable concentration rho_c = sigmoid(raw_gamma_c) for each class, or one for all.

    The scale s is fixed, or trained from `initial_scale`; without one it starts where every learned scale does.
    """

    def __init__(
        self,
        feature_dim: int,
        num_classes: int,
        initial_gamma: float,
        fixed_scale: float | None,
        shared: bool = False,
        initial_scale: float | None = None,
    ) -> None:
        super().__init__(feature_dim, num_classes)
        if initial_scale is not None:
            nn.init.constant_(self.scale.raw, raw_scale(initial_scale))
        self.raw_gamma = nn.Parameter(torch.full((1 if shared else num_classes,), initial_gamma))
        self.fixed_scale = fixed_scale
        if fixed_scale is not None:
            self.scale.requires_grad_(False)

    def similarity(self, cosine: Tensor) -> Tensor:
        """Densities, shape (B, C)."""
        return wrapped_cauchy_density(cosine, torch.sigmoid(self.raw_gamma))

    def forward(self, features: Tensor) -> Tensor:
        """Logits, shape (B, C); their order is not that of the cosines, since rho differs between classes."""
        scale = self.scale() if self.fixed_scale is None else self.fixed_scale
        return torch.as_tensor(scale) * self.similarity(cosine_similarity(features, self.weight))


class WCDAS(Method):
    """Both stages train the same head and loss; the second one goes on with class-aware sampling."""

    name = "wcdas"
    stages = ("train", "finetune")

    @dataclass(frozen=True)
    class Params:
        """initial_gamma: raw concentration at the start. fixed_scale: the scale, or None to train it.

        concentration: one for each class, or one for all, which takes from the method what is its own.
        initial_scale: where a trained scale starts, above 1; None is the published start, 1 + ln 2.
        """

        initial_gamma: float = 0.0
        fixed_scale: float | None = None
        concentration: Literal["per_class", "shared"] = "per_class"
        retrain: bool = second_stage(True)
        initial_scale: float | None = later(None)

        def __post_init__(self) -> None:
            if self.fixed_scale is not None and not self.fixed_scale > 0:
                raise ValueError(f"fixed_scale must be above 0, found {self.fixed_scale}")
            if self.initial_scale is None:
                return
            if not 1 < self.initial_scale < math.inf:
                raise ValueError(f"initial_scale must be a number above 1, found {self.initial_scale}")
            if self.fixed_scale is not None:
                raise ValueError(f"either fixed_scale ({self.fixed_scale}) or initial_scale must be null")

    @classmethod
    def stages_of(cls, params: Any) -> tuple[Stage, ...]:
        """One stage when nothing is retrained."""
        return cls.stages if params.retrain else ("train",)

    def head(self, stage: Stage) -> nn.Module:
        """The same head in both stages."""
        p, shared = self.params, self.params.concentration == "shared"
        size = (self.task.feature_dim, self.task.num_classes)
        return WCDASHead(*size, p.initial_gamma, p.fixed_scale, shared, p.initial_scale)

    def continues_head(self) -> bool:
        """Weights, concentrations and scale go on."""
        return True

    def class_quantities(self, model: Classifier) -> dict[str, Tensor]:
        """The concentrations rho_c as well."""
        concentration = torch.sigmoid(model.head.raw_gamma).expand(self.task.num_classes)
        return {**super().class_quantities(model), "concentration": concentration}

    def sampler(self, labels: np.ndarray, stage: Stage) -> Sampler:
        """Class-aware sampling in stage 2."""
        if stage == "train":
            return super().sampler(labels, stage)
        return ClassAwareSampler(labels, self.task.num_classes)
