"""What the benchmarks work on: a method that adds nothing, and made images."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from harness.api import Classifier, Method
from harness.engine.backbones import create_backbone
from harness.reading.dataset import Images
from harness.reading.profiles import exponential_class_counts
from harness.spec.stage_recipe import Augment, StageRecipe
from harness.splits.splits import Part, Split
from tests.bench.sizes import sizes

CROP_AND_FLIP = Augment(crop_padding=4, flip=True)
CIFAR_MEAN, CIFAR_STD = [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]


class CrossEntropy(Method):
    """A linear head and plain cross-entropy: every default of the contract."""

    name = "cross_entropy"


@cache
def material(steps: int = 0) -> tuple[Split, dict[str, Images]]:
    """A long-tailed training part of so many full batches (0: `sizes().steps`); validation empty, a test image a class.

    Noise: how fast a loop is does not depend on what the images show.
    """
    count, pixels, rng = (steps or sizes().steps) * sizes().batch_size, sizes().pixels, np.random.default_rng(0)
    counts = np.array(exponential_class_counts(count, 10, 100))
    labels = np.sort(np.concatenate([np.arange(10), rng.choice(10, size=count - 10, p=counts / counts.sum())]))
    train = Images(rng.integers(0, 256, (count, pixels, pixels, 3), dtype=np.uint8), labels)
    first = np.searchsorted(labels, np.arange(10))
    parts = {"train": train, "val": _take(train, first[:0]), "test": _take(train, first)}
    return split_of(labels, pixels, CIFAR_MEAN, CIFAR_STD), parts


def _take(images: Images, index: npt.NDArray[np.int64]) -> Images:
    return Images(images.pixels[index], images.labels[index])


def split_of(labels: npt.NDArray[np.int64], side: int, mean: list[float], std: list[float]) -> Split:
    """A split of made images: training images with these labels, one test image of each class."""
    counts, shape = np.bincount(labels).tolist(), [side, side, 3]
    names, train = [str(c) for c in range(len(counts))], [[""] * count for count in counts]
    val, test = Part([0] * len(counts), ""), Part([1] * len(counts), "")
    return Split(1, "made", "made", "given", 1.0, "given", 0, names, shape, mean, std, counts, train, val, test)


def recipe(augment: Augment) -> StageRecipe:
    """CIFAR's common recipe; more epochs than any benchmark trains, evaluated only after the last."""
    return StageRecipe(
        epochs=10**6,
        batch_size=sizes().batch_size,
        lr=0.01,
        weight_decay=5e-4,
        schedule="constant",
        augment=augment,
        eval_every=10**6,
    )


def classifier() -> Classifier:
    """A new backbone of the benchmarks with a linear head of 10 classes."""
    torch.manual_seed(0)
    backbone, features = create_backbone(sizes().backbone, (sizes().pixels, sizes().pixels, 3))
    return Classifier(backbone, nn.Linear(features, 10))
