"""Weights that a run starts from, as a recipe names them: a file, known by its hash, or a tag of timm's."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.base.errors import UserError, unknown
from harness.base.files import sha256_file
from harness.splits import store

SUFFIXES = (".safetensors", ".pt", ".pth", ".th", ".tar", ".bin")
PINNED = re.compile(r"(?P<name>.+) sha256:(?P<sha256>[0-9a-f]{64})")
_given = dict[str, Path]()  # where this process was told that a file lies


def pinned(value: str, backbone: str, where: str) -> str:
    """What a recipe's hash is taken over: a tag as it is, a file as `NAME sha256:HEX`, wherever it lies.

    Raises:
        UserError: no such file, or timm has no such tag for the backbone.
    """
    if not value or PINNED.fullmatch(value):
        return value
    if not value.endswith(SUFFIXES):
        timm_config(backbone, value, where)
        return value
    path = _looked_up(value)
    if path is None:
        raise UserError(f"{where}: pretrained: {value}: missing, here and in {weights_folder()}")
    found = f"{path.name} sha256:{sha256_file(path)}"
    _given[found] = path
    return found


def find(value: str) -> Path | None:
    """The file of a pinned value; None for a tag.

    Raises:
        UserError: it is not here, or has another hash.
    """
    parts = PINNED.fullmatch(value)
    if parts is None:
        return None
    path = _given.get(value) or _looked_up(parts["name"])
    if path is None:
        raise UserError(f"pretrained: {parts['name']}: missing; put it into {weights_folder()}")
    if (found := sha256_file(path)) != parts["sha256"]:
        raise UserError(f"pretrained: {path}: another file: expected sha256 {parts['sha256']}, found {found}")
    return path


def start_notes(value: str, dataset: str, mean: Sequence[float] = ()) -> list[str]:
    """What a reader of a run that starts from these weights must know; `mean`: of the recipe."""
    if not value:
        return []
    name = value.rpartition(" sha256:")[0] or value
    notes = [f"starts from pretrained weights ({name}): the images that those were trained on are not counted here"]
    if PINNED.fullmatch(value):
        notes[0] += "; what they were is not known here"
        if not mean:
            notes.append("pixels are normalised by this split's mean and std: the recipe gives none of the weights'")
    if re.search(r"(^|[_.-])(in1k|in12k|in21k|in22k|imagenet)", name) and "imagenet" in dataset:
        notes.append(f"{name}: trained on ImageNet, of which the images of {dataset} are a part")
    return notes


def timm_config(backbone: str, tag: str, where: str) -> dict[str, Any]:
    """What timm says of the weights: image size, mean, standard deviation, interpolation.

    Raises:
        UserError: it knows no such tag.
    """
    import timm  # slow to import

    known = [name.partition(".")[2] for name in timm.list_pretrained(f"{backbone}.*")]
    if tag not in known:
        if not timm.is_model(backbone) and "_cifar" not in backbone:
            raise unknown("backbone", backbone, timm.list_models(), where=where)
        if not known:
            raise UserError(f"{where}: pretrained: timm has no weights for '{backbone}'; name a file ({SUFFIXES[0]})")
        raise unknown(f"weights of '{backbone}'", tag, known, where=f"{where}: pretrained")
    found = timm.get_pretrained_cfg(f"{backbone}.{tag}")
    assert found is not None
    return dict(found.to_dict())


def _looked_up(name: str) -> Path | None:
    """A file by its path, or by its name in the folders of weights."""
    here = (folder / name for folder in (Path(), weights_folder()))
    return next((path for path in here if path.is_file()), None) or in_mirror(name)


def weights_folder() -> Path:
    """The folder for files of weights in the data root."""
    return store.data_root() / "weights"


def in_mirror(name: str, mirror: Path | None = None) -> Path | None:
    """A file of weights in a mirror (default `LTBENCH_MIRROR`), in a folder `weights` in it, or in one beside it."""
    mirror = mirror or store.default_mirror()
    folders = (mirror, mirror / "weights", mirror.parent / "weights") if mirror else ()
    return next((folder / name for folder in folders if (folder / name).is_file()), None)
