"""What was measured beside a published number: the rows under a comparable protocol, and what differs in the others."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal, NamedTuple

from harness.metrics.shots import GROUPS
from harness.reporting.claims import TRACK, Claim
from harness.reporting.drawer import ResolveRecipe, differing
from harness.reporting.summary import Row, Section, Stat

# Backbones whose printed name differs from the one that builds them; both without punctuation.
BACKBONES: Final = {
    "resnet32": "resnet32cifar",
    "resnet34cifarstem": "resnet34cifar",
    "resnext50": "resnext5032x4d",
}
DATASETS: Final = {"inaturalist2018": "inat2018"}  # as BACKBONES, of data sets
PROFILES: Final = ("exponential", "given")  # of every published data set
PROFILED: Final = ("cifar10", "cifar100")  # those that are cut to their tail; the others have it already

Identity = tuple[str, float, str, str]
"""Data set, imbalance factor, method and variant, spelled so that a claim and a row about the same thing are equal."""


class Place(NamedTuple):
    """A row, and the table it stands in."""

    section: Section
    row: Row
    changed: str = ""  # how its recipe differs from the one that its entry has

    @property
    def preference(self) -> tuple[int, str, str, str]:
        """Smaller for a better row of several: most seeds with a result, then the smaller recipe hash."""
        return -self.row.ok_runs, self.row.first.recipe_sha256, self.section.slug, self.row.key

    def differences(self, claim: Claim) -> list[str]:
        """What keeps the row from standing beside a claim about the same thing, in words; empty if nothing does.

        A group means the same classes only under the same shot policy; all images do not depend on it.
        """
        p, backbone, found = self.section.protocol, self.row.first.backbone, []
        if p.track != TRACK:
            found.append(f"recipe: {p.track} track")
        if backbone_identity(backbone) != backbone_identity(claim.backbone):
            found.append(f"backbone {backbone}, paper {claim.backbone}")
        if self.changed:
            found.append(f"recipe changed: {self.changed}")
        if p.profile not in PROFILES or (p.profile == "given" and dataset_identity(claim.dataset) in PROFILED):
            found.append(f"profile {p.profile}")
        if claim.group != "all" and claim.shot_policy not in (None, p.shot_policy):
            found.append(f"shot policy {p.shot_policy}, paper {claim.shot_policy}")
        return found


class Beside(NamedTuple):
    """A measured value beside a claim; `delta` is measured minus published, as a fraction."""

    place: Place
    stat: Stat
    delta: float


@dataclass(frozen=True)
class Comparison:
    """A claim, and the rows about the same data set, imbalance factor, method and variant."""

    claim: Claim
    comparable: list[Place]
    others: list[tuple[Place, list[str]]]  # under another protocol, and what differs, in words

    @cached_property
    def measured(self) -> list[Beside]:
        """The comparable rows that have a value for the claim's group at its selection rule."""
        stats = ((place, place.row.stats[self.claim.rule][self.claim.group]) for place in self.comparable)
        return [Beside(place, stat, stat.mean - self.claim.value / 100) for place, stat in stats if stat]

    @property
    def status(self) -> Literal["measured", "failed", "not run"]:
        """What the report says of the claim in a word."""
        if self.measured:
            return "measured"
        failed = self.comparable and all(place.row.status == "failed" for place in self.comparable)
        return "failed" if failed else "not run"


class MeasuredRows:
    """The rows of all sections, so that those of a claim are found without a search."""

    def __init__(self, sections: Iterable[Section], resolve: ResolveRecipe | None = None) -> None:
        """Looks at every row once.

        Args:
            sections: the tables.
            resolve: the recipe that an entry has; a row with another one (`--set`, or an older recipe) is no paper's.
                Without it a changed recipe is not noticed.
        """
        self._places: dict[Identity, list[Place]] = defaultdict(list)
        for section in sections:
            p = section.protocol
            for row in section.rows:
                changed = _changed(row, resolve) if resolve and p.track == TRACK else ""
                identity = dataset_identity(p.dataset), p.imbalance_factor, row.first.method, row.first.variant
                self._places[identity].append(Place(section, row, changed))

    def beside(self, claim: Claim, variant: str | None = None) -> Comparison:
        """The rows about what a claim is about.

        Args:
            claim: the published number.
            variant: instead of the claim's, the one that runs its recipe.
        """
        variant = claim.variant if variant is None else variant
        identity = dataset_identity(claim.dataset), claim.imbalance_factor, claim.method, variant
        found = [(place, place.differences(claim)) for place in self._places.get(identity, ())]
        comparable = [place for place, differences in found if not differences]
        return Comparison(claim, comparable, [other for other in found if other[1]])


def _changed(row: Row, resolve: ResolveRecipe) -> str:
    """The keys in which a row's recipe is not its entry's, with both values."""
    entry = resolve(row.first.entry, row.first.dataset)
    if entry is None:
        return f"{row.first.entry} has none here"
    # How a run was spread over devices is no part of a recipe, and papers seldom say it; the row has a mark instead.
    lines = [line for line in differing(row.first.recipe, entry) if not line[0].startswith("parallel.")]
    shown = [f"{key} {own} instead of {expected}" for key, own, expected in lines[:3]]
    return ", ".join([*shown, f"{len(lines) - 3} more"] if lines[3:] else shown)


def compare(claims: Iterable[Claim], rows: MeasuredRows) -> list[Comparison]:
    """Each claim with its rows, in a fixed order that does not depend on the order of the claims."""
    return [rows.beside(claim) for claim in sorted(claims, key=_order)]


def dataset_identity(name: str) -> str:
    """CIFAR-100-LT and cifar100 are one data set; the tail is described by the imbalance factor."""
    plain = _plain(name)
    return DATASETS.get(plain, plain).removesuffix("lt")


def backbone_identity(name: str) -> str:
    """ResNet-32 of the CIFAR papers is timm's `resnet32_cifar`."""
    return BACKBONES.get(_plain(name), _plain(name))


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _order(c: Claim) -> tuple[Any, ...]:
    place = ("all", *GROUPS).index(c.group)
    return c.method, c.variant, c.dataset, -c.imbalance_factor, c.backbone, place, c.source, c.location, c.value
