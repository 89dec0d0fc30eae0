"""The parts of a split as the training loop uses them: decoded images on the device, or files that are read ahead."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from harness.feed.augment import check_channels
from harness.feed.image_pool import ImagePool, default_workers
from harness.feed.image_reader import ImageReader
from harness.feed.resident import EpochPlan, ResidentPart, plan_epoch
from harness.feed.streaming import StreamingPart, draw_seeds
from harness.reading.dataset import AnyImages, ImageFiles
from harness.spec.stage_recipe import Augment
from harness.splits.splits import Split

Part = ResidentPart | StreamingPart

FILES_AT_ONCE = {"cpu": 32, "cuda": 256}  # of an evaluation pass: such images are large


def make_parts(
    images: Mapping[str, AnyImages], split: Split, device: torch.device, augment: Augment, batch_size: int
) -> dict[str, Part]:
    """The parts by name; those that are read from files share their processes.

    Args:
        augment: what is done to training images, and to validation images where a method trains with them.
        batch_size: images of a training batch.

    Raises:
        UserError: an augmentation that such images cannot have.
    """
    check_channels(augment, split.image_shape[2])
    pool = None
    if any(isinstance(some, ImageFiles) for some in images.values()):
        pool = ImagePool(ImageReader(split.image_shape, augment), default_workers(device), batch_size)
    return {
        name: make_part(some, split, device, augment if name != "test" else Augment(), pool)
        for name, some in images.items()
    }


def make_part(images: AnyImages, split: Split, device: torch.device, augment: Augment, pool: ImagePool | None) -> Part:
    """One part, by the kind of its images. `pool` reads files; it must be there for those."""
    if isinstance(images, ImageFiles):
        assert pool is not None
        return StreamingPart(images, split, device, pool)
    return ResidentPart(images, split, device, augment)


@contextmanager
def closing(parts: Mapping[str, Part]) -> Iterator[None]:
    """Ends the processes that read images when what is done with the parts is over, or fails."""
    try:
        yield
    finally:
        for part in parts.values():
            if isinstance(part, StreamingPart):
                part.close()


def plan_for(
    part: Part,
    order: np.ndarray,
    batch_size: int,
    rng: np.random.Generator,
    *,
    augment: Augment,
    image_shape: Sequence[int],
    mixup_alpha: float,
    device: torch.device,
) -> EpochPlan:
    """An epoch's plan as the part wants it; arguments as `plan_epoch` takes them."""
    streamed = isinstance(part, StreamingPart)
    if streamed:  # crop and flip follow from the seed
        augment = dataclasses.replace(augment, crop_padding=0, flip=False, resized_crop=False)
    plan = plan_epoch(
        order,
        batch_size,
        rng,
        augment=augment,
        image_shape=image_shape,
        mixup_alpha=mixup_alpha,
        device=device,
    )
    if not streamed:
        return plan
    return dataclasses.replace(plan, augment=dataclasses.replace(plan.augment, seed=draw_seeds(len(order), rng)))


def start_epoch(part: Part, plan: EpochPlan, batches: Sequence[slice]) -> None:
    """Tells the part which positions of the plan will be asked for, batch by batch; files are then read ahead."""
    if isinstance(part, StreamingPart):
        part.start_epoch(plan.order, batches, plan.augment)


def in_order(part: Part, size: int, which: range) -> Iterator[Tensor]:
    """Those images as they are in tests, in batches of `size` (fewer where they are read from files)."""
    device = part.labels.device
    if isinstance(part, StreamingPart):
        yield from part.in_order(min(size, FILES_AT_ONCE[device.type]), which)
        return
    for index in torch.split(torch.arange(which.start, which.stop, device=device), size):
        yield part.batch(index)
