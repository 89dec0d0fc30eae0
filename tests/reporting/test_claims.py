"""Published numbers: the files, their import, and which measured rows may stand beside them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.errors import UserError
from harness.records.schema import Record
from harness.reporting import import_claims
from harness.reporting.claims import Claim, Comparison, compare, load_claims
from harness.reporting.summary import Run, summarize
from tests.factories import make_record

CIFAR: dict[str, Any] = {"dataset": "cifar100", "split": "cifar100-lt-if100", "backbone": "resnet32"}
CLAIM = Claim(
    dataset="CIFAR-100-LT", imbalance_factor=100, backbone="ResNet-32", method="ce", variant="", group="all",
    value=45.3, selection="best_test", source="A paper", location="Table 2",
)  # fmt: skip


def compared(claim: Claim, *records: Record) -> Comparison:
    (comparison,) = compare([claim], summarize(Run(f"{i}.json", record, {}) for i, record in enumerate(records)))
    return comparison


def write(folder: Path, text: str) -> dict[str, Path]:
    folder.mkdir(parents=True)
    (folder / "claims.yaml").write_text(text)
    return {folder.name: folder}


def test_committed_files_are_what_the_script_generates() -> None:
    generated = import_claims.generate()
    assert sorted(generated) == ["balanced_softmax", "ce", "tvmf"]
    for method, text in generated.items():
        assert (import_claims.METHODS / method / "claims.yaml").read_text(encoding="utf-8") == text, method


def test_committed_claims_load_and_keep_their_originals() -> None:
    claims = load_claims({method: import_claims.METHODS / method for method in import_claims.generate()})
    tvmf = {(c.dataset, c.variant): c for c in claims if c.method == "tvmf"}
    assert len(tvmf) == 4
    assert tvmf["ImageNet-LT", ""].value == 42.70
    assert tvmf["ImageNet-LT", ""].original == "error 57.30"
    assert tvmf["iNaturalist-2018", "k64"].original == "error 29.69"
    assert all(c.value + float((c.original or "").split()[1]) == pytest.approx(100) for c in tvmf.values())


def test_balanced_softmax_has_the_published_cells_and_no_other_loss() -> None:
    claims = load_claims({"balanced_softmax": import_claims.METHODS / "balanced_softmax"})
    facts = {(c.variant, c.dataset, c.imbalance_factor, c.value) for c in claims}
    assert ("", "CIFAR-100-LT", 100, 50.3) in facts
    assert ("decoupled", "CIFAR-10-LT", 200, 78.6) in facts
    assert 46.4 not in {c.value for c in claims}  # the loss with the prior to the power 1/4
    assert len(claims) == 16


def test_a_number_that_is_neither_mapped_nor_left_out_is_refused(tmp_path: Path) -> None:
    head, first, *_ = import_claims.NUMBERS.read_text(encoding="utf-8").splitlines()
    numbers = tmp_path / "numbers.csv"
    numbers.write_text("\n".join([head, first.replace("WCDAS", "CE", 1)]))
    with pytest.raises(UserError, match="neither mapped nor left out"):
        import_claims.generate(numbers)


def test_missing_file_means_no_claims(tmp_path: Path) -> None:
    assert load_claims({"ce": tmp_path}) == []


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
        load_claims(write(tmp_path / "ce", yaml.safe_dump({"claims": [entry]})))
    assert "claims.yaml" in str(caught.value)


@pytest.mark.parametrize("text", ["claims: 3", "other: []", "claims: [a]", "- a", "claims: [}"])
def test_damaged_files_are_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"claims\.yaml"):
        load_claims(write(tmp_path / "ce", text))


def test_a_comparable_row_stands_beside_the_claim() -> None:
    records = [make_record(seed=seed, accuracy=0.44 + 0.01 * seed, optimism=0.005, **CIFAR) for seed in range(3)]
    result = compared(CLAIM, *records)
    (measured,) = result.measured
    assert result.status == "measured"
    assert measured.stat.mean == pytest.approx(0.455)  # at best_test, the claim's rule, not at last
    assert measured.delta == pytest.approx(0.002)
    assert measured.stat.n == 3


@pytest.mark.parametrize(
    "other",
    [
        {"dataset": "cifar10"}, {"imbalance_factor": 50.0}, {"backbone": "resnet34"}, {"track": "common"},
        {"variant": "cosine"}, {"method": "gcl"},
    ],
)  # fmt: skip
def test_another_protocol_is_not_comparable(other: dict[str, Any]) -> None:
    assert compared(CLAIM, make_record(**(CIFAR | other))).status == "not run"


def test_a_group_needs_the_same_shot_policy() -> None:
    claim = replace(CLAIM, group="many", shot_policy="strict_100_20")
    assert compared(claim, make_record(**CIFAR)).status == "measured"
    assert compared(claim, make_record(shot_policy="thirds", **CIFAR)).status == "not run"
    assert compared(replace(claim, group="all"), make_record(shot_policy="thirds", **CIFAR)).status == "measured"


def test_a_claim_without_a_rule_is_read_at_last() -> None:
    result = compared(replace(CLAIM, selection="not stated"), make_record(accuracy=0.45, optimism=0.1, **CIFAR))
    assert result.measured[0].stat.mean == pytest.approx(0.45)


def test_a_failed_cell_is_not_called_not_run() -> None:
    assert compared(CLAIM, make_record(failure="broken", **CIFAR)).status == "failed"
