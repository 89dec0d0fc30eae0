"""Losses that more than one method uses. All work in the dtype of the logits and are differentiable.

Shapes: logits (B, C), target (B,) class indices, class_counts (C,) training images of each class.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.toolbox.samplers import effective_number_weights


def check_batch(logits: Tensor, target: Tensor, class_counts: Tensor | Sequence[int] | None = None) -> None:
    """Refuses what would give a wrong loss instead of none.

    Raises:
        ValueError: shapes that do not fit; or, where a look at values costs nothing (on the CPU, not compiled), a
            negative class count or a label out of range. The message names the value.
    """
    if logits.ndim != 2 or target.shape != logits.shape[:1]:
        raise ValueError(f"logits {tuple(logits.shape)} and target {tuple(target.shape)} must be (B, C) and (B,)")
    classes, look = logits.shape[1], not torch.compiler.is_compiling()
    if (
        look
        and target.device.type == "cpu"
        and len(target)
        and not 0 <= int(target.min()) <= int(target.max()) < classes
    ):
        raise ValueError(f"labels must lie in 0..{classes - 1}, found {int(target.min())} to {int(target.max())}")
    if class_counts is None:
        return
    counts = torch.as_tensor(class_counts)
    if counts.shape != (classes,):
        raise ValueError(f"class_counts must be {classes} numbers, found shape {tuple(counts.shape)}")
    if look and counts.device.type == "cpu" and bool((counts < 0).any()):
        raise ValueError(f"class_counts must be at least 0, found {float(counts.min()):g}")


def balanced_softmax_loss(
    logits: Tensor, target: Tensor, class_counts: Tensor | Sequence[int], reduction: str = "mean"
) -> Tensor:
    """Balanced Softmax (Ren et al., NeurIPS 2020, eq. 4): CE(z + log n, y).

    Args:
        logits: z, shape (B, C).
        target: y, shape (B,).
        class_counts: n, training images of each class, shape (C,). A class without an image gets no probability.
        reduction: "mean", "sum" or "none".

    Raises:
        ValueError: see `check_batch`.
    """
    check_batch(logits, target, class_counts)
    return F.cross_entropy(logits + torch.as_tensor(class_counts).to(logits).log(), target, reduction=reduction)


def class_balanced_loss_weights(class_counts: Tensor | Sequence[int], beta: float) -> Tensor:
    """Weights (1-beta)/(1-beta^n_c), rescaled so that they sum to C (Cui et al., CVPR 2019, eq. 4). Shape (C,)."""
    weights = effective_number_weights(class_counts, beta)
    return weights * len(weights) / weights.sum()


def ldam_margins(class_counts: Tensor | Sequence[int], largest: float) -> Tensor:
    """m_c proportional to n_c^(-1/4), the rarest class's being `largest` (LDAM, eq. 13). Shape (C,)."""
    inverse = torch.as_tensor(class_counts).double().clamp_min(1).pow(-0.25)
    return largest * inverse / inverse.max()


def with_margin(logits: Tensor, target: Tensor, margins: Tensor) -> Tensor:
    """Logits (B, C), those of the targets lowered by the margins (C,) of their classes."""
    return logits - margins.to(logits) * F.one_hot(target, logits.shape[1])
