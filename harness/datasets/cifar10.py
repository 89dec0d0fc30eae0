"""cifar10: CIFAR-10, 32x32 photographs of 10 classes, from its pool archive."""

from __future__ import annotations

from harness.datasets._cifar import pool_dataset

CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

DATASET = pool_dataset(
    name="cifar10",
    title="CIFAR-10",
    class_names=CLASS_NAMES,
    train_class_size=5000,
    sha256="c564be5bdeae4c8c49219066a685f3cafdeee6df617d1bf3b157cf9fda67dd98",
)
