"""What the benchmarks work on: a method that adds nothing, and CIFAR-like images, real ones where they are at hand."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import nn

from harness.api import Classifier, Method
from harness.base.errors import UserError
from harness.bench.sizes import sizes
from harness.engine.backbones import create_backbone
from harness.reading.dataset import Images
from harness.reading.profiles import exponential_class_counts
from harness.spec.stage_recipe import Augment, StageRecipe
from harness.splits import store
from harness.splits.splits import Part, Split, build_split, select

REAL = "cifar10-lt-if100"
CROP_AND_FLIP = Augment(crop_padding=4, flip=True)


class CrossEntropy(Method):
    """A linear head and plain cross-entropy: every default of the contract."""

    name = "cross_entropy"


@cache
def material() -> tuple[Split, dict[str, Images]]:
    """A long-tailed training part of `steps` full batches; validation empty, one test image of each class.

    From CIFAR-10 where it has been fetched, else noise: how fast a loop is does not depend on what the images show.
    """
    wanted = sizes()
    count = wanted.steps * wanted.batch_size
    try:
        if wanted.pixels != 32:
            raise UserError("only CIFAR's own size is there")
        origin, train = REAL, _evenly(_real(), count)
    except UserError:
        origin, train = "made", _made(count, wanted.pixels)
    train_counts = np.bincount(train.labels, minlength=10).tolist()
    split = Split(
        schema=1,
        id=origin,
        dataset=origin,
        profile="exponential",
        imbalance_factor=100,
        subset_rule="hash:0",
        split_seed=0,
        class_names=[str(c) for c in range(10)],
        image_shape=[wanted.pixels, wanted.pixels, 3],
        mean=[0.4914, 0.4822, 0.4465],
        std=[0.2470, 0.2435, 0.2616],
        class_counts=train_counts,
        train=[[""] * size for size in train_counts],
        val=Part([0] * 10, ""),
        test=Part([1] * 10, ""),
    )
    first = [int(np.flatnonzero(train.labels == c)[0]) for c in range(10)]
    parts = {"train": train, "val": _take(train, np.empty(0, np.int64)), "test": _take(train, np.array(first))}
    return split, parts


def _real() -> Images:
    dataset = store.get_dataset(REAL.partition("-")[0])
    parts = store.load(dataset)
    train = select(build_split(REAL, dataset, parts), parts)["train"]
    assert isinstance(train, Images)
    return train


def _made(count: int, pixels: int) -> Images:
    rng = np.random.default_rng(0)
    largest = exponential_class_counts(count, 10, 100)
    share = np.array(largest) / sum(largest)
    labels = np.sort(np.concatenate([np.arange(10), rng.choice(10, size=count - 10, p=share)]))
    return Images(rng.integers(0, 256, (count, pixels, pixels, 3), dtype=np.uint8), labels)


def _evenly(images: Images, count: int) -> Images:
    """`count` images at equal distances; images are ordered by class, so the shape of the tail is kept."""
    return _take(images, np.linspace(0, len(images.labels) - 1, count).round().astype(np.int64))


def _take(images: Images, index: np.ndarray) -> Images:
    return Images(images.pixels[index], images.labels[index])


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
    backbone, features = create_backbone(sizes().backbone, tuple(material()[0].image_shape))  # type: ignore[arg-type]
    return Classifier(backbone, nn.Linear(features, 10))
