"""Claims: numbers that somebody published; and cards: those of methods that cannot be run here, with the reason.

Cards that come with the project are made from its CSV (`published.py`); a person may add a file to `results/reported`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from harness.base import config
from harness.base.errors import UserError
from harness.base.files import read_json
from harness.metrics.selection import SELECTION_RULES
from harness.metrics.shots import GROUPS, POLICIES
from harness.records.schema import HEADLINE
from harness.reporting.inputs import read_list, readable

CLAIMS_FILE = "claims.yaml"
NOT_STATED = "not stated"
SELECTIONS: Final = (*SELECTION_RULES, NOT_STATED)
TRACK: Final = "paper"
CARD_SCHEMA: Final = 1


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
        one_of("shot_policy", self.shot_policy, POLICIES)

    @property
    def rule(self) -> str:
        """The selection rule a measurement is read at: the claim's own, or the headline rule if none is stated."""
        return HEADLINE if self.selection == NOT_STATED else self.selection


def one_of(key: str, value: str | None, known: Collection[str]) -> None:
    """Raises a ValueError that names the key, if its value is given and not known."""
    if value is not None and value not in known:
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


@dataclass(frozen=True)
class Card:
    """A method that is only reported. The `method` of its claims is its name, the variant is as published."""

    name: str
    reason: str  # why it cannot be run here
    claims: tuple[Claim, ...]


@dataclass(frozen=True)
class _CardFile:
    schema: int
    name: str
    reason: str
    claims: list[dict[str, Any]]

    def __post_init__(self) -> None:
        if self.schema != CARD_SCHEMA:
            raise ValueError(f"schema must be {CARD_SCHEMA}, found {self.schema}")
        for key in ("name", "reason"):
            if not getattr(self, key).strip():
                raise ValueError(f"{key} must say something")


def load_cards(folder: Path, shipped: Iterable[Card] = ()) -> tuple[list[Card], list[tuple[Path, str]]]:
    """The shipped cards, then those of a folder, by file name; and the files left out, each with the reason.

    A folder that does not exist has none. A damaged card, or one whose name another card has, is left out.
    """
    cards = {card.name: card for card in shipped}

    def read(path: Path) -> None:
        card = _read_card(path)
        if cards.setdefault(card.name, card) is not card:
            raise UserError(f"{path}: another card has the name '{card.name}'")

    _, left_out = readable(sorted(folder.glob("*.json")), read)
    return list(cards.values()), left_out


def _read_card(path: Path) -> Card:
    file = config.build(_CardFile, read_json(path, "card"), str(path))
    claims = []
    for index, entry in enumerate(file.claims):
        where = f"{path}: claims[{index}]"
        if implied := [key for key in ("method", "track") if key in entry]:
            raise UserError(f"{where}: leave out '{implied[0]}'; it is that of the card")
        claims.append(config.build(Claim, {**entry, "method": file.name}, where))
    return Card(file.name, file.reason, tuple(claims))
