"""The published numbers of the CSV: what reaches a claim or a card, and what a damaged file says."""

from __future__ import annotations

from pathlib import Path

from harness.reporting.cards import load_cards
from harness.reporting.claims import own_claims
from harness.reporting.published import read_published
from harness.spec.registry import find_plugins

CARDS = Path(__file__).parents[2] / "results" / "reported"


def test_the_csv_gives_the_claims_that_are_committed() -> None:
    committed = {name: own_claims(name, plugin.folder) for name, plugin in find_plugins().items()}
    assert {name: claims for name, claims in committed.items() if claims} == read_published().claims


def test_the_csv_gives_the_cards_that_are_committed() -> None:
    committed = {card.name: card for card in load_cards(CARDS)[0]}
    assert committed == {card.name: card for card in read_published().cards}
