"""Published weights on the page: a board of their own, and a mark where a published cell is about such weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.metrics.shots import group_sizes
from harness.records.collect import collect
from harness.records.evaluate import score_epoch
from harness.reporting.claims import Claim
from harness.reporting.comparison import Comparison, MeasuredRows
from harness.reporting.paper_tables import Column, PaperTable, TableRow, fill
from harness.reporting.report import build_report
from harness.reporting.tables import all_files
from harness.weights.catalogue import Printed, Source, Weights
from harness.weights.record import SCHEMA, Result, WeightsRecord, write_weights_record
from tests.factories import make_scores, sources
from tests.reporting.conftest import HOSTILE

COUNTS = [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
CLAIM = Claim(
    dataset="CIFAR-10-LT", imbalance_factor=100, backbone="ResNet-32", method="ce", variant="", group="all",
    value=70.7, selection="best_test", source="A paper", location="Table 2", epochs="200", shot_policy="strict_100_20",
)  # fmt: skip


def make_weights(**overrides: Any) -> WeightsRecord:
    """Weights of which 7 of 10 test images are right, and 8 with logit adjustment."""
    methods: list[tuple[str, dict[str, float], float]]
    methods = [("ce", {}, 0.7), ("logit_adjustment", {"tau": 1.0}, 0.8)]
    facts: dict[str, Any] = {
        "dataset": "cifar10", "backbone": "resnet32_cifar", "title": "Cross-entropy", "imbalance_factor": 100.0,
        "epochs": "200", "selection": "best_test", "published": [Printed(70.1, "README")],
    }  # fmt: skip
    counts = [5000] * 10 if overrides.get("imbalance_factor") == 1 else COUNTS
    return WeightsRecord(
        schema=SCHEMA, name=overrides.pop("name", "made"), weights=Weights(**(facts | overrides)),
        source=Source("some/one", "c" * 40, "MIT"), file_sha256="ab" * 32, head_bias=True, class_counts=counts,
        test_images=10, test_sha256="t", mean=[0.5], std=[0.2], shot_policy="strict_100_20", groups=group_sizes(counts),
        results=[
            Result(name, params, make_scores(value, class_counts=counts, slope=0.2)) for name, params, value in methods
        ],
    )  # fmt: skip


def written(folder: Path, record: WeightsRecord) -> Path:
    """One test image a class, of which the largest classes' are right, with the scores that follow."""
    targets = np.arange(record.test_images)
    predictions = [np.where(targets < round(10 * result.scores.all), targets, 0) for result in record.results]
    results = [
        replace(result, scores=score_epoch(predicted, targets, record.class_counts, epoch=0, ece=0.1))
        for result, predicted in zip(record.results, predictions, strict=True)
    ]
    return write_weights_record(folder, replace(record, results=results), targets, predictions)


def marked(claim: Claim, *records: WeightsRecord) -> Comparison:
    table = PaperTable("a", "A", "A paper", (Column("x", group=claim.group),), (TableRow("CE", method=claim.method),))
    ((_, (cell,)),) = fill([table], [claim], [], MeasuredRows([]), records)[0].rows
    assert cell is not None
    return cell


def test_a_cell_about_such_weights_is_marked_and_not_reproduced() -> None:
    found = marked(CLAIM, make_weights())
    assert found.weights == "published weights score 70.00 (some/one)"
    assert (found.status, found.best) == ("not run", None)
    assert marked(replace(CLAIM, group="medium"), make_weights()).weights.startswith("published weights score 61.11")
    assert marked(replace(CLAIM, method="logit_adjustment"), make_weights()).weights == (
        "published weights score 80.00 (some/one)"
    )


@pytest.mark.parametrize(
    "change",
    [
        {"dataset": "CIFAR-100-LT"}, {"imbalance_factor": 50}, {"backbone": "ResNet-20"}, {"method": "tvmf"},
        {"epochs": "13,000 iterations"}, {"epochs": None}, {"selection": "last"}, {"group": "few"},
        {"group": "medium", "shot_policy": "thirds"},
    ],
)  # fmt: skip
def test_what_differs_is_not_marked(change: dict[str, Any]) -> None:
    assert marked(replace(CLAIM, **change), make_weights()).weights == ""


def test_the_mark_stands_in_the_exported_tables() -> None:
    table = PaperTable("a", "A", "A paper", (Column("x"),), (TableRow("CE", method="ce"),))
    files = all_files([], [], fill([table], [CLAIM], [], MeasuredRows([]), [make_weights()]))
    for name in ("paper-a.md", "paper-a.tex", "papers.csv"):
        assert "published weights score 70.00" in files[name]


def test_the_board(tmp_path: Path) -> None:
    balanced = make_weights(name="flat", imbalance_factor=1.0, title=HOSTILE)
    paths = [written(tmp_path / "weights", record) for record in (balanced, make_weights())]
    page = build_report(collect(), tmp_path / "out", sources(weights=paths)).read_text()
    assert '<section id="weights"' in page
    assert page.index("resnet32_cifar, imbalance factor 100") < page.index("resnet32_cifar, balanced"), (
        "long-tailed ones first"
    )
    assert '<a href="#published">Papers</a>' in page
    assert "+ logit_adjustment (tau 1.0)" in page
    assert "70.10 <small>README</small>" in page
    assert "87.50" in page, "7 of 8 many-shot classes"
    assert HOSTILE not in page
    again = build_report(collect(), tmp_path / "again", sources(weights=paths[::-1])).read_text()
    assert again == page


def test_a_damaged_record_is_left_out_and_named(tmp_path: Path) -> None:
    path = written(tmp_path / "weights", make_weights())
    path.write_text(path.read_text().replace("resnet32", "resnet20"))
    page = build_report(collect(), tmp_path / "out", sources(weights=[path])).read_text()
    assert '<section id="weights"' not in page
    assert "content does not have its sha256" in page
