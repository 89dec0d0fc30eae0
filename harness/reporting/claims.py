"""Published numbers, and the measured rows that may stand beside them."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from harness.base import config
from harness.base.errors import UserError
from harness.base.files import read_yaml
from harness.metrics.selection import SELECTION_RULES
from harness.metrics.shots import GROUPS, POLICIES
from harness.records.schema import HEADLINE
from harness.reporting.provenance import ResolveRecipe, flat
from harness.reporting.summary import Row, Section, Stat

CLAIMS_FILE = "claims.yaml"
NOT_STATED = "not stated"
TRACK: Final = "paper"
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
"""Data set, imbalance factor, method and variant, so spelled that a claim and a row about the same thing are equal."""


@dataclass(frozen=True)
class Claim:
    """One number that somebody published, with what is known of how it was measured."""

    dataset: str
    imbalance_factor: float
    backbone: str
    method: str
    variant: str  # "" is the method's default
    group: str  # all, many, medium or few
    value: float  # top-1 accuracy in percent
    selection: str  # a selection rule, or "not stated"
    source: str
    location: str
    shot_policy: str | None = None
    epochs: str | None = None
    note: str = ""
    original: str | None = None  # what is printed, where that is not this value ("error 57.30")
    track: Literal["paper"] = TRACK

    def __post_init__(self) -> None:
        """Refuses values out of their domain."""
        if not 0 <= self.value <= 100:
            raise ValueError(f"value must be a percentage, found {self.value}")
        _check("group", self.group, ("all", *GROUPS))
        _check("selection", self.selection, (*SELECTION_RULES, NOT_STATED))
        if self.shot_policy is not None:
            _check("shot_policy", self.shot_policy, POLICIES)

    @property
    def rule(self) -> str:
        """The selection rule a measurement is read at: the claim's own, or the headline rule if none is stated."""
        return HEADLINE if self.selection == NOT_STATED else self.selection


def _check(key: str, value: str, known: Any) -> None:
    if value not in known:
        raise ValueError(f"{key} must be one of {', '.join(known)}, found '{value}'")


def own_claims(method: str, folder: Path) -> list[Claim]:
    """The claims in `claims.yaml` of a method's folder, which may have none.

    Raises:
        UserError: unknown key, wrong type, or a claim of another method.
    """
    path = folder / CLAIMS_FILE
    if not path.exists():
        return []
    values = read_yaml(path)
    entries = values.get("claims")
    if set(values) != {"claims"} or not isinstance(entries, list):
        raise UserError(
            f"{path}: expected one key 'claims' with a list, found {', '.join(map(str, values)) or 'nothing'}"
        )
    claims = []
    for index, entry in enumerate(entries):
        where = f"{path}: claims[{index}]"
        if not isinstance(entry, dict):
            raise UserError(f"{where}: expected keys and values, found {entry!r}")
        claim = config.build(Claim, entry, where)
        if claim.method != method:
            raise UserError(f"{where}.method: expected '{method}', the folder's method, found '{claim.method}'")
        claims.append(claim)
    return claims


@dataclass(frozen=True)
class Measured:
    """A row beside a claim; `delta` is measured minus published, as a fraction."""

    section: Section
    row: Row
    stat: Stat
    delta: float


@dataclass(frozen=True)
class Comparison:
    """A claim, and what was measured under a comparable protocol."""

    claim: Claim
    status: Literal["measured", "failed", "not run"]
    measured: tuple[Measured, ...]


@dataclass(frozen=True)
class Setting:
    """What, beside its identity, decides whether a row may stand beside a claim."""

    track: str
    backbone: str
    profile: str
    shot_policy: str
    changed: str = ""  # how its recipe differs from the one that its entry has

    def differences(self, claim: Claim) -> list[str]:
        """What differs from the claim's setting, in words; empty if the two are comparable.

        A group means the same classes only under the same shot policy; all images do not depend on it.
        """
        found = []
        if self.track != TRACK:
            found.append(f"recipe: {self.track} track")
        if backbone_identity(self.backbone) != backbone_identity(claim.backbone):
            found.append(f"backbone {self.backbone}, paper {claim.backbone}")
        if self.changed:
            found.append(f"recipe changed: {self.changed}")
        if self.profile not in PROFILES or (self.profile == "given" and dataset_identity(claim.dataset) in PROFILED):
            found.append(f"profile {self.profile}")
        if claim.group != "all" and claim.shot_policy not in (None, self.shot_policy):
            found.append(f"shot policy {self.shot_policy}, paper {claim.shot_policy}")
        return found


