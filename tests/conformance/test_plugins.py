"""Methods that the contract must carry: each conforms, trains on real digits, and goes on after a kill."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from harness.records.schema import read_record
from harness.running.cells import run_alone
from harness.spec.entries import parse_entry
from harness.spec.recipes import resolve
from harness.spec.registry import get_method
from harness.splits.split_names import split_of

pytest.importorskip("mlxtend", reason="the extra 'pipeline' (mlxtend) is not installed")
ROOT = Path(__file__).parents[2]
PLUGINS = ROOT / "tests/plugins"
TRIED = ("reads_features", "three_experts", "two_views", "two_samplers", "frozen_teacher", "adapters", "unclaimed")


@pytest.fixture(autouse=True)
def plugins(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(PLUGINS)
    importlib.invalidate_caches()
    yield
    for name in TRIED:
        sys.modules.pop(f"methods.{name}.method", None)
        sys.modules.pop(f"methods.{name}", None)


def test_each_is_tried() -> None:
    assert {path.parent.name for path in PLUGINS.glob("methods/*/method.py")} == set(TRIED)


def test_they_conform() -> None:
    """The suite also asks for the same bits after a kill in the middle of an epoch, in both stages."""
    environment = os.environ | {"LTBENCH_CHECK_METHOD": ",".join(TRIED), "PYTHONPATH": f"{PLUGINS}:{ROOT}"}
    command = [sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider", "-rs"]
    command += [str(ROOT / "tests/conformance/suite.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "compares the images of a batch with each other" in done.stdout, "what a method declares is named"


@pytest.mark.parametrize("name", TRIED)
def test_they_learn(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    short = ["recipe.image_size=16", "recipe.epochs=2", "recipe.finetune.epochs=1", "recipe.finetune.lr=0.02"]
    dataset, split = split_of("mnist5k-lt-if10")
    run_alone(resolve(parse_entry(f"{name}@common"), dataset.name, short), split, dataset, [0], Path("runs"), "cpu")
    (record,) = [read_record(path) for path in Path("runs/records").rglob("seed0.json")]
    assert record.status == "ok"
    assert record.stages == list(get_method(name).stages)
    last = record.results["last"]
    assert last is not None
    assert last.all > 0.2, "chance is 0.1"
    assert torch.is_grad_enabled()
