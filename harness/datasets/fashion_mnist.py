"""fashion-mnist: 28x28 grey pictures of 10 kinds of clothes, from torchvision's site or Debian's package."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import numpy.typing as npt

from harness.reading.dataset import Dataset, Images

DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # of the package dataset-fashion-mnist
SITE = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
CLASS_NAMES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
PARTS = {"train": "train", "test": "t10k"}
# Debian packs the same content again, so each file is known by torchvision's md5 or by its content.
MD5 = {
    "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
}
CONTENT = {  # sha256 of the unpacked file
    "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
FILES = {name: f"md5:{MD5[name]} gz:{CONTENT[name]}" for name in MD5}


def _debian() -> Path | None:
    return DEBIAN if DEBIAN.is_dir() else None


def _decode(folder: Path) -> dict[str, Images]:
    parts = {}
    for part, stem in PARTS.items():
        pixels = read_idx(folder / f"{stem}-images-idx3-ubyte.gz", 3)
        labels = read_idx(folder / f"{stem}-labels-idx1-ubyte.gz", 1).astype(np.int64)
        parts[part] = Images(pixels[..., np.newaxis], labels)
    return parts


def read_idx(path: Path, dimensions: int) -> npt.NDArray[np.uint8]:
    """The bytes of a packed idx file, as the array that its header says: four bytes of type, then four a dimension."""
    with gzip.open(path) as file:
        data = file.read()
    shape = np.frombuffer(data, dtype=">i4", offset=4, count=dimensions)
    return np.frombuffer(data, dtype=np.uint8, offset=4 + 4 * dimensions).reshape(shape)


DATASET = Dataset(
    name="fashion-mnist",
    title="Fashion-MNIST",
    citation="Xiao et al., Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms, 2017",
    class_names=CLASS_NAMES,
    image_shape=(28, 28, 1),
    mean=(0.2860,),
    std=(0.3530,),
    train_class_size=6000,
    default_imbalance_factor=100,
    files=FILES,
    urls={name: f"{SITE}/{name}" for name in FILES},
    source=_debian,
    decode=_decode,
)
