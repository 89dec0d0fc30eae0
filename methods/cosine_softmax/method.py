"""Cosine softmax: cross-entropy of scaled cosines, the control for t-vMF and WCDAS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from harness.api import Method, Sampler, Stage, second_stage
from harness.toolbox.heads import CosineHead
from harness.toolbox.samplers import ClassAwareSampler


class CosineSoftmax(Method):
    """Logits s * cos(h, w_c) with a learned s; stage 2 trains a new such head, class-aware, as t-vMF does."""

    name = "cosine_softmax"
    stages = ("train", "finetune")

    @dataclass(frozen=True)
    class Params:
        """retrain: whether there is a second stage."""

        retrain: bool = second_stage(True)

    @classmethod
    def stages_of(cls, params: Any) -> tuple[Stage, ...]:
        """One stage when nothing is retrained."""
        return cls.stages if params.retrain else ("train",)

    def head(self, stage: Stage) -> nn.Module:
        """A cosine head in both stages, re-initialised in the second."""
        return CosineHead(self.task.feature_dim, self.task.num_classes)

    def sampler(self, labels: np.ndarray, stage: Stage) -> Sampler:
        """Class-aware sampling in stage 2."""
        if stage == "train":
            return super().sampler(labels, stage)
        return ClassAwareSampler(labels, self.task.num_classes)
