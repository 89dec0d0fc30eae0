"""How much is measured. The benchmarks run in a process of their own and find their settings in its environment."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache

import torch

from harness.bench.command import DEVICE, QUICK, cores
from harness.engine.device import pick_device


@dataclass(frozen=True)
class Sizes:
    """Sizes of all benchmarks on one kind of device.

    Attributes:
        loss_rounds, rounds: timed rounds of each comparison, after one that warms up.
        classes: number of classes -> batch size and feature dimension of the loss benchmarks.
        round_seconds: about how long a round of a loss benchmark takes plain cross-entropy.
        steps, batch_size, pixels: of a round of the loop and loader benchmarks: steps, images in each, their height.
        workers: worker counts that the plain loop's data loader is tried with.
        records, test_images: of the reports; a record's predictions are of so many images.
        photographs: of a round of the streaming benchmarks, for each process: it is busy for a second or two.
    """

    loss_rounds: int
    rounds: int
    classes: dict[int, tuple[int, int]]
    round_seconds: float
    backbone: str
    steps: int
    batch_size: int
    pixels: int
    workers: tuple[int, ...]
    records: tuple[int, int]
    test_images: int
    photographs: int


# 64 features are those of ResNet-32 for CIFAR, 512 those of ResNet-10 for ImageNet-LT.
CLASSES = {10: (128, 64), 100: (128, 64), 1000: (256, 512)}


@cache
def device() -> torch.device:
    """The device under test."""
    return pick_device(os.environ.get(DEVICE, "auto"))


@cache
def sizes() -> Sizes:
    """The sizes for that device: a minute or two of work for each part, or seconds with `--quick`."""
    if os.environ.get(QUICK):
        return Sizes(2, 2, {4: (8, 8)}, 0.0, "resnet8_cifar", 2, 8, 8, (0, 1), (6, 12), 100, 16)
    workers = tuple(count for count in (0, 2, 4, 8, 12, 16) if count <= cores())
    steps = 96 if device().type == "cuda" else 8  # of 97 in an epoch of CIFAR-10-LT with imbalance factor 100
    return Sizes(9, 5, CLASSES, 0.02, "resnet32_cifar", steps, 128, 32, workers, (1_000, 10_000), 10_000, 384)
