"""cifar10: CIFAR-10, 32x32 photographs of 10 classes, from the official archive or its pool."""

from __future__ import annotations

from harness.datasets._cifar import Official, cifar_dataset

CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

DATASET = cifar_dataset(
    name="cifar10",
    title="CIFAR-10",
    class_names=CLASS_NAMES,
    train_class_size=5000,
    official=Official(
        archive="cifar-10-python.tar.gz",
        md5="c58f30108f718f92721af3b95e74349a",
        train=tuple(f"data_batch_{i}" for i in range(1, 6)),
        test="test_batch",
        labels="labels",
    ),
    pool_sha256="c564be5bdeae4c8c49219066a685f3cafdeee6df617d1bf3b157cf9fda67dd98",
)
