"""Cells: all seeds of a stage, what is kept, what is refused, and how a failure becomes a record."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.base.errors import RunFailed, RunSkipped, UserError
from harness.base.files import stamped
from harness.base.progress import Reporter
from harness.engine import loop
from harness.engine.ranks import Ranks
from harness.engine.shared_features import FOLDER
from harness.engine.side_by_side import Task
from harness.reading.dataset import Images
from harness.records.evaluate import evaluate
from harness.records.evidence import read_evidence
from harness.records.history import read_history
from harness.records.runs import run_info
from harness.records.schema import read_record
from harness.running import stages
from harness.running.cells import StageRequest, run_stage
from harness.spec.entries import parse_entry
from harness.spec.recipes import Cell, resolve
from harness.spec.spread import Spread
from harness.splits.splits import read_split
from tests.unit.toys import rewrite_json

SPLIT = Path("results/splits/tiny-lt-if10.json")


def cell(entry: str, *overrides: str) -> Cell:
    return resolve(parse_entry(entry), "tiny", overrides)


@pytest.fixture
def place(workspace: Path) -> stages.Workplace:
    return stages.Workplace(torch.device("cpu"), Reporter())


def test_two_stages_to_records(place: stages.Workplace) -> None:
    first, second = Path("runs/train"), Path("runs/finetune")
    stages.train(cell("toy@common"), SPLIT, [0, 1], first, place)
    stages.finetune(cell("toy@common"), SPLIT, [0, 1], first, second, place)
    records = [read_record(path) for path in evaluate(SPLIT, [first, second], [0, 1], Path("records"))]
    assert [record.status for record in records] == ["ok", "ok"]
    assert records[0].results["last"] is not None
    assert records[0].results["last"].epoch == 1
    assert records[0].stage1_selection == "last"
    assert records[0].stages == ["train", "finetune"]
    assert records[0].stage1_key != records[1].stage1_key
    evidence = read_evidence(Path("records/seed0.npz"), records[0])
    assert evidence is not None
    assert evidence.first["loss"].tolist() == pytest.approx(read_history(first / "predictions" / "seed0.npz")["loss"])
    assert len(evidence.first["epochs"]) == len(evidence.first["test"]) == 2
    costs = json.loads(Path("records/seed0.run.json").read_text())
    assert set(costs["stages"]) == {"train", "finetune"}
    assert (costs["tf32"], costs["cudnn_benchmark"]) == (False, False), "a processor has neither"
    total = sum(stage["wall_seconds"] for stage in costs["stages"].values())
    assert costs["wall_seconds"] == pytest.approx(total, abs=2e-3)
    assert [path.name for path in place.scratch.glob("*")] == [FOLDER], "no run is left in scratch when all is done"


def test_records_are_the_same_bytes_for_the_same_run(place: stages.Workplace) -> None:
    for folder in (Path("a"), Path("b")):
        stages.train(cell("plain@common"), SPLIT, [0], folder / "train", place)
        evaluate(SPLIT, [folder / "train"], [0], folder / "records")
    for name in ("records/seed0.json", "train/checkpoint/seed0.safetensors", "train/predictions/seed0.npz"):
        assert Path("a", name).read_bytes() == Path("b", name).read_bytes()


def test_what_is_finished_is_kept(
    place: stages.Workplace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stages.train(cell("plain@common"), SPLIT, [0], Path("runs"), place)
    monkeypatch.setattr(loop.StageRun, "run", lambda *_: pytest.fail("trained again"))
    stages.train(cell("plain@common"), SPLIT, [0], Path("runs"), place)
    assert "already done" in capsys.readouterr().err
    with pytest.raises(pytest.fail.Exception, match="trained again"):
        stages.train(cell("plain@common", "lr=0.05"), SPLIT, [0], Path("runs"), place)


def test_costs_are_stamped_and_damaged_ones_are_measured_again(
    place: stages.Workplace, capsys: pytest.CaptureFixture[str]
) -> None:
    stages.train(cell("plain@common"), SPLIT, [0], Path("runs"), place)
    costs = Path("runs/costs/seed0.json")
    written = json.loads(costs.read_text())
    assert written["processes"] == 1
    assert written == stamped({key: value for key, value in written.items() if key != "sha256"})
    costs.write_text(json.dumps(written | {"train_seconds": written["train_seconds"] + 1}))
    stages.train(cell("plain@common"), SPLIT, [0], Path("runs"), place)
    assert "run again, because of runs/costs/seed0.json: content does not have its sha256" in capsys.readouterr().err


def test_an_interrupted_cell_keeps_its_finished_seeds(place: stages.Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pipeline deletes a stage's outputs before it runs again; seed 0 must not be lost with them."""
    run, trained = loop.StageRun.run, []

    def killed_at_seed_1(self: loop.StageRun, reporter: Reporter) -> None:
        trained.append(self.job.seed)
        if self.job.seed == 1 and trained.count(1) == 1:
            raise KeyboardInterrupt
        run(self, reporter)

    monkeypatch.setattr(loop.StageRun, "run", killed_at_seed_1)
    with pytest.raises(KeyboardInterrupt):
        stages.train(cell("plain@common"), SPLIT, [0, 1], Path("runs"), place)
    assert not Path("runs").exists(), "a half-finished cell leaves nothing that could be taken for a result"
    stages.train(cell("plain@common"), SPLIT, [0, 1], Path("runs"), place)
    assert trained == [0, 1, 1]
    assert {path.name for path in Path("runs/predictions").iterdir()} == {
        "seed0.json", "seed0.npz", "seed1.json", "seed1.npz",
    }  # fmt: skip


