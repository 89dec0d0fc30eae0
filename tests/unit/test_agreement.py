"""Records that were measured again: the same bits, within what another seed does, or outside of that."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from harness.base.errors import UserError
from harness.base.files import write_json
from harness.records.agreement import agreement, prediction_interval
from harness.records.schema import Record, costs_path, write_record
from harness.running import committed
from tests.factories import make_record


def with_accuracy(record: Record, value: float) -> Record:
    last = record.results["last"]
    assert last is not None
    scores = dataclasses.replace(last, all=value, macro=value, many=value, medium=value, few=value)
    return dataclasses.replace(record, results={**record.results, "last": scores})


ROW = [with_accuracy(make_record("ce", seed), value) for seed, value in enumerate((0.50, 0.52, 0.54))]


def test_a_further_value_of_the_same_kind_lies_in_the_interval_in_95_of_100_cases() -> None:
    values = np.random.default_rng(0).normal(0.5, 0.03, (4000, 4))
    limits = [prediction_interval(row[:3].tolist()) for row in values]
    inside = [low <= row[3] <= high for (low, high), row in zip(filter(None, limits), values, strict=True)]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.012)
    assert prediction_interval([0.5]) is None


@pytest.mark.parametrize(
    ("again", "verdict"),
    [(0.50, "same bits"), (0.53, "within seed spread"), (0.58, "within seed spread"), (0.70, "outside")],
)
def test_verdicts(again: float, verdict: str) -> None:
    """Mean 0.52, deviation 0.02, t 4.303: the interval is 0.52 +- 0.0994."""
    found = agreement(ROW[0], with_accuracy(ROW[0], again), ROW)
    assert found.verdict == verdict
    assert found.difference == pytest.approx(again - 0.50)


@pytest.mark.parametrize("seeds", [1, 2])
def test_fewer_than_three_seeds_tell_no_spread(seeds: int) -> None:
    assert agreement(ROW[0], with_accuracy(ROW[0], 0.51), ROW[:seeds]).verdict == "unknown"


def test_a_group_alone_can_be_outside() -> None:
    last = ROW[0].results["last"]
    assert last is not None
    again = dataclasses.replace(ROW[0], results={"last": dataclasses.replace(last, few=0.9)})
    found = agreement(ROW[0], again, ROW)
    assert (found.verdict, found.score) == ("outside", "few")


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository whose only commit holds three seeds, measured on processor A."""
    monkeypatch.chdir(tmp_path)
    write(ROW)
    Path("reports").mkdir()
    Path("reports/page").touch()
    for words in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=n", "-c", "user.email=e", "commit", "-qm", "records"],
    ):
        subprocess.run(["git", *words], check=True)
    return tmp_path


def write(records: list[Record], processor: str = "A") -> None:
    for record in records:
        path = Path(f"results/records/made/common/ce/seed{record.seed}.json")
        write_record(path, record)
        write_json(costs_path(path), {"processor": processor} if processor else {})


def test_equal_records_are_said_to_be_equal_in_one_line(checkout: Path) -> None:
    assert committed.compare_with_committed() == ["all 3 records are the committed ones, to the last bit"]


def test_another_processor_is_reassured_and_a_real_difference_is_not(checkout: Path) -> None:
    write([with_accuracy(record, 0.53) for record in ROW], "B")
    first, where, *worst = committed.compare_with_committed()
    assert first.startswith("3 records beside the committed ones: 0 to the last bit, 3 within what another seed does")
    assert first.endswith("another processor rounds differently, so this is fine")
    assert where == "measured on B; the committed ones on A"
    assert worst == ["within seed spread: ce@paper seed 0, all +3.0 points"]
    write([with_accuracy(record, 0.9) for record in ROW])
    first, _, *worst = committed.compare_with_committed()
    assert "3 outside of that; chance does not explain that" in first
    assert worst == ["outside: ce@paper seed 0, all +40.0 points"]


@pytest.mark.parametrize("processor", ["A", "B", ""])
@pytest.mark.parametrize("seeds", [2, 3])
def test_nobody_is_reassured_by_a_processor_that_is_the_same_or_about_too_few_seeds(
    seeds: int, processor: str, checkout: Path
) -> None:
    shutil.rmtree("results")
    write(ROW[:seeds])
    commit = ["git", "-c", "user.name=n", "-c", "user.email=e", "commit", "--allow-empty", "-qam", "fewer"]
    subprocess.run(commit, check=True)
    write([with_accuracy(record, 0.53) for record in ROW[:seeds]], processor)
    first, *_ = committed.compare_with_committed()
    assert first.endswith("so this is fine") == (seeds == 3 and processor == "B")
    if seeds == 2:
        assert first.endswith("whose spread is not known; more seeds would tell whether chance explains that")
    elif processor != "B":
        assert first.endswith("on the same processor even the bits would be the same")


def test_another_recipe_is_not_compared(checkout: Path) -> None:
    write([dataclasses.replace(ROW[0], recipe_sha256="0" * 64)])
    first, second = committed.compare_with_committed()
    assert first.startswith("all 2 records")
    assert second == "1 records have another recipe or split than the committed ones: not compared"


def test_the_committed_results_can_be_put_back(checkout: Path) -> None:
    """What was changed, and what was deleted."""
    write([with_accuracy(record, 0.9) for record in ROW])
    shutil.rmtree("reports")
    committed.restore()
    assert committed.compare_with_committed()[0].startswith("all 3 records")
    assert Path("reports/page").is_file()
    shutil.rmtree("results")
    committed.restore()
    assert committed.compare_with_committed()[0].startswith("all 3 records")


def test_without_a_repository_it_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^git rev-parse .*not a git repository"):
        committed.compare_with_committed()
