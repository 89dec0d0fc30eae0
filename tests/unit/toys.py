"""Small made-up things that the unit tests share: a data set, its split, a finished run, plugin folders."""

from __future__ import annotations

import dataclasses
import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness.base.files import sha256_bytes, sha256_json, stamped
from harness.reading.dataset import Dataset, Images
from harness.records.history import History
from harness.records.runs import RunInfo, write_run_info
from harness.splits.splits import Split, build_split

CLASSES = 3
PER_CLASS = {"train": 12, "val": 2, "test": 4}
FILE = "toy.bin"
CONTENT = b"the toy data set"


def make_images(
    per_class: int, *, seed: int, classes: int = CLASSES, shape: tuple[int, int, int] = (4, 4, 1)
) -> Images:
    """Random images, `per_class` of each class, in class order."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), per_class)
    return Images(rng.integers(0, 256, (len(labels), *shape), dtype=np.uint8), labels)


def make_parts() -> dict[str, Images]:
    """All parts of the toy data set."""
    return {part: make_images(count, seed=i) for i, (part, count) in enumerate(PER_CLASS.items())}


def make_dataset(source: Path = Path("nowhere"), **overrides: Any) -> Dataset:
    """The toy data set; its one file holds `CONTENT`."""
    values: dict[str, Any] = {
        "name": "toy",
        "title": "Toy",
        "citation": "",
        "class_names": ("a", "b", "c"),
        "image_shape": (4, 4, 1),
        "mean": (0.5,),
        "std": (0.25,),
        "train_class_size": PER_CLASS["train"],
        "default_imbalance_factor": 4,
        "files": {FILE: sha256_bytes(CONTENT)},
        "source": lambda: source,
        "decode": lambda folder: make_parts(),
    }
    return Dataset(**(values | overrides))


def make_split(**overrides: Any) -> Split:
    """The toy split: 12, 6 and 3 training images. Needs the fixture `toy` (the name is looked up)."""
    split = build_split("toy-lt-if4", make_dataset(), make_parts())
    if overrides:
        split = dataclasses.replace(split, **overrides)
        split = dataclasses.replace(split, sha256=split.digest())
    return split


def make_run_info(split: Split, **overrides: Any) -> RunInfo:
    """Identity of a run on `split`."""
    values: dict[str, Any] = {
        "method": "ce",
        "variant": "",
        "track": "common",
        "seed": 0,
        "split": split.id,
        "split_sha256": split.sha256,
        "stages": ["train"],
        "recipe": {"backbone": "resnet8_cifar"},
        "recipe_sha256": sha256_json({"backbone": "resnet8_cifar"}),
        "stage1_key": "k" * 16,
        "run_key": "k" * 16,
        "code_version": "c" * 16,
        "status": "ok",
    }
    return RunInfo(**(values | overrides))


def save_run(
    folder: Path,
    info: RunInfo,
    test: Sequence[Sequence[int]],
    val: Sequence[Sequence[int]],
    ece: Sequence[float] | None = None,
    epochs: Sequence[int] | None = None,
) -> None:
    """A finished run on disk, with the given predictions of each evaluated epoch."""
    history = History(
        loss=[1.0] * len(test),
        learning_rate=[0.1] * len(test),
        epochs=list(epochs or range(1, len(test) + 1)),
        test=[np.array(row, np.uint8) for row in test],
        val=[np.array(row, np.uint8) for row in val],
        ece=list(ece or [0.1] * len(test)),
    )
    stem = folder / "predictions" / f"seed{info.seed}"
    history.save(stem.with_suffix(".npz"), np.zeros((len(test[0]), CLASSES), np.float32), info.run_key)
    write_run_info(stem.with_suffix(".json"), info)


def write_plugin(root: Path, name: str, code: str | None = None, recipes: str | None = None) -> Path:
    """A method folder under `root/methods`; by default a working one. `root` must be on sys.path to be seen."""
    folder = root / "methods" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "method.py").write_text(plugin_code(name) if code is None else textwrap.dedent(code))
    (folder / "recipes.yaml").write_text(
        f"title: {name}\ntracks: {{common: {{}}}}\n" if recipes is None else textwrap.dedent(recipes)
    )
    return folder


def plugin_code(name: str, body: str = "pass", **attributes: Any) -> str:
    """Source of a method module."""
    given = "\n".join(f"    {key} = {value!r}" for key, value in attributes.items())
    return (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "from harness.api import Method, second_stage\n\n"
        f"class Plugin(Method):\n    name = {name!r}\n{given}\n{textwrap.indent(textwrap.dedent(body), '    ')}\n"
    )


def edit_json(path: Path, **changes: Any) -> None:
    """Changes top-level values of a JSON file in place."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def rewrite_json(path: Path, **changes: Any) -> None:
    """Changes top-level values of a file that carries a hash over its content, and the hash with them."""
    edit_json(path, **changes)
    content = json.loads(path.read_text())
    del content["sha256"]
    path.write_text(json.dumps(stamped(content)))
