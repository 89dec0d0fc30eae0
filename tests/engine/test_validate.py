"""`ltbench validate`: what a maintainer learns of records that somebody sends."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from harness.base.errors import RunFailed, UserError
from harness.base.files import read_json
from harness.base.progress import Reporter
from harness.records.agreement import Agreement
from harness.records.check import VERDICT
from harness.records.collect import collect
from harness.records.evaluate import evaluate
from harness.records.evidence import evidence_path
from harness.records.imports import import_campaign
from harness.records.schema import read_record, write_record
from harness.running import cells, stages
from harness.running.validate import _drawn, validate
from harness.spec.entries import parse_entry
from harness.spec.recipes import resolve
from harness.splits.split_names import split_of

SCRATCH = Path("scratch")


@pytest.fixture
def submission(workspace: Path) -> Path:
    """Two seeds of a toy method."""
    place, split = stages.Workplace(torch.device("cpu"), Reporter()), Path("results/splits/tiny-lt-if10.json")
    stages.train(resolve(parse_entry("plain@common"), "tiny"), split, [0, 1], Path("runs"), place)
    evaluate(split, [Path("runs")], [0, 1], Path("sent/records/tiny-lt-if10/common/plain"))
    return Path("sent")


def first(submission: Path) -> Path:
    return submission / "records/tiny-lt-if10/common/plain/seed0.json"


def test_sound_records_are_recomputed_and_no_more_than_that(submission: Path) -> None:
    found = validate(submission, 0, "cpu", SCRATCH)
    assert (found.tier, found.refused, found.named) == ("recomputed", [], [])
    assert [one.tier for one in found.records] == ["recomputed"] * 2
    written = read_json(submission / VERDICT, "verdict")
    assert written["records"][0]["sha256"] == read_json(first(submission), "record")["sha256"]
    assert validate(submission, 0, "cpu", SCRATCH) == found, "its own file is no record"


def test_a_run_that_is_measured_again_says_so(submission: Path) -> None:
    found = validate(submission, 1, "cpu", SCRATCH)
    assert found.tier == "re-run"
    assert sorted((one.tier, one.remark) for one in found.records) == [("re-run", "same bits"), ("recomputed", "")]
    drawn = read_json(SCRATCH / "drawn.json", "order of runs")
    assert [one.sha256 for one in found.records if one.tier == "re-run"] == drawn[:1]


def test_a_command_that_was_stopped_or_is_called_again_takes_nothing_back(
    submission: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure_again, calls = cells.measure_again, list[Path]()

    def stopped(path: Path, out: Path, device: str) -> Path:
        calls.append(path)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return measure_again(path, out, device)

    with monkeypatch.context() as patch:
        patch.setattr(cells, "measure_again", stopped)
        with pytest.raises(KeyboardInterrupt):
            validate(submission, 2, "cpu", SCRATCH)
    for _ in range(2):
        found = validate(submission, 2, "cpu", SCRATCH)
        assert [(one.tier, one.remark) for one in found.records] == [("re-run", "same bits")] * 2
        assert (found.tier, found.named) == ("re-run", [])


def test_the_same_records_are_drawn_again_and_of_corrected_ones_nobody_knows_which(tmp_path: Path) -> None:
    paths = {f"hash {number}": Path(str(number)) for number in range(40)}
    drawn = list(_drawn(paths, 20, tmp_path))
    assert len(set(drawn)) == 20
    assert list(_drawn(paths, 20, tmp_path)) == drawn
    assert list(_drawn(paths, 30, tmp_path))[:20] == drawn, "more are drawn besides them"
    corrected = {"hash 40" if path == drawn[0] else sha256: path for sha256, path in paths.items()}
    assert list(_drawn(corrected, 20, tmp_path)) != drawn


def test_consistent_scores_that_a_re_run_does_not_give_are_refused(
    submission: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Predictions that were never made pass the first tier; nothing but a re-run can tell."""

    outside = Agreement("outside", "all", 0.3)  # what counts as that: tests/unit/test_agreement.py
    monkeypatch.setattr("harness.running.validate.agreement", lambda *_: outside)
    found = validate(submission, 2, "cpu", SCRATCH)
    assert found.tier == "refused"
    assert len(found.refused) == 2
    assert "measured again, it is outside: all +30.00 points" in found.refused[0]


