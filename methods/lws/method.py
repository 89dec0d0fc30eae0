"""LWS: Kang et al., Decoupling Representation and Classifier for Long-Tailed Recognition, ICLR 2020."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from torch import nn

from harness.api import Classifier, Method, Sampler, Stage, later
from harness.toolbox.heads import ScaledLinear
from harness.toolbox.samplers import ClassAwareSampler


class LWS(Method):
    """Cross-entropy's backbone and head stay as they are; only the scales are trained, with class-aware sampling."""

    name = "lws"
    stages = ("train", "finetune")
    first_stage = "ce"

    @dataclass(frozen=True)
    class Params:
        """first_stage: cross-entropy with or without mixup."""

        first_stage: Literal["ce", "ce_mixup"] = later("ce")

    @classmethod
    def first_stage_of(cls, params: Any) -> str:
        """As the params say."""
        return str(params.first_stage)

    def head(self, stage: Stage) -> nn.Module:
        """Stage 1's linear head with a scale for each class."""
        return ScaledLinear(self.task.feature_dim, self.task.num_classes)

    def continues_head(self) -> bool:
        """Weight and bias come from stage 1."""
        return True

    def param_groups(self, model: Classifier, stage: Stage) -> list[dict[str, Any]]:
        """The scales alone."""
        return [{"params": [model.head.class_scale]}]

    def sampler(self, labels: np.ndarray, stage: Stage) -> Sampler:
        """Class-aware."""
        return ClassAwareSampler(labels, self.task.num_classes)
