"""What was measured beside a published number, and how the two compare: one answer for every table and file."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final, Literal, NamedTuple, get_args

from harness.metrics.shots import GROUPS
from harness.reporting.claims import NOT_STATED, TRACK, Claim
from harness.reporting.drawer import ResolveRecipe, differing
from harness.reporting.significance import ENOUGH, t_quantile
from harness.reporting.summary import EPOCHS, Row, Section, Stat
from harness.spec.recipes import migrated

# Backbones whose printed name differs from the one that builds them; both without punctuation.
BACKBONES: Final = {
    "resnet32": "resnet32cifar",
    "resnet34cifarstem": "resnet34cifar",
    "resnext50": "resnext5032x4d",
    "vitb16ofimagenet21k": "vitbasepatch16224",
    "vitb16ofclip": "vitbasepatch16clipquickgelu224",
}
DATASETS: Final = {"inaturalist2018": "inat2018"}  # as BACKBONES, of data sets
PROFILES: Final = ("exponential", "given")  # of every published data set
PROFILED: Final = ("cifar10", "cifar100")  # those that are cut to their tail; the others have it already
TOLERANCE: Final = 0.005  # half a point of accuracy
FARTHEST: Final = 0.01  # an interval reaches no further here: seeds that lie far apart must not make a number agree
ROUNDING: Final = 1e-9  # a difference of exactly the tolerance is within it
UNEXPLAINED: Final = "no known reason"

Status = Literal["reproduced", "differs", "not comparable", "failed", "not run", "reported only"]
STATUSES: Final[tuple[Status, ...]] = get_args(Status)

Identity = tuple[str, float, str, str]
"""Data set, imbalance factor, method and variant, spelled so that a claim and a row about the same thing are equal."""


class Candidate(NamedTuple):
    """A row about the same thing as a claim."""

    row: Row
    changed: str = ""  # how its recipe differs from the one that its entry has

    @property
    def preference(self) -> tuple[int, str, str, str, str]:
        """Sorts the best of several rows first: most seeds with a result, then the smaller recipe hash."""
        first = self.row.first
        return -self.row.ok_runs, first.recipe_sha256, first.split, first.track, self.row.key

    def differences(self, claim: Claim) -> list[str]:
        """Why the row cannot stand beside a claim about the same thing, in words; empty if it can.

        A group means the same classes only under the same shot policy; all images do not depend on it.
        """
        first, found = self.row.first, []
        if first.track != TRACK:
            found.append(f"recipe: {first.track} track")
        if backbone_identity(first.backbone) != backbone_identity(claim.backbone):
            found.append(f"backbone {first.backbone}, paper {claim.backbone}")
        if self.changed:
            found.append(f"recipe changed: {self.changed}")
        cut_here = dataset_identity(claim.dataset) in PROFILED
        if first.profile not in PROFILES or (first.profile == "given" and cut_here):
            found.append(f"profile {first.profile}")
        if claim.group != "all" and claim.shot_policy != first.shot_policy:
            found.append(f"shot policy {first.shot_policy}, paper {claim.shot_policy or 'does not say'}")
        return found


class Beside(NamedTuple):
    """A measured value beside a claim; `delta` is measured minus published, as a fraction."""

    row: Row
    stat: Stat
    delta: float


class Todo(NamedTuple):
    """What would measure a claim, and what that costs; or what stands in the way."""

    command: str = ""
    cost: str = ""
    obstacle: str = ""


@dataclass(frozen=True)
class Comparison:
    """A claim, and what was measured beside it."""

    claim: Claim
    status: Status
    reason: str = ""
    measured: tuple[Beside, ...] = ()  # the comparable rows with a value; the first one decides the status
    marks: tuple[str, ...] = ()  # what a reader must know of that value
    row_key: str | None = None  # the leaderboard's row that is measured, that failed, or that is not comparable
    weights: str = ""  # what published weights score, where they fit; never a measurement of the claim's recipe
    aside: Beside | None = None  # what was measured, where it is not comparable
    todo: Todo | None = None  # where it was not run, or is not comparable

    @property
    def best(self) -> Beside | None:
        """The measured value, if there is one."""
        return self.measured[0] if self.measured else None


class MeasuredRows:
    """The rows of all sections, so that those of a claim are found without a search."""

    def __init__(self, sections: Iterable[Section], resolve: ResolveRecipe | None = None) -> None:
        """Looks at every row once.

        Args:
            sections: the tables.
            resolve: the recipe that an entry has; a row with another one (`--set`, or an older recipe) is no paper's.
                Without it a changed recipe is not noticed.
        """
        self._by_identity: dict[Identity, list[Candidate]] = defaultdict(list)
        for row in (row for section in sections for row in section.rows):
            first = row.first
            changed = _changed(row, resolve) if resolve and first.track == TRACK else ""
            identity = dataset_identity(first.dataset), first.imbalance_factor, first.method, first.variant
            self._by_identity[identity].append(Candidate(row, changed))

    def beside(self, claim: Claim, variant: str | None = None, known: str | None = None) -> Comparison:
        """What was measured of the claim's data set, imbalance factor, method and variant, and how the two compare.

        Args:
            claim: the published number.
            variant: instead of the claim's, the one that runs its recipe.
            known: why a difference is expected.
        """
        variant = claim.variant if variant is None else variant
        identity = dataset_identity(claim.dataset), claim.imbalance_factor, claim.method, variant
        candidates = sorted(self._by_identity.get(identity, ()), key=attrgetter("preference"))
        found = sorted(((one.row, one.differences(claim)) for one in candidates), key=lambda pair: len(pair[1]))
        if measured := [one for row, differences in found if not differences and (one := _value(claim, row))]:
            return _measured(claim, measured, known)
        for row, differences in found:
            if row.ok_runs:
                reason = "; ".join(differences) or _no_value(claim, row)
                return Comparison(claim, "not comparable", reason, row_key=row.key, aside=_value(claim, row))
            if row.status == "failed" and not differences:
                return Comparison(claim, "failed", "; ".join(row.failures), row_key=row.key)
        return Comparison(claim, "not run")


def _value(claim: Claim, row: Row) -> Beside | None:
    stat = row.stats[claim.rule][claim.group]
    return Beside(row, stat, stat.mean - claim.value / 100) if stat else None


def _measured(claim: Claim, measured: Sequence[Beside], known: str | None) -> Comparison:
    row, stat, delta = measured[0]
    # The published value is within the tolerance, or near and in the interval of the measured mean. That of two seeds
    # holds nearly everything: it reaches six times as far as they lie apart.
    reach = interval_reach(stat) if stat.n >= ENOUGH else 0.0
    agrees = abs(delta) <= max(TOLERANCE, min(reach, FARTHEST)) + ROUNDING
    at = (
        f"measured at {EPOCHS[claim.rule]}"
        if row.trains
        else "its last stage trains nothing, so there is no epoch to choose"
    )
    marks = [at, *_marks(claim, row)]
    if len(measured) > 1:
        marks.append(f"one of {len(measured)} comparable rows")
    marks += row.marks
    if agrees and abs(delta) > TOLERANCE + ROUNDING:
        marks.append(f"95 % interval of the mean ± {100 * reach:.1f}")
    if agrees and known:
        marks.append(known)
    status: Status = "reproduced" if agrees else "differs"
    reason = "" if agrees else known or UNEXPLAINED
    return Comparison(claim, status, reason, tuple(measured), tuple(marks), row.key)


def interval_reach(stat: Stat) -> float:
    """How far the 95 % t-interval of a mean over seeds reaches to either side; 0 with one seed, which has none."""
    return 0.0 if stat.std is None else t_quantile(stat.n) * stat.std / math.sqrt(stat.n)


def _marks(claim: Claim, row: Row) -> Iterator[str]:
    first = row.first
    if claim.selection == NOT_STATED:
        yield "selection not stated there"
    if dataset_identity(claim.dataset) in PROFILED:
        yield f"images drawn by rule {first.subset_rule}"
    if claim.selection == "best_test" and first.stage1_selection not in (None, "best_test"):
        yield f"stage 1 taken at {EPOCHS.get(first.stage1_selection, first.stage1_selection)}"
    if first.variant != claim.variant:
        yield f"measured as {row.name}"
    if row.status == "partial":
        yield f"{row.ok_runs} of {len(row.runs)} seeds"


def _no_value(claim: Claim, row: Row) -> str:
    if row.stats[claim.rule]["all"] is None:
        return f"no result at {EPOCHS[claim.rule]}, as there is no validation part"
    return f"no class is {claim.group}-shot in the measured data set"


def _changed(row: Row, resolve: ResolveRecipe) -> str:
    """The keys in which a row's recipe is not its entry's, with both values."""
    entry = resolve(row.first.entry, row.first.dataset)
    if entry is None:
        return f"{row.first.entry} has none here"
    # How a run was spread over devices is no part of a recipe, and papers seldom say it; the row has a mark instead.
    lines = [line for line in differing(migrated(row.first.recipe), entry) if not line[0].startswith("parallel.")]
    shown = [f"{key} {own} instead of {expected}" for key, own, expected in lines[:3]]
    return ", ".join([*shown, f"{len(lines) - 3} more"] if lines[3:] else shown)


def in_order(claims: Iterable[Claim]) -> list[Claim]:
    """The claims as files and pages list them, whatever order they come in."""

    def place(c: Claim) -> tuple[Any, ...]:
        group = ("all", *GROUPS).index(c.group)
        return c.method, c.variant, c.dataset, -c.imbalance_factor, c.backbone, group, c.source, c.location, c.value

    return sorted(claims, key=place)


def dataset_identity(name: str) -> str:
    """CIFAR-100-LT and cifar100 are one data set; the tail is described by the imbalance factor."""
    return DATASETS.get(plain(name), plain(name)).removesuffix("lt")


def backbone_identity(name: str) -> str:
    """ResNet-32 of the CIFAR papers is timm's `resnet32_cifar`."""
    return BACKBONES.get(plain(name), plain(name))


def plain(name: str) -> str:
    """Small letters and digits only."""
    return re.sub(r"[^a-z0-9]", "", name.lower())
