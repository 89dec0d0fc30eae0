"""What the pictures are drawn from: counted from the evidence, small, and honest about what is not known."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.base.files import write_json
from harness.records.arrays import write_arrays
from harness.records.collect import Collected, collect
from harness.records.evidence import Evidence, evidence_path
from harness.records.schema import costs_path, read_record
from harness.reporting.costs import cost
from harness.reporting.pictures import MOST_VALUES, board, by_frequency, confusion, groups_of
from harness.reporting.report import build_report, ranked_sections
from harness.reporting.summary import Confusion, Row, RunResult, Section, summarize
from tests.factories import collected, make_record, sources
from tests.reporting.conftest import store

TIMED = {"device": "CPU, 1 thread", "threads": 1, "cpus": 2, "runs_at_once": 2}


def evidence(targets: list[int], predicted: list[int]) -> Evidence:
    return Evidence(np.array(targets), {"last": np.array(predicted)}, {}, {})


def embedded(page: Path) -> list[dict[str, Any]]:
    """What the page carries of each board."""
    texts = re.findall(r'<script type="application/json" data-board="[^"]*">(.*?)</script>', page.read_text())
    return [json.loads(text) for text in texts]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=60), st.integers(1, 70), st.integers(1, 20))
def test_groups_hold_every_class_once_in_order_and_are_even(counts: list[int], most: int, groups: int) -> None:
    order = by_frequency(counts)
    assert [counts[c] for c in order] == sorted(counts, reverse=True)
    found = groups_of(order, most, min(groups, len(counts)))
    assert list(chain(*found)) == order
    sizes = [len(some) for some in found]
    assert max(sizes) - min(sizes) <= 1
    if len(counts) <= most:
        assert set(sizes) == {1}


def test_a_confusion_is_counted_from_the_predictions_of_all_seeds() -> None:
    runs = [evidence([0, 0, 1, 1, 2, 2], [0, 1, 1, 1, 0, 0]), evidence([0, 0, 1, 1, 2, 2], [0, 0, 1, 1, 2, 0])]
    found = confusion(runs, [1, 9, 5])  # by frequency: 1, 2, 0
    assert found is not None
    assert found.shares == [[1, 0, 0], [0, 0.25, 0.75], [0.25, 0, 0.75]]
    assert found.pairs == [(2, 0, 0.75), (0, 1, 0.25)]


def test_many_classes_are_confused_by_groups_of_like_frequency() -> None:
    counts = list(range(40, 0, -1))
    targets = [c for c in range(40) for _ in range(2)]
    found = confusion([evidence(targets, [0] * 80)], counts)
    assert found is not None
    assert found.shares == [[1.0, *[0.0] * 9]] * 10
    assert {(true, taken) for true, taken, _ in found.pairs} <= {(c, 0) for c in range(1, 40)}
    assert confusion([], counts) is None


def test_a_confusion_of_thousands_of_classes_needs_no_table_of_them_all() -> None:
    """Classes as small types hold them, too: 8142 squared fits into no 16 bits."""
    targets = np.arange(8142, dtype=np.uint16)
    predicted = targets.copy()
    predicted[8141] = 8140
    found = confusion([Evidence(targets, {"last": predicted}, {}, {})], [1] * 8142)
    assert found is not None
    assert found.pairs == [(8141, 8140, 1.0)]
    assert np.trace(found.shares) == pytest.approx(10)


def row_of(method: str, *seconds: float | None, epochs: int = 10, iterations: int = 0, **costs: Any) -> Row:
    """A row whose runs took so many seconds to train."""
    train = {"epochs": epochs, "iterations": iterations, "batch_size": 100}
    recipe = {"backbone": "lenet", "params": {}, "train": train}
    runs = [
        RunResult(
            f"{i}", make_record(method, i, recipe=recipe), {} if s is None else TIMED | {"train_seconds": s} | costs
        )
        for i, s in enumerate(seconds)
    ]
    return summarize(runs)[0].rows[0]


def test_a_cost_is_relative_to_a_reference_under_the_same_load() -> None:
    reference = row_of("ce", 10, 11, 12)
    assert cost(row_of("crt", 220, 690, 20), reference)["times"] == 2  # runs that were held up do not decide
    assert cost(row_of("crt", 20), row_of("ce", 400, 300, 10))["times"] == 2  # nor the reference's
    for beside in (1, 1.9):  # a core for each either way
        assert cost(row_of("crt", 20, runs_at_once=beside), reference)["times"] == 2
    for other in ({"runs_at_once": 3}, {"runs_at_once": 2.6}, {"device": "GPU"}, {"threads": 2}):
        assert cost(row_of("crt", 22, **other), reference)["times"] is None
    assert set(cost(row_of("crt", None), reference).values()) == {None}
    assert cost(reference, None)["times"] is None
    assert cost(row_of("crt", 22, 20, 24), None)["seconds"] == [22, 20, 24]


def test_time_is_from_timed_steps_where_they_are_known() -> None:
    stage: dict[str, Any] = {"stages": {"train": {"images_per_second": 10.0, "train_seconds": 100.0}}}
    times = {("ce", "train"): 1.0, ("crt", "train"): 1.5}
    reference = row_of("ce", 10, 10, **stage)
    timed = cost(row_of("crt", 60, 60, **stage), reference, times)
    assert (timed["time"], timed["steps"], timed["times"]) == (1.5, 1.5, 6)
    assert cost(row_of("gcl", 20, **stage), reference, times)["time"] == 2  # no step of it was timed


def test_cross_entropy_from_other_weights_is_what_costs_are_relative_to() -> None:
    facts: dict[str, Any] = {"variant": "from-cifar10", "recipe": {"backbone": "lenet", "pretrained": "w.th sha256:0"}}
    runs = [
        RunResult(name, make_record(name, **facts), TIMED | {"train_seconds": seconds})
        for name, seconds in (("ce", 100.0), ("balanced_softmax", 104.0))
    ]
    (section,) = summarize(runs)
    data = board(section)
    assert data["reference"] == next(row.key for row in section.rows if row.name == "ce-from-cifar10")
    assert sorted(one["cost"]["time"] for one in data["series"]) == [1, 1.04]


def test_the_first_stage_is_that_of_the_run_it_started_from(measured: Collected, tmp_path: Path) -> None:
    recipe = {"backbone": "lenet", "params": {}, "train": {"epochs": 3}, "finetune": {"epochs": 3}}
    two: dict[str, Any] = {"stages": ["train", "finetune"], "stage1_selection": "last", "recipe": recipe}
    for seed in range(3):
        key = read_record(tmp_path / "records" / "ce" / f"seed{seed}.json").run_key
        store(tmp_path / "records", "lws", seed, [0.8] * 10, stage1_key=key, **two)
        store(tmp_path / "records", "ncm", seed, [0.7] * 10, stage1_key=key if seed else "not here", **two)
        path = evidence_path(store(tmp_path / "records", "crt", seed, [0.7] * 10, stage1_key="not here", **two))
        own = {"first/loss": np.array([3.0, 2.0]), "first/epochs": np.array([1, 2]), "first/test": np.array([0.1, 0.2])}
        write_arrays(path, own | dict(np.load(path)))
    (section,), *_ = ranked_sections(replace(collect(tmp_path / "records"), unchecked=[]))
    rows = {row.name: row for row in section.rows}
    assert rows["lws"].first_curves["test"] == rows["ce"].curves["test"] != rows["lws"].curves["test"]
    assert rows["crt"].first_curves["loss"].mean == [3, 2]  # its evidence has it
    assert rows["crt"].first_curves["test"].epochs == [1, 2]
    assert rows["ncm"].first_curves == {}  # of one seed it is not known
    assert rows["ce"].first_curves == {}


def wide(classes: int, rows: int) -> Section:
    counts = [max(1, 5000 - 7 * c) for c in range(classes)]
    return summarize(
        RunResult(f"{i}", make_record(f"m{i}", 0, 0.5, slope=0.4, class_counts=counts), {}) for i in range(rows)
    )[0]


def test_thousands_of_classes_are_drawn_together() -> None:
    few, many = board(wide(200, 20)), board(wide(8142, 20))
    assert len(few["counts"]) == len(few["names"]) == 200
    assert len(many["counts"]) == len(many["series"][0]["values"]["last"]) == MOST_VALUES // 60
    assert many["names"][0] == "13 classes"
    assert len(many["heat"]) == 10
    assert many["counts"] == sorted(many["counts"], reverse=True)
    assert many["series"][0]["values"]["last"] == sorted(many["series"][0]["values"]["last"], reverse=True)


def test_a_board_of_500_runs_stays_small() -> None:
    section = wide(200, 170)  # of three seeds each
    shares = np.random.default_rng(0).dirichlet(np.ones(10), 10).tolist()
    pairs = [(c, c + 1, 0.123) for c in range(12)]
    rows = tuple(replace(row, confusion=Confusion(shares, pairs)) for row in section.rows)
    text = json.dumps(board(replace(section, rows=rows), [f"a class of pictures {c}" for c in range(200)]))
    assert len(text) < 520_000


def test_classes_have_their_names() -> None:
    section = wide(3, 1)
    assert board(section, ["cat", "dog", "7"])["names"] == ["cat", "dog", "class 7"]
    assert board(section, ["cat"])["names"] == ["class 0", "class 1", "class 2"]
    assert board(section, ["cat", "dog", "7"])["heat"][2] == ["7", "class 7 (4,986 training images)"]


def test_names_come_from_the_split_beside_the_records(tmp_path: Path) -> None:
    split = json.loads(Path("results/splits/cifar10-lt-if100.json").read_text())
    facts = {"split": split["id"], "dataset": split["dataset"], "class_counts": split["class_counts"]}
    (tmp_path / "a" / "splits").mkdir(parents=True)
    for sha256, first in ((split["sha256"], "airplane"), ("0" * 64, "class 0")):
        made = collected(make_record("ce", 0, split_sha256=sha256, **facts))
        (data,) = embedded(build_report(made, tmp_path / first, sources()))
        assert data["names"][0] == first


def test_another_record_makes_another_picture(measured: Collected, tmp_path: Path) -> None:
    (before,) = embedded(build_report(measured, tmp_path / "a", sources()))
    assert before["reference"] == next(one["key"] for one in before["series"] if one["name"] == "ce")
    assert before["series"][-1]["scores"]["last"]["few"] == ["50.0", "0.0"]
    assert before["series"][-1]["heat"][9][9] == 50
    for seed in range(3):
        path = store(tmp_path / "records", "ce", seed, [0.96] * 3 + [0.5] * 6 + [0.1])
        write_json(costs_path(path), TIMED | {"train_seconds": 10.0 + seed})
    (after,) = embedded(build_report(replace(collect(tmp_path / "records"), unchecked=[]), tmp_path / "b", sources()))
    assert after["series"][-1]["scores"]["last"]["few"] == ["40.0", "0.0"]
    assert after["series"][-1]["heat"][9][9] == 10
    assert after["series"][-1]["confused"][0] == [9, 0, 90]
    assert (after["confused"]["9"], after["confused"]["0"]) == ("class 9", "class 0")
    assert after["series"][-1]["cost"] == {"time": 1, "steps": None, "seconds": [11, 10, 12], "times": 1}


def test_without_evidence_there_is_no_confusion(measured: Collected, tmp_path: Path) -> None:
    for path in (tmp_path / "records").rglob("*.npz"):
        path.unlink()
    (data,) = embedded(build_report(collect(tmp_path / "records"), tmp_path / "out", sources()))
    assert {one["heat"] for one in data["series"]} == {None}


@pytest.mark.parametrize("broken", [{"train_seconds": "long"}, {"train_seconds": -1, "cpus": None, "threads": "x"}])
def test_damaged_costs_are_no_costs(broken: dict[str, Any]) -> None:
    assert cost(row_of("ce", 1, **broken), None)["seconds"] is None
