"""Features under a frozen backbone, kept on disk for the other methods that need the same ones."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor

from harness.base.errors import UserError
from harness.base.files import sha256_json
from harness.engine.checkpoint import load_state, save_state, tensors_digest
from harness.feed.plans import EpochPlan
from harness.spec.provenance import harness_version, machine

FOLDER = "features"
KEPT = 2**29  # bytes in the folder; what was used longest ago goes first
LARGEST = 2**26  # bytes of one file

Kept = tuple[Tensor, float]  # features of a batch, and the seconds that they took


class SharedFeatures:
    """Methods that tune a head over the same first stage see the same images with the same seed: cRT and LWS, say.

    A file is named by a hash over all that its features come from: weights, pixels, the epoch's plan, code, libraries
    and processor. So a run finds nothing that it would not compute itself, bit for bit. What computing them took stands
    in the file too: a run's costs are what it takes alone.

    Args:
        folder: where the files are.
        basis: what all features of this run come from.
        batches: what its training batches come from, besides an epoch's plan.
    """

    def __init__(self, folder: Path, basis: Iterable[str], batches: str) -> None:
        facts = machine("cpu") | {"commit": None, "threads": torch.get_num_threads(), "code": harness_version()}
        self._folder, self._basis, self._batches = folder, [*basis, facts], batches
        self._epoch, self._found, self._new = "", list[Kept](), list[Kept]()
        self._size = 0  # of the new ones, in bytes
        self._charged = -1  # the last step whose seconds were taken over
        self._taken = {"train_seconds": 0.0, "eval_seconds": 0.0}

    def begin_epoch(self, plan: EpochPlan) -> None:
        """The steps that follow are those of an epoch with this plan."""
        drawn = {**vars(plan), **vars(plan.augment)}
        content = tensors_digest({name: value for name, value in drawn.items() if isinstance(value, Tensor)})
        self._epoch = self._name(f"{self._batches} {content}")
        self._found, self._new, self._size, self._charged = self._read(self._epoch), [], 0, -1

    def of_step(self, step: int, compute: Callable[[], Tensor]) -> Tensor:
        """Features of the images of this step (from 0) of the epoch."""
        if self._found:
            features, seconds = self._found[step]
            self._taken["train_seconds"] += seconds if step != self._charged else 0.0
            self._charged = step
            return features.clone()  # a head may work in place
        start = time.monotonic()
        features = compute()
        # Not where an epoch is resumed, once if a method asks twice, and no more than a file holds.
        if step == len(self._new) and self._size <= LARGEST:
            self._new.append((features.clone(), time.monotonic() - start))
            self._size += features.nbytes
        return features

    def end_epoch(self, steps: int) -> None:
        """Keeps the features of an epoch of so many steps, if it had all of them here."""
        if len(self._new) == steps:
            self._write(self._epoch, self._new)
        self._found, self._new = [], []

    def of_part(self, part: str, pixels: str, which: str, compute: Callable[[], list[Tensor]]) -> list[Tensor]:
        """Features of a part's images as they are, in batches; `pixels` is a hash, `which` says what is taken."""
        name = self._name(f"{pixels} {which}")
        found = self._read(name)
        self._taken["train_seconds" if part == "train" else "eval_seconds"] += sum(seconds for _, seconds in found)
        if found:
            return [features for features, _ in found]
        start = time.monotonic()
        computed = compute()
        each = (time.monotonic() - start) / len(computed) if computed else 0.0
        self._write(name, [(features, each) for features in computed])
        return computed

    def seconds_taken(self) -> dict[str, float]:
        """What other runs spent on the features taken over since the last call."""
        taken, self._taken = self._taken, dict.fromkeys(self._taken, 0.0)
        return taken

    # ---- files --------------------------------------------------------------------------------------------------

    def _name(self, content: str) -> str:
        return sha256_json([*self._basis, content])

    def _read(self, name: str) -> list[Kept]:
        path = self._folder / name
        with contextlib.suppress(UserError, OSError):  # damaged or gone: computed again
            state = load_state(path, name)
            if state is not None:
                path.touch()
                return list(zip(state["features"], state["seconds"], strict=True))
        return []

    def _write(self, name: str, kept: list[Kept]) -> None:
        if sum(features.nbytes for features, _ in kept) > LARGEST:
            return
        features, seconds = ([one[place] for one in kept] for place in (0, 1))
        with contextlib.suppress(OSError):  # a full disk: the others compute them again
            save_state(self._folder / name, {"features": features, "seconds": seconds}, name)
            self._make_room()

    def _make_room(self) -> None:
        files = {path: path.stat() for path in self._folder.iterdir()}
        left = sum(facts.st_size for facts in files.values())
        for path in sorted(files, key=lambda path: files[path].st_mtime):
            if left <= KEPT:
                return
            left -= files[path].st_size
            path.unlink(missing_ok=True)