def index_rows(
    sections: list[Section], resolve: ResolveRecipe | None = None
) -> dict[Identity, dict[Setting, list[tuple[Section, Row]]]]:
    """The rows of all sections, so that those of a claim are found without a search.

    Args:
        resolve: the recipe that an entry has; a row with another one (`--set`, or an older recipe) is no paper's.
    """
    rows: dict[Identity, dict[Setting, list[tuple[Section, Row]]]] = defaultdict(lambda: defaultdict(list))
    for section in sections:
        p = section.protocol
        for row in section.rows:
            first = row.first
            identity = (dataset_identity(p.dataset), p.imbalance_factor, first.method, first.variant)
            changed = _changed(row, resolve) if resolve and p.track == TRACK else ""
            setting = Setting(p.track, first.backbone, p.profile, p.shot_policy, changed)
            rows[identity][setting].append((section, row))
    return {identity: dict(by_setting) for identity, by_setting in rows.items()}


def _changed(row: Row, resolve: ResolveRecipe) -> str:
    """The keys in which a row's recipe is not its entry's, with both values."""
    entry = resolve(row.first.entry, row.first.dataset)
    if entry is None:
        return f"{row.first.entry} has none here"
    own, expected = dict(flat(row.first.recipe)), dict(flat(entry))
    # How a run was spread over devices is no recipe's, and papers seldom say it; it is a mark of the row.
    own = {key: value for key, value in own.items() if not key.startswith("parallel.")}
    keys = [key for key in sorted({*own, *expected}) if own.get(key) != expected.get(key)]
    shown = [f"{key} {own.get(key, '-')} instead of {expected.get(key, '-')}" for key in keys[:3]]
    return ", ".join([*shown, f"{len(keys) - 3} more"] if keys[3:] else shown)


def claim_identity(claim: Claim) -> Identity:
    """The key of a claim in `index_rows`."""
    return dataset_identity(claim.dataset), claim.imbalance_factor, claim.method, claim.variant


def dataset_identity(name: str) -> str:
    """CIFAR-100-LT and cifar100 are one data set; the tail is described by the imbalance factor."""
    plain = _plain(name)
    return DATASETS.get(plain, plain).removesuffix("lt")


def compare(claims: list[Claim], sections: list[Section], resolve: ResolveRecipe | None = None) -> list[Comparison]:
    """Finds the comparable rows of each claim: same method, data set, imbalance factor, backbone, track `paper`.

    The outcome is in a fixed order that does not depend on the order of the claims.
    """
    rows = index_rows(sections, resolve)
    return [_comparison(claim, rows.get(claim_identity(claim), {})) for claim in sorted(claims, key=_order)]


def _order(c: Claim) -> tuple[Any, ...]:
    place = ("all", *GROUPS).index(c.group)
    return c.method, c.variant, c.dataset, -c.imbalance_factor, c.backbone, place, c.source, c.location, c.value


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def backbone_identity(name: str) -> str:
    """ResNet-32 of the CIFAR papers is timm's `resnet32_cifar`."""
    return BACKBONES.get(_plain(name), _plain(name))


def _comparison(claim: Claim, candidates: dict[Setting, list[tuple[Section, Row]]]) -> Comparison:
    usable = [pair for setting, rows in candidates.items() if not setting.differences(claim) for pair in rows]
    measured = tuple(
        Measured(section, row, stat, stat.mean - claim.value / 100)
        for section, row in usable
        if (stat := row.stats[claim.rule][claim.group])
    )
    failed = bool(usable) and all(row.status == "failed" for _, row in usable)
    return Comparison(claim, "measured" if measured else "failed" if failed else "not run", measured)
