"""t-vMF similarity: Kobayashi, t-vMF Similarity for Regularizing Intra-Class Feature Distribution, CVPR 2021."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from harness.api import Method, Sampler, Stage, second_stage
from harness.toolbox.heads import CosineHead
from harness.toolbox.samplers import ClassAwareSampler


def tvmf_similarity(cosine: Tensor, kappa: float) -> Tensor:
    """phi(c) = (1 + c) / (1 + kappa (1 - c)) - 1, any shape; phi(1) = 1, phi(-1) = -1, kappa 0 is the cosine.

    Raises:
        ValueError: kappa is not above -0.5, where the denominator could reach 0.
    """
    _check_kappa(kappa)
    return (1 + cosine) / (1 + kappa * (1 - cosine)) - 1


def _check_kappa(kappa: float) -> None:
    if not -0.5 < kappa < float("inf"):
        raise ValueError(f"kappa must be above -0.5, found {kappa}")


class TvMFHead(CosineHead):
    """Logits s * phi(cos(h, w_c)), without bias; s is learned, kappa is fixed."""

    def __init__(self, feature_dim: int, num_classes: int, kappa: float) -> None:
        super().__init__(feature_dim, num_classes)
        self.kappa = kappa

    def similarity(self, cosine: Tensor) -> Tensor:
        """phi of the cosine."""
        return tvmf_similarity(cosine, self.kappa)


class TvMF(Method):
    """Stage 1 learns features under the t-vMF similarity; stage 2 trains a new plain cosine head on them."""

    name = "tvmf"
    stages = ("train", "finetune")

    @dataclass(frozen=True)
    class Params:
        """kappa: concentration of stage 1. class_aware_k: images in a row of each visited class in stage 2."""

        kappa: float = 16.0
        class_aware_k: int = second_stage(4)
        retrain: bool = second_stage(True)

        def __post_init__(self) -> None:
            _check_kappa(self.kappa)
            if self.class_aware_k < 1:
                raise ValueError(f"class_aware_k must be at least 1, found {self.class_aware_k}")

    @classmethod
    def stages_of(cls, params: Any) -> tuple[Stage, ...]:
        """One stage when nothing is retrained: another thing than the published method."""
        return cls.stages if params.retrain else ("train",)

    def head(self, stage: Stage) -> nn.Module:
        """t-vMF head, then a re-initialised cosine head."""
        if stage == "train":
            return TvMFHead(self.task.feature_dim, self.task.num_classes, self.params.kappa)
        return CosineHead(self.task.feature_dim, self.task.num_classes)

    def sampler(self, labels: np.ndarray, stage: Stage) -> Sampler:
        """Class-aware sampling in stage 2."""
        if stage == "train":
            return super().sampler(labels, stage)
        return ClassAwareSampler(labels, self.task.num_classes, self.params.class_aware_k)
