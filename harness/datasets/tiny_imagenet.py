"""tiny-imagenet: Tiny ImageNet, 64x64 photographs of 200 classes, 500 a class, from the data set's own zip."""

from __future__ import annotations

from pathlib import Path

from harness.datasets import _tiny_imagenet as tiny
from harness.reading.dataset import Dataset, Images


def _decode(folder: Path) -> dict[str, Images]:
    return tiny.read_zip(folder / tiny.ZIP, [tiny.TRAIN_CLASS_SIZE] * len(tiny.WNIDS))


DATASET = Dataset(
    name="tiny-imagenet",
    title="Tiny ImageNet",
    citation=tiny.CITATION,
    class_names=tiny.CLASS_NAMES,
    image_shape=tiny.SHAPE,
    mean=tiny.MEAN,
    std=tiny.STD,
    train_class_size=tiny.TRAIN_CLASS_SIZE,
    default_imbalance_factor=100,
    files={tiny.ZIP: tiny.ZIP_PIN},
    urls={tiny.ZIP: tiny.ZIP_URL},
    source=None,
    decode=_decode,
    decoder_version=1,
    image_files=True,
)
