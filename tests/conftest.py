"""Fixtures that more than one group of tests uses."""

from __future__ import annotations

import gc
import importlib
import os
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import harness.datasets
from harness.reading.dataset import Images
from harness.splits import store
from harness.splits.splits import Split, build_split, select

# Commands with two threads that tests start: side by side with other tests, threads that spin while they wait take four
# times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

TINY_DATASET = '''
"""Four classes of 8x8 images: noise around a class's own pattern, made on the spot."""

from pathlib import Path

import numpy as np

from harness.reading.dataset import Dataset, Images


def _decode(folder: Path) -> dict[str, Images]:
    rng = np.random.default_rng(0)
    patterns = rng.integers(0, 256, (4, 8, 8, 3))
    parts = {}
    for part, size in (("train", 40), ("val", 3), ("test", 10)):
        labels = np.repeat(np.arange(4), size)
        noise = rng.normal(0, 40, (len(labels), 8, 8, 3))
        parts[part] = Images(np.clip(patterns[labels] + noise, 0, 255).astype(np.uint8), labels)
    return parts


DATASET = Dataset(
    name="tiny", title="Tiny", citation="made for tests", class_names=("a", "b", "c", "d"), image_shape=(8, 8, 3),
    mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), train_class_size=40, default_imbalance_factor=10,
    files={}, source=Path, decode=_decode,
)
'''


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Registers the data set `tiny`, as a user would: by a module in a folder that `harness.datasets` looks at."""
    folder = tmp_path_factory.mktemp("datasets")
    (folder / "tiny.py").write_text(textwrap.dedent(TINY_DATASET))
    harness.datasets.__path__.append(str(folder))
    importlib.invalidate_caches()
    yield
    harness.datasets.__path__.remove(str(folder))
    sys.modules.pop("harness.datasets.tiny", None)


@pytest.fixture(scope="session")
def tiny_split(tiny_dataset: None) -> Split:
    """40, 18, 8, 4 training images."""
    dataset = store.get_dataset("tiny")
    return build_split("tiny-lt-if10", dataset, dataset.decode(Path()))


@pytest.fixture(scope="session")
def tiny_images(tiny_split: Split) -> dict[str, Images]:
    """The split's images."""
    images: dict[str, Any] = select(tiny_split, store.get_dataset("tiny").decode(Path()))
    return images


def pytest_collection_finish() -> None:
    """What is imported by now stays; to look for garbage in it, again and again, takes a tenth of a test's time."""
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Tiny networks are slower on two threads, and bits do not depend on the machine's cores."""
    torch.set_num_threads(1)
