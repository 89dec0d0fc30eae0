"""Long-tailed splits: which images are used, written down once and read by every stage of every method."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness import config
from harness.data import store
from harness.datasets.base import Dataset, Images
from harness.errors import UserError, unknown
from harness.files import read_json, sha256_json, write_json

SCHEMA = 1


def exponential_class_counts(max_count: int, num_classes: int, imbalance_factor: float) -> list[int]:
    """Training images of each class, n_c = trunc(max_count * IF^(-c/(C-1))), at least 1, class 0 the largest.

    Args:
        max_count: images of the largest class.
        num_classes: C.
        imbalance_factor: IF = n_max / n_min, at least 1.

    Raises:
        ValueError: an argument is out of its domain.
    """
    _check_profile(max_count, num_classes, imbalance_factor)
    ratio = 1.0 / imbalance_factor
    last = max(num_classes - 1, 1)
    return [max(1, int(max_count * ratio ** (c / last))) for c in range(num_classes)]


def _check_profile(max_count: int, num_classes: int, imbalance_factor: float) -> None:
    if max_count < 1 or num_classes < 1:
        raise ValueError(f"max_count {max_count} and num_classes {num_classes} must be at least 1")
    if not imbalance_factor >= 1 or imbalance_factor == float("inf"):
        raise ValueError(f"imbalance_factor must be a number of at least 1, found {imbalance_factor}")


PROFILES: dict[str, Callable[[int, int, float], list[int]]] = {"exponential": exponential_class_counts}


def pixel_hash(image: npt.NDArray[np.uint8], prefix: bytes = b"") -> str:
    """Hex sha256 of an image's raw pixels (height x width x channels, C order), after an optional prefix."""
    digest = hashlib.sha256(prefix)
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def hash_rule(images: npt.NDArray[np.uint8], count: int, seed: int) -> npt.NDArray[np.int64]:
    """Subset rule `hash:<seed>`: indices of the `count` images with the lowest sha256 of "<seed>:" + pixels.

    Needs no generator and no order of the data set, and is nested: a smaller count is a subset of a larger one.
    """
    scores = [pixel_hash(image, f"{seed}:".encode()) for image in images]
    return np.array(sorted(range(len(images)), key=scores.__getitem__)[:count], dtype=np.int64)


@dataclass(frozen=True)
class SplitName:
    """`<data set>-lt-if<IF>`, read into its parts."""

    dataset: str
    imbalance_factor: float

    def __str__(self) -> str:
        return f"{self.dataset}-lt-if{repr(self.imbalance_factor).removesuffix('.0')}"


def parse_split_name(name: str, *, where: str = "") -> SplitName:
    """Reads `<data set>-lt-if<IF>`.

    Raises:
        UserError: another form, an unknown data set, or an imbalance factor below 1.
    """
    match = re.fullmatch(r"([a-z0-9_-]+?)-lt-if([0-9]+(?:\.[0-9]+)?)", name)
    origin = f"{where}: " if where else ""
    if not match:
        raise UserError(f"{origin}{name!r} is not a split; write <data set>-lt-if<factor>, e.g. mnist5k-lt-if100")
    parsed = SplitName(store.get_dataset(match[1], where=where).name, float(match[2]))
    if not 1 <= parsed.imbalance_factor < 1e15:
        raise UserError(f"{origin}'{name}': the imbalance factor must be at least 1, and a number people use")
    if str(parsed) != name:
        raise UserError(f"{origin}'{name}' is not how this split is written; write {parsed}")
    return parsed


@dataclass(frozen=True)
class Part:
    """A fixed part (validation or test), identified by its class counts and one digest of its images."""

    class_counts: list[int]
    sha256: str  # over the concatenated pixel hashes, sorted within each class

    def targets(self) -> npt.NDArray[np.int64]:
        """Class of each image, in the order that every stage uses: by class, then by pixel hash. Shape (N,)."""
        return np.repeat(np.arange(len(self.class_counts)), self.class_counts)


@dataclass(frozen=True)
class Split:
    """A long-tailed split as it stands in `results/splits/<id>.json`."""

    schema: int
    id: str
    dataset: str
    profile: str
    imbalance_factor: float
    subset_rule: str
    split_seed: int
    class_names: list[str]
    image_shape: list[int]
    mean: list[float]
    std: list[float]
    class_counts: list[int]
    train: list[list[str]]  # for each class the sha256 of its images' pixels, sorted; duplicates as often as chosen
    val: Part
    test: Part
    sha256: str = ""  # over everything above

    def __post_init__(self) -> None:
        if [len(hashes) for hashes in self.train] != self.class_counts:
            raise ValueError("class_counts are not the numbers of images listed in train")
        parts = (self.class_names, self.val.class_counts, self.test.class_counts)
        if any(len(part) != len(self.class_counts) for part in parts):
            raise ValueError(f"class_counts has {len(self.class_counts)} classes, another part of the split has not")

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_counts)

    def digest(self) -> str:
        """sha256 of the split's content, which `sha256` must equal."""
        content = asdict(self)
        del content["sha256"]
        return sha256_json(content)


