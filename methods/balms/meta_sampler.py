"""The Meta Sampler's maths: draws over all images, and the closed form of the inner step's gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.api import StepContext


def draw_slots(
    log_psi: Tensor, labels: Tensor, slots: int, generator: torch.Generator | None = None, chunk: int = 1 << 25
) -> tuple[Tensor, Tensor, Tensor]:
    """Straight-through Gumbel-softmax draws of `slots` images, each slot over all N images (temperature 1).

    Args:
        log_psi: log sampling rate of each class, shape (C,).
        labels: class of each image, shape (N,).
        chunk: largest number of noise values held at once; the outcome does not depend on it but for the noise.

    Returns:
        index (slots,): the drawn images; q (slots,): soft weight of the drawn image; class_share (slots, C): soft
        weight of all images of each class. With G Gumbel noise the weights are softmax(log psi + G) over the images.
    """
    images, classes = len(labels), len(log_psi)
    best = torch.full((slots,), -torch.inf, device=labels.device, dtype=log_psi.dtype)
    index = torch.zeros(slots, dtype=torch.long, device=labels.device)
    mass = torch.zeros(slots, classes, device=labels.device, dtype=log_psi.dtype)
    for part in torch.split(torch.arange(images, device=labels.device), max(1, chunk // slots)):
        # exp(log psi + G) = psi / E with E ~ Exponential(1): the softmax's numerators, without a logarithm.
        noise = torch.empty(slots, len(part), device=labels.device, dtype=log_psi.dtype).exponential_(
            generator=generator
        )
        weight = log_psi.exp()[labels[part]] / noise
        top, where = weight.max(1)
        index, best = torch.where(top > best, part[where], index), torch.maximum(top, best)
        mass.index_add_(1, labels[part], weight)
    total = mass.sum(1)
    return index, best / total, mass / total[:, None]


def inner_gradient(residual: Tensor, features: Tensor, grad_weight: Tensor, grad_bias: Tensor, rate: float) -> Tensor:
    """dL_meta / ds_b of each slot's weight s_b in the inner loss mean_b s_b l_b, shape (B,).

    Args:
        residual: r_b = softmax(z_b + log n) - onehot(y_b), shape (B, C).
        features: h_b, shape (B, d).
        grad_weight, grad_bias: gradient of the meta loss at the classifier after the inner step, (C, d) and (C,).
        rate: derivative of the inner step by its gradient, the learning rate (times 1 + mu with Nesterov).
    """
    return -(rate / len(residual)) * (residual * (features @ grad_weight.T + grad_bias)).sum(1)


def stepped(parameter: Tensor, gradient: Tensor, step: StepContext) -> Tensor:
    """The parameter after the optimiser's next step: momentum buffer, weight decay and rate included."""
    group = step.optimizer.param_groups[0]
    gradient = gradient + group["weight_decay"] * parameter
    buffer = step.optimizer.state[parameter].get("momentum_buffer")
    velocity = gradient if buffer is None else group["momentum"] * buffer + gradient
    velocity = gradient + group["momentum"] * velocity if group["nesterov"] else velocity
    return parameter - step.learning_rate * velocity
