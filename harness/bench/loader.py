"""The data path alone: augmented batches on the device, without a network; from memory and from files."""

from __future__ import annotations

import statistics
from pathlib import Path

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from harness.bench import streaming
from harness.bench.loop import best_workers
from harness.bench.material import CROP_AND_FLIP, material, recipe
from harness.bench.plain import plain_loader
from harness.bench.sizes import device, sizes
from harness.bench.timing import SUBJECT, Work, interleaved, ratio
from harness.feed.resident import ResidentPart, plan_epoch


def resident_epoch() -> Work:
    """An epoch's plan and batches, as `StageRun` makes them."""
    split, images = material()
    augment, size, rng = CROP_AND_FLIP, sizes().batch_size, np.random.default_rng(0)
    part = ResidentPart(images["train"], split, device(), augment)

    def epoch() -> None:
        plan = plan_epoch(
            rng.permutation(len(part)),
            size,
            rng,
            augment=augment,
            image_shape=split.image_shape,
            mixup_alpha=0.0,
            device=device(),
        )
        for start in range(0, len(part), size):
            where = slice(start, start + size)
            part.batch(plan.order[where], plan.augment[where])

    return epoch


def plain_epoch() -> Work:
    """The same through torchvision and a DataLoader, with the worker count that serves the plain loop best."""
    split, images = material()
    loader = plain_loader(images["train"], split, recipe(CROP_AND_FLIP), device(), best_workers())

    def epoch() -> None:
        for batch, target in loader:
            torch.as_tensor(batch).to(device(), non_blocking=True)
            torch.as_tensor(target).to(device(), non_blocking=True)

    return epoch


def note(benchmark: BenchmarkFixture, seconds: dict[str, list[float]], images: int, **facts: object) -> None:
    """Keeps the figures of a comparison for the table and the file."""
    benchmark.extra_info |= {
        "part": "loader",
        "images": images,
        "images_per_second": {name: round(images / statistics.median(values), 1) for name, values in seconds.items()},
        "ratio": ratio(seconds["plain"], seconds[SUBJECT]),
        **facts,
    }


def test_resident(benchmark: BenchmarkFixture) -> None:
    """Small images in memory, crop and flip."""
    seconds = interleaved(benchmark, resident_epoch(), {"plain": plain_epoch()}, sizes().rounds, device())
    split, images = material()
    case = f"{sizes().pixels} px in memory: crop, flip"
    count, batch = len(images["train"].labels), sizes().batch_size
    note(benchmark, seconds, count, case=case, data=split.id, batch=batch, processes=0, plain_processes=best_workers())


@pytest.mark.parametrize("case", streaming.CASES)
def test_streaming(benchmark: BenchmarkFixture, case: str, tmp_path: Path) -> None:
    """Photographs from files; both sides decode in as many processes."""
    files, augment = streaming.make_photographs(tmp_path), streaming.CASES[case]
    size, processes = sizes().batch_size, streaming.processes()
    plain = streaming.folder_epoch(files, augment, size)
    with streaming.streamed(files, augment, size) as ours:
        seconds = interleaved(benchmark, ours, {"plain": plain}, sizes().rounds, device())
    case = f"{streaming.SIDE} px from JPEG: {case}"
    note(
        benchmark,
        seconds,
        len(files.labels),
        case=case,
        data="made",
        batch=size,
        processes=processes,
        plain_processes=processes,
    )
