"""The user's own images: folders `train/<class>/...`, lists, shards, annotations; each form has a reader beside this.

JPEG, PNG, WebP, BMP, TIFF or GIF, of any size (grey becomes RGB), turned upright by their EXIF orientation. The median
short side of the training images decides what they are trained as: below 48 pixels as 32x32 images with CIFAR's
recipes, below 112 as 64x64 with Tiny ImageNet's, else as 224x224 from the files with ImageNet-LT's. Without an
imbalance factor the training set is taken as it is.

Such a data set is known by its content: its name `folder-<its folder's name>-<hash>` holds a hash over parts, classes
and the bytes of all images, and says nothing of the machine. Splits and records carry that name. A copy, or a folder
that was moved or renamed, keeps it; one whose images changed gets another. Where it lies is kept in the data root.
"""

from __future__ import annotations

import contextlib
import functools
import re
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from harness.base.errors import UserError
from harness.base.files import read_json, sha256_bytes, sha256_file, sha256_json, stamped, unstamped, write_json
from harness.base.progress import counted
from harness.datasets._coco import read_coco
from harness.datasets._csv_lists import read_lists
from harness.datasets._forms import KINDS
from harness.datasets._huggingface import read_huggingface
from harness.datasets._lists import IMAGENET_MEAN, IMAGENET_STD
from harness.datasets._walk import FaultsError, Found, file_facts, kinds, plain, walk
from harness.datasets._webdataset import read_webdataset
from harness.reading.archives import MAX_MEMBER, EncodedImage
from harness.reading.dataset import PARTS, Dataset, ImageFiles, Images
from harness.reading.decoding import BRANDS, WORKERS, decode_images, decode_resized, image_size
from harness.reading.pieces import Piece, Place, read_bytes

READERS: dict[str, Callable[..., Found]] = {
    "folder": walk,
    "list": read_lists,
    "hf": read_huggingface,
    "wds": read_webdataset,
    "coco": read_coco,
}
CHOICES = {"hf": "columns", "wds": "label"}  # of what stands behind "#" in PATH, where it is no part of a folder's name
SAMPLE = 1000  # training images, evenly spaced, whose headers are read for the median short side
COLUMNS = ((48, 32, "cifar10"), (112, 64, "tiny-imagenet-lt"))  # below this short side: pixels, whose recipes
LARGE, LARGE_RECIPES = 224, "imagenet-lt"
SETTLED = 10**9  # nanoseconds: of a file changed later than this before it was read, the hash is not kept


Files = dict[str, list[tuple[str, int, str]]]  # part -> (name relative to the root, class, sha256 of its bytes)


@dataclass(frozen=True)
class Source:
    """Where a user's images are, and how they become parts."""

    kind: str  # a key of `READERS`
    root: Path
    holdout: float  # share of each class that becomes the test part; 0: there is one
    choice: str = ""  # what holds image and label, where that is not clear

    @property
    def pointer(self) -> dict[str, object]:
        """What is kept of it under the data set's name."""
        more = {"holdout": self.holdout, "choice": self.choice}
        return {"kind": self.kind, "path": str(self.root)} | {key: value for key, value in more.items() if value}

    def found(self, cache: Path) -> Found:
        """What its reader finds; `cache` is a folder for what cannot be read where it lies."""
        more: dict[str, object] = {CHOICES[self.kind]: self.choice} if self.kind in CHOICES else {}
        if self.kind == "hf":
            more["cache"] = cache
        return READERS[self.kind](self.root, parts_of_its_own=not self.holdout, **more)


@dataclass(frozen=True)
class Scan:
    """What a source holds."""

    source: Source
    class_names: tuple[str, ...]
    files: Files
    passed_over: tuple[str, ...]
    pieces: Mapping[str, Piece]
    fingerprint: str  # of parts, classes and images, whatever the files are called
    short_side: float  # median of the training images, in pixels

    @property
    def root(self) -> Path:
        """What the files' names are relative to."""
        return self.source.root

    @property
    def column(self) -> tuple[int, str]:
        """Pixels and recipes."""
        return next((found[1:] for found in COLUMNS if self.short_side < found[0]), (LARGE, LARGE_RECIPES))


