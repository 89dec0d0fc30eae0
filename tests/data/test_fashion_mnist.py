"""fashion-mnist: idx files, made ones and those of Debian's package where it is installed."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from harness.base.errors import UserError
from harness.datasets import fashion_mnist
from harness.datasets.fashion_mnist import DEBIAN, FILES, read_idx
from harness.reading import pins
from harness.reading.dataset import Images
from harness.splits import store
from harness.splits.splits import build_split


def write_idx(path: Path, array: np.ndarray) -> Path:
    header = bytes((0, 0, 8, array.ndim)) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes()))
    return path


def test_idx_files(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)
    np.testing.assert_array_equal(read_idx(write_idx(tmp_path / "a.gz", array), 3), array)


def test_decoding(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for stem, count in (("train", 20), ("t10k", 10)):
        write_idx(tmp_path / f"{stem}-images-idx3-ubyte.gz", rng.integers(0, 256, (count, 28, 28), dtype=np.uint8))
        write_idx(tmp_path / f"{stem}-labels-idx1-ubyte.gz", (np.arange(count) % 10).astype(np.uint8))
    parts = fashion_mnist.DATASET.decode(tmp_path)
    assert isinstance(parts["train"], Images)
    assert parts["train"].pixels.shape == (20, 28, 28, 1)
    assert parts["test"].labels.tolist() == list(range(10))


def test_without_the_package_it_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LTBENCH_MIRROR", raising=False)
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "nowhere")
    asked = []

    def open_(url: str, timeout: float) -> None:
        asked.append(url)
        raise OSError("no network")

    monkeypatch.setattr("urllib.request.urlopen", open_)
    with pytest.raises(UserError, match="no network"):
        store.fetch(store.get_dataset("fashion-mnist"), tmp_path)
    assert asked[0].endswith("/train-images-idx3-ubyte.gz")


def test_debians_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not DEBIAN.is_dir():
        pytest.skip("Debian's package dataset-fashion-mnist is not installed")
    monkeypatch.setenv("LTBENCH_DATA", str(tmp_path))
    monkeypatch.delenv("LTBENCH_MIRROR", raising=False)
    monkeypatch.chdir(tmp_path)
    dataset = store.get_dataset("fashion-mnist")
    folder = store.fetch(dataset, tmp_path)
    assert {name: pins.wrong(folder / name, pin) for name, pin in FILES.items()} == dict.fromkeys(FILES, "")
    parts = store.load(dataset)
    assert np.bincount(parts["train"].labels).tolist() == [6000] * 10
    assert isinstance(parts["train"], Images)
    assert parts["train"].pixels.mean() / 255 == pytest.approx(dataset.mean[0], abs=1e-4)
    assert parts["train"].pixels.std() / 255 == pytest.approx(dataset.std[0], abs=1e-4)
    split = build_split("fashion-mnist-lt-if100", dataset, parts)
    assert (split.class_counts[0], split.class_counts[-1]) == (6000, 60)
