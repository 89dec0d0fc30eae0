"""Figures of `ltbench bench` on the page: shown with their machine, left out with a reason when they mean nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.base.errors import UserError
from harness.records.collect import collect
from harness.reporting.report import build_report
from harness.reporting.speed import read_speed
from tests.factories import sources

RATIO = {"median": 2.5, "low": 2.25, "high": 2.75}
FIGURES: dict[str, Any] = {
    "schema": 1,
    "quick": False,
    "machine": {
        "device": "CPU, 2 threads", "processor": "A <b>fast</b> processor", "threads": 2, "commit": "abc",
        "versions": {"torch": "2.0"},
    },
    "parts": {
        "loop": [
            {"part": "loop", "case": "stage 1", "backbone": "resnet32_cifar", "precision": "float32", "ratio": RATIO,
             "images_per_second": {"ours": 1234.5, "plain": 493.8, "floor": 1400.0}},
        ],
        "loader": [
            {"part": "loader", "case": "photographs", "ratio": RATIO, "images_per_second": {"ours": 80, "plain": 32}},
        ],
        "losses": [
            {"part": "losses", "method": "ce", "stage": "train", "classes": count, "ratio": RATIO}
            for count in (100, 10)
        ],
    },
}  # fmt: skip


def written(folder: Path, **changes: Any) -> Path:
    path = folder / "cpu.json"
    path.write_text(json.dumps(FIGURES | changes))
    return path


def test_figures_are_read(tmp_path: Path) -> None:
    report = read_speed(written(tmp_path))
    assert [row.what for row in report.rows] == ["training, resnet32_cifar, stage 1", "data alone, photographs"]
    assert (report.rows[0].ours, report.rows[0].floor, report.rows[1].floor) == (1234.5, 1400.0, None)
    assert report.losses == [("ce, train", {100: 2.5, 10: 2.5})]


def test_they_stand_on_the_page_as_text(tmp_path: Path) -> None:
    page = build_report(collect(), tmp_path / "out", sources(benches=[written(tmp_path)])).read_text()
    assert '<section id="speed"' in page
    assert "1,234" in page
    assert "2.25 to 2.75" in page
    assert "A &lt;b&gt;fast&lt;/b&gt; processor" in page


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"quick": True}, "--quick"), ({"schema": 2}, "schema"), ({"parts": {}}, "not a benchmark file")],
)
def test_what_means_nothing_is_left_out_with_its_reason(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    path = written(tmp_path, **changes)
    with pytest.raises(UserError, match=reason):
        read_speed(path)
    page = build_report(collect(), tmp_path / "out", sources(benches=[path])).read_text()
    assert '<section id="speed"' not in page
    assert reason in page


def test_no_figures_no_section(tmp_path: Path) -> None:
    assert '<section id="speed"' not in build_report(collect(), tmp_path / "out", sources()).read_text()
