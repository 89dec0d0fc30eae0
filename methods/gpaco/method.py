"""GPaCo: Cui et al., Generalized Parametric Contrastive Learning, TPAMI 2023."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from harness.api import Batch, Classifier, Method, Stage, StepContext, StepModel, View
from harness.toolbox.contrastive import CentreContrastParams, KeyQueue, Projector, centre_contrastive_loss, log_prior
from harness.toolbox.losses import check_batch


def gpaco_loss(
    query: Tensor,
    key: Tensor,
    queue: Tensor,
    center_logits: Tensor,
    target: Tensor,
    queue_target: Tensor,
    class_counts: Tensor | Sequence[int],
    *,
    alpha: float = 0.01,
    beta: float = 1.0,
    gamma: float = 1.0,
    temperature: float = 0.07,
    smoothing: float = 0.0,
    prior: bool = True,
    key_target: Tensor | None = None,
) -> Tensor:
    """Both views are anchors, with gradients; they are contrasted with each other, queue and centres (released code).

    Args:
        query, key: projected features of two views, of length 1, shape (B, p).
        queue, queue_target: shapes (K, p) and (K,); a class of -1 marks an empty place.
        center_logits: W h + b of the queries, then of the keys, shape (2B, C); W's rows are the centres.
        target: shape (B,).
        prior: whether log pi is added to the logits.
        key_target: of the keys; default `target`.
    """
    both = torch.cat([target, target if key_target is None else key_target])
    check_batch(center_logits, both, class_counts)
    return centre_contrastive_loss(
        torch.cat([query, key]),
        both,
        queue,
        queue_target,
        center_logits + log_prior(class_counts).to(center_logits) if prior else center_logits,
        alpha=alpha,
        beta=beta,
        gamma=gamma,
        temperature=temperature,
        smoothing=smoothing,
    )


class Contrast(Classifier):
    """With a projector, and the queue of what it gave."""

    def __init__(self, backbone: nn.Module, head: nn.Module, projector: Projector, queue: KeyQueue) -> None:
        super().__init__(backbone, head)
        self.projector, self.queue = projector, queue


class GPaCo(Method):
    """PaCo without a momentum copy: one network sees both views, and learns from both."""

    name = "gpaco"
    whole_batch = "its contrastive loss compares the images of a batch with each other"

    @dataclass(frozen=True)
    class Params(CentreContrastParams):
        """smoothing: of the centres' labels. The rest is in `CentreContrastParams`."""

        temperature: float = 0.07
        smoothing: float = 0.0

        def __post_init__(self) -> None:
            CentreContrastParams.__post_init__(self)
            if not 0 <= self.smoothing < 1:
                raise ValueError(f"smoothing must lie in [0, 1), found {self.smoothing}")

    def build(self, backbone: nn.Module, stage: Stage) -> Classifier:
        """Inference uses backbone and head alone."""
        p, width = self.params, self.task.feature_dim
        queue = KeyQueue(p.queue, p.projection, self.task.num_classes, p.queue_start)
        return Contrast(backbone, self.head(stage), Projector(width, width, width, p.projection), queue)

    def views(self, labels: np.ndarray, stage: Stage) -> tuple[View, ...]:
        """Each image twice."""
        return View(self.sampler(labels, stage)), View(augment="strong")

    def step_loss(self, model: StepModel, views: tuple[Batch, ...], step: StepContext) -> Tensor:
        """Both views go through the network together; the second one's features join the queue afterwards."""
        network, p, counts = cast(Contrast, step.model), self.params, self.task.class_counts
        features, logits = model.embed(torch.cat([view.images for view in views]))
        (query, key), queue = network.projector(features).chunk(2), network.queue
        weights = {"alpha": p.alpha, "beta": p.beta, "gamma": p.gamma, "temperature": p.temperature}

        def loss(target: Tensor) -> Tensor:
            given = (query, key, queue.keys, logits, target, queue.target, counts)
            return gpaco_loss(*given, **weights, smoothing=p.smoothing, key_target=views[1].target)

        value = views[0].mixed(loss)
        queue.push(key.detach(), views[1].target)
        return value
