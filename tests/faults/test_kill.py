"""A few kills at random instants (`make faults` makes two hundred), and the same run again in new processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mlxtend", reason="the extra 'pipeline' (mlxtend) is not installed")
ROOT = Path(__file__).parents[2]


def figures_of(tool: str, folder: Path, *arguments: str) -> dict[str, Any]:
    """What a tool of this folder measures."""
    command = [sys.executable, "-m", f"tests.faults.{tool}", *arguments, "--json", str(folder / "figures.json")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, check=False, capture_output=True, text=True, timeout=600)
    assert (folder / "figures.json").is_file(), done.stderr
    return dict(json.loads((folder / "figures.json").read_text()))


@pytest.mark.pipeline
def test_killed_at_random_instants_the_pipeline_leaves_the_same_files(tmp_path: Path) -> None:
    """In a process that has not trained, from which commands can be forked."""
    figures = figures_of("kill", tmp_path, "--kills", "3", "--seed", "5", "--only", "run crt", "collect")
    assert figures["faults"] == []
    assert figures["kills"] == 3
    assert figures["pipelines"] >= 1
    assert figures["files"] > 20


@pytest.mark.pipeline
def test_the_same_seed_gives_the_same_bits_in_a_new_process(tmp_path: Path) -> None:
    """With two threads the seeds run one after the other: forked processes would hang."""
    figures = figures_of("determinism", tmp_path)
    assert figures["differ between repeats with 1 thread"] == []
    assert figures["differ between repeats with 2 threads"] == []
    assert figures["files"] > 20
