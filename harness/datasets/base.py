"""What the harness must know of a data set. One module in this folder defines one; there is no list to edit.

A module whose name starts with "_" holds what several data sets share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Images:
    """Decoded images of one part (train pool, val or test)."""

    pixels: npt.NDArray[np.uint8]  # (N, height, width, channels)
    labels: npt.NDArray[np.int64]  # (N,)

    def __post_init__(self) -> None:
        if self.pixels.ndim != 4 or self.pixels.dtype != np.uint8 or len(self.pixels) != len(self.labels):
            raise ValueError(f"pixels {self.pixels.dtype}{self.pixels.shape} do not fit {len(self.labels)} labels")


@dataclass(frozen=True)
class Dataset:
    """A data set's identity and the two functions that bring it here.

    Attributes:
        files: relative file name -> sha256 of its bytes. `fetch` refuses anything else.
        train_class_size: images of one class in the balanced training set (n_max of the long-tail profile).
        mean, std: of each channel, on the scale 0 to 1, used for normalisation.
        default_imbalance_factor: what `ltbench run` takes when none is given.
        source: a folder that already holds the files on this machine (a Python package's data, say), or None.
        decode: folder with the verified files -> images of each part. Labels are class indices.
        decoder_version: to be raised when `decode` gives other images from the same files; its result is then cached
            anew. None: decoding is quick, and nothing is cached.
        pool_min_imbalance_factor: set where the files are a *pool*: of the training set only the images that the subset
            rule `hash:0` selects for this imbalance factor and any larger one. No other split can be made of it.
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
    source: Callable[[], Path]
    decode: Callable[[Path], dict[str, Images]]
    decoder_version: int | None = None
    pool_min_imbalance_factor: float | None = None

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)
