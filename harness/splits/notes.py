"""What a reader of a number must know of a user's own data: images in two parts or classes, classes without a test."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import chain

from harness.datasets._walk import first, plain
from harness.reading.dataset import Dataset
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
    parts = {part: set(images.identities or ()) for part, images in dataset.listed().items()}
    parts["train"] = set(chain.from_iterable(split.train))
    shared = {pair: parts.get(pair[0], set()) & parts.get(pair[1], set()) for pair in EFFECTS}
    notes = [f"{counted(len(images), 'different image')}: {EFFECTS[pair]}" for pair, images in shared.items() if images]
    used = set().union(*parts.values())
    labels = [sorted({label for _, label in files}) for sha, files in copies(dataset).items() if sha in used]
    if torn := [some for some in labels if len(some) > 1]:
        notes.append(f"{counted(len(torn), 'different image')} in more than one class, e.g. in {named(torn[0])}")
    if untested := [name for name, n in zip(split.class_names, split.test.class_counts, strict=True) if not n]:
        notes.append(f"no test images: {named(untested)}; left out of every test score")
    most, fewest = max(split.class_counts), min(split.class_counts)
    if most / fewest != split.imbalance_factor:
        asked = f"{split.imbalance_factor:g} was asked for"
        notes.append(f"imbalance factor {most / fewest:g}, where {asked}: {most} to {fewest} images of a class")
    return notes


def copies(dataset: Dataset) -> dict[str, list[tuple[str, str]]]:
    """Name and class of the files of each image, by its hash, that a user's own data have more than once."""
    found = defaultdict[str, list[tuple[str, str]]](list)
    for images in dataset.listed().values() if dataset.listed else ():
        for sha, name, label in zip(images.identities or (), images.names, images.labels.tolist(), strict=True):
            found[sha].append((plain(name), dataset.class_names[label]))
    return {sha: files for sha, files in found.items() if len(files) > 1}


def named(classes: Sequence[str]) -> str:
    """Classes as a person reads them: how many, and the first ones by name."""
    quoted = [f"'{name}'" for name in classes]
    return f"{counted(len(classes), 'class')} ({first(quoted, NAMED)})"


def counted(count: int, what: str) -> str:
    """A number of things, with the right plural."""
    plural = f"{what}es" if what.endswith("s") else f"{what}s"
    return f"{count} {what if count == 1 else plural}"