def open_folder(name: str, data_root: Path, holdout: float = 0.0) -> Dataset:
    """The data set of `folder:PATH`, `list:DIR`, ..., or of the name that such a one has got.

    Args:
        name: either.
        data_root: where it is kept which one has which name.
        holdout: share of each class's training images that becomes the test part, where there is none.

    Raises:
        UserError: no such folder, another layout, or other images than when it got that name.
    """
    kind, colon, path = name.partition(":")
    if colon:
        choice = ""
        if kind in CHOICES and "#" in path and not _resolved(path).is_dir():
            path, _, choice = path.rpartition("#")
        source = Source(kind, _resolved(path), holdout, choice)
        scan = _scan(source, data_root)
        own = _known_name(scan, data_root)
        pointer = _pointer(data_root, own)
        if not pointer.is_file() or read_json(pointer, "place of a folder") != source.pointer:
            write_json(pointer, source.pointer)  # the path that was given last
        return _dataset(scan, own)
    if not re.fullmatch(r"[a-z]+-[a-z0-9_]+-[0-9a-f]{8}", name) or not _pointer(data_root, name).is_file():
        raise UserError(f"no {kind.partition('-')[0]} is known as '{name}' here; {_to_make_known(name)}")
    source = _remembered(_pointer(data_root, name), name)
    if holdout not in (0.0, source.holdout):
        raise UserError(
            f"--holdout {holdout:g}: '{name}' was made with {source.holdout:g}; give {source.kind}:PATH instead"
        )
    if not source.root.is_dir():
        again = _to_make_known(name) + (f" --holdout {source.holdout:g}" if source.holdout else "")
        raise UserError(f"{source.root}: '{name}' lay there and does not any more; {again}")
    scan = _scan(source, data_root)
    if scan.fingerprint != name.rpartition("-")[2]:
        now = _known_name(scan, data_root)
        raise UserError(f"{scan.root}: its images are not those of '{name}' any more; it is '{now}' now")
    return _dataset(scan, name)


def _resolved(path: str) -> Path:
    try:
        path.encode()
    except UnicodeEncodeError:
        raise UserError(f"{plain(path)}: the path is not UTF-8; rename the folder") from None
    return Path(path).expanduser().resolve()


def _to_make_known(name: str) -> str:
    return f"to make it known: ltbench fetch {name.partition('-')[0]}:PATH"


def _known_name(scan: Scan, data_root: Path) -> str:
    """The name that these images have here already, or one after the folder's own name."""
    kind, slug = scan.source.kind, re.sub(r"[^a-z0-9]+", "_", scan.root.name.lower()).strip("_") or "images"
    known = sorted(_pointer(data_root, "x").parent.glob(f"{kind}-*-{scan.fingerprint}.json"))
    return known[0].stem if known else f"{kind}-{slug}-{scan.fingerprint}"


def _pointer(data_root: Path, name: str) -> Path:
    return data_root / ".folders" / f"{name}.json"


def _remembered(pointer: Path, name: str) -> Source:
    place = read_json(pointer, "place of a folder")
    match {"kind": "folder", "holdout": 0.0, "choice": ""} | place if isinstance(place, dict) else place:
        case {"path": str(path), "kind": str(kind), "holdout": int() | float() as holdout, "choice": choice}:
            if kind in KINDS and 0 <= holdout < 1:
                return Source(kind, Path(path), holdout, str(choice))
    raise UserError(f"{pointer}: damaged; to make it anew: ltbench fetch {name.partition('-')[0]}:PATH")


