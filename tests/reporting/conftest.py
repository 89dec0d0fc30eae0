"""A fixed set of made records that holds every awkward case a table can meet."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.records.arrays import write_arrays
from harness.records.collect import Collected, collect
from harness.records.evaluate import score_epoch
from harness.records.evidence import evidence_path
from harness.records.schema import Record, write_record
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


def awkward() -> Collected:
    """The made records, and one damaged file."""
    return collected(*_digits(), *_cifar(), left_out=[(Path("results/records/cut.json"), f"not a record {HOSTILE}")])


@pytest.fixture
def made() -> Collected:
    """The made records, and one damaged file."""
    return awkward()


def two_claims() -> list[Claim]:
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


@pytest.fixture
def claims() -> list[Claim]:
    """One claim with a comparable row and one without."""
    return two_claims()


PAPER_TABLES = """
tables:
- id: a-paper-table-2
  title: A paper, Table 2
  source: A paper <script>alert(1)</script>
  location: Table 2
  caption: By imbalance factor.
  columns:
  - {title: "CIFAR-10-LT, 10", dataset: CIFAR-10-LT, imbalance_factor: 10}
  - {title: "CIFAR-100-LT, 10", dataset: CIFAR-100-LT, imbalance_factor: 10}
  rows:
  - {label: Balanced Softmax, method: balanced_softmax, known: its augmentation}
"""


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """A method's folder with a paper table of its own."""
    return method_folders(tmp_path)


def method_folders(root: Path) -> dict[str, Path]:
    """A method's folder with a paper table of its own."""
    folder = root / "methods" / "balanced_softmax"
    folder.mkdir(parents=True)
    (folder / "tables.yaml").write_text(PAPER_TABLES)
    (folder / "recipes.yaml").write_text(
        "title: Balanced Softmax\nsummary: Adds log counts.\nequation: L = 1\npaper: Ren et al.\n"
        "link: https://arxiv.org/abs/2007.10740\ntracks: {paper: {}}\n"
    )
    return {"balanced_softmax": folder}


TEST_IMAGES = 500


def store(folder: Path, method: str, seed: int, accuracies: list[float], **facts: Any) -> Path:
    """A record with evidence: 50 test images a class, of which a share is right, the same ones in every method."""
    targets = np.repeat(np.arange(10), TEST_IMAGES // 10)
    hits = [round(TEST_IMAGES / 10 * accuracy) for accuracy in accuracies]
    predicted = np.concatenate([[c] * hit + [(c + 1) % 10] * (TEST_IMAGES // 10 - hit) for c, hit in enumerate(hits)])
    share = float((predicted == targets).mean())
    plain = make_record(method, seed, share, test_images=TEST_IMAGES, **{"val_images": 0, **facts})
    scores = score_epoch(predicted, targets, plain.class_counts, epoch=3, ece=0.1, policy=plain.shot_policy)
    record = replace(plain, results={"last": scores, "best_val": None, "best_test": scores})
    path = folder / method / f"seed{seed}.json"
    write_record(path, record)
    arrays = {
        "run_key": np.array(record.run_key),
        "targets": targets.astype(np.uint8),
        "rules": np.array(["last", "best_test"]),
        "row": np.array([0, 0]),
        "predictions": predicted[None].astype(np.uint8),
        "loss": np.array([2.0, 1.0 + 0.1 * seed, 0.5]),
        "learning_rate": np.array([0.1, 0.05, 0.0]),
        "epochs": np.array([1, 2, 3]),
        "test": np.array([0.3, 0.5, share]),
        "val": np.empty(0),
        "class/weight norm": np.linspace(2, 1, 10).astype(np.float32),
    }
    write_arrays(evidence_path(path), arrays)
    return path


@pytest.fixture
def measured(tmp_path: Path) -> Collected:
    """Three methods with evidence: two that no test tells apart, one that is clearly worse on the tail."""
    folder = tmp_path / "records"
    for seed in range(3):
        store(folder, "balanced_softmax", seed, [0.9] * 10)
        store(folder, "crt", seed, [0.9] * 9 + [0.88])
        store(folder, "ce", seed, [0.96] * 3 + [0.5] * 7)
    return replace(collect(folder), unchecked=[])  # as if their split were here
