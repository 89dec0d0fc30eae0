"""A few kills at random instants; `make faults` makes two hundred."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mlxtend", reason="the extra 'pipeline' (mlxtend) is not installed")
ROOT = Path(__file__).parents[2]


@pytest.mark.pipeline
def test_killed_at_random_instants_the_pipeline_leaves_the_same_files(tmp_path: Path) -> None:
    """In a process that has not trained, from which commands can be forked."""
    command = [
        sys.executable,
        "-m",
        "tests.faults.kill",
        "--kills",
        "3",
        "--seed",
        "5",
        "--json",
        str(tmp_path / "x.json"),
    ]
    subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False, capture_output=True)
    figures = json.loads((tmp_path / "x.json").read_text())
    assert figures["faults"] == []
    assert figures["kills"] == 3
    assert figures["pipelines"] >= 1
    assert figures["files"] > 60