@functools.cache  # one process sees one state of a folder
def _scan(source: Source, data_root: Path) -> Scan:
    root = source.root
    if not 0 <= source.holdout < 1:
        raise UserError(f"--holdout {source.holdout:g}: a share between 0 and 1, e.g. 0.2")
    found = source.found(data_root / ".cache")
    hashes = _hashes(root, found, data_root)
    files = {part: [(name, label, hashes[name]) for name, label in listed] for part, listed in found.files.items()}
    if source.holdout:
        files = hold_out(files, source.holdout)
    if not files["test"]:
        raise UserError(f"{root / 'test' if not source.holdout else root}: no image is left to test with")
    train = [found.place(root, name) for name, _, _ in files["train"]]
    sizes = [image_size(place) for place in train[:: -(-len(train) // SAMPLE)]]
    sides = [min(size) for size in sizes if size]
    if not sides:
        raise UserError(f"{root}: none of its training images can be read")
    content = sorted((part, found.class_names[label], sha) for part, some in files.items() for _, label, sha in some)
    return Scan(
        source,
        tuple(found.class_names),
        files,
        found.passed_over,
        found.pieces,
        sha256_json([source.kind, found.class_names, content])[:8],
        statistics.median(sides),
    )


def hold_out(files: Files, share: float) -> Files:
    """The training part cut in two: of each class that share of its different images, those with the lowest hashes.

    At least one image of each class stays for training, and one is set aside where there are two. Copies of an image
    stay together; an image that two classes have stays for training.
    """
    classes = defaultdict[str, set[int]](set)
    for _, label, sha in files["train"]:
        classes[sha].add(label)
    by_class = defaultdict[int, list[str]](list)
    for sha, labels in sorted(classes.items()):
        by_class[min(labels)].append(sha)
    aside = set[str]()
    for group in by_class.values():
        count = min(max(1, round(share * len(group))), len(group) - 1)
        aside.update([sha for sha in group if len(classes[sha]) == 1][:count])
    train = [file for file in files["train"] if file[2] not in aside]
    test = [file for file in files["train"] if file[2] in aside]
    return {**files, "train": train, "test": test}


def _hashes(root: Path, found: Found, data_root: Path) -> dict[str, str]:
    """sha256 of each file's bytes by its name; of files that are as they were when they were last read, from a list.

    Raises:
        FaultsError: `found` has faults, or files are too large or in a format that is refused by name; before any is
            read as a whole.
    """
    place = data_root / ".cache" / f"hashes-{sha256_json(str(root))[:16]}.json"
    try:
        known = unstamped(read_json(place, "list of hashes"), place)["files"]
    except (UserError, KeyError):  # missing, or damaged: made anew
        known = {}
    places = {name: found.place(root, name) for listed in found.files.values() for name, _ in listed}
    facts = {name: _facts(place) for name, place in places.items()}
    wanted = [name for name in facts if known.get(plain(name), [])[:-1] != facts[name]]
    if faults := [*found.faults, *_refused(root, {name: (places[name], facts[name][0]) for name in wanted})]:
        raise FaultsError(faults)
    started, read = time.time_ns(), lambda name: _sha256(places[name])
    with ThreadPoolExecutor(WORKERS) as pool:
        new = dict(zip(counted(wanted, "reading images"), pool.map(read, wanted), strict=True))
    hashes = {name: new.get(name) or str(known[plain(name)][-1]) for name in facts}
    if wanted:
        keep = {name: hashes[name] for name in facts if started - facts[name][2] > SETTLED}
        with contextlib.suppress(OSError):  # a list that cannot be kept costs only time
            write_json(place, stamped({"files": {plain(name): [*facts[name], sha] for name, sha in keep.items()}}))
    return hashes


def _facts(place: Place) -> list[int]:
    """What changes when an image file does; its size in bytes comes first."""
    if isinstance(place, Piece):
        return [place.size, *file_facts(place.file)[1:], place.start]
    return file_facts(place)


def _sha256(place: Place) -> str:
    return sha256_bytes(read_bytes(place).tobytes()) if isinstance(place, Piece) else sha256_file(Path(place))


def _refused(root: Path, files: dict[str, tuple[Place, int]]) -> Iterator[str]:
    """What is wrong with files, given with their bytes, that can be refused before they are read as a whole."""
    foreign = defaultdict[str, list[str]](list)
    for name, (place, size) in files.items():
        if size > MAX_MEMBER:
            yield f"{root / name}: has {size} bytes, {MAX_MEMBER} are allowed"
        start = read_bytes(place, 12).tobytes()
        if start[4:8] == b"ftyp" and (brand := BRANDS.get(start[8:])):
            foreign[brand].append(plain(name))
    for line in kinds(foreign):
        yield f"{root}: {line}, which is not supported; save them as JPEG"


def _dataset(scan: Scan, name: str) -> Dataset:
    side, recipes = scan.column
    resident = side < LARGE
    counts = Counter(label for _, label, _ in scan.files["train"])
    return Dataset(
        name=name,
        title=f"{scan.root.name} (own {scan.source.kind}, {side} pixels, turned upright)",
        citation="",
        class_names=scan.class_names,
        image_shape=(side, side, 3),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        train_class_size=max(counts.values()),
        default_imbalance_factor=100,
        files={},
        source=None,
        decode=partial(_decode if resident else _listed, scan),
        decoder_version=2 if resident else None,
        given=True,
        recipes_of=recipes,
        listed=partial(_listed, scan),
        state=sha256_json({part: [[plain(n), *rest] for n, *rest in files] for part, files in scan.files.items()}),
        passed_over=scan.passed_over,
        image_files=True,
    )


def _decode(scan: Scan, folder: Path) -> dict[str, Images]:
    side, count = scan.column[0], sum(map(len, scan.files.values()))
    images = (
        EncodedImage(files.names[i], part, label, read_bytes(files.place(i)).tobytes())
        for part, files in _listed(scan).items()
        for i, label in enumerate(files.labels.tolist())
    )
    return decode_images(images, scan.root, lambda data: decode_resized(data, side), keep_files=True, count=count)


def _listed(scan: Scan, _folder: Path | None = None) -> dict[str, ImageFiles]:
    """Lists of files; splits know the images by the hashes of their bytes."""
    found = {}
    for part in PARTS:
        if part in scan.files:
            names, labels, hashes = zip(*scan.files[part], strict=True) if scan.files[part] else ((), (), ())
            classes = np.array(labels, dtype=np.int64)
            found[part] = ImageFiles(scan.root, names, classes, hashes, upright=True, pieces=scan.pieces)
    return found
