"""Contrastive learning: projectors, losses over pairs of images, a queue of keys, a copy that follows a network.

Shapes: anchors (A, p) and what they are contrasted with (M, p), each row of length 1; classes (A,) and (M,).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Projector(nn.Sequential):
    """Linear layers with ReLU between them, and BatchNorm before it where asked for; the output has length 1.

    Args:
        widths: of the features, the hidden layers and the output.
    """

    def __init__(self, *widths: int, batch_norm: bool = False) -> None:
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths[:-1]):
            norm = [nn.BatchNorm1d(outputs)] if batch_norm else []
            layers += [nn.Linear(inputs, outputs), *norm, nn.ReLU()]
        super().__init__(*layers, nn.Linear(widths[-2], widths[-1]))

    def forward(self, features: Tensor) -> Tensor:
        """Features (N, d) -> (N, p)."""
        for layer in self:
            features = layer(features)
        return F.normalize(features, dim=1)


def pairs(
    anchors: Tensor, target: Tensor, contrast: Tensor, contrast_target: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Similarities v_i . v_j / T, and whether both are of one class; shape (A, M) each.

    The first A rows of `contrast` are the anchors themselves. An anchor and itself are no pair: similarity -inf.
    """
    itself = torch.eye(len(anchors), len(contrast), dtype=torch.bool, device=anchors.device)
    similarity = (anchors @ contrast.T / temperature).masked_fill(itself, -torch.inf)
    return similarity, (target[:, None] == contrast_target) & ~itself


def sum_where(values: Tensor, mask: Tensor) -> Tensor:
    """Sums of the rows of `values`, shape (A,), over what the mask has; the rest may be infinite."""
    return values.masked_fill(~mask, 0).sum(1)


def supervised_contrastive_loss(features: Tensor, target: Tensor, temperature: float) -> Tensor:
    """SupCon (Khosla et al., NeurIPS 2020, L_out) over the views of a batch: a mean over images.

    L_i = -mean over positives j of [ v_i . v_j / T - log sum_{k != i} exp(v_i . v_k / T) ]; 0 for an image without one.

    Args:
        features: of all views, each of length 1, shape (N, p).
        target: shape (N,).
    """
    similarity, same = pairs(features, target, features, target, temperature)
    log_share = similarity - similarity.logsumexp(1, keepdim=True)
    return -(sum_where(log_share, same) / same.sum(1).clamp_min(1)).mean()


@dataclass(frozen=True)
class CentreContrastParams:
    """alpha, beta, gamma: weights of pairs, of centres, and of pairs in the denominator. queue: keys kept.

    projection: width of keys. queue_start: what the queue holds before its first keys, see `KeyQueue`.
    """

    alpha: float = 0.01
    beta: float = 1.0
    gamma: float = 1.0
    temperature: float = 0.05
    queue: int = 1024
    projection: int = 32
    queue_start: Literal["random", "empty"] = "random"

    def __post_init__(self) -> None:
        if not (self.temperature > 0 and self.beta > 0 and self.alpha >= 0 and self.gamma >= 0):
            least = f"{self.alpha=} and {self.gamma=} at least 0"
            raise ValueError(f"{self.temperature=} and {self.beta=} must be above 0, {least}")
        if self.queue < 1 or self.projection < 1:
            raise ValueError(f"{self.queue=} and {self.projection=} must be at least 1")


def log_prior(class_counts: Tensor | Sequence[int]) -> Tensor:
    """log(pi_c + 1e-9), pi_c = n_c / N, shape (C,): finite for a class without an image too."""
    counts = torch.as_tensor(class_counts).double()
    return (counts / counts.sum() + 1e-9).log()


def centre_contrastive_loss(
    anchors: Tensor,
    target: Tensor,
    others: Tensor,
    other_target: Tensor,
    centre_logits: Tensor,
    *,
    alpha: float,
    beta: float,
    gamma: float,
    temperature: float,
    smoothing: float = 0.0,
) -> Tensor:
    """Parametric contrastive loss (Cui et al., ICCV 2021): a classifier's logits stand among the pairs of an anchor.

    D_i = log( sum_c exp(z_ic) + gamma sum_j exp(v_i . v_j / T) ) over all j but i itself;
    L_i = -[ beta sum_c y_ic (z_ic - D_i) + alpha sum_{j of class y_i} (v_i . v_j / T - D_i) ] / (beta + alpha |P_i|).

    Args:
        anchors: of length 1, shape (A, p); each is contrasted with the other anchors too.
        others: of length 1, shape (M, p), of classes `other_target`; a class below 0 marks an empty place.
        centre_logits: z, log prior included, shape (A, C).
        smoothing: share of the label y that all other classes get.
    """
    contrast_target = torch.cat([target, other_target])
    similarity, same = pairs(anchors, target, torch.cat([anchors, others]), contrast_target, temperature)
    similarity = similarity.masked_fill(contrast_target < 0, -torch.inf)
    weighted = similarity + (math.log(gamma) if gamma else -torch.inf)
    total = torch.cat([centre_logits, weighted], 1).logsumexp(1, keepdim=True)
    label = F.one_hot(target, centre_logits.shape[1]).to(centre_logits)
    label = (1 - smoothing) * label + smoothing / (label.shape[1] - 1) * (1 - label)
    drawn = beta * (label * (centre_logits - total)).sum(1) + alpha * sum_where(similarity - total, same)
    return -(drawn / (beta + alpha * same.sum(1))).mean()


class KeyQueue(nn.Module):
    """The latest keys and their classes in a ring of buffers, saved and resumed with the model.

    Args:
        start: "random" keys of random classes, which act as pairs until they are overwritten (the released code of
            PaCo, which normalises them along the wrong axis); or "empty" places, of class -1.
    """

    keys: Tensor
    target: Tensor
    pointer: Tensor

    def __init__(self, size: int, width: int, num_classes: int, start: str) -> None:
        super().__init__()
        keys, target = torch.randn(size, width), torch.randint(num_classes, (size,))
        empty = start == "empty"
        self.register_buffer("keys", torch.zeros_like(keys) if empty else F.normalize(keys, dim=0))
        self.register_buffer("target", torch.full_like(target, -1) if empty else target)
        self.register_buffer("pointer", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def push(self, keys: Tensor, target: Tensor) -> None:
        """Overwrites the oldest; of more keys than there are places, the last ones stay."""
        keys, target = keys[-len(self.keys) :], target[-len(self.keys) :]
        places = (self.pointer + torch.arange(len(keys), device=keys.device)) % len(self.keys)
        self.keys[places], self.target[places] = keys.to(self.keys), target
        self.pointer.copy_((self.pointer + len(keys)) % len(self.keys))


@torch.no_grad()
def follow_(copy: nn.Module, source: nn.Module, momentum: float) -> None:
    """k <- m k + (1 - m) q for each parameter (MoCo, He et al., CVPR 2020, eq. 2); buffers are the copy's own."""
    for key, query in zip(copy.parameters(), source.parameters(), strict=True):
        key.mul_(momentum).add_(query, alpha=1 - momentum)
