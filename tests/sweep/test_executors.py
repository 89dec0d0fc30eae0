"""Executors by name: one clear line for what is missing or wrong, and the GPU of each local slot."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.plans import Settings
from harness.sweep import executors
from harness.sweep.contract import Spec
from harness.sweep.executors import Options, open_executor
from harness.sweep.overhead import measure
from harness.sweep.slurm_jobs import parse_options


def test_an_unknown_executor() -> None:
    with pytest.raises(UserError, match="--executor: no executor is named 'slum' \\(closest: slurm"):
        Options("slum")


@pytest.mark.parametrize(("name", "module"), [("ray", "ray"), ("slurm", "submitit")])
def test_a_missing_extra_is_one_line_with_the_command(
    name: str, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=f"--executor {name}: {module} is not installed.*pip install 'ltbench\\[{name}"):
        open_executor(Options(name), Settings(tmp_path, "cpu"), tmp_path)


def test_slurm_has_to_be_told_the_device(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="name --device cuda or --device cpu"):
        open_executor(Options("slurm"), Settings(tmp_path), tmp_path)


@pytest.mark.parametrize("text", ["setup=rm -rf x", "partition", "time=1;x", "srun_args=--x", "account=a\nb"])
def test_slurm_options_that_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="--slurm"):
        parse_options([text])


def test_slurm_options_that_are_taken() -> None:
    assert parse_options(["partition=gpu", "time=90"]) == {"partition": "gpu", "time": "90", "array_parallelism": "256"}


@pytest.mark.parametrize("key", ["", "../up", "a/b", ".hidden", "a b", "x" * 201])
def test_a_key_cannot_leave_the_folder(key: str) -> None:
    with pytest.raises(ValueError, match="cannot name a run's folder"):
        Spec(key, ("true",), ("out",))


@pytest.mark.parametrize(
    ("visible", "slots", "expected"),
    [
        (None, ["cuda:0", "cuda:1", "cuda:0", "cuda:1"], ["0", "1", "0", "1"]),
        ("4,6", ["cuda:0", "cuda:1"], ["4", "6"]),
    ],
)
def test_a_local_slot_sees_its_own_gpu(
    visible: str | None, slots: list[str], expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[dict[str, str]] = []
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(executors, "slots", lambda _: slots)
    monkeypatch.setattr("harness.sweep.local.LocalExecutor", lambda _root, environments: given.extend(environments))
    _, share = open_executor(Options(), Settings(tmp_path), tmp_path)
    assert [environment["CUDA_VISIBLE_DEVICES"] for environment in given] == expected
    assert share.gpus == 1 / slots.count("cuda:0")


def test_the_overhead_is_measured_on_runs_that_were_made(tmp_path: Path) -> None:
    figures = measure("local", 3, 2, tmp_path)
    assert figures["done"] == 3
    assert len(list(tmp_path.glob("*.out"))) == 3
