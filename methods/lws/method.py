"""LWS: Kang et al., Decoupling Representation and Classifier for Long-Tailed Recognition, ICLR 2020."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import nn

from harness.api import Classifier, Method, Sampler, Stage
from harness.toolbox.heads import ScaledLinear
from harness.toolbox.samplers import ClassAwareSampler


class LWS(Method):
    """Cross-entropy's backbone and head stay as they are; only the scales are trained, with class-aware sampling."""

    name = "lws"
    stages = ("train", "finetune")
    first_stage = "ce"

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
