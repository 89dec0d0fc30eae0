"""How a split knows an image, wherever it came from.

By its pixels where every decoder gives the same ones; by its file's bytes where decoders differ (JPEG, users'
folders); by its name in the official list where there is one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.reading.dataset import AnyImages, ImageFiles
from harness.reading.pieces import read_bytes


def pixel_hash(image: npt.NDArray[np.uint8], prefix: bytes = b"") -> str:
    """Hex sha256 of an image's raw pixels (height x width x channels, C order), after an optional prefix."""
    return _sha256(np.ascontiguousarray(image).data, prefix)


def image_hash(images: AnyImages, index: int, prefix: bytes = b"") -> str:
    """Hex sha256 of an image's pixels, or of its file's bytes, after an optional prefix.

    Raises:
        OSError: an image file cannot be read.
    """
    if isinstance(images, ImageFiles):
        return _sha256(read_bytes(images.source(index)).data, prefix)
    if images.encoded is not None:
        return _sha256(np.ascontiguousarray(images.encoded.file(index)).data, prefix)
    return pixel_hash(images.pixels[index], prefix)


def identity(images: AnyImages, index: int) -> str:
    """What a split file lists for an image."""
    if isinstance(images, ImageFiles):
        return (images.identities or images.names)[index]
    return image_hash(images, index)


def identities_by_class(images: AnyImages, num_classes: int) -> list[list[tuple[str, int]]]:
    """For each class the (identity, index) of its images, sorted."""
    members: list[list[tuple[str, int]]] = [[] for _ in range(num_classes)]
    for index, label in enumerate(images.labels.tolist()):
        members[label].append((identity(images, index), index))
    return [sorted(group) for group in members]


def digest(images: AnyImages, identities: Iterable[str]) -> str:
    """One sha256 over identities: of hashes written one after the other, of files on disk with line ends between."""
    on_disk = isinstance(images, ImageFiles) and images.encoded is None
    return hashlib.sha256(("\n" if on_disk else "").join(identities).encode()).hexdigest()


def _sha256(data: Any, prefix: bytes) -> str:
    hasher = hashlib.sha256(prefix)
    hasher.update(data)
    return hasher.hexdigest()
