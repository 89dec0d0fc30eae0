"""Images of the size that a recipe asks for: the split stays the same, the network sees more or less of each image."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as kernels

from harness.base.errors import UserError
from harness.base.progress import counted
from harness.reading.dataset import AnyImages, Encoded, ImageFiles, Images
from harness.reading.decoding import WORKERS, decode_resized, fitted
from harness.reading.identity import image_hash
from harness.reading.pixels import Pixels
from harness.splits.splits import Split

NO_FILES = "reader: {}: these images are not stored as image files; leave it out"
AT_ONCE = 1000  # images: what is resized at a time stays small beside the set


def resized(
    split: Split, images: Mapping[str, AnyImages], size: int, interpolation: str = "bilinear"
) -> tuple[Split, Mapping[str, AnyImages]]:
    """The images at `size` x `size` pixels (antialiased), and the split with that shape; 0 changes nothing.

    Images that stay files are read at that size later. The split keeps its id and its sha256, which say which images it
    is made of.

    Raises:
        UserError: images that are not square.
    """
    height, width, channels = split.image_shape
    if not size:
        size = height
    elif height != width:
        raise UserError(f"image_size {size}: only square images can be resized, these are {height} x {width}")
    found: dict[str, AnyImages] = {}
    for part, some in images.items():
        if isinstance(some, ImageFiles):
            some = some if some.side == size else dataclasses.replace(some, interpolation=interpolation)
        elif some.pixels.shape[1] != size:
            some = Images(_resize(some.pixels, size, interpolation), some.labels)
        found[part] = some
    shape = split.image_shape if size == height else [size, size, channels]
    return dataclasses.replace(split, image_shape=shape), found


def normalised(split: Split, mean: Sequence[float], std: Sequence[float]) -> Split:
    """The split with these statistics of its channels; empty ones change nothing. Grey images have their mean.

    Raises:
        UserError: as many values as there are channels are wanted.
    """
    if not mean:
        return split
    channels = split.image_shape[2]
    if channels == 1:
        mean, std = [sum(mean) / len(mean)], [sum(std) / len(std)]
    if len(mean) != channels or len(std) != channels:
        raise UserError(f"mean {list(mean)} and std {list(std)}: images have {channels} channels")
    return dataclasses.replace(split, mean=list(mean), std=list(std))


def from_users_files(
    parts: Mapping[str, AnyImages], size: int, interpolation: str = "bilinear"
) -> Mapping[str, AnyImages]:
    """A user's own images, decoded from their files at that size instead of enlarged; 0 changes nothing."""
    found: dict[str, AnyImages] = {}
    for part, some in parts.items():
        files = some.encoded if isinstance(some, Images) and size not in (0, some.pixels.shape[1]) else None
        found[part] = Images(_decode(files, size, interpolation), some.labels, files) if files else some
    return found


def as_files(parts: Mapping[str, AnyImages], reader: str, *, upright: bool) -> Mapping[str, AnyImages]:
    """The parts as image files for one of the readers, also those that would fit into memory; "" changes nothing.

    Those are made as they would be there: `as_in_memory`, and then what `harness.feed.resident` does.

    Raises:
        UserError: images that are known as pixels only.
    """
    found: dict[str, AnyImages] = {}
    for part, some in parts.items() if reader else ():
        if isinstance(some, ImageFiles):
            found[part] = dataclasses.replace(some, reader=reader)
            continue
        if some.encoded is None:
            raise UserError(NO_FILES.format(reader))
        places, hashes = map(str, range(len(some.labels))), (image_hash(some, i) for i in range(len(some.labels)))
        found[part] = ImageFiles(
            Path(),
            tuple(places),
            some.labels,
            tuple(hashes),
            upright,
            reader=reader,
            encoded=some.encoded,
            side=some.pixels.shape[1],
        )
    return found or parts


def as_in_memory(pixels: Pixels, side: int, interpolation: str, *, upright: bool) -> Pixels:
    """An image file's pixels (height, width, channels) as those of a set in memory; `upright`: a user's own.

    Raises:
        ValueError: as `fitted`.
    """
    if upright:
        return fitted(pixels, side, interpolation)
    return pixels if pixels.shape[0] == side else _resize(pixels[None], side, interpolation)[0]


def _decode(files: Encoded, size: int, interpolation: str) -> np.ndarray:
    pixels = np.empty((len(files), size, size, 3), np.uint8)
    with ThreadPoolExecutor(WORKERS) as pool:
        one = partial(decode_resized, side=size, interpolation=interpolation)
        read = pool.map(one, (files.file(i).data for i in range(len(files))))
        for i, image in enumerate(counted(read, f"decoding at {size} pixels", len(files))):
            pixels[i] = image
    return pixels


def _resize(pixels: np.ndarray, size: int, interpolation: str) -> np.ndarray:
    smaller = np.empty((len(pixels), size, size, pixels.shape[-1]), np.uint8)
    for start in range(0, len(pixels), AT_ONCE):
        where = slice(start, start + AT_ONCE)
        batch = torch.from_numpy(np.array(pixels[where])).permute(0, 3, 1, 2)
        found = kernels.resize(batch, [size, size], InterpolationMode(interpolation), antialias=True)
        smaller[where] = found.permute(0, 2, 3, 1).numpy()
    return smaller
