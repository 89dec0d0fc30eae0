"""Decoded images on disk: one array file a part, mapped into memory, used only when their sha256 is right."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.base.errors import UserError, reason
from harness.base.files import atomic_path, read_json, sha256_json, shown, write_json
from harness.reading.dataset import PARTS, Encoded, Images

SCHEMA = 1
MANIFEST = "manifest.json"


def cached(folder: Path, key: str, decode: Callable[[], Mapping[str, Images]]) -> Mapping[str, Images]:
    """The images that `decode` gives, from `folder` if they are there, else decoded and written to it.

    Pixels from the cache are read-only and mapped into memory: processes that read the same cache share it. A damaged
    cache is rebuilt, and a line on stderr says so. Processes that find none at the same time all decode and write the
    same bytes, each file in one step, so no reader ever sees half of one. A folder that cannot be written (full, or
    read-only) costs only the time to decode again.

    Args:
        folder: the cache's own folder.
        key: hash over all that decides the decoded images; a cache with another key is rebuilt.
        decode: parts and their images; the same ones every time for one key.
    """
    if (folder / MANIFEST).is_file():
        try:
            return _read(folder, key)
        except UserError as error:
            print(f"decoding anew: {error}", file=sys.stderr)
    parts = decode()
    try:
        _write(folder, key, parts)
        return _read(folder, key)  # mapped, so that the decoded copy can go
    except (OSError, UserError) as error:
        print(f"{shown(folder)}: decoded images could not be kept: {error}", file=sys.stderr)
        return parts


def _file(folder: Path, part: str, field: str) -> Path:
    return folder / f"{part}.{field}.npy"


def _arrays(images: Images) -> dict[str, npt.NDArray[Any]]:
    """What is kept of a part: an array for each field."""
    arrays: dict[str, npt.NDArray[Any]] = {"pixels": images.pixels, "labels": images.labels}
    if images.encoded is not None:
        arrays |= {"files": images.encoded.data, "ends": images.encoded.ends}
    return arrays


def _write(folder: Path, key: str, parts: Mapping[str, Images]) -> None:
    for part, images in parts.items():
        for field, array in _arrays(images).items():
            with atomic_path(_file(folder, part, field)) as temporary, open(temporary, "wb") as file:
                np.save(file, np.ascontiguousarray(array), allow_pickle=False)
    write_json(folder / MANIFEST, _manifest(key, parts))  # last: without it there is no cache


def _read(folder: Path, key: str) -> dict[str, Images]:
    """The cached parts.

    Raises:
        UserError: anything about them is not what the manifest says.
    """
    manifest = read_json(folder / MANIFEST, "list of the decoded images")
    try:
        names = [part for part in PARTS if part in manifest["parts"]]
        parts = {part: _read_part(folder, part, manifest["parts"][part]) for part in names}
        found = _manifest(key, parts)
    except Exception as error:  # numpy raises nearly anything on a damaged header, tokenize.TokenError even
        raise UserError(f"{shown(folder)}: damaged decoded images: {reason(error)}") from None
    if found != manifest:
        raise UserError(f"{shown(folder)}: damaged decoded images: they are not those of {MANIFEST}")
    return parts


def _read_part(folder: Path, part: str, fields: Mapping[str, Any]) -> Images:
    encoded = Encoded(_map(folder, part, "files"), _map(folder, part, "ends")) if "files" in fields else None
    return Images(_map(folder, part, "pixels"), _map(folder, part, "labels"), encoded)


def _map(folder: Path, part: str, field: str) -> npt.NDArray[Any]:
    mapped = np.load(_file(folder, part, field), mmap_mode="r", allow_pickle=False)
    return np.asarray(mapped)  # still mapped, but without np.memmap's cost at every single index


def _manifest(key: str, parts: Mapping[str, Images]) -> dict[str, Any]:
    facts = {part: {field: _facts(array) for field, array in _arrays(images).items()} for part, images in parts.items()}
    content = {"schema": SCHEMA, "key": key, "parts": facts}
    return content | {"sha256": sha256_json(content)}  # without it, a part could be left out unnoticed


def _facts(array: npt.NDArray[Any]) -> dict[str, Any]:
    sha256 = hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
    return {"dtype": array.dtype.str, "shape": list(array.shape), "sha256": sha256}
