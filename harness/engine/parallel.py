"""A batch in shares and parts, and the forward pass of a training step, alone or under DistributedDataParallel."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, cast

import torch
from timm.layers.norm_act import convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from harness.api import Batch, Classifier
from harness.base.errors import UserError
from harness.engine.ranks import Ranks


@dataclass(frozen=True)
class Mixed:
    """A batch, or a part of one, as the network sees it."""

    images: Tensor
    target: Tensor
    index: Tensor
    share: Tensor | float = 1.0  # of the loss for `target`; the rest is for `other`
    other: Tensor | None = None  # classes of the mixup partners
    counts: Tensor | None = None  # parts of the batch's losses for `classes` that the images are; None: all the same
    last: bool = True

    @property
    def batch(self) -> Batch:
        """As methods see it."""
        return Batch(self.images, self.target, self.index, self.other, self.share)

    @property
    def classes(self) -> list[Tensor]:
        """Those that the loss is asked for."""
        return [self.target] if self.other is None else [self.target, self.other]

    def counted(self, which: int, even: float) -> Tensor | float:
        """What the loss for `classes[which]` counts of the batch's; `even`, where all images count the same."""
        return even if self.counts is None else self.counts[which].sum()

    def parts(self, size: int) -> list[Mixed]:
        """In parts of at most `size` images; 0: in one."""
        if not size or size >= len(self.images):
            return [self]
        starts = range(0, len(self.images), size)
        return [self._part(slice(start, start + size), start == starts[-1]) for start in starts]

    def _part(self, piece: slice, last: bool) -> Mixed:
        return Mixed(
            self.images[piece],
            self.target[piece],
            self.index[piece],
            self.share,
            None if self.other is None else self.other[piece],
            None if self.counts is None else self.counts[:, piece],
            last,
        )


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