def build_split(
    name: str, dataset: Dataset, parts: dict[str, Images], *, profile: str = "exponential", seed: int = 0
) -> Split:
    """Draws the long-tailed split `name` from the data set's images by the subset rule `hash:<seed>`."""
    wanted = parse_split_name(name)
    store.check_pool(dataset, name, wanted.imbalance_factor, f"hash:{seed}")
    if profile not in PROFILES:
        raise unknown("long-tail profile", profile, PROFILES)
    counts = PROFILES[profile](dataset.train_class_size, dataset.num_classes, wanted.imbalance_factor)
    pool = parts["train"]
    train = []
    for c, count in enumerate(counts):
        members = pool.pixels[pool.labels == c]
        if len(members) < count:
            raise UserError(f"split '{name}': class {c} has {len(members)} images in its pool, {count} are needed")
        train.append(sorted(pixel_hash(members[i]) for i in hash_rule(members, count, seed)))
    split = Split(
        schema=SCHEMA,
        id=name,
        dataset=dataset.name,
        profile=profile,
        imbalance_factor=wanted.imbalance_factor,
        subset_rule=f"hash:{seed}",
        split_seed=seed,
        class_names=list(dataset.class_names),
        image_shape=list(dataset.image_shape),
        mean=list(dataset.mean),
        std=list(dataset.std),
        class_counts=counts,
        train=train,
        val=_part(parts.get("val"), dataset.num_classes),
        test=_part(parts["test"], dataset.num_classes),
    )
    return replace(split, sha256=split.digest())


def _part(images: Images | None, num_classes: int) -> Part:
    if images is None:
        return Part([0] * num_classes, hashlib.sha256(b"").hexdigest())
    hashes = _hashes_by_class(images, num_classes)
    return Part([len(members) for members in hashes], _digest(hash_ for members in hashes for hash_, _ in members))


def _hashes_by_class(images: Images, num_classes: int) -> list[list[tuple[str, int]]]:
    """For each class the (pixel hash, index) of its images, sorted."""
    members: list[list[tuple[str, int]]] = [[] for _ in range(num_classes)]
    for index, (image, label) in enumerate(zip(images.pixels, images.labels, strict=True)):
        members[label].append((pixel_hash(image), index))
    return [sorted(group) for group in members]


def _digest(hashes: Iterable[str]) -> str:
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def write_split(split: Split, path: Path) -> None:
    """Writes the split atomically; the same split gives the same bytes."""
    write_json(path, asdict(split))


def read_split(path: Path) -> Split:
    """Reads a split and checks that its content has the hash it states.

    Raises:
        UserError: missing, damaged, edited by hand, or of another schema.
    """
    if not path.is_file():
        raise UserError(f"{path}: missing; to make it: ltbench split {path.stem}")
    try:
        value = read_json(path, "split")
    except UserError as error:
        raise UserError(f"{error}; to make it anew: ltbench split {path.stem}") from None
    if not isinstance(value, dict) or value.get("schema") != SCHEMA:
        raise UserError(f"{path}: not a split of schema {SCHEMA}; to make it anew: ltbench split {path.stem}")
    split = config.build(Split, value, str(path))
    if split.digest() != split.sha256:
        raise UserError(
            f"{path}: content does not have its sha256 {split.sha256}; to make it anew: ltbench split {path.stem}"
        )
    return split


def select(split: Split, parts: dict[str, Images]) -> dict[str, Images]:
    """The split's images, each part ordered by class and then by pixel hash, wherever the images came from.

    Raises:
        UserError: an image of the split is missing, or validation or test part are not those of the split.
    """
    chosen = {"train": _select_train(split, parts["train"])}
    for part, expected in (("val", split.val), ("test", split.test)):
        images = parts.get(part)
        if _part(images, split.num_classes) != expected:
            raise UserError(
                f"split '{split.id}': the {part} images of data set '{split.dataset}' are not those of the split"
            )
        if images is None:
            images = Images(np.empty((0, *split.image_shape), np.uint8), np.empty(0, np.int64))
        order = [index for group in _hashes_by_class(images, split.num_classes) for _, index in group]
        chosen[part] = _take(images, order)
    return chosen


def _select_train(split: Split, pool: Images) -> Images:
    order = []
    for c, (wanted, members) in enumerate(zip(split.train, _hashes_by_class(pool, split.num_classes), strict=True)):
        by_hash: defaultdict[str, list[int]] = defaultdict(list)
        for hash_, index in members:
            by_hash[hash_].append(index)
        for hash_, times in sorted(Counter(wanted).items()):
            if len(by_hash[hash_]) < times:
                raise UserError(f"split '{split.id}': image {hash_} of class {c} is not in data set '{split.dataset}'")
            order += by_hash[hash_][:times]
    return _take(pool, order)


def _take(images: Images, order: Sequence[int]) -> Images:
    index = np.array(order, dtype=np.int64)
    return Images(images.pixels[index], images.labels[index])


def split_facts(split: Split) -> dict[str, Any]:
    """The split's identity as records carry it."""
    return {
        "dataset": split.dataset,
        "split": split.id,
        "split_sha256": split.sha256,
        "profile": split.profile,
        "imbalance_factor": split.imbalance_factor,
        "subset_rule": split.subset_rule,
        "class_counts": split.class_counts,
        "test_images": sum(split.test.class_counts),
        "val_images": sum(split.val.class_counts),
    }
