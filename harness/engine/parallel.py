"""The forward pass of a training step, alone or under DistributedDataParallel."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from harness.api import Classifier
from harness.engine.ranks import Ranks
from harness.errors import UserError


@dataclass(frozen=True)
class Parallel:
    """How a run is spread. All of it is part of the run's identity, since BatchNorm sees what a process sees at once.

    ranks: processes; micro_batch: images at once in a process, 0 for its whole share; gradients of parts are added up.
    """

    ranks: int = 1
    micro_batch: int = 0
    sync_bn: bool = False  # BatchNorm over all ranks; CUDA only

    @property
    def changes_numbers(self) -> bool:
        """Whether a run is another one than in one process with whole batches."""
        return self != Parallel()


class Joint(nn.Module):
    """Images -> features and logits: one forward pass, so that its gradients can be averaged behind one wrapper."""

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
        """Gradients are averaged over ranks in the last part of a batch only."""
        wrapped = next((m for m in (self._joint, self.head) if isinstance(m, DistributedDataParallel)), None)
        return contextlib.nullcontext() if last or wrapped is None else wrapped.no_sync()


def forward_pass(
    model: Classifier, extract: Callable[[Tensor], Tensor], frozen_backbone: bool, ranks: Ranks, device: torch.device
) -> Forward:
    """The forward pass of this run."""
    joint = Joint(model, extract)
    if ranks.world == 1:
        return Forward(joint, model.head)
    options: dict[str, Any] = {
        "device_ids": [device.index] if device.type == "cuda" else None,
        "forward_sync_buffers": False,  # `Ranks.average_buffers` makes them one
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
    model.backbone = nn.SyncBatchNorm.convert_sync_batchnorm(model.backbone)  # type: ignore[no-untyped-call]
