"""folder:PATH: the user's own images, `train/<class>/<file>`, `test/<class>/<file>` and, if there is one, `val/...`.

JPEG, PNG, WebP, BMP, TIFF or GIF, of any size (grey becomes RGB), turned upright by their EXIF orientation. The median
short side of the training images decides what they are trained as: below 48 pixels as 32x32 images with CIFAR's
recipes, below 112 as 64x64 with Tiny ImageNet's, else as 224x224 from the files with ImageNet-LT's. Without an
imbalance factor the training set is taken as it is.

A folder gets a name that says nothing of the machine, `folder-<its own name>-<hash>`, with the hash over the names and
sizes of its files; splits and records carry that name. Where the folder lies is kept in the data root.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import re
import statistics
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from harness.base.errors import UserError
from harness.base.files import read_json, sha256_json, stamped, unstamped, write_json
from harness.base.progress import counted
from harness.datasets._lists import IMAGENET_MEAN, IMAGENET_STD
from harness.reading.archives import MAX_MEMBER, EncodedImage
from harness.reading.dataset import PARTS, Dataset, ImageFiles, Images
from harness.reading.decoding import SUFFIXES, WORKERS, decode_images, decode_resized, image_size
from harness.reading.identity import image_hash

SAMPLE = 1000  # training images, evenly spaced, whose headers are read for the median short side
COLUMNS = ((48, 32, "cifar10"), (112, 64, "tiny-imagenet-lt"))  # below this short side: pixels, whose recipes
LARGE, LARGE_RECIPES = 224, "imagenet-lt"


@dataclass(frozen=True)
class Scan:
    """What a folder holds; no image is read for it."""

    root: Path
    class_names: tuple[str, ...]
    files: dict[str, list[tuple[str, int]]]  # part -> (relative name, class)
    name: str
    state: str  # changes when a file does
    short_side: float  # median of the training images, in pixels

    @property
    def column(self) -> tuple[int, str]:
        """Pixels and recipes."""
        return next((found[1:] for found in COLUMNS if self.short_side < found[0]), (LARGE, LARGE_RECIPES))


def open_folder(name: str, data_root: Path) -> Dataset:
    """The data set of `folder:PATH`, or of the name that such a folder has got.

    Args:
        name: either.
        data_root: where it is kept which folder has which name.

    Raises:
        UserError: no such folder, another layout, or other images than when it got that name.
    """
    if name.startswith("folder:"):
        path = Path(name.removeprefix("folder:")).expanduser()
        scan = _scan(path.resolve())
        pointer = _pointer(data_root, scan.name)
        if not pointer.is_file():
            write_json(pointer, {"path": str(path.resolve())})
        return _dataset(scan, data_root)
    pointer = _pointer(data_root, name)
    if not re.fullmatch(r"folder-[a-z0-9_]+-[0-9a-f]{8}", name) or not pointer.is_file():
        raise UserError(f"no folder is known as '{name}' here; to make it known: ltbench fetch folder:PATH")
    place = read_json(pointer, "place of a folder")
    if not isinstance(place, dict) or not isinstance(place.get("path"), str):
        raise UserError(f"{pointer}: damaged; to make it anew: ltbench fetch folder:PATH")
    scan = _scan(Path(place["path"]))
    if scan.name != name:
        raise UserError(f"{scan.root}: its images are not those of '{name}' any more; it is '{scan.name}' now")
    return _dataset(scan, data_root)


def _pointer(data_root: Path, name: str) -> Path:
    return data_root / ".folders" / f"{name}.json"


@functools.cache  # one process sees one state of a folder
def _scan(root: Path) -> Scan:
    classes = _subfolders(root / "train")
    entries: list[tuple[str, int, int]] = []
    files: dict[str, list[tuple[str, int]]] = {}
    for part in PARTS:
        if part != "val" or (root / part).is_dir():
            found = list(_files(root, part, classes))
            entries += [entry for entry, _ in found]
            files[part] = [(entry[0], label) for entry, label in found]
    for part in ("train", "test"):
        held = {label for _, label in files[part]}
        if empty := [name for label, name in enumerate(classes) if label not in held]:
            raise UserError(f"{root / part}: no image of class '{empty[0]}'; every class needs one ({_kinds()})")
    train = [name for name, _ in files["train"]]
    sizes = [image_size(root / name) for name in train[:: -(-len(train) // SAMPLE)]]
    sides = [min(size) for size in sizes if size]
    if not sides:
        raise UserError(f"{root / 'train'}: none of its images can be read")
    slug = re.sub(r"[^a-z0-9]+", "_", root.name.lower()).strip("_") or "images"
    fingerprint = sha256_json(sorted(entry[:2] for entry in entries))[:8]
    return Scan(
        root, tuple(classes), files, f"folder-{slug}-{fingerprint}", sha256_json(entries), statistics.median(sides)
    )


def _subfolders(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; folder:PATH needs train/<class>/ and test/<class>/")
    names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    if len(names) < 2 and folder.name == "train":
        raise UserError(f"{folder}: has {len(names)} class folders, at least 2 are needed")
    return names


def _files(root: Path, part: str, classes: list[str]) -> Iterator[tuple[tuple[str, int, int], int]]:
    """(relative name, bytes, time of the last change) and class of each image file, sorted."""
    labels = {name: label for label, name in enumerate(classes)}
    for name in _subfolders(root / part):
        if name not in labels:
            raise UserError(f"{root / part / name}: a class that train/ has not")
        for entry in sorted(os.scandir(root / part / name), key=lambda entry: entry.name):
            if entry.name.lower().endswith(SUFFIXES) and not entry.name.startswith(".") and entry.is_file():
                facts = entry.stat()
                if facts.st_size > MAX_MEMBER:
                    raise UserError(f"{entry.path}: has {facts.st_size} bytes, {MAX_MEMBER} are allowed")
                yield (f"{part}/{name}/{entry.name}", facts.st_size, facts.st_mtime_ns), labels[name]


def _kinds() -> str:
    return ", ".join(SUFFIXES)


def _dataset(scan: Scan, data_root: Path) -> Dataset:
    side, recipes = scan.column
    resident = side < LARGE
    counts = Counter(label for _, label in scan.files["train"])
    return Dataset(
        name=scan.name,
        title=f"{scan.root.name} (own folder, {side} pixels, turned upright)",
        citation="",
        class_names=scan.class_names,
        image_shape=(side, side, 3),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        train_class_size=max(counts.values()),
        default_imbalance_factor=100,
        files={},
        source=None,
        decode=partial(_decode if resident else _list, scan, data_root),
        decoder_version=2 if resident else None,
        given=True,
        recipes_of=recipes,
        listed=partial(_listed, scan),
        state=scan.state,
    )


def _decode(scan: Scan, data_root: Path, folder: Path) -> dict[str, Images]:
    side, count = scan.column[0], sum(map(len, scan.files.values()))
    images = (
        EncodedImage(name, part, label, (scan.root / name).read_bytes())
        for part, files in scan.files.items()
        for name, label in files
    )
    return decode_images(images, scan.root, lambda data: decode_resized(data, side), keep_files=True, count=count)


def _listed(scan: Scan) -> dict[str, ImageFiles]:
    return {
        part: ImageFiles(
            scan.root,
            tuple(name for name, _ in files),
            np.array([label for _, label in files], dtype=np.int64),
            upright=True,
        )
        for part, files in scan.files.items()
    }


def _list(scan: Scan, data_root: Path, folder: Path) -> dict[str, ImageFiles]:
    """Lists of files; splits know the images by their bytes, which are read once for each state of the folder."""
    parts = _listed(scan)
    hashes = _file_hashes(parts, data_root / ".cache" / f"{scan.name}-{scan.state[:16]}" / "sha256.json")
    return {
        part: dataclasses.replace(images, identities=tuple(hashes[name] for name in images.names))
        for part, images in parts.items()
    }


def _file_hashes(parts: dict[str, ImageFiles], place: Path) -> dict[str, str]:
    """sha256 of each file's bytes by its relative name, from `place` if it is there and whole."""
    try:
        known = unstamped(dict(read_json(place, "list of hashes")), place)
        if all(name in known for images in parts.values() for name in images.names):
            return known
    except (UserError, TypeError, ValueError):  # missing, or damaged: made anew
        pass
    hashes: dict[str, str] = {}
    with ThreadPoolExecutor(WORKERS) as pool:
        for images in parts.values():
            read = pool.map(partial(image_hash, images), range(len(images.names)))
            hashes |= zip(counted(images.names, "reading images"), read, strict=True)
    write_json(place, stamped(hashes))
    return hashes
