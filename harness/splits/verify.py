"""Checks that a data set is complete: every fault is listed, none stops the check, and nothing is extracted.

Missing and damaged files make a data set unsound, and so does an image in two classes of a user's own. Images that are
twice in the training set, or in two parts, are reported too, but are no fault of the copy: published data sets have
some (CIFAR-100 has 14 in train and 10 in train and test).
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from harness.base.errors import UserError
from harness.base.files import sha256_bytes
from harness.base.progress import counted
from harness.datasets._walk import first, plain
from harness.reading.archives import MAX_MEMBER, read_members
from harness.reading.dataset import PARTS, AnyImages, Dataset, ImageFiles
from harness.reading.decoding import SUFFIXES, WORKERS, Inspection, inspect
from harness.reading.identity import image_hash
from harness.reading.pieces import Piece, Place, read_bytes
from harness.splits import store
from harness.splits.notes import NAMED, copies
from harness.splits.splits import ordered

SHOWN = 20  # faults that are printed of each kind; the manifest has all of them
RARE = (
    "in_train_and_val",
    "in_val_and_test",
    "torn",
    "copies",
    "with_more_frames",
    "turned",
)  # left out if there are none
ARCHIVES = (".zip", ".tar", ".xz", ".gz", ".bz2")


@dataclass
class Report:
    """What was found of a data set."""

    dataset: str
    folder: str
    missing: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    images: dict[str, int] = field(default_factory=dict)  # part -> how many
    sha256: dict[str, str] = field(default_factory=dict)  # part -> over the images' identities, as splits have it
    duplicates_in_train: int | None = None  # images beyond the first of their kind; None: not looked for
    in_train_and_test: int | None = None  # different images that both parts have
    in_train_and_val: int | None = None
    in_val_and_test: int | None = None
    torn: list[str] = field(default_factory=list)  # a user's images in more than one class: all files of each
    copies: list[str] = field(default_factory=list)  # others that are there more than once: all files of each
    with_more_frames: int = 0  # image files with frames or pages after the first, which is the one that is used
    turned: int = 0  # a user's images that are stored turned or mirrored; their EXIF orientation turns them upright

    @property
    def sound(self) -> bool:
        """Whether nothing is missing, damaged, or in two classes of a user's own."""
        return not (self.missing or self.damaged or self.torn)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for the manifest."""
        values = {name: value for name, value in asdict(self).items() if value or name not in RARE}
        return values | {"sound": self.sound}

    def lines(self) -> list[str]:
        """The report as text."""
        lines = []
        faults = {"missing": self.missing, "damaged": self.damaged, "in more than one class": self.torn}
        for kind, found in (faults | {"copies": self.copies}).items():
            lines += [f"{kind}: {one}" for one in found[:SHOWN]]
            lines += [f"{kind}: {len(found) - SHOWN} more"] if len(found) > SHOWN else []
        counts = ", ".join(f"{count} {part}" for part, count in self.images.items()) or "none"
        verdict = ", ".join(f"{len(found)} {kind}" for kind, found in faults.items() if found) or "sound"
        twice = ""
        if self.duplicates_in_train is not None:
            shared = {"train": self.duplicates_in_train} | {
                f"{one} and {other}": getattr(self, f"in_{one}_and_{other}") for one, other in combinations(PARTS, 2)
            }
            twice = "; duplicates: " + ", ".join(f"{n} in {where}" for where, n in shared.items() if n is not None)
        if self.with_more_frames:
            lines.append(f"{self.with_more_frames} images have several frames or pages; the first one is used")
        if self.turned:
            lines.append(f"{self.turned} images are turned upright, as their EXIF orientation says")
        return [*lines, f"{self.dataset}: {verdict} in {self.folder}; images: {counts}{twice}"]


def verify(dataset: Dataset, *, quick: bool = False) -> Report:
    """Checks every file of a data set.

    Args:
        dataset: one that has been brought here, or a user's own.
        quick: of data that does not fit into memory, look only whether the files are there.
    """
    report = Report(dataset.name, str(store.folder_of(store.find(dataset))))
    for path, fault in store.file_faults(dataset):
        if path.is_file():
            report.damaged += [f"{path}: {fault}", *archive_faults(path)]
        else:
            report.missing.append(f"{path}: {fault}")
    if report.sound:
        _check_images(dataset, report, quick)
    return report


def archive_faults(path: Path) -> list[str]:
    """What is wrong inside an archive: members that are refused, images that cannot be read, where it breaks off.

    Empty also for a file that is not an archive.
    """
    faults: list[str] = []
    if path.suffix not in ARCHIVES or (path.suffix == ".gz" and not path.name.endswith(".tar.gz")):
        return faults
    try:
        for name, data in read_members(path, on_fault=lambda fault: faults.append(plain(f"{path}: {fault}"))):
            if name.suffix.lower() in SUFFIXES and (fault := inspect(data).fault):
                faults.append(plain(f"{path}: image '{name}' cannot be read: {fault}"))
    except UserError as error:
        faults.append(str(error))
    return faults


def _check_images(dataset: Dataset, report: Report, quick: bool) -> None:
    hashes: dict[str, list[str]] = {}
    if dataset.listed is not None:  # a user's own files: each is looked at, before they are decoded as a whole
        for part, files in dataset.listed().items():
            report.folder, report.images[part] = str(files.root), len(files.names)
            hashes[part] = _check_files(files, report, quick)
        if not report.sound:
            return
    try:
        parts = store.load(dataset)
    except UserError as error:
        report.damaged.append(str(error))
        return
    for part, images in parts.items():
        report.images[part] = len(images.labels)
        report.sha256[part] = ordered(images, dataset.num_classes)[0].sha256
        if part not in hashes:
            hashes[part] = _hashes(images, report, quick)
    if report.sound and all(len(found) == report.images[part] for part, found in hashes.items()):
        _compare(dataset, report, hashes)


def _compare(dataset: Dataset, report: Report, hashes: Mapping[str, list[str]]) -> None:
    """Notes which images are there more than once; of a user's own, in which files."""
    report.duplicates_in_train = len(hashes["train"]) - len(set(hashes["train"]))
    for one, other in combinations(PARTS, 2):
        if one in hashes and other in hashes:
            setattr(report, f"in_{one}_and_{other}", len({*hashes[one]} & {*hashes[other]}))
    for files in copies(dataset).values():
        if len({label for _, label in files}) > 1:
            report.torn.append(first([f"{name} ('{label}')" for name, label in files], NAMED))
        else:
            report.copies.append(first([name for name, _ in files], NAMED))


