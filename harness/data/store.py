"""Where data sets lie, how they get there, and the check that they are what the registry says."""

from __future__ import annotations

import importlib
import os
import pkgutil
import shutil
from pathlib import Path

import harness.datasets
from harness.datasets.base import Dataset, Images
from harness.errors import UserError, unknown
from harness.files import atomic_path, sha256_file

PINNED = Path("datasets")  # the default suite's raw data, pinned by datasets.dvc


def available_datasets() -> list[str]:
    """Names of all registered data sets: the modules of `harness.datasets`."""
    return sorted(module.name for module in pkgutil.iter_modules(harness.datasets.__path__) if module.name != "base")


def get_dataset(name: str, *, where: str = "") -> Dataset:
    """The data set registered under `name`.

    Raises:
        UserError: no data set has that name; the message has its nearest known names.
    """
    if name not in available_datasets():
        raise unknown("data set", name, available_datasets(), where=where)
    dataset = importlib.import_module(f"harness.datasets.{name}").DATASET
    assert isinstance(dataset, Dataset)
    return dataset


def data_root() -> Path:
    """The folder for data sets that DVC does not track (`LTBENCH_DATA`, else `data/`)."""
    return Path(os.environ.get("LTBENCH_DATA") or "data")


def fetch(dataset: Dataset, root: Path, mirror: Path | None = None, *, repair: bool = False) -> Path:
    """Brings the data set's files to `root/<name>/` and returns that folder.

    Files that are already there and right are left alone; one that is there and wrong is refused, or replaced with
    `repair`. Bytes that do not have the pinned sha256 are never put in place.

    Args:
        mirror: a folder that holds `<name>/<file>`; default `LTBENCH_MIRROR`, else the data set's own source.

    Raises:
        UserError: source missing, or a wrong hash in source or target.
    """
    mirror = mirror or (Path(os.environ["LTBENCH_MIRROR"]) if os.environ.get("LTBENCH_MIRROR") else None)
    target = root / dataset.name
    for name, expected in dataset.files.items():
        path = target / name
        if path.is_file():
            found = sha256_file(path)
            if found == expected:
                continue
            if not repair:
                command = f"ltbench fetch {dataset.name} --to {root} --repair"
                raise _wrong_hash(path, expected, found, f"nothing was overwritten; to replace it: {command}")
        origin = (mirror / dataset.name if mirror else dataset.source()) / name
        _copy_verified(origin, path, expected, dataset)
    return target


def _copy_verified(origin: Path, path: Path, expected: str, dataset: Dataset) -> None:
    if not origin.is_file():
        raise UserError(f"{origin}: missing; the source of data set '{dataset.name}' must hold this file")
    with atomic_path(path) as temporary:
        shutil.copyfile(origin, temporary)
        found = sha256_file(temporary)
        if found != expected:
            raise _wrong_hash(origin, expected, found, "nothing was written; the source must hold the original file")


def _wrong_hash(path: Path, expected: str, found: str, remedy: str) -> UserError:
    return UserError(f"{path}: wrong content: expected sha256 {expected}, found {found}; {remedy}")


def locate(dataset: Dataset) -> Path:
    """The folder with the data set's files: the DVC-tracked one if it is there, else in the data root.

    Raises:
        UserError: not fetched yet, a file missing, or a file whose hash is wrong; with the command that repairs it.
    """
    tracked = (PINNED / dataset.name).is_dir()
    folder = (PINNED if tracked else data_root()) / dataset.name
    repair = "dvc repro datasets.dvc" if tracked else f"ltbench fetch {dataset.name} --repair"
    for name, expected in dataset.files.items():
        path = folder / name
        if not path.is_file():
            raise UserError(f"{path}: missing (expected sha256 {expected}); to bring it here: {repair}")
        found = sha256_file(path)
        if found != expected:
            raise _wrong_hash(path, expected, found, f"to repair it: {repair}")
    return folder


def load(dataset: Dataset) -> dict[str, Images]:
    """Decoded images of each part, from verified files."""
    parts = dataset.decode(locate(dataset))
    for part, images in parts.items():
        if images.pixels.shape[1:] != dataset.image_shape:
            found = images.pixels.shape[1:]
            raise UserError(f"data set '{dataset.name}', {part}: images are {found}, expected {dataset.image_shape}")
    return parts
