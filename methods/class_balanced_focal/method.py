"""Class-balanced focal loss: Cui et al., Class-Balanced Loss Based on Effective Number of Samples, CVPR 2019."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.api import Classifier, Method, Stage, StepContext
from harness.toolbox.losses import check_batch, class_balanced_loss_weights, focal_term

Form = Literal["sigmoid", "inside", "outside"]


def class_balanced_focal_loss(logits: Tensor, target: Tensor, weights: Tensor, gamma: float, form: Form) -> Tensor:
    """Mean over the batch of one of three functions of this name; the weights are not divided out.

    Args:
        logits, target: shapes (B, C) and (B,).
        weights: w_c of each class, shape (C,).
        form: "sigmoid", w_y sum_c (1 - p_c)^gamma (-log p_c) with p_c = sigmoid(z_c), or of -z_c where c is not y (the
            paper's code); "inside", the softmax focal loss of v = w_y CE, (1 - e^-v)^gamma v (the code of LDAM-DRW);
            "outside", w_y (1 - p_y)^gamma CE.

    Raises:
        ValueError: see `check_batch`.
    """
    check_batch(logits, target)
    weight = weights.to(logits)[target]
    if form == "sigmoid":
        signed = torch.where(F.one_hot(target, logits.shape[1]).bool(), logits, -logits)
        terms = torch.exp(gamma * F.logsigmoid(-signed)) * F.softplus(-signed)
        return (weight * terms.sum(1)).mean()
    ce = F.cross_entropy(logits, target, reduction="none")
    return (focal_term(weight * ce, gamma) if form == "inside" else weight * focal_term(ce, gamma)).mean()


class ClassBalancedFocal(Method):
    """Focal loss weighted by the inverse effective number of the target's class."""

    name = "class_balanced_focal"

    @dataclass(frozen=True)
    class Params:
        """form: which of the three functions, see `class_balanced_focal_loss`.

        beta and gamma: the paper searches them in 0.9 ... 0.9999 and 0.5, 1, 2 for each data set.
        """

        form: Form = "sigmoid"
        beta: float = 0.9999
        gamma: float = 1.0

        def __post_init__(self) -> None:
            if not 0 <= self.beta < 1:
                raise ValueError(f"beta must lie in [0, 1), found {self.beta}")
            if not 0 <= self.gamma < float("inf"):
                raise ValueError(f"gamma must be at least 0, found {self.gamma}")

    def head(self, stage: Stage) -> nn.Module:
        """Linear; sigmoids start at 1/C (the code's bias of -log(C - 1)), or the C - 1 wrong classes outweigh all."""
        head = nn.Linear(self.task.feature_dim, self.task.num_classes)
        if self.params.form == "sigmoid":
            nn.init.constant_(head.bias, -math.log(self.task.num_classes - 1))
        return head

    def param_groups(self, model: Classifier, stage: Stage) -> list[dict[str, Any]]:
        """No weight decay on that bias."""
        if self.params.form != "sigmoid":
            return super().param_groups(model, stage)
        rest = [parameter for parameter in model.parameters() if parameter is not model.head.bias]
        return [{"params": rest}, {"params": [model.head.bias], "weight_decay": 0.0}]

    @cached_property
    def class_weights(self) -> Tensor:
        """The weight of each class, shape (C,); they sum to C."""
        return class_balanced_loss_weights(self.task.class_counts, self.params.beta)

    def loss(self, logits: Tensor, target: Tensor, step: StepContext) -> Tensor:
        """Mean class-balanced focal loss."""
        return class_balanced_focal_loss(logits, target, self.class_weights, self.params.gamma, self.params.form)
