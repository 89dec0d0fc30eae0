"""Equalization loss: Tan et al., Equalization Loss for Long-Tailed Object Recognition, CVPR 2020 (softmax form)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.api import Method, StepContext
from harness.toolbox.losses import check_batch


def equalization_loss(logits: Tensor, target: Tensor, rare: Tensor, dropped: Tensor) -> Tensor:
    """Mean of -z_y + log sum_c k_c e^{z_c}, where k_c is 0 for a dropped rare class other than y, and 1 else.

    Args:
        logits: z, shape (B, C).
        target: y, shape (B,).
        rare: T, which classes may be dropped, bool, shape (C,).
        dropped: the gate, bool, shape (B, C).
    """
    check_batch(logits, target)
    gone = dropped & rare & ~F.one_hot(target, logits.shape[1]).bool()
    return F.cross_entropy(logits.masked_fill(gone, -torch.inf), target)


class Equalization(Method):
    """Rare classes are left out of other classes' softmax most of the time, so that these do not push them down."""

    name = "equalization"
    not_compiled = "its gate comes from a generator of its own, which torch.compile does not take"

    @dataclass(frozen=True)
    class Params:
        """gamma: how often a rare class is dropped, for each image and class anew.

        rare_below: lambda; a class is rare with fewer images than this share of all images, or of the largest class.
        """

        gamma: float = 0.9
        rare_below: float = 0.005
        share_of: Literal["all", "largest"] = "all"

        def __post_init__(self) -> None:
            if not (0 <= self.gamma <= 1 and 0 <= self.rare_below <= 1):
                raise ValueError(f"gamma and rare_below must lie in [0, 1], found {self.gamma} and {self.rare_below}")

    @cached_property
    def rare(self) -> Tensor:
        """Which classes are rare, bool, shape (C,)."""
        counts = self.task.class_counts.double()
        whole = counts.sum() if self.params.share_of == "all" else counts.max()
        rare: Tensor = counts < self.params.rare_below * whole
        return rare

    def loss(self, logits: Tensor, target: Tensor, step: StepContext) -> Tensor:
        """With a fresh gate on each call."""
        draws = torch.empty_like(logits).uniform_(generator=step.generator)
        return equalization_loss(logits, target, self.rare, draws < self.params.gamma)
