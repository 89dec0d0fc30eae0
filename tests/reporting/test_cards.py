"""Cards of published numbers: what is read, and what a damaged file says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.reporting.claims import Card, Claim, load_cards
from tests.reporting.conftest import HOSTILE

CLAIM: dict[str, Any] = {
    "dataset": "CIFAR-10-LT", "imbalance_factor": 100, "backbone": "ResNet-32", "variant": "", "group": "all",
    "value": 79.82, "selection": "best_test", "source": "A paper", "location": "Table 1",
}  # fmt: skip
CARD: dict[str, Any] = {"schema": 1, "name": "BBN", "reason": "two branches", "claims": [CLAIM]}


def write(folder: Path, stem: str, **changes: Any) -> Path:
    path = folder / f"{stem}.json"
    path.write_text(json.dumps(CARD | changes))
    return path


def test_a_card_holds_claims_under_its_own_name(tmp_path: Path) -> None:
    write(tmp_path, "bbn")
    (card,), left_out = load_cards(tmp_path)
    assert (card.name, card.reason, left_out) == ("BBN", "two branches", [])
    assert card.claims == (Claim(**CLAIM, method="BBN"),)


def test_cards_come_in_a_fixed_order_and_a_missing_folder_has_none(tmp_path: Path) -> None:
    write(tmp_path, "b", name="first")
    write(tmp_path, "a", name="second")
    assert [card.name for card in load_cards(tmp_path)[0]] == ["second", "first"]
    assert load_cards(tmp_path / "none") == ([], [])


def test_hostile_names_are_plain_text(tmp_path: Path) -> None:
    write(tmp_path, "x", name=HOSTILE, reason=HOSTILE, claims=[CLAIM | {"source": HOSTILE, "note": HOSTILE}])
    (card,), _ = load_cards(tmp_path)
    assert {card.name, card.reason, card.claims[0].source, card.claims[0].method} == {HOSTILE}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 2}, "schema must be 1, found 2"),
        ({"name": " "}, "name must say something"),
        ({"reasn": "x"}, "closest is 'reason'"),
        ({"claims": {}}, "claims: expected"),
        ({"claims": [3]}, "claims[0]"),
        ({"claims": [CLAIM, CLAIM | {"value": 179.82}]}, "claims[1]: value must be a percentage"),
        ({"claims": [CLAIM | {"group": "tail"}]}, "group must be one of"),
        ({"claims": [CLAIM | {"method": "ce"}]}, "leave out 'method'"),
        ({"claims": [CLAIM | {"track": "paper"}]}, "leave out 'track'"),
        ({"claims": [{k: v for k, v in CLAIM.items() if k != "source"}]}, "key 'source' is missing"),
    ],
)
def test_a_bad_card_is_left_out_with_the_reason(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    bad = write(tmp_path, "bad", **changes)
    write(tmp_path, "good", name="good")
    cards, ((path, reason),) = load_cards(tmp_path)
    assert [card.name for card in cards] == ["good"]
    assert path == bad
    assert reason.startswith(str(bad))
    assert message in reason


@pytest.mark.parametrize("text", ["", "[]", "{", "3", '{"schema": NaN}', '{"name": "\ud800"}'])
def test_a_damaged_file_is_left_out(text: str, tmp_path: Path) -> None:
    (tmp_path / "cut.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    cards, ((_, reason),) = load_cards(tmp_path)
    assert cards == []
    assert "cut.json" in reason


def test_a_name_is_taken_once(tmp_path: Path) -> None:
    write(tmp_path, "a")
    write(tmp_path, "b")
    cards, ((path, reason),) = load_cards(tmp_path)
    assert (len(cards), path.name) == (1, "b.json")
    assert "another card has the name 'BBN'" in reason


def test_a_shipped_card_keeps_its_name(tmp_path: Path) -> None:
    write(tmp_path, "ours")
    write(tmp_path, "mine", name="Mine")
    shipped = Card("BBN", "two branches with a cumulative schedule", ())
    (first, second), ((path, reason),) = load_cards(tmp_path, [shipped])
    assert (first, second.name, path.name) == (shipped, "Mine", "ours.json")
    assert "another card has the name 'BBN'" in reason
