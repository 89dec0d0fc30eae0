"""The claims that a method's own folder may hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.base.errors import UserError
from harness.reporting.claims import Claim, own_claims

CLAIM = Claim(
    dataset="CIFAR-100-LT", imbalance_factor=100, backbone="ResNet-32", method="ce", variant="", group="all",
    value=45.3, selection="best_test", source="A paper", location="Table 2",
)  # fmt: skip


def write(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "claims.yaml").write_text(text)
    return folder


def test_missing_file_means_no_claims(tmp_path: Path) -> None:
    assert own_claims("ce", tmp_path) == []


def test_a_file_holds_claims_of_its_method(tmp_path: Path) -> None:
    entry = {key: value for key, value in vars(CLAIM).items() if value is not None}
    assert own_claims("ce", write(tmp_path / "ce", yaml.safe_dump({"claims": [entry]}))) == [CLAIM]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value": 145.3}, "percentage"),
        ({"group": "tail"}, "group must be one of"),
        ({"selection": "best"}, "selection must be one of"),
        ({"shot_policy": "halves"}, "shot_policy must be one of"),
        ({"track": "common"}, r"claims\[0\].track"),
        ({"methd": "ce"}, "closest is 'method'"),
        ({"method": "gcl"}, "expected 'ce'"),
    ],
)
def test_bad_claims_are_refused_with_the_place(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    entry = {k: v for k, v in vars(CLAIM).items() if v is not None} | change
    with pytest.raises(UserError, match=message) as caught:
        own_claims("ce", write(tmp_path / "ce", yaml.safe_dump({"claims": [entry]})))
    assert "claims.yaml" in str(caught.value)


@pytest.mark.parametrize("text", ["claims: 3", "other: []", "claims: [a]", "- a", "claims: [}"])
def test_damaged_files_are_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"claims\.yaml"):
        own_claims("ce", write(tmp_path / "ce", text))
