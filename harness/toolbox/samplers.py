"""Which image stands where in an epoch: samplers as index orders, and the class weights that they rest on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from harness.base.errors import unknown

Order = npt.NDArray[np.int64]


def _counts(class_counts: Tensor | Sequence[int]) -> Tensor:
    """The counts in float64: 1 - beta^n loses its digits in float32."""
    counts = torch.as_tensor(class_counts).double()
    if counts.ndim != 1 or bool((counts < 0).any()):
        raise ValueError(f"class_counts must be one list of numbers of at least 0, found {counts.tolist()}")
    return counts


def _weights(values: Tensor, class_counts: Tensor | Sequence[int]) -> Tensor:
    """The values where a class has images, else 0; in the dtype of the counts if that is a floating one."""
    counts = torch.as_tensor(class_counts)
    weights = torch.where(counts > 0, values, torch.zeros_like(values))
    return weights.to(counts.dtype) if counts.is_floating_point() else weights


def _check_beta(beta: float, name: str) -> None:
    if not 0 <= beta < 1:
        raise ValueError(f"{name} must lie in [0, 1), found {beta}")


def class_balanced_weights(class_counts: Tensor | Sequence[int]) -> Tensor:
    """Weight of one sample of each class under class-balanced sampling, 1/n_c. Shape (C,); 0 for a class of none."""
    return _weights(1 / _counts(class_counts).clamp_min(1), class_counts)


def power_weights(class_counts: Tensor | Sequence[int], power: float) -> Tensor:
    """Weight of one sample of each class, n_c^(power - 1): class c is drawn in proportion to n_c^power. Shape (C,).

    1 is instance-balanced, 1/2 square-root sampling (Kang et al., ICLR 2020, eq. 1), 0 class-balanced. A class without
    an image has weight 0.
    """
    return _weights(_counts(class_counts).clamp_min(1).pow(power - 1), class_counts)


def progressive_probabilities(class_counts: Tensor | Sequence[int], epoch: int, epochs: int) -> Tensor:
    """Probability of each class in an epoch (from 0) of progressively balanced sampling, float64, shape (C,).

    (1 - l) n_c / N + l / C with l = epoch / (epochs - 1): the data's own in the first epoch, uniform over the classes
    that have an image in the last and from then on (Kang et al., ICLR 2020, eq. 2).
    """
    counts, share = _counts(class_counts), min(1.0, epoch / max(epochs - 1, 1))
    there = (counts > 0).double()
    return (1 - share) * counts / counts.sum() + share * there / there.sum()


def effective_number_weights(class_counts: Tensor | Sequence[int], beta: float) -> Tensor:
    """Weight of one sample of each class by the effective number, (1-beta)/(1-beta^n_c). Shape (C,).

    Cui et al., CVPR 2019, eq. 4. A class without an image has weight 0.

    Raises:
        ValueError: beta outside [0, 1), or a negative count.
    """
    _check_beta(beta, "beta")
    counts = _counts(class_counts).clamp_min(1)
    return _weights((1 - beta) / (1 - torch.full_like(counts, beta).pow(counts)), class_counts)


def cloud_size(class_counts: Tensor | Sequence[int]) -> Tensor:
    """Log difference log n_max - log n_c, divided by its maximum, shape (C,).

    0 for the largest class, 1 for the smallest; zero for uniform counts. A class without an image counts as one image.
    """
    counts = torch.as_tensor(class_counts)
    logs = _counts(class_counts).clamp_min(1).log()
    delta = logs.max() - logs
    delta = delta / delta.max() if bool(delta.max() > 0) else delta
    return delta.to(counts.dtype) if counts.is_floating_point() else delta


def cben_weights(class_counts: Tensor | Sequence[int], beta_a: float, beta_b: float) -> Tensor:
    """Weight of one sample of each class by the class-based effective number (GCL). Shape (C,).

    As `effective_number_weights` with beta_c = beta_a + beta_b * delta_c, where delta_c is the `cloud_size`.

    Raises:
        ValueError: a beta_c outside [0, 1), or a negative count.
    """
    _check_beta(beta_a, "beta_a")
    counts = _counts(class_counts).clamp_min(1)
    beta = beta_a + beta_b * cloud_size(counts)
    for extreme in (float(beta.min()), float(beta.max())):
        _check_beta(extreme, "beta_a + beta_b * cloud size")
    return _weights((1 - beta) / (1 - beta.pow(counts)), class_counts)


class Sampler:
    """Instance-balanced sampling: every image once per epoch, in random order.

    Subclasses override `order`. What must survive from one epoch to the next goes into `state_dict`.

    Args:
        labels: class of each training image, shape (N,).
        num_classes: C.
    """

    epochs = 1  # of the stage; the loop sets it before the first order

    def __init__(self, labels: Order, num_classes: int) -> None:
        self.labels, self.num_classes = labels, num_classes

    def order(self, rng: np.random.Generator) -> Order:
        """Indices of one epoch's images, shape (N,)."""
        return rng.permutation(len(self.labels))

    def state_dict(self) -> dict[str, Any]:
        """State that lasts over epochs, as tensors and plain values."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes back what `state_dict` gave."""


