"""What CIFAR-10 and CIFAR-100 share. The underscore keeps this module out of the list of data sets."""

from __future__ import annotations

from pathlib import Path

from harness.data.archives import decode_archive
from harness.datasets.base import Dataset, Images
from harness.errors import UserError

SHAPE = (32, 32, 3)
# The statistics of CIFAR-10, for CIFAR-100 too: every published long-tailed code base normalises both with these.
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2023, 0.1994, 0.2010)


def pool_dataset(name: str, title: str, class_names: tuple[str, ...], train_class_size: int, sha256: str) -> Dataset:
    """A CIFAR data set from its pool archive.

    The pool holds, losslessly, the whole test set and those training images that imbalance factors of 10 and above
    select under the subset rule `hash:0`.

    Args:
        name: name in the registry; the archive is `<name>-lt-pool.tar.xz`.
        title: name in the report.
        class_names: in alphabetical order, which is the official label order and that of the archive's folders.
        train_class_size: images of one class in the official training set.
        sha256: of the archive.
    """
    archive = f"{name}-lt-pool.tar.xz"

    def source() -> Path:
        raise UserError(
            f"{name} needs the pool archive {archive}, which no public site has; point --mirror or LTBENCH_MIRROR at a "
            "folder that holds it (the official archive is not supported yet)"
        )

    def decode(folder: Path) -> dict[str, Images]:
        return decode_archive(folder / archive, class_names, SHAPE)

    return Dataset(
        name=name,
        title=title,
        citation="Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
        class_names=class_names,
        image_shape=SHAPE,
        mean=MEAN,
        std=STD,
        train_class_size=train_class_size,
        default_imbalance_factor=100,
        files={archive: sha256},
        source=source,
        decode=decode,
        decoder_version=1,
        pool_min_imbalance_factor=10,
    )
