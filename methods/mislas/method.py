"""MiSLAS: Zhong et al., Improving Calibration for Long-Tailed Recognition, CVPR 2021."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.api import Classifier, Method, Sampler, Stage, StepContext, second_stage
from harness.toolbox.heads import ScaledLinear
from harness.toolbox.losses import check_batch
from harness.toolbox.samplers import ClassAwareSampler

# From how far a class's count lies between the smallest (0) and the largest (1) to how far its smoothing does.
SHAPES: dict[str, Callable[[Tensor, float], Tensor]] = {
    "concave": lambda t, power: torch.sin(math.pi / 2 * t),
    "linear": lambda t, power: t,
    "convex": lambda t, power: 1 - torch.cos(math.pi / 2 * t),
    "exp": lambda t, power: t.pow(power),
}


def label_smoothing(
    class_counts: Tensor | Sequence[int], head: float, tail: float, shape: str = "concave", power: float = 1.0
) -> Tensor:
    """Smoothing eps_c of each class: `head` for the largest, `tail` for the smallest, between them by `shape`.

    Float64, shape (C,). The text's equations for the concave, linear and exponential form, as released; equal counts
    leave the position of a class open, and then every class has `head`.
    """
    counts = torch.as_tensor(class_counts).double()
    spread = counts.max() - counts.min()
    position = (counts - counts.min()) / spread if bool(spread > 0) else torch.ones_like(counts)
    return tail + (head - tail) * SHAPES[shape](position, power)


def smoothed_cross_entropy(logits: Tensor, target: Tensor, smoothing: Tensor) -> Tensor:
    """Mean of -(1 - e) log p_y - e / C sum_c log p_c with e = eps_y: the released code.

    Args:
        logits: shape (B, C).
        target: y, shape (B,).
        smoothing: eps, shape (C,).

    Raises:
        ValueError: see `check_batch`.
    """
    check_batch(logits, target, smoothing)
    log_p, amount = F.log_softmax(logits, dim=1), smoothing.to(logits)[target]
    return -((1 - amount) * log_p.gather(1, target[:, None])[:, 0] + amount * log_p.mean(1)).mean()


class MiSLAS(Method):
    """Mixup in stage 1. Stage 2 smooths the labels of frequent classes more, on class-aware draws: the old head goes on
    at a small rate with a new scale for each class, and the backbone's BatchNorm re-estimates its statistics on them
    (recipe key `frozen_bn`)."""

    name = "mislas"
    stages = ("train", "finetune")
    first_stage = "ce_mixup"

    @dataclass(frozen=True)
    class Params:
        """head_rate: the old head's share of the learning rate. power: of the shape "exp".

        others_only: the paper's equation, where all of e goes to the other classes; e C / (C - 1) in the code's terms.
        """

        smooth_head: float = second_stage(0.3)
        smooth_tail: float = second_stage(0.0)
        shape: Literal["concave", "linear", "convex", "exp"] = second_stage("concave")
        power: float = second_stage(2.0)
        others_only: bool = second_stage(False)
        head_rate: float = second_stage(0.5)

        def __post_init__(self) -> None:
            if not (0 <= self.smooth_head < 1 and 0 <= self.smooth_tail < 1):
                raise ValueError(f"{self.smooth_head=} and {self.smooth_tail=} must lie in [0, 1)")
            if not self.power > 0 or not 0 <= self.head_rate < float("inf"):
                raise ValueError(f"{self.power=} must be above 0, {self.head_rate=} at least 0")

    @cached_property
    def smoothing(self) -> Tensor:
        """eps of each class, as the code's loss takes it, shape (C,)."""
        p, classes = self.params, self.task.num_classes
        smoothing = label_smoothing(self.task.class_counts, p.smooth_head, p.smooth_tail, p.shape, p.power)
        return smoothing * classes / (classes - 1) if p.others_only else smoothing

    def head(self, stage: Stage) -> nn.Module:
        """Stage 1's linear head with a scale for each class."""
        return ScaledLinear(self.task.feature_dim, self.task.num_classes)

    def continues_head(self) -> bool:
        """Weight and bias come from stage 1."""
        return True

    def param_groups(self, model: Classifier, stage: Stage) -> list[dict[str, Any]]:
        """The old head at a share of the rate, the scales at all of it."""
        head = model.head
        return [{"params": [head.weight, head.bias], "lr_scale": self.params.head_rate}, {"params": [head.class_scale]}]

    def sampler(self, labels: np.ndarray, stage: Stage) -> Sampler:
        """Class-aware."""
        return ClassAwareSampler(labels, self.task.num_classes)

    def loss(self, logits: Tensor, target: Tensor, step: StepContext) -> Tensor:
        """Label-aware smoothing."""
        return smoothed_cross_entropy(logits, target, self.smoothing)