class WeightedSampler(Sampler):
    """N draws with replacement, each class's sample weight given: `class_balanced_weights` and its relatives."""

    def __init__(self, labels: Order, num_classes: int, class_weights: Tensor) -> None:
        super().__init__(labels, num_classes)
        weights = class_weights.double().numpy()[labels]
        self.probabilities = weights / weights.sum()

    def order(self, rng: np.random.Generator) -> Order:
        """Indices of one epoch's images, shape (N,)."""
        return rng.choice(len(self.labels), size=len(self.labels), p=self.probabilities)


class ClassAwareSampler(Sampler):
    """Cycles through the classes in random order, taking the next k images of each class's own shuffled cycle.

    Kang et al., ICLR 2020 (cRT), k = 4. Classes without an image are passed over. The cycles go on across epochs.
    """

    def __init__(self, labels: Order, num_classes: int, k: int = 4) -> None:
        super().__init__(labels, num_classes)
        if k < 1:
            raise ValueError(f"k must be at least 1, found {k}")
        self.k = k
        self._members = {c: np.flatnonzero(labels == c) for c in range(num_classes) if (labels == c).any()}
        self._queues: dict[int, Order] = {c: np.empty(0, np.int64) for c in self._members}
        self._classes: Order = np.empty(0, np.int64)

    def order(self, rng: np.random.Generator) -> Order:
        """Indices of one epoch's images, shape (N,)."""
        return self.draw(len(self.labels), rng)

    def draw(self, count: int, rng: np.random.Generator) -> Order:
        """The next `count` indices, shape (count,); what the last visited class has over is dropped.

        Raises:
            ValueError: there is no image to draw.
        """
        if not self._members:
            raise ValueError("class-aware sampling needs at least one image")
        visits = -(-count // self.k)
        while len(self._classes) < visits:
            self._classes = np.concatenate([self._classes, rng.permutation(list(self._members))])
        visited, self._classes = self._classes[:visits], self._classes[visits:]
        drawn = [self._next(int(c), rng) for c in visited]
        return np.concatenate([np.empty(0, np.int64), *drawn])[:count]

    def _next(self, c: int, rng: np.random.Generator) -> Order:
        queue = self._queues[c]
        while len(queue) < self.k:
            queue = np.concatenate([queue, rng.permutation(self._members[c])])
        self._queues[c] = queue[self.k :]
        return queue[: self.k]

    def state_dict(self) -> dict[str, Any]:
        """The unfinished cycles."""
        queues = {str(c): torch.from_numpy(queue.copy()) for c, queue in self._queues.items()}
        return {"classes": torch.from_numpy(self._classes.copy()), "queues": queues}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes the unfinished cycles back."""
        self._classes = state["classes"].numpy()
        self._queues = {int(c): queue.numpy() for c, queue in state["queues"].items()}


class ProgressiveSampler(ClassAwareSampler):
    """N draws a class at a time, from the data's own class shares to uniform ones (`progressive_probabilities`).

    Kang et al., ICLR 2020. Within a class it is the next image of the class's shuffled cycle, which goes on across
    epochs.
    """

    def __init__(self, labels: Order, num_classes: int) -> None:
        super().__init__(labels, num_classes, k=1)
        self._counts, self._epoch = np.bincount(labels, minlength=num_classes), 0

    def order(self, rng: np.random.Generator) -> Order:
        """Indices of one epoch's images, shape (N,)."""
        shares = progressive_probabilities(torch.from_numpy(self._counts), self._epoch, self.epochs).numpy()
        classes = rng.choice(self.num_classes, size=len(self.labels), p=shares)
        self._epoch += 1
        return np.concatenate([self._next(int(c), rng) for c in classes])

    def state_dict(self) -> dict[str, Any]:
        """The unfinished cycles, and which epoch is next."""
        return {**super().state_dict(), "epoch": self._epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes them back."""
        super().load_state_dict(state)
        self._epoch = state["epoch"]


SAMPLERS = (
    "instance_balanced", "class_aware", "class_balanced", "effective_number", "cben", "square_root", "progressive",
)  # fmt: skip


def make_sampler(
    name: str, labels: Order, num_classes: int, *, k: int = 4, beta: float = 0.9999, beta_b: float = 1e-5
) -> Sampler:
    """A sampler by name.

    Args:
        name: one of `SAMPLERS`.
        k: images in a row of each visited class (`class_aware`).
        beta: of `effective_number`, and beta_a of `cben`; beta_b is the latter's range over the classes.

    Raises:
        UserError: no such sampler.
    """
    counts = torch.from_numpy(np.bincount(labels, minlength=num_classes))
    if name == "instance_balanced":
        return Sampler(labels, num_classes)
    if name == "class_aware":
        return ClassAwareSampler(labels, num_classes, k)
    if name == "class_balanced":
        return WeightedSampler(labels, num_classes, class_balanced_weights(counts))
    if name == "effective_number":
        return WeightedSampler(labels, num_classes, effective_number_weights(counts, beta))
    if name == "cben":
        return WeightedSampler(labels, num_classes, cben_weights(counts, beta, beta_b))
    if name == "square_root":
        return WeightedSampler(labels, num_classes, power_weights(counts, 0.5))
    if name == "progressive":
        return ProgressiveSampler(labels, num_classes)
    raise unknown("sampler", name, SAMPLERS)
