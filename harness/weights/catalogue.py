"""The catalogue of published weights, and how their files get here: by pinned sha256, from a mirror first."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from harness.base import config
from harness.base.errors import UserError, lookup
from harness.base.files import PACKAGE, read_yaml, sha256_file, shown
from harness.metrics.selection import SELECTION_RULES
from harness.reading import pins
from harness.spec.pretrained import in_mirror, weights_folder
from harness.splits import store

FILE = PACKAGE / "weights.yaml"
SITE = "https://raw.githubusercontent.com"
NOT_STATED = "not stated"  # as claims say it


@dataclass(frozen=True)
class Source:
    """A public repository at one commit."""

    repository: str = ""
    commit: str = ""
    licence: str = "not known"


@dataclass(frozen=True)
class Normalisation:
    """Of each channel, for pixels from 0 to 1."""

    mean: list[float]
    std: list[float]


@dataclass(frozen=True)
class Printed:
    """A published number."""

    value: float  # top-1 accuracy in percent
    where: str
    original: str = ""  # what is printed, where that is not this value

    def __post_init__(self) -> None:
        if not 0 <= self.value <= 100:
            raise ValueError(f"value must be a percentage, found {self.value}")


@dataclass(frozen=True)
class Weights:
    """One file of weights, and what is known about it."""

    dataset: str
    backbone: str
    title: str = ""
    source: str = ""  # key of the catalogue's sources
    path: str = ""  # in the repository
    file: str = ""  # its name in a mirror, and in the data root
    bytes: int = 0  # 0: not known
    sha256: str = ""  # or only its first digits; such a file is never fetched
    imbalance_factor: float = 1.0  # of what it was trained on, with the exponential profile; 1: balanced
    normalisation: str = ""  # key of the catalogue's normalisations; "": the data set's own
    method: str = "ce"
    epochs: str = ""  # length of its training, as printed
    selection: str = NOT_STATED  # the rule that its publication chose the epoch by
    published: list[Printed] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not 1 <= self.imbalance_factor < float("inf"):
            raise ValueError(f"imbalance_factor must be a number of at least 1, found {self.imbalance_factor}")
        if self.selection not in (*SELECTION_RULES, NOT_STATED):
            raise ValueError(f"selection must be a selection rule or '{NOT_STATED}', found '{self.selection}'")
        if not re.fullmatch(r"[0-9a-f]{0,64}", self.sha256):
            raise ValueError(f"sha256 must be (the first) hexadecimal digits of one, found '{self.sha256}'")

    @property
    def pinned(self) -> bool:
        """Whether the full hash is known, so that it may be fetched."""
        return len(self.sha256) == 64


@dataclass(frozen=True)
class Catalogue:
    """The content of `harness/weights.yaml`."""

    normalisations: dict[str, Normalisation]
    post_hoc: dict[str, dict[str, Any]]  # method -> its params
    sources: dict[str, Source]
    weights: dict[str, Weights]

    def source(self, weights: Weights) -> Source:
        """Where weights come from; an empty source for the user's own file."""
        return self.sources[weights.source] if weights.source else Source()


@cache
def catalogue(path: Path = FILE) -> Catalogue:
    """The catalogue, checked.

    Raises:
        UserError: unknown key, wrong type, or a source or normalisation that is not there.
    """
    found = config.build(Catalogue, read_yaml(path), shown(path))
    for name, one in found.weights.items():
        where = f"{shown(path)}: weights.{name}"
        lookup("source", one.source, found.sources, where=f"{where}.source")
        lookup("normalisation", one.normalisation, found.normalisations, where=f"{where}.normalisation")
    return found


def get_weights(name: str) -> Weights:
    """The weights of that name.

    Raises:
        UserError: there are none; the message has the nearest names.
    """
    return lookup("set of weights", name, catalogue().weights)


def fetch(name: str, mirror: Path | None = None) -> Path:
    """Brings the file of published weights to `weights/` in the data root; a right one that is there is left alone.

    Args:
        mirror: a folder that is looked at first (`harness.spec.pretrained.in_mirror`).

    Raises:
        UserError: only part of its hash is known, the file has another hash, or there is no network.
    """
    weights = get_weights(name)
    if not weights.pinned:
        raise UserError(
            f"{name}: only the first {len(weights.sha256)} digits of its sha256 are known, so it is not fetched; "
            f"with a file that you have: ltbench weights score {name} --file FILE"
        )
    path = weights_folder() / weights.file
    if path.is_file():
        if fault := pins.wrong(path, weights.sha256):
            raise UserError(f"{path}: wrong content: {fault}; delete it, and it is fetched again")
        return path
    source = catalogue().source(weights)
    url = f"{SITE}/{source.repository}/{source.commit}/{weights.path}"
    advice = f"put the file at {path} yourself, or point --mirror at a folder that has it"
    store.bring(path, weights.sha256, in_mirror(weights.file, mirror), url, advice)
    return path


def check_file(path: Path, name: str) -> None:
    """Checks that the user's file can be the published one of that name.

    Raises:
        UserError: it has another hash.
    """
    weights, found = get_weights(name), sha256_file(path)
    if not found.startswith(weights.sha256):
        wanted = f"{'' if weights.pinned else 'that begins with '}{weights.sha256}"
        raise UserError(f"{path}: expected sha256 {wanted} of '{name}', found {found}; it is another file")
