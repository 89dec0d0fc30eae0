"""RIDE's losses of several experts. Logits are scaled cosines, shape (B, E, C)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from harness.toolbox.losses import with_margin


def class_temperatures(class_counts: Tensor, base: float, tilt: float) -> Tensor:
    """tau_c = T q_c / max q with q_c = 1 - eta + eta C n_c / N: lower for rarer classes (released code). Shape (C,)."""
    prior = class_counts.double() / class_counts.sum()
    rates = 1 - tilt + tilt * len(prior) * prior
    return base * rates / rates.max()


def individual_loss(logits: Tensor, target: Tensor, margins: Tensor, weights: Tensor | None = None) -> Tensor:
    """Sum over the experts of each one's LDAM loss.

    Args:
        logits: scaled cosines, shape (B, E, C).
        target: shape (B,).
        margins: times the scale, shape (C,).
        weights: of the classes, shape (C,); a batch's mean is divided by the mean of them. None: all alike.
    """
    experts = logits.shape[1]
    repeated = target.repeat_interleave(experts)
    lowered = with_margin(logits.flatten(0, 1), repeated, margins)
    return experts * F.cross_entropy(lowered, repeated, weight=None if weights is None else weights.to(logits))


def divergence(logits: Tensor, temperatures: Tensor) -> Tensor:
    """Sum over the experts of t^2 KL(p || p_e), p_e = softmax(z_e / tau), p that of their mean, t the mean of tau.

    The mean is a constant for the gradient. KL is summed over classes and averaged over images. With a negative factor,
    as published, experts are driven apart.

    Args:
        logits: shape (B, E, C).
        temperatures: tau, shape (C,).
    """
    tau = temperatures.to(logits)
    mean = F.log_softmax(logits.detach().mean(1, keepdim=True) / tau, dim=2).expand_as(logits)
    each = F.log_softmax(logits / tau, dim=2)
    return tau.mean() ** 2 * F.kl_div(each, mean, reduction="sum", log_target=True) / len(logits)
