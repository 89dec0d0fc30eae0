"""Losses that more than one method uses. All work in the dtype of the logits and are differentiable."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


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
        ValueError: class_counts does not have C entries, or has a negative one.
    """
    counts = torch.as_tensor(class_counts)
    if counts.shape != logits.shape[1:] or bool((counts < 0).any()):
        raise ValueError(f"class_counts must be {logits.shape[1]} numbers of at least 0, found {counts.tolist()}")
    return F.cross_entropy(logits + counts.to(logits).log(), target, reduction=reduction)
