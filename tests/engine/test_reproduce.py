"""`ltbench reproduce`: a record's run again, from the data on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from harness.base.errors import RunFailed, UserError
from harness.base.progress import Reporter
from harness.records.evaluate import evaluate
from harness.records.imports import import_campaign
from harness.running import cells, stages
from harness.spec.entries import parse_entry
from harness.spec.recipes import resolve
from harness.spec.spread import Spread
from harness.splits.split_names import split_of
from tests.unit import toys


def run_toy(changes: list[str], backbone: str | None = None) -> Path:
    dataset, split = split_of("tiny-lt-if10")
    cell = resolve(parse_entry("toy@common"), dataset.name, changes, backbone)
    cells.run_alone(cell, split, dataset, [1], Path("out"), "cpu")
    return next(Path("out/records").rglob("seed1.json"))


@pytest.fixture
def record(workspace: Path) -> Path:
    """The record of a run of two stages."""
    return run_toy([])


def edited(record: Path, **changes: object) -> Path:
    path = Path(f"edited-{len(list(Path().iterdir()))}/seed1.json")
    path.parent.mkdir()
    path.write_bytes(record.read_bytes())
    toys.rewrite_json(path, **changes)
    return path


def test_a_record_is_measured_again_to_the_same_bytes(record: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells.reproduce(record, Path("again"), "cpu")
    assert "every number is the same" in capsys.readouterr().out
    again = next(Path("again/records").rglob("seed1.json"))
    assert again.read_bytes() == record.read_bytes()
    assert again.with_suffix(".npz").read_bytes() == record.with_suffix(".npz").read_bytes()


def test_a_run_of_ones_own_with_set_and_backbone(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes = ["epochs=2", "lr=1e-05", "finetune.epochs=1", "params.temperature=2.5"]
    record = run_toy(changes, "resnet20_cifar")
    cells.reproduce(record, Path("again"), "cpu")
    out = capsys.readouterr().out
    assert "not this checkout's recipe of toy@common, but with --set backbone=" in out
    assert "every number is the same" in out


def test_a_number_that_differs_is_named(record: Path) -> None:
    results = json.loads(record.read_text())["results"]
    results["last"]["all"] = 0.125
    with pytest.raises(RunFailed, match=r"it differs: last all was 0.125, now"):
        cells.reproduce(edited(record, results=results), Path("again"), "cpu")


def test_another_recipe_or_split_is_refused_before_anything_runs(record: Path) -> None:
    with pytest.raises(UserError, match="its recipe ffff is not this checkout's of toy@common"):
        cells.reproduce(edited(record, recipe_sha256="ffff"), Path("again"), "cpu")
    with pytest.raises(UserError, match="measured on split ffff, tiny-lt-if10 is"):
        cells.reproduce(edited(record, split_sha256="ffff"), Path("again"), "cpu")
    failed = edited(record, status="failed", results={}, failure={"reason": "none"})
    with pytest.raises(UserError, match="there is no number to measure again"):
        cells.reproduce(failed, Path("other"), "cpu")


def test_a_spread_run_is_imported_as_what_it_was_and_not_reproduced_as_another(workspace: Path) -> None:
    place = stages.Workplace(torch.device("cpu"), Reporter(), spread=Spread(micro_batch=8))
    plain, split = resolve(parse_entry("plain@common"), "tiny"), Path("results/splits/tiny-lt-if10.json")
    stages.train(plain, split, [0], Path("runs"), place)
    evaluate(split, [Path("runs")], [0], Path("campaign/records"))
    found = import_campaign(Path("campaign"), split.parent, Path("results/imported"))
    assert (len(found.taken), found.refused) == (1, [])
    with pytest.raises(UserError, match="trained with --micro-batch 8, and this command trains in one process"):
        cells.reproduce(found.taken[0], Path("again"), "cpu")


def test_what_was_measured_before_is_not_taken_for_a_new_measurement(record: Path) -> None:
    cells.reproduce(record, Path("again"), "cpu")
    with pytest.raises(UserError, match="--out again: not empty"):
        cells.reproduce(record, Path("again"), "cpu")
    with pytest.raises(UserError, match="--out out: not empty"):
        cells.reproduce(record, Path("out"), "cpu")


def test_a_stopped_one_goes_on(
    record: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("harness.running.cells.evaluate", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            cells.reproduce(record, None, "cpu")
    cells.reproduce(record, None, "cpu")
    assert "every number is the same" in capsys.readouterr().out


def test_other_code_is_said(record: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells.reproduce(edited(record, code_version="0123"), Path("again"), "cpu")
    assert "measured with code 0123, this checkout has" in capsys.readouterr().out
