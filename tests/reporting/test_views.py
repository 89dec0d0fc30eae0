"""What the evidence beside records adds to the tables, and what happens where there is none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.records.collect import Collected, collect
from harness.records.evidence import evidence_path
from harness.reporting.report import build_report, ranked_sections
from tests.factories import collected, make_record, sources
from tests.reporting.conftest import store


def test_rows_that_no_test_tells_apart_share_a_rank(measured: Collected) -> None:
    (section,), left_out = ranked_sections(measured)
    assert [row.name for row in section.rows] == ["balanced_softmax", "crt", "ce"]
    assert [row.ranks["last"] for row in section.rows] == [1, 1, 3]
    assert section.rows[2].p["last"] < 0.001
    assert left_out == []


def test_intervals_hold_the_mean(measured: Collected) -> None:
    (section,), *_ = ranked_sections(measured)
    for row in section.rows:
        stat = row.stats["last"]["all"]
        assert stat is not None
        assert row.interval is not None
        assert row.interval[0] < stat.mean < row.interval[1]


def test_rows_of_other_seeds_differ_by_those_that_both_have(tmp_path: Path) -> None:
    for seed, accuracy in enumerate((0.6, 0.7, 0.62)):
        store(tmp_path, "ce", seed, [accuracy] * 10)
    store(tmp_path, "lws", 0, [0.8] * 10)
    for seed in (1, 2):
        store(tmp_path, "crt", seed, [0.9] * 10)
    (section,), *_ = ranked_sections(collect(tmp_path))
    assert [row.name for row in section.rows] == ["crt", "lws", "ce"]
    ((), (of_none,), (of_two, of_one)) = section.differences["all"]
    assert of_none is None
    assert of_one == (-20.0,), "0.6 against 0.8, one seed: no interval"
    assert of_two is not None
    assert of_two[0] == -24.0, "0.7 and 0.62 against 0.9"
    assert len(of_two) == 3
    assert section.rows[1].curves["loss"].std == [], "nor a deviation"


def test_curves_are_means_over_seeds(measured: Collected) -> None:
    (section,), *_ = ranked_sections(measured)
    loss = section.rows[0].curves["loss"]
    assert (loss.epochs, loss.mean) == ([1, 2, 3], pytest.approx([2.0, 1.1, 0.5]))
    assert loss.std == pytest.approx([0, 0.1, 0])
    assert "val" not in section.rows[0].curves


def test_class_quantities_and_confusions(measured: Collected) -> None:
    (section,), *_ = ranked_sections(measured)
    assert section.rows[0].quantities["weight norm"][0] == 2
    assert section.rows[2].confusion is not None
    rarest, taken_for = section.rows[2].confusion.rarest[0]
    assert rarest == 9
    assert taken_for == [(0, 0.5), (9, 0.5)]


def test_pairs_are_symmetric(measured: Collected) -> None:
    (section,), *_ = ranked_sections(measured)
    assert section.pairs is not None
    pairs = np.array(section.pairs, dtype=float)
    np.testing.assert_array_equal(pairs, pairs.T)
    assert pairs[0, 1] > 0.05 > pairs[0, 2]


def test_without_evidence_the_mean_decides() -> None:
    (section,), *_ = ranked_sections(collected(make_record("ce", 0, 0.7), make_record("crt", 0, 0.8)))
    assert [row.ranks["last"] for row in section.rows] == [1, 2]
    assert section.rows[0].interval is None
    assert section.pairs == [[None, None], [None, None]]


def test_a_row_without_evidence_has_no_rank_beside_rows_with_it(measured: Collected, tmp_path: Path) -> None:
    for seed in range(3):
        evidence_path(tmp_path / "records" / "crt" / f"seed{seed}.json").unlink()
    (section,), *_ = ranked_sections(collect(tmp_path / "records"))
    assert {row.name: row.ranks["last"] for row in section.rows}["crt"] is None


def test_an_interval_is_of_the_runs_that_the_mean_is_of(measured: Collected, tmp_path: Path) -> None:
    evidence_path(tmp_path / "records/ce/seed0.json").unlink()
    rows = {
        row.name: row for row in ranked_sections(replace(collect(tmp_path / "records"), unchecked=[])).sections[0].rows
    }
    assert rows["ce"].interval is None
    assert rows["crt"].interval is not None


def test_damaged_evidence_is_named_and_stops_nothing(measured: Collected, tmp_path: Path) -> None:
    evidence_path(tmp_path / "records" / "ce" / "seed1.json").write_bytes(b"nothing")
    (section,), left_out = ranked_sections(collect(tmp_path / "records"))
    assert [row.ranks["last"] for row in section.rows] == [1, 1, 3]
    assert [path for path, _ in left_out] == ["ce/seed1.json"]
    page = build_report(collect(tmp_path / "records"), tmp_path / "out", sources()).read_text()
    assert "damaged evidence" in page