def _hashes(images: AnyImages, report: Report, quick: bool) -> list[str]:
    if isinstance(images, ImageFiles):
        return _check_files(images, report, quick)
    return [image_hash(images, i) for i in range(len(images.labels))]


def _check_files(images: ImageFiles, report: Report, quick: bool) -> list[str]:
    """Notes missing and damaged files; returns the sha256 of each file's bytes (of none, if quick)."""
    present = []
    for place in map(images.place, range(len(images.names))):
        if isinstance(place, Piece) or Path(place).is_file():  # a larger file was read to the end to find its pieces
            present.append(place)
        else:
            report.missing.append(plain(str(place)))
    if quick:
        return []
    hashes = []
    with ThreadPoolExecutor(WORKERS) as pool:
        found = counted(pool.map(_read, present), f"verifying {images.root.name}", len(present))
        for path, (sha256, seen) in zip(present, found, strict=True):
            hashes.append(sha256)
            report.with_more_frames += seen.more
            report.turned += seen.lying and images.upright
            if seen.fault:
                report.damaged.append(plain(f"{path}: {seen.fault}"))
    return hashes


def _read(place: Place) -> tuple[str, Inspection]:
    """sha256 of a file's bytes, and what kind of an image it is."""
    try:
        size = place.size if isinstance(place, Piece) else Path(place).stat().st_size
        if size > MAX_MEMBER:
            return "", Inspection(f"it has {size} bytes, {MAX_MEMBER} are allowed")
        data = read_bytes(place).tobytes()
    except OSError as error:
        return "", Inspection(f"it cannot be read: {error.strerror}")
    return sha256_bytes(data), inspect(data)
