"""PaCo: Cui et al., Parametric Contrastive Learning, ICCV 2021."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from harness.api import Batch, Classifier, Method, Stage, StepContext, StepModel, View
from harness.toolbox.contrastive import (
    CentreContrastParams,
    KeyQueue,
    Projector,
    centre_contrastive_loss,
    follow_,
    log_prior,
)
from harness.toolbox.losses import check_batch


def paco_loss(
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
    temperature: float = 0.05,
    key_target: Tensor | None = None,
) -> Tensor:
    """The queries are the anchors; they are contrasted with each other, keys, queue and centres (released code).

    Args:
        query, key: projected features of two views, of length 1, shape (B, p); only `query` has gradients.
        queue, queue_target: shapes (K, p) and (K,); a class of -1 marks an empty place.
        center_logits: W h + b of the queries, shape (B, C); W's rows are the centres.
        target: shape (B,).
        key_target: of the keys; default `target`.
    """
    check_batch(center_logits, target, class_counts)
    return centre_contrastive_loss(
        query,
        target,
        torch.cat([key, queue]).detach(),
        torch.cat([target if key_target is None else key_target, queue_target]),
        center_logits + log_prior(class_counts).to(center_logits),
        alpha=alpha,
        beta=beta,
        gamma=gamma,
        temperature=temperature,
    )


class MomentumContrast(Classifier):
    """With a projector, the copy of backbone and projector that makes the keys, and the queue of them."""

    def __init__(self, backbone: nn.Module, head: nn.Module, projector: Projector, queue: KeyQueue) -> None:
        super().__init__(backbone, head)
        self.projector, self.queue = projector, queue
        self.key_network = copy.deepcopy(nn.Sequential(backbone, projector)).requires_grad_(False)

    @torch.no_grad()
    def keys(self, images: Tensor, momentum: float) -> Tensor:
        """The copy takes a step towards the network, then it projects the images. Shape (B, p).

        Its BatchNorms use the batch and keep statistics of their own, as in the released code.
        """
        follow_(self.key_network[0], self.backbone, momentum)
        follow_(self.key_network[1], self.projector, momentum)
        keys: Tensor = self.key_network.train()(images)
        return keys


class PaCo(Method):
    """Supervised contrast with a queue of keys, among which the classes' weight vectors stand as learned centres."""

    name = "paco"
    whole_batch = "its contrastive loss compares the images of a batch with each other"
    detached = "no gradient goes through the keys"

    @dataclass(frozen=True)
    class Params(CentreContrastParams):
        """momentum: of the copy that makes the keys. The rest is in `CentreContrastParams`."""

        momentum: float = 0.999

        def __post_init__(self) -> None:
            CentreContrastParams.__post_init__(self)
            if not 0 <= self.momentum <= 1:
                raise ValueError(f"momentum must lie in [0, 1], found {self.momentum}")

    def build(self, backbone: nn.Module, stage: Stage) -> Classifier:
        """Inference uses backbone and head alone."""
        p, width = self.params, self.task.feature_dim
        queue = KeyQueue(p.queue, p.projection, self.task.num_classes, p.queue_start)
        projector = Projector(width, width, p.projection, batch_norm=True)
        return MomentumContrast(backbone, self.head(stage), projector, queue)

    def views(self, labels: np.ndarray, stage: Stage) -> tuple[View, ...]:
        """Each image twice: as a query, and as a key."""
        return View(self.sampler(labels, stage)), View(augment="strong")

    def step_loss(self, model: StepModel, views: tuple[Batch, ...], step: StepContext) -> Tensor:
        """The keys join the queue after they were contrasted."""
        network, p, counts = cast(MomentumContrast, step.model), self.params, self.task.class_counts
        features, logits = model.embed(views[0].images)
        query, queue = network.projector(features), network.queue
        key, key_target = network.keys(views[1].images, p.momentum), views[1].target
        weights = {"alpha": p.alpha, "beta": p.beta, "gamma": p.gamma, "temperature": p.temperature}

        def loss(target: Tensor) -> Tensor:
            given = (query, key, queue.keys, logits, target, queue.target, counts)
            return paco_loss(*given, **weights, key_target=key_target)

        value = views[0].mixed(loss)
        queue.push(key, key_target)
        return value
