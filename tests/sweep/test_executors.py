"""Executors by name: one clear line for what is missing or wrong, and the GPU of each local slot."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from harness.base.errors import UserError
from harness.running.plans import Settings
from harness.running.sweep import executors
from harness.running.sweep.contract import Spec
from harness.running.sweep.executors import Options, Share, open_executor
from harness.running.sweep.slurm_jobs import parse_options
from tests.sweep.overhead import measure


def test_an_unknown_executor() -> None:
    with pytest.raises(UserError, match="--executor: no executor is named 'slum' \\(closest: slurm"):
        Options("slum")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"slurm": ("partition=gpu",)}, "--slurm: needs --executor slurm, found local"),
        ({"name": "ray", "slurm": ("partition=gpu",)}, "--slurm: needs --executor slurm, found ray"),
        ({"ray_address": "head:1"}, "--ray-address: needs --executor ray, found local"),
        ({"name": "slurm", "ray_address": "head:1"}, "--ray-address: needs --executor ray, found slurm"),
    ],
)
def test_an_option_of_another_executor(options: dict[str, Any], match: str) -> None:
    with pytest.raises(UserError, match=match):
        Options(**options)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_slurm_itself_says_how_many_run_at_once(device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for its jobs on this machine, which have no queue."""
    given: list[int] = []
    monkeypatch.setattr("harness.running.sweep.slurm_jobs.SlurmExecutor", lambda *them: given.append(them[-1]))
    monkeypatch.setattr(executors, "engine", lambda *_: None)
    settings = Settings(tmp_path, device, 3)
    with pytest.raises(UserError, match="--per-device: Slurm gives each run a place of its own"):
        open_executor(Options("slurm"), settings, tmp_path)
    _, share = open_executor(Options("slurm", slurm=("cluster=local",)), settings, tmp_path)
    assert (share, given) == (Share(device, 3 if device == "cpu" else 1), [3])


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


@pytest.mark.parametrize("name", ["ray", "slurm"])
@pytest.mark.parametrize("device", ["cdua", "cuda:1", "gpu"])
def test_a_wrong_device_is_one_line_before_anything_is_started(name: str, device: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"--device {device}: --executor {name} takes .*cpu or cuda"):
        open_executor(Options(name), Settings(tmp_path, device), tmp_path)


class FakeRay:
    """What `open_executor` asks of an executor."""

    def __init__(self, gpus: float, cores: int) -> None:
        self.gpus, self.cores, self.closed = gpus, cores, False
        self.given: int | None = None

    def __call__(self, _ray: Any, _root: Path, _address: str, cores: int | None) -> FakeRay:
        self.given = cores
        return self

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def fake_ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    """Nodes of eight cores and no GPU."""
    fake = FakeRay(0, 8)
    monkeypatch.setattr("harness.running.sweep.ray_tasks.RayExecutor", fake)
    monkeypatch.setattr("harness.running.sweep.ray_tasks.prepare", lambda _address: None)
    monkeypatch.setattr(executors, "engine", lambda *_: None)
    monkeypatch.setattr(executors, "_device_here", lambda name: name.replace("auto", "cpu"))
    return fake


def test_runs_on_gpus_that_no_node_has_do_not_wait_for_ever(fake_ray: FakeRay, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no node of this Ray has a GPU"):
        open_executor(Options("ray", "head:1"), Settings(tmp_path, "cuda"), tmp_path)
    assert fake_ray.closed


@pytest.mark.parametrize(
    ("address", "device", "per_device", "gpus", "cores", "share"),
    [
        ("", "cpu", 3, 0, 3, Share("cpu", 8)),
        ("", "auto", 0, 0, None, Share("cpu", 8)),
        ("head:1", "auto", 0, 0, None, Share("cpu", 8)),
        ("head:1", "auto", 2, 4, None, Share("cuda", 2)),
    ],
)
def test_what_a_run_gets_of_a_node(
    fake_ray: FakeRay, tmp_path: Path, address: str, device: str, per_device: int, gpus: int, cores: Any, share: Share
) -> None:
    fake_ray.gpus = gpus
    opened = open_executor(Options("ray", address), Settings(tmp_path, device, per_device), tmp_path)
    assert (opened[1], fake_ray.given) == (share, cores)


def test_nodes_of_a_cluster_say_themselves_how_much_they_take(fake_ray: FakeRay, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--per-device: a node of a Ray cluster takes a run for each"):
        open_executor(Options("ray", "head:1"), Settings(tmp_path, "cpu", 2), tmp_path)


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
    monkeypatch.setattr(
        "harness.running.sweep.local.LocalExecutor", lambda _root, environments: given.extend(environments)
    )
    _, share = open_executor(Options(), Settings(tmp_path), tmp_path)
    assert [environment["CUDA_VISIBLE_DEVICES"] for environment in given] == expected
    assert share.gpus == 1 / slots.count("cuda:0")


def test_the_overhead_is_measured_on_runs_that_were_made(tmp_path: Path) -> None:
    figures = measure("local", 3, 2, tmp_path)
    assert figures["done"] == 3
    assert len(list(tmp_path.glob("*.out"))) == 3
