"""Long-tailed splits: which images are used, written down once and read by every stage of every method."""

from __future__ import annotations

import bisect
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from harness.base import config
from harness.base.errors import UserError
from harness.base.files import read_json, sha256_json, write_json
from harness.reading.dataset import AnyImages, Dataset, ImageFiles, Images
from harness.reading.identity import digest, identities_by_class, identity
from harness.reading.profiles import PROFILES, exponential_class_counts
from harness.splits import store
from harness.splits.rules import Indices, choose, members_of
from harness.splits.split_names import SplitName, parse_split_name

SCHEMA = 1


@dataclass(frozen=True)
class Part:
    """A fixed part (validation or test), identified by its class counts and one digest of its images."""

    class_counts: list[int]
    sha256: str  # over the images' identities (`harness.reading.identity`), sorted within each class

    def targets(self) -> npt.NDArray[np.int64]:
        """Class of each image, in the order that every stage uses: by class, then by identity. Shape (N,)."""
        return np.repeat(np.arange(len(self.class_counts)), self.class_counts)


@dataclass(frozen=True)
class Split:
    """A long-tailed split, as stored in `results/splits/<id>.json`."""

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
    train: list[list[str]]  # for each class its images' identities, sorted; duplicates as often as chosen
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


def build_split(name: str, dataset: Dataset, parts: Mapping[str, AnyImages]) -> Split:
    """Draws the split `name` from the data set's images.

    Args:
        name: as `harness.splits.split_names` reads it.
        dataset: the form of the data set that the images come from (`store.find`): a pool refuses what it cannot serve.
        parts: its images (`store.load`).

    Raises:
        UserError: the pool refuses, or a class has too few images.
    """
    wanted, pool = parse_split_name(name), parts["train"]
    members = members_of(pool, dataset.num_classes)
    counts = _class_counts(wanted, dataset, [len(group) for group in members])
    store.check_pool(dataset, str(wanted), wanted.imbalance_factor or 1.0, wanted.rule)
    chosen = _draw(wanted, dataset, pool, members, counts)
    split = Split(
        schema=SCHEMA,
        id=str(wanted),
        dataset=dataset.name,
        profile="given" if wanted.imbalance_factor is None else wanted.profile,
        imbalance_factor=wanted.imbalance_factor or max(counts) / min(counts),
        subset_rule="given" if wanted.imbalance_factor is None else wanted.rule,
        split_seed=wanted.seed,
        class_names=_class_names(dataset, pool, members),
        image_shape=list(dataset.image_shape),
        mean=list(dataset.mean),
        std=list(dataset.std),
        class_counts=counts,
        train=[sorted(identity(pool, i) for i in group) for group in chosen],
        val=ordered(parts["val"] if "val" in parts else take(pool, []), dataset.num_classes)[0],
        test=ordered(parts["test"], dataset.num_classes)[0],
    )
    return replace(split, sha256=split.digest())


def _class_counts(wanted: SplitName, dataset: Dataset, sizes: list[int]) -> list[int]:
    """Training images of each class; `sizes` is how many there are."""
    if wanted.imbalance_factor is None:
        if min(sizes) == 0:
            raise UserError(f"split '{wanted}': {_class(dataset, sizes.index(0))} has no training image")
        return sizes
    factor, counts_for = wanted.imbalance_factor, PROFILES[wanted.profile]
    if dataset.listed is None:
        return counts_for(dataset.train_class_size, len(sizes), factor)
    return _by_size(lambda head: counts_for(head, len(sizes), factor), sizes)


def _by_size(profile: Callable[[int], list[int]], sizes: Sequence[int]) -> list[int]:
    """A user's classes made long-tailed, from the largest to the smallest, with the largest head that they allow."""
    order = sorted(range(len(sizes)), key=lambda c: -sizes[c])

    def fits(head: int) -> bool:
        return all(count <= sizes[c] for count, c in zip(profile(head), order, strict=True))

    heads = range(1, sizes[order[0]] + 1)  # a larger head makes no class smaller
    head = max(1, bisect.bisect_left(heads, True, key=lambda head: not fits(head)))
    counts = dict(zip(order, profile(head), strict=True))
    return [counts[c] for c in range(len(sizes))]


def _class(dataset: Dataset, label: int) -> str:
    return f"class '{dataset.class_names[label]}'"


