"""What a reader of a number must know of a user's own data: shared images, classes that are not tested."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, combinations

from harness.reading.dataset import PARTS, Dataset
from harness.splits.splits import Split

NAMED = 5  # classes that are named in a note
SPOILT_VAL = "best_val is no honest choice"  # how a note ends whose fault spoils the choice by validation images
EFFECTS = {
    ("train", "val"): f"training images stand in the validation part, so {SPOILT_VAL}",
    ("train", "test"): "training images stand in the test part, so test scores are too high",
    ("val", "test"): f"test images stand in the validation part, so {SPOILT_VAL}",
}


def data_notes(split: Split, dataset: Dataset) -> list[str]:
    """A line for each thing that makes a score of this split mean something else than it seems to.

    Images are compared by the bytes of their files. Published data sets are used as they were published and get no
    such lines; `ltbench verify` says how many duplicates they have.
    """
    if dataset.listed is None:
        return []
    shared = shared_images(dataset, list(chain.from_iterable(split.train)))
    notes = [f"{counted(count, 'different image')}: {EFFECTS[pair]}" for pair, count in shared.items() if count]
    if untested := [name for name, n in zip(split.class_names, split.test.class_counts, strict=True) if not n]:
        notes.append(f"no test images: {named(untested)}; left out of every test score")
    if max(split.class_counts) < split.imbalance_factor:
        made = f"{max(split.class_counts) / min(split.class_counts):g}"
        asked = f"{split.imbalance_factor:g} was asked for"
        notes.append(f"imbalance factor {made}, where {asked}: the largest class has {max(split.class_counts)} images")
    return notes


def shared_images(dataset: Dataset, train: Sequence[str] | None = None) -> dict[tuple[str, str], int]:
    """How many different images each two parts of a user's own data share.

    Args:
        train: content hashes of the training images, where not all of them are used.
    """
    parts = {part: set(images.identities or ()) for part, images in dataset.listed().items()} if dataset.listed else {}
    if train is not None:
        parts["train"] = set(train)
    return {pair: len(parts.get(pair[0], set()) & parts.get(pair[1], set())) for pair in combinations(PARTS, 2)}


def named(classes: Sequence[str]) -> str:
    """Classes as a person reads them: how many, and the first ones by name."""
    some = ", ".join(f"'{name}'" for name in classes[:NAMED])
    return f"{counted(len(classes), 'class')} ({some}{', ...' if classes[NAMED:] else ''})"


def counted(count: int, what: str) -> str:
    """A number of things, with the right plural."""
    plural = f"{what}es" if what.endswith("s") else f"{what}s"
    return f"{count} {what if count == 1 else plural}"
