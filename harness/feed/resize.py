"""Smaller images for a recipe that asks for them: the split stays the same, the network sees less of each image."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import torch
from torchvision.transforms.v2 import functional as kernels

from harness.base.errors import UserError
from harness.reading.dataset import AnyImages, Images
from harness.splits.splits import Split

AT_ONCE = 1000  # images: what is resized at a time stays small beside the set


def resized(split: Split, images: Mapping[str, AnyImages], size: int) -> tuple[Split, Mapping[str, AnyImages]]:
    """The images at `size` x `size` pixels (bilinear, antialiased), and the split with that shape; 0 changes nothing.

    The split keeps its id and its sha256, which say which images it is made of.

    Raises:
        UserError: images that are not square, or that stay files.
    """
    height, width, channels = split.image_shape
    if not size or size == height == width:
        return split, images
    if height != width:
        raise UserError(f"image_size {size}: only square images can be resized, these are {height} x {width}")
    found: dict[str, AnyImages] = {}
    for part, some in images.items():
        if not isinstance(some, Images):
            raise UserError(f"image_size {size}: images that stay files cannot be resized")
        found[part] = Images(_resize(some.pixels, size), some.labels)
    return dataclasses.replace(split, image_shape=[size, size, channels]), found


def _resize(pixels: np.ndarray, size: int) -> np.ndarray:
    smaller = np.empty((len(pixels), size, size, pixels.shape[-1]), np.uint8)
    for start in range(0, len(pixels), AT_ONCE):
        where = slice(start, start + AT_ONCE)
        batch = torch.from_numpy(np.array(pixels[where])).permute(0, 3, 1, 2)
        smaller[where] = kernels.resize(batch, [size, size], antialias=True).permute(0, 2, 3, 1).numpy()
    return smaller
