"""cRT: Kang et al., Decoupling Representation and Classifier for Long-Tailed Recognition, ICLR 2020."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from harness.api import Method, Sampler, Stage, second_stage
from harness.toolbox.samplers import make_sampler


class CRT(Method):
    """Cross-entropy features, frozen; then a new linear head, trained with class-aware sampling."""

    name = "crt"
    stages = ("train", "finetune")

    @dataclass(frozen=True)
    class Params:
        """continue_head: go on with stage 1's head (GCL's code) instead of a new one (the paper)."""

        first_stage: Literal["ce", "ce_mixup"] = "ce"
        sampler: Literal["class_aware", "class_balanced"] = second_stage("class_aware")
        continue_head: bool = second_stage(False)

    @classmethod
    def first_stage_of(cls, params: Any) -> str:
        """Cross-entropy, with or without mixup."""
        return str(params.first_stage)

    def continues_head(self) -> bool:
        """As the params say."""
        return bool(self.params.continue_head)

    def sampler(self, labels: np.ndarray, stage: Stage) -> Sampler:
        """Re-sampling in stage 2."""
        return make_sampler(self.params.sampler, labels, self.task.num_classes)
