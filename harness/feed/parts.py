"""The parts of a split as the training loop uses them: decoded images on the device, or files that are read ahead."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from harness.feed.augment import check_channels
from harness.feed.image_pool import ImagePool, default_workers
from harness.feed.image_reader import ImageReader
from harness.feed.resident import ResidentPart
from harness.feed.streaming import StoredPart, StreamingPart
from harness.reading.dataset import AnyImages, ImageFiles
from harness.spec.stage_recipe import Augment
from harness.splits.splits import Split

LoadedPart = ResidentPart | StreamingPart


def make_parts(
    images: Mapping[str, AnyImages],
    split: Split,
    device: torch.device,
    augment: Augment,
    batch_size: int,
    strong: Augment | None = None,
) -> dict[str, LoadedPart]:
    """The parts by name; those that are read from files share their processes.

    Args:
        augment: what is done to training images, and to validation images where a method trains with them.
        batch_size: images of a training batch.
        strong: what is done to those of a strong view; None: the same.

    Raises:
        UserError: an augmentation that such images cannot have, or a reader whose libraries are missing.
    """
    check_channels(augment, split.image_shape[2])
    pool, parts = None, dict[str, LoadedPart]()
    for name, some in images.items():
        own = augment if name != "test" else Augment()
        if isinstance(some, ImageFiles):
            pool = pool or ImagePool(
                image_reader(some.reader)(split.image_shape, augment, some.interpolation, strong, stored=some.side > 0),
                default_workers(device),
                batch_size,
            )
            if some.side:
                parts[name] = StoredPart(some, split, device, pool, own)
            else:
                parts[name] = StreamingPart(some, split, device, pool)
        else:
            parts[name] = ResidentPart(some, split, device, own)
    return parts


def image_reader(name: str) -> type[ImageReader]:
    """The reader that a recipe names."""
    if name == "exact":
        return ImageReader
    from harness.feed.fast_reader import FastReader  # whose libraries not everyone has

    return FastReader


@contextmanager
def closing(parts: Mapping[str, LoadedPart]) -> Iterator[None]:
    """Ends the processes that read images when what is done with the parts is over, or fails."""
    try:
        yield
    finally:
        for part in parts.values():
            part.close()
