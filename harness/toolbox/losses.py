"""Losses that more than one method uses. All work in the dtype of the logits and are differentiable.

Shapes: logits (B, C), target (B,) class indices, class_counts (C,) training images of each class.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.base.errors import unknown
from harness.toolbox.samplers import class_balanced_weights, effective_number_weights


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


def log_prior(class_counts: Tensor | Sequence[int], like: Tensor, power: float = 1.0) -> Tensor:
    """power * log n_c in the dtype and on the device of `like`, shape (C,); -inf for a class without an image.

    With power 0 it is 0 for every class.
    """
    return torch.as_tensor(class_counts).to(like).pow(power).log()


def balanced_softmax_loss(
    logits: Tensor,
    target: Tensor,
    class_counts: Tensor | Sequence[int],
    reduction: str = "mean",
    *,
    prior_power: float = 1.0,
) -> Tensor:
    """Balanced Softmax (Ren et al., NeurIPS 2020, eq. 4): CE(z + log n, y).

    Args:
        logits: z, shape (B, C).
        target: y, shape (B,).
        class_counts: n, training images of each class, shape (C,). A class without an image gets no probability.
        reduction: "mean", "sum" or "none".
        prior_power: p of CE(z + p log n, y); 1/4 follows from the paper's bound on the margins (eq. 10).

    Raises:
        ValueError: see `check_batch`.
    """
    check_batch(logits, target, class_counts)
    return F.cross_entropy(logits + log_prior(class_counts, logits, prior_power), target, reduction=reduction)


def focal_term(values: Tensor, gamma: float) -> Tensor:
    """(1 - e^-v)^gamma v of each value v >= 0: with cross-entropies the focal loss of each image, p = e^-v.

    1 - p and its gradient stay exact where p rounds to 1.
    """
    return (-torch.expm1(-values)).clamp_min(torch.finfo(values.dtype).tiny).pow(gamma).mul(values)


def class_balanced_loss_weights(class_counts: Tensor | Sequence[int], beta: float) -> Tensor:
    """Weights (1-beta)/(1-beta^n_c), rescaled so that they sum to C (Cui et al., CVPR 2019, eq. 4). Shape (C,)."""
    return summing_to_classes(effective_number_weights(class_counts, beta))


def summing_to_classes(weights: Tensor) -> Tensor:
    """Class weights (C,) rescaled so that they sum to C: equal ones become 1."""
    return weights * len(weights) / weights.sum()


def inverse_prior(prior: Tensor) -> Tensor:
    """The prior's values in reverse: the rarest class gets the largest. Ties keep the order of classes. Shape (C,)."""
    order = prior.argsort(stable=True)
    return torch.empty_like(prior).scatter(0, order, prior[order.flip(0)])


def ldam_margins(class_counts: Tensor | Sequence[int], largest: float) -> Tensor:
    """m_c proportional to n_c^(-1/4), the rarest class's being `largest` (LDAM, eq. 13). Shape (C,)."""
    inverse = torch.as_tensor(class_counts).double().clamp_min(1).pow(-0.25)
    return largest * inverse / inverse.max()


def with_margin(logits: Tensor, target: Tensor, margins: Tensor) -> Tensor:
    """Logits (B, C), those of the targets lowered by the margins (C,) of their classes."""
    return logits - margins.to(logits) * F.one_hot(target, logits.shape[1])


CLASS_WEIGHTS = ("none", "inverse", "class_balanced")


def make_class_weights(name: str, class_counts: Tensor | Sequence[int], beta: float = 0.9999) -> Tensor:
    """Class weights in a loss by name, shape (C,); they sum to C.

    Args:
        name: "none", 1 for every class; "inverse", proportional to 1/n_c; "class_balanced", by the effective number.
        beta: of "class_balanced".

    Raises:
        UserError: no such weights.
    """
    if name == "none":
        return torch.ones_like(torch.as_tensor(class_counts), dtype=torch.float64)
    if name == "inverse":
        return summing_to_classes(class_balanced_weights(class_counts))
    if name == "class_balanced":
        return class_balanced_loss_weights(class_counts, beta)
    raise unknown("class weights", name, CLASS_WEIGHTS)
