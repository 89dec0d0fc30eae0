"""A fixed set of made records that holds every awkward case a table can meet."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.records.collect import Collected
from harness.records.schema import Record
from harness.reporting.claims import Claim
from tests.factories import collected, make_record

HOSTILE = "<script>alert(1)</script>"
NO_TAIL = [500, 387, 299, 232, 179, 139, 107, 83, 64, 50]  # no class is few-shot


def _digits() -> list[Record]:
    """Two whole cells, one with a failed seed, one that failed altogether, one skipped, one with a hostile name."""
    records = [make_record("ce", seed, 0.77 + 0.01 * seed, slope=0.4) for seed in range(3)]
    records += [make_record("balanced_softmax", seed, 0.86 + 0.005 * seed, slope=0.1) for seed in range(3)]
    records += [make_record("tvmf", 0, 0.84, slope=0.2, variant="k64"), make_record("tvmf", 2, 0.85, variant="k64")]
    records += [make_record("tvmf", 1, variant="k64", failure="loss is NaN | 100% & _bad_\nstep 40")]
    records += [make_record("gcl", 0, failure="=HYPERLINK() {out} of memory")]
    skipped = make_record("wcdas", 0, failure="needs two images a class")
    records += [replace(skipped, status="skipped"), make_record(HOSTILE, 0, 0.7, variant=HOSTILE)]
    return records


def _cifar() -> list[Record]:
    """No validation part, an empty few group, one seed only, and a negative optimism."""
    facts: dict[str, Any] = {
        "dataset": "cifar10",
        "split": "cifar10-lt-if10",
        "imbalance_factor": 10.0,
        "class_counts": NO_TAIL,
    }
    common = facts | {"backbone": "resnet32", "val_images": 0, "test_images": 10_000}
    records = [make_record("ce", 0, 0.861, optimism=-0.004, **common)]
    records += [make_record("balanced_softmax", seed, 0.88 + 0.002 * seed, **common) for seed in range(3)]
    return [replace(record, results=record.results | {"best_val": None}) for record in records]


@pytest.fixture
def made() -> Collected:
    """The made records, and one damaged file."""
    return collected(*_digits(), *_cifar(), left_out=[(Path("results/records/cut.json"), f"not a record {HOSTILE}")])


@pytest.fixture
def claims() -> list[Claim]:
    """One claim with a comparable row and one without."""
    facts: dict[str, Any] = {
        "imbalance_factor": 10.0,
        "backbone": "ResNet-32",
        "variant": "",
        "group": "all",
        "selection": "best_test",
    }
    origin: dict[str, Any] = {"source": f"A paper {HOSTILE}", "location": "Table 2"}
    return [
        Claim(dataset="CIFAR-10-LT", method="balanced_softmax", value=90.9, **facts, **origin),
        Claim(dataset="CIFAR-100-LT", method="balanced_softmax", value=63.1, **facts, **origin),
    ]
