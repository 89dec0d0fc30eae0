"""The story that this guards against: a method gets a second stage, nobody makes the grid anew, and DVC is asked."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from tests.pipeline.test_pipeline import CELL, Project

pytestmark = pytest.mark.pipeline
UNUSED = ("balanced_softmax", "ce", "tvmf")
LTBENCH = (sys.executable, "-m", "harness")


def test_a_method_that_gets_a_second_stage_is_not_scored_after_the_first(tmp_path: Path) -> None:
    project = Project(tmp_path)
    for name in UNUSED:
        shutil.rmtree(tmp_path / "methods" / name)
    project.run(*LTBENCH, "new-method", "foo")
    project.edit("methods/foo/method.py", r'( +)name = "foo"', r'\1name = "foo"\n\1stages = ("train", "finetune")')

    output = project.run("dvc", "repro", fails=True)
    assert f"stale (differs from suites and recipes in finetune@{CELL}.foo.common and 1 more)" in output
    assert "to make it anew: ltbench grid" in output
    assert "Traceback" not in output
    assert not list(tmp_path.glob("results/runs/**/*.json"))
    assert not list(tmp_path.glob("results/records/**/*.json"))

    first = ("train", CELL, "foo@common", "--seeds", "0", "--device", "cpu", "--keep-going", "--out")
    folder = f"results/runs/{CELL}/common/foo/train"
    assert "ltbench grid" in project.run(*LTBENCH, *first, folder, fails=True)
    project.run(*LTBENCH, *first, "elsewhere/train")
    record = ("evaluate", CELL, "--seeds", "0", "--out", f"results/records/{CELL}/common/foo", "--run")
    assert "its recipe has two stages" in project.run(*LTBENCH, *record, "elsewhere/train", fails=True)
    assert not list(tmp_path.glob("results/records/**/*.json"))

    project.run(*LTBENCH, "grid")
    project.run("dvc", "repro", f"evaluate@{CELL}.foo.common")
    assert list(tmp_path.glob(f"results/records/{CELL}/common/foo/seed0.json"))