def _draw(
    wanted: SplitName, dataset: Dataset, pool: AnyImages, members: Sequence[Indices], counts: Sequence[int]
) -> list[Indices]:
    if wanted.imbalance_factor is None:
        return list(members)
    rule = wanted.rule
    if rule.startswith("pool-"):
        rule = rule.removeprefix("pool-")
        factor = next(f for form in dataset.all_forms if (f := form.pool_min_imbalance_factor) is not None)
        held = exponential_class_counts(dataset.train_class_size, dataset.num_classes, factor)
        _check_sizes(wanted, dataset, members, held)
        members = choose(pool, members, held, "hash:0")  # the same images where the full set is at hand
    _check_sizes(wanted, dataset, members, counts)
    return choose(pool, members, counts, rule)


def _check_sizes(wanted: SplitName, dataset: Dataset, members: Sequence[Indices], counts: Sequence[int]) -> None:
    for c, (count, group) in enumerate(zip(counts, members, strict=True)):
        if len(group) < count:
            found = f"{_class(dataset, c)} has {len(group)} images in its pool"
            raise UserError(f"split '{wanted}': {found}, {count} are needed")


def _class_names(dataset: Dataset, pool: AnyImages, members: Sequence[Indices]) -> list[str]:
    if dataset.class_name is None or not isinstance(pool, ImageFiles):
        return list(dataset.class_names)
    return [dataset.class_name(pool.names[group[0]]) for group in members]


def ordered(images: AnyImages, num_classes: int) -> tuple[Part, list[int]]:
    """What identifies a fixed part, and the order that every stage uses: by class, then by identity."""
    groups = identities_by_class(images, num_classes)
    part = Part([len(group) for group in groups], digest(images, (name for group in groups for name, _ in group)))
    return part, [index for group in groups for _, index in group]


def write_split(split: Split, path: Path) -> None:
    """Writes the split atomically; the same split gives the same bytes."""
    write_json(path, asdict(split))


def read_split(path: Path) -> Split:
    """Reads a split and checks that its content has the hash it states.

    Raises:
        UserError: missing, damaged, edited by hand, or of another schema.
    """
    try:
        value = read_json(path, "split")
        if not isinstance(value, dict) or value.get("schema") != SCHEMA:
            raise UserError(f"{path}: not a split of schema {SCHEMA}")
        split = config.build(Split, value, str(path))
        if split.digest() != split.sha256:
            raise UserError(f"{path}: content does not have its sha256 {split.sha256}")
    except UserError as error:
        raise UserError(f"{error}; to make it anew: ltbench split {path.stem}") from None
    return split


def select(split: Split, parts: Mapping[str, AnyImages]) -> dict[str, AnyImages]:
    """The split's images, each part ordered by class and then by identity, wherever the images came from.

    Of a data set that does not fit into memory they are lists of files (`ImageFiles`).

    Raises:
        UserError: an image of the split is missing, or validation or test part are not those of the split.
    """
    chosen = {"train": _select_train(split, parts["train"])}
    for part, expected in (("val", split.val), ("test", split.test)):
        images = parts[part] if part in parts else take(parts["train"], [])
        found, order = ordered(images, split.num_classes)
        if found != expected:
            raise UserError(
                f"split '{split.id}': the {part} images of data set '{split.dataset}' are not those of the split"
            )
        chosen[part] = take(images, order)
    return chosen


def _select_train(split: Split, pool: AnyImages) -> AnyImages:
    order = []
    for c, (wanted, members) in enumerate(zip(split.train, identities_by_class(pool, split.num_classes), strict=True)):
        by_identity: defaultdict[str, list[int]] = defaultdict(list)
        for name, index in members:
            by_identity[name].append(index)
        for name, times in sorted(Counter(wanted).items()):
            if len(by_identity[name]) < times:
                image = f"image {name} of class '{split.class_names[c]}'"
                raise UserError(f"split '{split.id}': {image} is not in data set '{split.dataset}'")
            order += by_identity[name][:times]
    return take(pool, order)


def take(images: AnyImages, order: Sequence[int]) -> AnyImages:
    """The images at these positions, in this order."""
    index = np.array(order, dtype=np.int64)
    if isinstance(images, Images):
        return Images(images.pixels[index], images.labels[index])
    identities = images.identities and tuple(images.identities[i] for i in order)
    names = tuple(images.names[i] for i in order)
    return replace(images, names=names, labels=images.labels[index], identities=identities)
