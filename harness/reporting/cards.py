"""Cards: published numbers of methods that cannot be run here, each method with the reason.

Those that come with the project are made from its CSV (`published.py`); a person may add a file to `results/reported`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.base import config
from harness.base.errors import UserError
from harness.base.files import read_json
from harness.reporting.claims import TRACK, Claim

SCHEMA = 1
IMPLIED = ("method", "track")  # of the claims in a card: the card's own name, and `paper`


@dataclass(frozen=True)
class Card:
    """A method that is only reported. The `method` of its claims is its name, the variant is as published."""

    name: str
    reason: str  # why it cannot be run here
    claims: tuple[Claim, ...]


@dataclass(frozen=True)
class _File:
    schema: int
    name: str
    reason: str
    claims: list[dict[str, Any]]

    def __post_init__(self) -> None:
        if self.schema != SCHEMA:
            raise ValueError(f"schema must be {SCHEMA}, found {self.schema}")
        for key in ("name", "reason"):
            if not getattr(self, key).strip():
                raise ValueError(f"{key} must say something")


def load_cards(folder: Path, shipped: Iterable[Card] = ()) -> tuple[list[Card], list[tuple[Path, str]]]:
    """The shipped cards, then those of a folder, by file name; and the files left out, each with the reason.

    A folder that does not exist has none. A damaged card, or one whose name another card has, is left out.
    """
    cards = {card.name: card for card in shipped}
    left_out = []
    for path in sorted(folder.glob("*.json")):
        try:
            card = _read(path)
            if card.name in cards:
                raise UserError(f"{path}: another card has the name '{card.name}'")
        except UserError as error:
            left_out.append((path, str(error)))
        else:
            cards[card.name] = card
    return list(cards.values()), left_out


def _read(path: Path) -> Card:
    file = config.build(_File, read_json(path, "card"), str(path))
    return Card(
        file.name,
        file.reason,
        tuple(_claim(file, entry, f"{path}: claims[{index}]") for index, entry in enumerate(file.claims)),
    )


def _claim(file: _File, entry: dict[str, Any], where: str) -> Claim:
    if implied := [key for key in IMPLIED if key in entry]:
        raise UserError(f"{where}: leave out '{implied[0]}'; it is that of the card")
    return config.build(Claim, {**entry, "method": file.name, "track": TRACK}, where)
