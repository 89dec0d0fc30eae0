"""The forward pass of a training step, alone or under DistributedDataParallel, and a batch in micro-batches."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, cast

import torch
from timm.layers.norm_act import convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from harness.api import Batch, Classifier
from harness.base.errors import UserError
from harness.engine.ranks import Ranks
from harness.toolbox.schedules import batch_sizes


def micro_batches(batch: Batch, size: int) -> list[Batch]:
    """The batch in pieces of `size` images, as `batch_sizes` cuts it; 0: in one."""
    if not size or size >= len(batch.images):
        return [batch]
    sizes = batch_sizes(len(batch.images), size)
    images, target, index = (torch.split(tensor, sizes) for tensor in (batch.images, batch.target, batch.index))
    others = [None] * len(images) if batch.other is None else torch.split(batch.other, sizes)
    return [Batch(*piece, batch.share) for piece in zip(images, target, index, others, strict=True)]


class Joint(nn.Module):
    """Images -> features and logits in one forward pass, so that one wrapper can average its gradients."""

    def __init__(self, model: Classifier, extract: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model, self._extract = model, extract

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, d) and logits (B, C)."""
        features = self._extract(images)
        return features, self.model.head(features)


class Forward:
    """What the loop calls in a training step: the whole network, or only its head on features of a frozen backbone."""

    def __init__(self, joint: nn.Module, head: nn.Module) -> None:
        self._joint, self.head = joint, head

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features and logits of images."""
        return cast(tuple[Tensor, Tensor], self._joint(images))

    def synchronised(self, last: bool) -> AbstractContextManager[Any]:
        """Averages gradients over ranks in the last micro-batch only."""
        wrapped = next((m for m in (self._joint, self.head) if isinstance(m, DistributedDataParallel)), None)
        return contextlib.nullcontext() if last or wrapped is None else wrapped.no_sync()


def forward_pass(
    model: Classifier, extract: Callable[[Tensor], Tensor], frozen_backbone: bool, ranks: Ranks, device: torch.device
) -> Forward:
    """The forward pass of this run."""
    joint = Joint(model, extract)
    if ranks.world == 1:
        return Forward(joint, model.head)
    parameters = inspect.signature(DistributedDataParallel.__init__).parameters
    sync = "forward_sync_buffers" if "forward_sync_buffers" in parameters else "broadcast_buffers"  # older torch
    options: dict[str, Any] = {
        "device_ids": [device.index] if device.type == "cuda" else None,
        sync: False,  # `Ranks.average_buffers` makes them one
        "find_unused_parameters": True,  # a head may have a parameter that a variant does not use
    }
    if frozen_backbone:
        return Forward(joint, DistributedDataParallel(model.head, **options))
    return Forward(DistributedDataParallel(joint, **options), model.head)


def with_synchronised_batchnorm(model: Classifier, device: torch.device) -> None:
    """Gives the backbone BatchNorm over all ranks; its parameters stay the same ones.

    Raises:
        UserError: not on CUDA, where alone there is one.
    """
    if device.type != "cuda":
        raise UserError("--sync-bn: BatchNorm can be synchronised on CUDA only")
    model.backbone = convert_sync_batchnorm(model.backbone)  # timm's: torch's would lose activations inside BatchNorm
