"""What the harness must know of a data set. Each module in `harness/datasets` defines one; there is no list to edit.

A data set's module is named like the data set, with "_" for each "-" (`tiny-imagenet-lt`: `tiny_imagenet_lt.py`). A
module whose name starts with "_" holds what several data sets share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from harness.reading.pieces import Piece, Place, Source

PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Encoded:
    """The bytes of image files, one file after the other."""

    data: npt.NDArray[np.uint8]  # (bytes of all files,)
    ends: npt.NDArray[np.int64]  # (N,) where each file ends in `data`

    def __len__(self) -> int:
        return len(self.ends)

    def file(self, index: int) -> npt.NDArray[np.uint8]:
        """The bytes of one file."""
        return self.data[self.ends[index - 1] if index else 0 : self.ends[index]]


@dataclass(frozen=True)
class Images:
    """Decoded images of one part (train pool, val or test).

    `encoded` is there where splits know an image by its file's bytes, because decoders differ (JPEG, users' folders).
    """

    pixels: npt.NDArray[np.uint8]  # (N, height, width, channels)
    labels: npt.NDArray[np.int64]  # (N,)
    encoded: Encoded | None = None

    def __post_init__(self) -> None:
        if self.pixels.ndim != 4 or self.pixels.dtype != np.uint8 or len(self.pixels) != len(self.labels):
            raise ValueError(f"pixels {self.pixels.dtype}{self.pixels.shape} do not fit {len(self.labels)} labels")
        if self.encoded is not None and len(self.encoded) != len(self.labels):
            raise ValueError(f"{len(self.encoded)} image files do not fit {len(self.labels)} labels")


@dataclass(frozen=True)
class ImageFiles:
    """Image files of one part of a data set that does not fit into memory; nothing of them is read yet.

    `identities` are how splits name the images; without them they are named by their relative file names. A user's own
    are turned `upright` by their EXIF orientation; published ones are read as they are stored, like everywhere else.
    `pieces` are those that lie inside larger files, by name.
    """

    root: Path
    names: tuple[str, ...]  # relative to root, with "/"
    labels: npt.NDArray[np.int64]  # (N,)
    identities: tuple[str, ...] | None = None
    upright: bool = False
    interpolation: str = "bilinear"  # how they are resized
    pieces: Mapping[str, Piece] = field(default_factory=dict)
    reader: str = "exact"  # which of the readers in `harness.feed` reads them
    encoded: Encoded | None = None  # files that are in memory; `names` are their places there
    side: int = 0  # of the pixels that the set would be in memory, and is made as; 0: it does not fit there

    def __post_init__(self) -> None:
        if len(self.names) != len(self.labels) or len(self.identities or self.names) != len(self.names):
            raise ValueError(f"{len(self.names)} image files do not fit {len(self.labels)} labels")

    def place(self, index: int) -> Place:
        """Where an image file lies."""
        name = self.names[index]
        return self.pieces.get(name) or str(self.root / name)

    def source(self, index: int) -> Source:
        """What it is read from: where it lies, or itself where it is in memory."""
        return self.place(index) if self.encoded is None else self.encoded.file(int(self.names[index])).tobytes()


AnyImages = Images | ImageFiles


@dataclass(frozen=True)
class Dataset:
    """A data set's identity and the functions that bring it here.

    Attributes:
        files: relative file name -> what its bytes must be (`harness.reading.pins`: a sha256, "md5:<hex>", ...).
            `fetch` refuses anything else.
        train_class_size: images of one class in the balanced training set (n_max of the long-tail profile).
        mean, std: of each channel, on the scale 0 to 1, used for normalisation.
        default_imbalance_factor: what `ltbench run` takes when none is given.
        source: a folder that already holds the files on this machine (a Python package's data, say), or None where
            they have to be downloaded. None instead of a function: there is never one.
        decode: folder with the verified files -> images of each part. Labels are class indices.
        decoder_version: raise it when `decode` gives different images from the same files; they are then cached
            anew. None: decoding is quick, and nothing is cached.
        pool_min_imbalance_factor: set where the files are a *pool*: of the training set only the images that the subset
            rule `hash:0` selects for this imbalance factor and any larger one. No other split can be made of it.
        urls: relative file name -> where it can be downloaded.
        folder: the folder's name in the data root, where it is not the data set's own.
        forms: the same data set from other files, in the order in which they are looked for after this one.
        given: the training part is long-tailed as it is; the split of all of it has the data set's own name.
        profiled: whether a long-tail profile can be applied to the training part.
        class_name: the name of a class from the relative file name of one of its images, where `class_names` are only
            numbers because the names stand nowhere but in the official lists.
        recipes_of: the data set whose recipes are used, where it is not the data set itself.
        listed: the image files of a user's own folder or lists, with their content hashes, also where `decode` brings
            them into memory. None: no user's own.
        state: hash over what decides the decoded images besides `files`: of a user's own files, which nothing pins.
        passed_over: a line for each kind of file in a user's own folder that is not used.
        image_files: whether its images are stored as image files, for which a recipe may name a reader.
    """

    name: str
    title: str
    citation: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]  # height, width, channels
    mean: tuple[float, ...]
    std: tuple[float, ...]
    train_class_size: int
    default_imbalance_factor: float
    files: Mapping[str, str]
    source: Callable[[], Path | None] | None
    decode: Callable[[Path], Mapping[str, AnyImages]]
    decoder_version: int | None = None
    pool_min_imbalance_factor: float | None = None
    urls: Mapping[str, str] = field(default_factory=dict)
    folder: str = ""
    forms: tuple[Dataset, ...] = ()
    given: bool = False
    profiled: bool = True
    class_name: Callable[[str], str] | None = None
    recipes_of: str = ""
    listed: Callable[[], Mapping[str, ImageFiles]] | None = None
    state: str = ""
    passed_over: tuple[str, ...] = ()
    image_files: bool = False

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def all_forms(self) -> tuple[Dataset, ...]:
        """This form and the others."""
        return (self, *self.forms)
