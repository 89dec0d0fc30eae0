"""Photographs from files: our reader against torchvision's ImageFolder in a DataLoader, with as many processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from harness.bench.sizes import QUICK, device
from harness.bench.timing import Work
from harness.feed.image_pool import MOST_WORKERS, ImagePool
from harness.feed.image_reader import ImageReader
from harness.feed.parts import plan_for
from harness.feed.streaming import StreamingPart
from harness.reading.dataset import ImageFiles
from harness.spec.stage_recipe import Augment
from harness.splits.splits import Part, Split

WIDTH, HEIGHT, SIDE = 500, 375, 224  # ImageNet's most frequent size, and what networks are given
QUALITY = 90  # of the JPEGs: about 75 kB each
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CASES = {
    "crop, flip": Augment(resized_crop=True, flip=True),
    "crop, flip, jitter": Augment(resized_crop=True, flip=True, color_jitter=0.4),
}


@cache
def processes() -> int:
    """As many as there are cores; both loaders get them."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(MOST_WORKERS, cores)


def image_count() -> int:
    """Images of a round: enough for each process to be busy for a second or two."""
    return 16 if os.environ.get(QUICK) else 384 * processes()


def make_photographs(folder: Path, count: int = 64) -> ImageFiles:
    """Writes JPEGs of smooth colours with some noise, and lists them as often as a round needs them."""
    rng = np.random.default_rng(0)
    for i in range(min(count, image_count())):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
        noisy = np.clip(smooth + rng.normal(0, 12, smooth.shape), 0, 255).astype(np.uint8)
        (folder / str(i % 4)).mkdir(exist_ok=True)
        Image.fromarray(noisy).save(folder / str(i % 4) / f"{i}.jpg", quality=QUALITY)
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.jpg"))
    listed = tuple(names[i % len(names)] for i in range(image_count()))
    return ImageFiles(folder, listed, np.array([int(name.partition("/")[0]) for name in listed]))


@contextmanager
def streamed(files: ImageFiles, augment: Augment, batch_size: int) -> Iterator[Work]:
    """An epoch of our loader, normalised batches on the device."""
    pool = ImagePool(ImageReader((SIDE, SIDE, 3), augment), processes(), batch_size)
    part = StreamingPart(files, _split(files), device(), pool)
    rng = np.random.default_rng(0)

    def epoch() -> None:
        plan = plan_for(
            part,
            rng.permutation(len(part)),
            batch_size,
            rng,
            augment=augment,
            image_shape=(SIDE, SIDE, 3),
            mixup_alpha=0.0,
            device=device(),
        )
        batches = [slice(start, start + batch_size) for start in range(0, len(part), batch_size)]
        part.start_epoch(plan.order, batches, plan.augment)
        for where in batches:
            part.batch(plan.order[where], plan.augment[where])

    try:
        yield epoch
    finally:
        pool.close()


def folder_epoch(files: ImageFiles, augment: Augment, batch_size: int) -> Work:
    """The same through torchvision, as people write it."""
    steps: list[object] = [transforms.RandomResizedCrop(SIDE), transforms.RandomHorizontalFlip()]
    if augment.color_jitter:
        steps.append(transforms.ColorJitter(augment.color_jitter, augment.color_jitter, augment.color_jitter))
    steps += [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    folder = datasets.ImageFolder(files.root, transforms.Compose(steps))
    folder.samples = [
        (str(files.root / name), int(label)) for name, label in zip(files.names, files.labels, strict=True)
    ]
    pinned = device().type == "cuda"
    loader = DataLoader(
        folder, batch_size, shuffle=True, num_workers=processes(), persistent_workers=True, pin_memory=pinned
    )

    def epoch() -> None:
        for images, _ in loader:
            images.to(device(), non_blocking=True)

    return epoch


def _split(files: ImageFiles) -> Split:
    counts = np.bincount(files.labels).tolist()
    return Split(
        schema=1,
        id="made",
        dataset="made",
        profile="given",
        imbalance_factor=1.0,
        subset_rule="given",
        split_seed=0,
        class_names=[str(c) for c in range(len(counts))],
        image_shape=[SIDE, SIDE, 3],
        mean=list(MEAN),
        std=list(STD),
        class_counts=counts,
        train=[[""] * count for count in counts],
        val=Part([0] * len(counts), ""),
        test=Part([0] * len(counts), ""),
    )
