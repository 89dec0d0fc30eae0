"""Claims: numbers that somebody published."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from harness.base.errors import UserError
from harness.metrics.selection import SELECTION_RULES
from harness.metrics.shots import GROUPS, POLICIES
from harness.records.schema import HEADLINE
from harness.reporting.listed import read_list

CLAIMS_FILE = "claims.yaml"
NOT_STATED = "not stated"
SELECTIONS: Final = (*SELECTION_RULES, NOT_STATED)
TRACK: Final = "paper"


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
    selection: str  # one of `SELECTIONS`
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
        one_of("group", self.group, ("all", *GROUPS))
        one_of("selection", self.selection, SELECTIONS)
        if self.shot_policy is not None:
            one_of("shot_policy", self.shot_policy, POLICIES)

    @property
    def rule(self) -> str:
        """The selection rule a measurement is read at: the claim's own, or the headline rule if none is stated."""
        return HEADLINE if self.selection == NOT_STATED else self.selection


def one_of(key: str, value: str, known: Collection[str]) -> None:
    """Raises a ValueError that names the key, if its value is not known."""
    if value not in known:
        raise ValueError(f"{key} must be one of {', '.join(known)}, found '{value}'")


def own_claims(method: str, folder: Path) -> list[Claim]:
    """The claims in `claims.yaml` of a method's folder, which may have none.

    Raises:
        UserError: unknown key, wrong type, or a claim of another method.
    """
    path = folder / CLAIMS_FILE
    claims = read_list(Claim, path, "claims") if path.exists() else []
    for index, claim in enumerate(claims):
        if claim.method != method:
            raise UserError(
                f"{path}: claims[{index}].method: expected '{method}', the folder's method, found '{claim.method}'"
            )
    return claims
