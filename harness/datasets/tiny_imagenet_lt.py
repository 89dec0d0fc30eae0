"""tiny-imagenet-lt: Tiny ImageNet with an exponential long tail of imbalance factor 100, 500 to 5 images a class.

Of each class the lowest-numbered images, 21,549 in all; all 10,000 validation images are the test part. It comes from
an archive that holds just these files, or is cut from the zip of the full data set: the same files either way.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from harness.datasets import _tiny_imagenet as tiny
from harness.datasets.tiny_imagenet import DATASET as FULL
from harness.reading.dataset import Dataset, Images
from harness.reading.decoding import decode_archive
from harness.reading.profiles import exponential_class_counts

ARCHIVE = "tiny-imagenet-lt.tar.xz"
COUNTS = exponential_class_counts(tiny.TRAIN_CLASS_SIZE, len(tiny.WNIDS), 100)


def _decode_archive(folder: Path) -> dict[str, Images]:
    return decode_archive(folder / ARCHIVE, tiny.WNIDS, tiny.SHAPE, keep_files=True)


def _decode_zip(folder: Path) -> dict[str, Images]:
    return tiny.read_zip(folder / tiny.ZIP, COUNTS)


_FROM_ZIP = dataclasses.replace(
    FULL,
    name="tiny-imagenet-lt",
    title="Tiny ImageNet-LT",
    folder=FULL.name,  # one download serves both
    decode=_decode_zip,
    given=True,
)
_FROM_ARCHIVE = dataclasses.replace(
    _FROM_ZIP,
    folder="",
    files={ARCHIVE: "27ba2dad69c38b2c3ccc8cc9585b49fffc225c03d5e675d00ba2c0a04ef6fbab"},
    urls={},
    decode=_decode_archive,
)

DATASET: Dataset = dataclasses.replace(_FROM_ZIP, forms=(_FROM_ARCHIVE,))
