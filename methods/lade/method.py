"""LADE: Hong et al., Disentangling Label Distribution for Long-Tailed Visual Recognition, CVPR 2021."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.api import Method, Stage, StepContext
from harness.toolbox.losses import check_batch, inverse_prior

OFFSET = 1e-9  # of the released code, on priors


def ratio_regulariser(
    logits: Tensor, target: Tensor, class_counts: Tensor | Sequence[int], remine_lambda: float
) -> Tensor:
    """R = -sum_c pi_c (A_c - S_c - lambda S_c^2): logits as log ratios of densities, free of the training prior.

    A_c is the mean of z_c over the batch's images of class c (0 where there is none), S_c the log of the mean of
    e^{z_c} (1/C) / pi_c over the batch (the regularised Donsker-Varadhan bound, ReMINE). Released code, with its
    offsets; it takes the ratio of priors of the column's class, not of the image's.

    Args:
        logits: z, shape (B, C).
        target: y, shape (B,).
        class_counts: n, training images of each class, shape (C,).
    """
    check_batch(logits, target, class_counts)
    counts, classes = torch.as_tensor(class_counts).to(logits), logits.shape[1]
    prior = counts / counts.sum()
    own = F.one_hot(target, classes).to(logits)
    attracted = (own * logits).sum(0) / (own.sum(0) + 1e-8)
    ratio = math.log(1 / classes + OFFSET) - (prior + OFFSET).log()
    spread = logits.logsumexp(0) - math.log(len(logits)) + ratio
    return -(prior * (attracted - spread - remine_lambda * spread.square())).sum()


def prior_shift(logits: Tensor, target_prior: Tensor, trained_prior: Tensor | None = None) -> Tensor:
    """Logits (B, C) for test images of another class prior (C,): z + log q, less log pi if z holds the training prior.

    LADE's logits hold none; those of cross-entropy do (PC softmax).
    """
    moved = logits + target_prior.log()
    return moved if trained_prior is None else moved - trained_prior.log()


class LADE(Method):
    """Balanced Softmax with a regulariser; the prior of the test images is added at the end. Or PC softmax."""

    name = "lade"
    whole_batch = "its regulariser takes the log of means over a batch"

    @dataclass(frozen=True)
    class Params:
        """target_prior: of the test images, uniform, that of the training images, or that one backwards.

        form: "pc_softmax" trains cross-entropy and takes the training prior off at test time.
        """

        form: Literal["lade", "pc_softmax"] = "lade"
        alpha: float = 0.1
        remine_lambda: float = 0.01
        target_prior: Literal["uniform", "train", "reversed"] = "uniform"

        def __post_init__(self) -> None:
            if not (0 <= self.alpha < float("inf") and 0 <= self.remine_lambda < float("inf")):
                raise ValueError(f"{self.alpha=} and {self.remine_lambda=} must be at least 0")

    @classmethod
    def stages_of(cls, params: Any) -> tuple[Stage, ...]:
        """PC softmax is a rule on a finished model."""
        return ("train",) if params.form == "lade" else ("train", "finetune")

    @classmethod
    def first_stage_of(cls, params: Any) -> str:
        """Cross-entropy's for PC softmax."""
        return "" if params.form == "lade" else "ce"

    def continues_head(self) -> bool:
        """PC softmax uses the head as it is."""
        return True

    def skip(self) -> str | None:
        """The log of an empty class's prior is not defined."""
        empty = self.params.form == "pc_softmax" and bool((self.task.class_counts == 0).any())
        return "a class has no training image" if empty else None

    @cached_property
    def prior(self) -> Tensor:
        """Share of the training images that each class has, in float64, shape (C,)."""
        prior: Tensor = self.task.class_counts.double() / self.task.class_counts.sum()
        return prior

    def loss(self, logits: Tensor, target: Tensor, step: StepContext) -> Tensor:
        """Balanced Softmax loss (with the code's offset) + alpha R; cross-entropy for PC softmax."""
        if self.params.form == "pc_softmax":
            return F.cross_entropy(logits, target)
        regulariser = ratio_regulariser(logits, target, self.task.class_counts, self.params.remine_lambda)
        balanced = F.cross_entropy(logits + (self.prior.to(logits) + OFFSET).log(), target)
        return balanced + float(self.params.alpha) * regulariser

    def inference(self, logits: Tensor, stage: Stage) -> Tensor:
        """Logits under the test images' prior."""
        own = self.prior.to(logits)
        priors = {"uniform": torch.full_like(own, 1 / len(own)), "train": own, "reversed": inverse_prior(own)}
        return prior_shift(logits, priors[self.params.target_prior], None if self.params.form == "lade" else own)
