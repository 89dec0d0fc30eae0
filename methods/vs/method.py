"""VS: Kini et al., Label-Imbalanced and Group-Sensitive Classification under Overparameterization, NeurIPS 2021."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.api import Method, StepContext
from harness.toolbox.losses import check_batch, make_class_weights


def vs_adjustment(class_counts: Tensor | Sequence[int], gamma: float, tau: float) -> tuple[Tensor, Tensor]:
    """Temperatures t_c = (n_max / n_c)^gamma and offsets tau log(n_c / N), each of shape (C,), in float64.

    In the paper's symbols Delta_c = 1 / t_c, and the offset is iota_c. The offset takes a class without an image out of
    the softmax, as in Balanced Softmax; at tau 0 it counts as one image.
    """
    counts = torch.as_tensor(class_counts).double()
    return (counts.max() / counts.clamp_min(1)).pow(gamma), torch.xlogy(tau, counts / counts.sum())


class VS(Method):
    """Vector scaling: training logits z_c / t_c + tau log pi_c; at test time z alone decides.

    gamma 0 is logit adjustment (tau 1: Balanced Softmax), tau 0 is class-dependent temperatures.
    """

    name = "vs"

    @dataclass(frozen=True)
    class Params:
        """weights: of the classes in the loss, from the share `weights_from` of the epochs on (0.8: deferred).

        vs_from: share of the epochs before it that are trained with plain cross-entropy.
        """

        gamma: float = 0.3
        tau: float = 1.0
        vs_from: float = 0.0
        weights: Literal["none", "class_balanced"] = "none"
        weights_from: float = 0.0
        beta: float = 0.9999

        def __post_init__(self) -> None:
            if not 0 <= self.beta < 1:
                raise ValueError(f"beta must lie in [0, 1), found {self.beta}")
            if not (0 <= self.gamma < float("inf") and 0 <= self.tau < float("inf")):
                raise ValueError(f"gamma and tau must be at least 0, found {self.gamma} and {self.tau}")

    @cached_property
    def adjustment(self) -> tuple[Tensor, Tensor]:
        """Temperature and offset of each class, each of shape (C,)."""
        return vs_adjustment(self.task.class_counts, self.params.gamma, self.params.tau)

    @cached_property
    def class_weights(self) -> Tensor:
        """The weight of each class once re-weighting has begun, shape (C,)."""
        return make_class_weights(self.params.weights, self.task.class_counts, self.params.beta)

    def loss(self, logits: Tensor, target: Tensor, step: StepContext) -> Tensor:
        """CE(z / t + tau log pi, y); class weights are divided out (mean by weight)."""
        check_batch(logits, target)
        if step.passed(self.params.vs_from):
            temperature, offset = (values.to(logits) for values in self.adjustment)
            logits = logits / temperature + offset
        if self.params.weights == "none" or not step.passed(self.params.weights_from):
            return F.cross_entropy(logits, target)
        weights = self.class_weights.to(logits)
        return F.cross_entropy(logits, target, weight=weights) * step.relative_weight(weights, target)
