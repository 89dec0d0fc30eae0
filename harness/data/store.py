"""Where data sets lie, how they get there, and the check that they are what the registry says."""

from __future__ import annotations

import importlib
import os
import pkgutil
import shutil
from pathlib import Path

import harness.datasets
from harness.data.cache import cached
from harness.datasets.base import Dataset, Images
from harness.errors import UserError, unknown
from harness.files import atomic_path, sha256_file, sha256_json

PINNED = Path("datasets")  # the default suite's raw data, pinned by datasets.dvc


def available_datasets() -> list[str]:
    """Names of all registered data sets: the modules of `harness.datasets`, those that only help them left out."""
    names = (module.name for module in pkgutil.iter_modules(harness.datasets.__path__))
    return sorted(name for name in names if name != "base" and not name.startswith("_"))


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
        mirror: a folder that holds `<name>/<file>` or `<file>`; default `LTBENCH_MIRROR`, else the data set's source.

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
        _copy_verified(_origin(dataset, name, mirror), path, expected)
    return target


def _origin(dataset: Dataset, name: str, mirror: Path | None) -> Path:
    """The file `name` in the mirror if there is one, else in the data set's own source."""
    folders = [mirror / dataset.name, mirror] if mirror else [dataset.source()]
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    also = f", and not in {mirror} either" if mirror else ""
    raise UserError(f"{folders[0] / name}: missing{also}; the source of data set '{dataset.name}' must hold this file")


def _copy_verified(origin: Path, path: Path, expected: str) -> None:
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
    """Decoded images of each part, from verified files. Of a data set that is cached, the pixels are read-only.

    Raises:
        UserError: as `locate`, images that cannot be decoded, or images of another shape.
    """
    folder = locate(dataset)
    if dataset.decoder_version is None:
        parts = dataset.decode(folder)
    else:
        key = _decoder_key(dataset)
        parts = cached(cache_root() / f"{dataset.name}-{key[:16]}", key, lambda: dataset.decode(folder))
    for part, images in parts.items():
        if images.pixels.shape[1:] != dataset.image_shape:
            found = images.pixels.shape[1:]
            raise UserError(f"data set '{dataset.name}', {part}: images are {found}, expected {dataset.image_shape}")
    return parts


def cache_root() -> Path:
    """The folder for decoded images. It is in the data root even of data that DVC tracks: DVC's folder is its own."""
    return data_root() / ".cache"


def _decoder_key(dataset: Dataset) -> str:
    """Hash over all that decides what `decode` gives."""
    return sha256_json(
        {
            "files": dict(dataset.files),
            "decoder_version": dataset.decoder_version,
            "class_names": dataset.class_names,
            "image_shape": dataset.image_shape,
        }
    )


def check_pool(dataset: Dataset, split: str, imbalance_factor: float, subset_rule: str) -> None:
    """Refuses a split that the data set's pool cannot serve. A data set that is no pool serves every split.

    Args:
        dataset: whose images are to be used.
        split: the split's name, for the message.
        imbalance_factor: n_max / n_min that was asked for.
        subset_rule: `hash:<seed>`, say.

    Raises:
        UserError: another subset rule than `hash:0`, or too small an imbalance factor.
    """
    least = dataset.pool_min_imbalance_factor
    if least is not None and (subset_rule != "hash:0" or imbalance_factor < least):
        raise UserError(
            f"split '{split}' (subset rule {subset_rule}, imbalance factor {imbalance_factor:g}): the pool archive of "
            f"'{dataset.name}' serves only hash:0 with an imbalance factor of at least {least:g}"
        )
