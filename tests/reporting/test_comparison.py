"""Which measured rows may stand beside a claim."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from harness.records.schema import Record
from harness.reporting.claims import Claim
from harness.reporting.comparison import Comparison, MeasuredRows
from harness.reporting.summary import RunResult, summarize
from tests.factories import make_record

CIFAR: dict[str, Any] = {"dataset": "cifar100", "split": "cifar100-lt-if100", "backbone": "resnet32"}
CLAIM = Claim(
    dataset="CIFAR-100-LT", imbalance_factor=100, backbone="ResNet-32", method="ce", variant="", group="all",
    value=45.3, selection="best_test", source="A paper", location="Table 2",
)  # fmt: skip


def compared(claim: Claim, *records: Record) -> Comparison:
    sections = summarize(RunResult(f"{i}.json", record, {}) for i, record in enumerate(records))
    return MeasuredRows(sections).beside(claim)


@pytest.mark.parametrize(
    ("printed", "built"),
    [
        ("ResNet-32", "resnet32_cifar"),
        ("ResNet-34 (CIFAR stem)", "resnet34_cifar"),
        ("ResNeXt-50", "resnext50_32x4d"),
        ("ResNet-152", "resnet152"),
    ],
)
def test_a_printed_backbone_is_the_one_that_builds_it(printed: str, built: str) -> None:
    claim = replace(CLAIM, backbone=printed)
    assert compared(claim, make_record(**(CIFAR | {"backbone": built}))).best
    assert compared(claim, make_record(**(CIFAR | {"backbone": "resnet34"}))).status == "not comparable"


def test_a_comparable_row_stands_beside_the_claim() -> None:
    records = [make_record(seed=seed, accuracy=0.44 + 0.01 * seed, optimism=0.005, **CIFAR) for seed in range(3)]
    result = compared(CLAIM, *records)
    (measured,) = result.measured
    assert result.status == "reproduced"
    assert result.best == measured
    assert measured.stat.mean == pytest.approx(0.455)  # at best_test, the claim's rule, not at last
    assert measured.delta == pytest.approx(0.002)
    assert measured.stat.n == 3


def test_another_spelling_of_a_data_set_is_the_same() -> None:
    facts: dict[str, Any] = {"dataset": "inat2018", "imbalance_factor": 500.0, "profile": "given"}
    claim = replace(CLAIM, dataset="iNaturalist-2018", imbalance_factor=500, backbone="ResNet-50")
    assert compared(claim, make_record(**facts, backbone="resnet50")).best


@pytest.mark.parametrize(
    "other",
    [
        {"dataset": "cifar10"}, {"imbalance_factor": 50.0}, {"backbone": "resnet34"}, {"track": "common"},
        {"variant": "cosine"}, {"method": "gcl"}, {"profile": "step"},
    ],
)  # fmt: skip
def test_another_protocol_is_not_comparable(other: dict[str, Any]) -> None:
    assert compared(CLAIM, make_record(**(CIFAR | other))).status in ("not run", "not comparable")


def test_a_group_needs_the_same_shot_policy() -> None:
    claim = replace(CLAIM, group="many", shot_policy="strict_100_20")
    assert compared(claim, make_record(**CIFAR)).best
    assert compared(claim, make_record(shot_policy="thirds", **CIFAR)).status == "not comparable"
    assert compared(replace(claim, group="all"), make_record(shot_policy="thirds", **CIFAR)).best


def test_a_claim_without_a_rule_is_read_at_last() -> None:
    result = compared(replace(CLAIM, selection="not stated"), make_record(accuracy=0.45, optimism=0.1, **CIFAR))
    assert result.measured[0].stat.mean == pytest.approx(0.45)


def test_a_failed_cell_is_not_called_not_run() -> None:
    assert compared(CLAIM, make_record(failure="broken", **CIFAR)).status == "failed"