def out_of_memory() -> None:
    raise MemoryError("no memory for a batch")


def not_a_number() -> None:
    raise RunFailed("loss is nan", agreed=True)


@pytest.mark.parametrize(
    ("killed", "end", "kept"),
    [(False, out_of_memory, True), (False, not_a_number, False), (True, out_of_memory, True)],
)
def test_a_run_that_did_not_fail_by_its_own_numbers_goes_on_where_it_was(
    killed: bool,
    end: Callable[[], None],
    kept: bool,
    place: stages.Workplace,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """An exception, or a death that only the parent sees; what NaN ended would end there again."""
    monkeypatch.setenv("LTBENCH_CHECKPOINT_SECONDS", "0")
    plain, alone = cell("plain@common"), dataclasses.replace(place, side_by_side=killed)
    stages.train(plain, SPLIT, [0], Path("whole"), place)
    train_epoch = loop.StageRun.train_epoch

    def until_epoch_2(run: loop.StageRun, reporter: Reporter) -> None:
        if run.epoch:
            end()
        train_epoch(run, reporter)

    def all_die(tasks: Mapping[str, Task], _workers: int, reporter: Reporter) -> dict[str, str]:
        for task in tasks.values():
            with contextlib.suppress(KeyboardInterrupt):
                task(reporter)
        return dict.fromkeys(tasks, "its process was killed")

    with monkeypatch.context() as patch:
        patch.setattr(loop.StageRun, "train_epoch", until_epoch_2)
        if killed:
            patch.setattr(stages, "workers_for", lambda _count: 2)
            patch.setattr(stages, "run_side_by_side", all_die)
            end = interrupted
        (outcome,) = stages.train(plain, SPLIT, [0], Path("runs"), alone)
    assert outcome.status == "failed"
    assert bool(list(place.scratch.glob("*/resume.pt"))) == kept
    (outcome,) = stages.train(plain, SPLIT, [0], Path("runs"), place)
    assert outcome.status == "ok"
    assert ("resumed at epoch 2" in capsys.readouterr().err) == kept
    assert not list(place.scratch.glob("*/resume.pt"))
    for name in ("checkpoint/seed0.safetensors", "predictions/seed0.npz", "predictions/seed0.json"):
        assert Path("runs", name).read_bytes() == Path("whole", name).read_bytes()


def interrupted() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("copies", [1, 5])
def test_a_cell_interrupted_while_it_publishes_keeps_its_finished_seeds(
    copies: int, place: stages.Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of its first or its second seed; the pipeline then deletes what is there."""
    left, copy = iter(range(copies)), shutil.copyfile

    def interrupted_in_time(*paths: Path) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        copy(*paths)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", interrupted_in_time)
        with pytest.raises(KeyboardInterrupt):
            stages.train(cell("plain@common"), SPLIT, [0, 1], Path("runs"), place)
    assert not list(Path("runs").rglob(".*")), "nothing half written"
    shutil.rmtree("runs")
    monkeypatch.setattr(loop.StageRun, "run", lambda *_: pytest.fail("trained again"))
    outcomes = stages.train(cell("plain@common"), SPLIT, [0, 1], Path("runs"), place)
    assert [outcome.status for outcome in outcomes] == ["ok", "ok"]
    assert len(list(Path("runs").rglob("seed*"))) == 8
    assert not list(place.scratch.glob("*/run.json"))


def test_second_stage_refuses_another_first_stage(place: stages.Workplace) -> None:
    stages.train(cell("toy@common"), SPLIT, [0], Path("first"), place)
    with pytest.raises(UserError, match=r"made by run \w+, expected \w+: its recipe, split, seed or code differ"):
        stages.finetune(cell("toy@common", "lr=0.05"), SPLIT, [0], Path("first"), Path("second"), place)
    with pytest.raises(UserError, match="missing"):
        stages.finetune(cell("toy@common"), SPLIT, [1], Path("first"), Path("second"), place)
    Path("first/checkpoint/seed0.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(UserError, match="damaged checkpoint"):
        stages.finetune(cell("toy@common"), SPLIT, [0], Path("first"), Path("second"), place)
    assert not Path("second").exists()


def test_a_first_stage_is_shared(place: stages.Workplace) -> None:
    """A method that starts from another's first stage, and variants that differ in the second only."""
    assert cell("child@common").first_stage_identity() == cell("plain@common").first_stage_identity()
    assert cell("toy-warm@common").first_stage_identity() == cell("toy@common").first_stage_identity()
    assert cell("toy-smooth@common").first_stage_identity() != cell("toy@common").first_stage_identity()
    stages.train(cell("plain@common"), SPLIT, [0], Path("first"), place)
    (outcome,) = stages.finetune(cell("child@common"), SPLIT, [0], Path("first"), Path("second"), place)
    assert (outcome.status, outcome.method) == ("ok", "child")


@pytest.mark.parametrize(
    ("method", "status", "reason", "epoch"),
    [
        ("exploding", "failed", "loss is nan in epoch 2, step 1", 2),
        ("buggy", "failed", "ValueError: Expected input batch_size (32) to match target batch_size (3).", None),
        ("picky", "skipped", "needs a hundred classes", None),
    ],
)
def test_a_failure_becomes_a_record(
    method: str, status: str, reason: str, epoch: int | None, place: stages.Workplace
) -> None:
    run_stage(StageRequest("tiny-lt-if10", f"{method}@common", "0", Path("runs"), "cpu", True))
    (path,) = evaluate(SPLIT, [Path("runs")], [0], Path("records"))
    record = read_record(path)
    assert record.status == status
    assert record.failure is not None
    assert (record.failure.reason, record.failure.epoch) == (reason, epoch)
    assert record.results == {}
    with pytest.raises(RunFailed, match=r"on tiny-lt-if10, seed 0: "):
        run_stage(StageRequest("tiny-lt-if10", f"{method}@common", "0", Path("runs"), "cpu", False))


class Alike(Ranks):
    """One of two processes that know the same, without the other."""

    def told(self, value: Any) -> Any:
        return value


@pytest.mark.parametrize("agreed", [True, False])
def test_of_several_processes_one_records_a_failure_only_if_all_know_of_it(
    agreed: bool, place: stages.Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> loop.StageRun:
        raise RunFailed("out of luck", agreed=agreed)

    monkeypatch.setattr(stages, "StageRun", failing)
    plain, split = cell("plain@common"), read_split(SPLIT)
    info = run_info(plain, split, 0, "train")
    two = dataclasses.replace(place, ranks=Alike(0, 2))
    with contextlib.nullcontext() if agreed else pytest.raises(RunFailed, match="out of luck"):
        stages._run_one(plain, "train", split, {}, info, two, None)
    assert (stages._scratch(place, info) / "run.json").is_file() == agreed


def test_both_stages_are_spread_alike(place: stages.Workplace) -> None:
    spread = dataclasses.replace(place, spread=Spread(micro_batch=8))
    stages.train(cell("toy@common"), SPLIT, [0], Path("first"), spread)
    with pytest.raises(UserError, match=r"trained with --micro-batch 8; its second stage cannot have --nproc 1"):
        stages.finetune(cell("toy@common"), SPLIT, [0], Path("first"), Path("second"), place)


def test_a_share_of_one_image_is_a_clear_error(place: stages.Workplace) -> None:
    spread = dataclasses.replace(place, spread=Spread(micro_batch=1))
    toy = cell("plain@common", "backbone=resnet10")  # 8x8 images come to a single pixel there
    with pytest.raises(
        UserError, match=r"--micro-batch 1: BatchNorm got a single image, a share of a batch of epoch 1"
    ):
        stages.train(toy, SPLIT, [0], Path("first"), spread)


@pytest.mark.parametrize("status", ["failed", "skipped"])
def test_a_first_stage_that_failed_or_declined_ends_the_second_likewise(status: str, place: stages.Workplace) -> None:
    stages.train(cell("plain@common"), SPLIT, [0], Path("first"), place)
    info = Path("first/predictions/seed0.json")
    rewrite_json(info, status=status, failure={"reason": "loss is nan"})
    (outcome,) = stages.finetune(cell("child@common"), SPLIT, [0], Path("first"), Path("second"), place)
    assert outcome.failure is not None
    assert (outcome.status, outcome.failure.reason) == (status, f"first stage {status}: loss is nan")
    assert pickle.loads(pickle.dumps(RunSkipped("no", agreed=True))).agreed, "other ranks are told"


def test_a_method_that_no_longer_imports_becomes_a_failed_record(workspace: Path) -> None:
    (workspace.parent / "plugins/methods/plain/method.py").write_text("import nothing_of_that_name\n")
    run_stage(StageRequest("tiny-lt-if10", "plain@common", "0,1", Path("runs"), "cpu", True))
    for path in evaluate(SPLIT, [Path("runs")], [0, 1], Path("records")):
        record = read_record(path)
        assert record.status == "failed"
        assert record.failure is not None
        assert "it needs the module 'nothing_of_that_name'" in record.failure.reason
    with pytest.raises(UserError, match="nothing_of_that_name"):
        run_stage(StageRequest("tiny-lt-if10", "plain@common", "0", Path("runs"), "cpu", False))


def test_predictions_of_another_split_or_run_are_refused(place: stages.Workplace) -> None:
    stages.train(cell("plain@common"), SPLIT, [0, 1], Path("runs"), place)
    info = Path("runs/predictions/seed0.json")
    original = info.read_text()
    rewrite_json(info, split_sha256="0" * 64)
    with pytest.raises(UserError, match="measured on split 0000"):
        evaluate(SPLIT, [Path("runs")], [0], Path("records"))
    info.write_text(original)
    Path("runs/predictions/seed0.npz").write_bytes(Path("runs/predictions/seed1.npz").read_bytes())
    with pytest.raises(UserError, match="predictions of run"):
        evaluate(SPLIT, [Path("runs")], [0], Path("records"))
    assert not Path("records/seed0.json").exists()


# ---- equal first stages, runs side by side --------------------------------------------------------------------------


def test_a_one_stage_cell_takes_over_an_equal_first_stage(place: stages.Workplace) -> None:
    first, own = Path("runs/train"), Path("runs/own")
    stages.train(cell("toy@common"), SPLIT, [0], first, place)
    outcomes = stages.finetune(cell("toy-once@common"), SPLIT, [0], first, own, place)
    record = read_record(evaluate(SPLIT, [first, own], [0], Path("records"))[0])
    assert (record.variant, record.stages, record.status) == ("once", ["train"], "ok")
    assert record.run_key == outcomes[0].run_key == outcomes[0].stage1_key
    costs = json.loads(Path("records/seed0.run.json").read_text())
    assert list(costs["stages"]) == ["train"]
    stages.train(cell("toy-once@common"), SPLIT, [0], Path("runs/alone"), place)
    alone = read_record(evaluate(SPLIT, [Path("runs/alone")], [0], Path("records/alone"))[0])
    assert alone == record, "as if it had run alone"


def test_a_first_stage_of_another_recipe_is_not_taken_over(place: stages.Workplace) -> None:
    stages.train(cell("toy@common", "params.smoothing=0.2"), SPLIT, [0], Path("runs/train"), place)
    with pytest.raises(UserError, match="run its stage again"):
        stages.finetune(cell("toy-once@common"), SPLIT, [0], Path("runs/train"), Path("runs/own"), place)


@pytest.mark.pipeline
def test_side_by_side_gives_the_same_bits_as_alone(tmp_path: Path) -> None:
    """Through the command line: a process that has trained before must not fork."""
    for folder, seeds in (("together", "0,1"), ("alone", "1")):
        command = f"run --dataset mnist5k --method ce --seeds {seeds} --set recipe.epochs=1 --out {tmp_path / folder}"
        subprocess.run([sys.executable, "-m", "harness", *command.split()], check=True)
    together, alone = (next(tmp_path.glob(f"{folder}/records/**/seed1.json")) for folder in ("together", "alone"))
    assert together.read_bytes() == alone.read_bytes()
    assert json.loads(together.with_name("seed1.run.json").read_text())["runs_at_once"] == 2


def test_a_second_stage_may_train_on_a_subset_drawn_anew(place: stages.Workplace) -> None:
    split = read_split(SPLIT)
    toy = cell("toy@common", "finetune.redraw=hash:1")
    first, second, again = (
        stages._images(toy, "train", split)[1],
        stages._images(toy, "finetune", split)[1],
        stages._images(cell("toy@common"), "finetune", split)[1],
    )
    for images in (first, second, again):
        assert isinstance(images["train"], Images)
    assert np.array_equal(first["train"].labels, second["train"].labels)
    assert not np.array_equal(first["train"].pixels, second["train"].pixels)
    assert np.array_equal(first["train"].pixels, again["train"].pixels)
    assert np.array_equal(first["test"].pixels, second["test"].pixels)


def test_only_a_second_stage_can_be_drawn_anew(workspace: Path) -> None:
    with pytest.raises(UserError, match="redraw is for the second stage"):
        cell("toy@common", "redraw=hash:1")
    with pytest.raises(UserError, match=r"redraw must be hash:<k>, pool-hash:<k> or empty, found 'numpy0'"):
        cell("toy@common", "finetune.redraw=numpy0")
