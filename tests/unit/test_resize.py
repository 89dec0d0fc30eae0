"""Images made smaller for a recipe: the split's identity stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.base.errors import UserError
from harness.feed.resize import resized
from harness.reading.dataset import ImageFiles, Images
from tests.unit import toys


def test_as_pillow_resizes(toy: object) -> None:
    split = toys.make_split(image_shape=[8, 8, 3])
    images = {"train": toys.make_images(3, seed=0, shape=(8, 8, 3))}
    shaped, smaller = resized(split, images, 4)
    assert shaped.image_shape == [4, 4, 3]
    assert (shaped.id, shaped.sha256) == (split.id, split.sha256)
    train = smaller["train"]
    assert isinstance(train, Images)
    for found, original in zip(train.pixels, images["train"].pixels, strict=True):
        expected = np.asarray(Image.fromarray(original).resize((4, 4), Image.Resampling.BILINEAR), np.int64)
        assert np.abs(found - expected).max() <= 1


def test_nothing_to_do(toy: object) -> None:
    split, images = toys.make_split(), toys.make_parts()
    for size in (0, 4):
        assert resized(split, images, size) == (split, images)


def test_what_cannot_be_resized_is_refused(toy: object) -> None:
    with pytest.raises(UserError, match="only square images"):
        resized(toys.make_split(image_shape=[4, 6, 1]), toys.make_parts(), 2)


def test_files_are_read_at_that_size_later(toy: object) -> None:
    files = ImageFiles(Path(), ("a.jpg",), np.zeros(1, np.int64))
    shaped, parts = resized(toys.make_split(), {"train": files}, 2)
    assert (shaped.image_shape[:2], parts) == ([2, 2], {"train": files})
