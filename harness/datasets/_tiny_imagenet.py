"""What Tiny ImageNet and its long-tailed subset share: classes, statistics and the data set's own zip archive."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from harness.reading.archives import EncodedImage, read_members
from harness.reading.dataset import Images
from harness.reading.decoding import decode_image, decode_images

SHAPE = (64, 64, 3)
ZIP = "tiny-imagenet-200.zip"
ZIP_PIN = "md5:90528d7ca1a48142e341f4ef8d21d0de"  # no sha256 is published
ZIP_URL = f"http://cs231n.stanford.edu/{ZIP}"
CITATION = "Le and Yang, Tiny ImageNet Visual Recognition Challenge, 2015"
# Of the full training set, each channel over all its pixels.
MEAN = (0.4802, 0.4481, 0.3975)
STD = (0.2770, 0.2691, 0.2821)
TRAIN_CLASS_SIZE = 500

_TABLE = Path(__file__).with_name("_tiny_imagenet.tsv").read_text(encoding="utf-8").splitlines()
WNIDS = tuple(line.split("\t")[0] for line in _TABLE)  # sorted: the label order
CLASS_NAMES = tuple(line.split("\t")[1].split(",")[0] for line in _TABLE)  # the first of WordNet's synonyms


def read_zip(path: Path, counts: Sequence[int]) -> dict[str, Images]:
    """The images of the data set's own zip, with their files' bytes; its validation images are the part `test`.

    Its own test images have no labels and are left out. Some images are grey; they become RGB.

    Args:
        path: the zip archive.
        counts: how many training images to take of each class: its lowest-numbered ones.

    Raises:
        UserError: the archive is damaged.
    """
    return decode_images(_zip_images(path, counts), path, lambda data: decode_image(data, SHAPE), keep_files=True)


def _zip_images(path: Path, counts: Sequence[int]) -> Iterator[EncodedImage]:
    labels = {wnid: label for label, wnid in enumerate(WNIDS)}
    annotated = _annotations(path)

    def label_of(name: PurePosixPath) -> tuple[str, int] | None:
        """Part and label of a file that is wanted."""
        match name.parts:
            case (_, "train", wnid, "images", file) if wnid in labels:
                number = re.fullmatch(rf"{wnid}_([0-9]+)\.JPEG", file)
                return ("train", labels[wnid]) if number and int(number[1]) < counts[labels[wnid]] else None
            case (_, "val", "images", file) if annotated.get(file) in labels:
                return "test", labels[annotated[file]]
        return None

    for name, data in read_members(path, only=lambda name: label_of(name) is not None):
        wanted = label_of(name)
        assert wanted is not None
        yield EncodedImage(str(name), *wanted, data)


def _annotations(path: Path) -> dict[str, str]:
    """Class of each validation image, by its file name."""
    [(_, data)] = read_members(path, only=lambda name: name.parts[1:] == ("val", "val_annotations.txt"))
    lines = data.decode("utf-8").splitlines()
    return {fields[0]: fields[1] for fields in (line.split("\t") for line in lines)}
