"""Subset rules: which images of a class a long-tailed split keeps, when it keeps only some.

- `hash:<k>`: those with the lowest sha256 of "<k>:" and the image (`harness.reading.identity`). Needs no generator and
  no order of the data set, and is nested: the subset of a larger imbalance factor lies within that of a smaller one.
- `numpy0`, as published with LDAM-DRW and GCL: classes in order, numpy's legacy generator seeded with 0, a class's
  images in the official order shuffled, the first ones kept.
- `first_n`, as published with weight balancing: the first ones in the official order.
- `pool-hash:<k>`: by `hash:<k>`, but only among the images that a pool archive has (those that `hash:0` selects for
  the pool's imbalance factor). It shows how much one draw differs from another where only the pool is at hand. Two
  such subsets share more images than two draws from the full set, for which published code stands: on CIFAR-10-LT with
  imbalance factor 100 a tail class draws its 50 images from the pool's 500, not from 5,000.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from harness.reading.dataset import AnyImages
from harness.reading.identity import image_hash

Indices = npt.NDArray[np.int64]


def members_of(images: AnyImages, num_classes: int) -> list[Indices]:
    """Indices of each class's images, in the data set's order."""
    return [np.flatnonzero(images.labels == c).astype(np.int64) for c in range(num_classes)]


def hash_rule(images: AnyImages, members: Indices, count: int, seed: int) -> Indices:
    """Those `count` of the images at `members` that have the lowest sha256 of "<seed>:" + image."""
    scores = {int(i): image_hash(images, i, f"{seed}:".encode()) for i in members}
    return np.array(sorted(scores, key=scores.__getitem__)[:count], dtype=np.int64)


def choose(images: AnyImages, members: Sequence[Indices], counts: Sequence[int], rule: str) -> list[Indices]:
    """The chosen images of each class.

    Args:
        images: what is drawn from.
        members: of each class the indices of its images; at least as many as are to be chosen.
        counts: how many of each class.
        rule: `given` (all, whatever `counts` says), `hash:<k>`, `numpy0` or `first_n`.
    """
    if rule == "given":
        return list(members)
    if rule == "first_n":
        return [group[:count] for group, count in zip(members, counts, strict=True)]
    if rule == "numpy0":
        return _legacy_shuffle(members, counts)
    seed = int(rule.removeprefix("hash:"))
    return [hash_rule(images, group, count, seed) for group, count in zip(members, counts, strict=True)]


def _legacy_shuffle(members: Sequence[Indices], counts: Sequence[int]) -> list[Indices]:
    generator, chosen = np.random.RandomState(0), []
    for group, count in zip(members, counts, strict=True):
        shuffled = group.copy()
        generator.shuffle(shuffled)  # each class goes on where the last one left the generator
        chosen.append(shuffled[:count])
    return chosen
