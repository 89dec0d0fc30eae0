"""Seesaw loss: Wang et al., Seesaw Loss for Long-Tailed Instance Segmentation, CVPR 2021."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.api import Batch, Classifier, Method, Stage, StepContext, StepModel
from harness.toolbox.losses import check_batch


def seesaw_loss(logits: Tensor, target: Tensor, seen: Tensor, *, p: float, q: float, epsilon: float) -> Tensor:
    """Mean of -z_y + log sum_j S_j e^z_j with S_j = M_j K_j: the pull of class y's images on other classes' logits.

    M_j = min(1, N_j / N_y)^p (mitigation) spares classes with fewer images than y; K_j = max(1, p_j / max(p_y, eps))^q
    (compensation) takes that back from classes that are mistaken for it. No gradient goes through S, and S_y = 1.

    Args:
        logits: z, shape (B, C).
        target: y, shape (B,).
        seen: N, images of each class, shape (C,); fewer than one counts as one.
        p, q, epsilon: as above; p = 0 or q = 0 switches its factor off.

    Raises:
        ValueError: see `check_batch`.
    """
    check_batch(logits, target, seen)
    log_n, log_p = seen.clamp_min(1).to(logits).log(), F.log_softmax(logits.detach(), dim=1)
    own_n, own_p = log_n[target, None], log_p.gather(1, target[:, None]).clamp_min(math.log(epsilon))
    log_s = p * (log_n - own_n).clamp_max(0) + q * (log_p - own_p).clamp_min(0)
    return F.cross_entropy(logits + log_s, target)


class Seesaw(Method):
    """Cross-entropy that punishes rare classes less for images of frequent ones, unless they are mistaken for them."""

    name = "seesaw"
    detached = "no gradient goes through the factors of mitigation and compensation"

    @dataclass(frozen=True)
    class Params:
        """counts: "seen", the images that training has met so far; or "prior", the training part's class counts."""

        p: float = 0.8
        q: float = 2.0
        epsilon: float = 0.01
        counts: Literal["seen", "prior"] = "seen"

        def __post_init__(self) -> None:
            if not (0 <= self.p < float("inf") and 0 <= self.q < float("inf")):
                raise ValueError(f"{self.p=} and {self.q=} must be at least 0")
            if not 0 < self.epsilon < 1:
                raise ValueError(f"epsilon must lie between 0 and 1, found {self.epsilon}")

    def on_stage_start(self, model: Classifier, stage: Stage) -> None:
        """Starts counting."""
        counts = self.task.class_counts
        self.seen = counts.clone() if self.params.counts == "prior" else torch.zeros_like(counts)

    def step_loss(self, model: StepModel, views: tuple[Batch, ...], step: StepContext) -> Tensor:
        """Counts the whole batch first, once."""
        if self.params.counts == "seen":
            classes = views[0].target if step.classes is None else step.classes
            self.seen += F.one_hot(classes, len(self.seen)).sum(0)
        return super().step_loss(model, views, step)

    def loss(self, logits: Tensor, target: Tensor, step: StepContext) -> Tensor:
        """Mean over images."""
        p = self.params
        return seesaw_loss(logits, target, self.seen, p=p.p, q=p.q, epsilon=p.epsilon)

    def state_dict(self) -> dict[str, Any]:
        """The counts."""
        return {"seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes them back."""
        self.seen = state["seen"].to(self.seen)
