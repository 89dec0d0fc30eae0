"""After a sweep of the default suite and `dvc commit`, DVC has nothing left to do."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("dvc", reason="the extra 'pipeline' (dvc) is not installed")
pytest.importorskip("mlxtend", reason="the extra 'pipeline' (mlxtend) is not installed")
from tests.pipeline.test_pipeline import CELL, Project

pytestmark = pytest.mark.pipeline


def test_a_committed_sweep_leaves_dvc_nothing_to_do(tmp_path: Path) -> None:
    project = Project(tmp_path, ["ce", "tvmf"])  # one method of each number of stages is enough
    project.run("dvc", "repro", "datasets.dvc")  # fetches, trains nothing
    project.run(sys.executable, "-m", "harness", "sweep", "default", "--device", "cpu", "--per-device", "2")
    assert len(project.table()) > 0
    assert {row["status"] for row in project.table()} == {"ok"}
    project.run("dvc", "commit", "--force")
    assert project.repro() == set()

    record = project.folder / f"results/records/{CELL}/common/ce/seed0.json"
    swept = record.read_bytes()
    project.run("dvc", "repro", "--force", "--single-item", f"train@{CELL}.ce.common")
    project.run("dvc", "repro", "--force", "--single-item", f"evaluate@{CELL}.ce.common")
    assert record.read_bytes() == swept, "what the pipeline itself makes is the same"

    (weights,) = (project.folder / "runs/sweeps/default").glob("work/*/stage1/ce-*/train/checkpoint/seed0.safetensors")
    weights.write_bytes(b"\0" * weights.stat().st_size)
    message = project.run(sys.executable, "-m", "harness", "sweep", "default", "--device", "cpu")
    assert "seed0.safetensors: damaged since its run ended; made again" in message
    assert record.read_bytes() == swept
    assert weights.read_bytes().count(b"\0") < weights.stat().st_size, "trained again"