def test_other_bits_with_too_few_seeds_are_no_confirmation(submission: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A different result that no spread can explain must not earn the badge of a re-run."""
    monkeypatch.setattr("harness.running.validate.agreement", lambda *_: Agreement("unknown", "all", 0.3))
    found = validate(submission, 2, "cpu", SCRATCH)
    assert found.tier == "recomputed"
    assert {one.tier for one in found.records} == {"recomputed"}
    assert all("too few seeds to tell their spread" in one.remark for one in found.records)


def test_a_forged_score_is_refused_and_the_rest_is_judged(submission: Path) -> None:
    record = read_record(first(submission))
    last = record.results["last"]
    assert last is not None
    write_record(
        first(submission),
        dataclasses.replace(record, results={**record.results, "last": dataclasses.replace(last, macro_f1=0.99)}),
    )
    found = validate(submission, 0, "cpu", SCRATCH)
    assert found.tier == "refused"
    assert len(found.records) == 1
    assert "macro_f1 at last is 0.99, its predictions give " in found.refused[0]


def test_missing_evidence_and_unknown_splits_are_refused(submission: Path) -> None:
    evidence_path(first(submission)).unlink()
    assert "evidence seed0.npz is missing" in validate(submission, 0, "cpu", SCRATCH).refused[0]
    Path("results/splits/tiny-lt-if10.json").unlink()
    assert "to make it: ltbench split tiny-lt-if10" in validate(submission, 0, "cpu", SCRATCH).refused[1]


def test_a_run_that_cannot_be_measured_again_stays_recomputed(submission: Path) -> None:
    record = read_record(first(submission))
    for seed in (0, 1):
        path = first(submission).with_name(f"seed{seed}.json")
        write_record(path, dataclasses.replace(read_record(path), method="unknown"))
    assert record.method == "plain"
    found = validate(submission, 1, "cpu", SCRATCH)
    assert found.tier == "recomputed"
    assert any(one.remark.startswith("could not be measured again: ") for one in found.records)


def test_a_run_that_fails_when_it_is_measured_again_is_looked_at(
    submission: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> None:
        raise RunFailed("loss is NaN")

    monkeypatch.setattr(cells, "measure_again", failing)
    found = validate(submission, 1, "cpu", SCRATCH)
    assert found.tier == "recomputed"
    assert [line.partition(": ")[2] for line in found.named] == ["measured again, its run failed: loss is NaN"]


def test_one_run_that_fails_leaves_a_folder_recomputed(submission: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measure_again = cells.measure_again

    def once(path: Path, out: Path, device: str) -> Path:
        if read_record(path).seed:
            raise RunFailed("loss is NaN")
        return measure_again(path, out, device)

    monkeypatch.setattr(cells, "measure_again", once)
    found = validate(submission, 2, "cpu", SCRATCH)
    assert sorted(one.tier for one in found.records) == ["re-run", "recomputed"]
    assert found.tier == "recomputed"


def test_a_folder_without_records_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no records; validate takes a folder"):
        validate(tmp_path, 0, "cpu", SCRATCH)


def test_the_verdict_goes_with_the_records_that_are_imported(submission: Path) -> None:
    """For exactly the records that it was given for."""
    found = validate(submission, 1, "cpu", SCRATCH)
    sent = collect(submission)
    assert sorted(sent.tier(path) for path, _ in sent.records) == ["re-run", "recomputed"]
    taken = import_campaign(submission, Path("results/splits"), Path("results/imported")).taken
    collected = collect(Path("results/imported"))
    expected = {one.sha256: one.tier for one in found.records}
    assert sorted(expected.values()) == ["re-run", "recomputed"]
    assert {path: collected.tier(path) for path in taken} == {
        path: expected[read_json(path, "record")["sha256"]] for path in taken
    }
    for path in taken:
        evidence_path(path).unlink()
    assert {collect(Path("results/imported")).tier(path) for path in taken} == {"reported"}


def test_records_that_ltbench_run_left_find_their_split_beside_them(workspace: Path) -> None:
    """In `runs/`, `runs/records/` or deeper: they are no less checked than those of the pipeline."""
    dataset, split = split_of("tiny-lt-if10")
    cells.run_alone(resolve(parse_entry("plain@common"), dataset.name), split, dataset, [0], Path("runs"), "cpu")
    Path("results/splits/tiny-lt-if10.json").unlink(missing_ok=True)
    deepest = next(Path("runs/records").rglob("seed0.json")).parent
    for root in (Path("runs"), Path("runs/records"), deepest):
        collected = collect(root)
        assert (len(collected.records), collected.left_out, collected.unchecked) == (1, [], [])
        found = validate(root, 0, "cpu", SCRATCH)
        assert (found.tier, found.refused) == ("recomputed", [])
