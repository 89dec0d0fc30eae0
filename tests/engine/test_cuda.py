"""What holds on CUDA. Without a GPU these tests skip; run them with `pytest -m gpu`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.api import Method, Stage
from harness.base.errors import UserError
from harness.base.progress import Reporter
from harness.engine.device import DETERMINISTIC, pick_device
from harness.engine.graph import GRAPH
from harness.engine.loop import StageRun
from harness.reading.dataset import Images
from harness.records.schema import costs_path, read_record
from harness.running import campaign
from harness.running.plans import Outcome, Settings
from harness.spec import suites
from harness.spec.registry import available_methods, get_method
from harness.splits.splits import Split
from tests.conformance.suite import STAGES
from tests.engine.test_fake_cuda import job as common_job
from tests.engine.toys import job

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
ImagesByPart = dict[str, Images]
ROOT = Path(__file__).parents[2]


def run_on(device: str, method: type[Method], split: Split, images: ImagesByPart, folder: Path) -> StageRun:
    """A run of one epoch."""
    run = StageRun(job(method, epochs=1), split, images, pick_device(device), folder)
    run.run(Reporter())
    return run


@pytest.mark.gpu
@pytest.mark.parametrize("name", available_methods())
def test_first_stage_agrees_with_the_cpu(
    name: str, tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path
) -> None:
    """Augmentation is drawn on the CPU and weights come from one seed, so only rounding differs (and GCL's noise)."""
    if name == "gcl":
        pytest.skip("its noise comes from the device's generator")
    method = get_method(name)
    if method.first_stage:
        method = get_method(method.first_stage)
    on_cpu, on_cuda = (run_on(d, method, tiny_split, tiny_images, tmp_path / d) for d in ("cpu", "cuda"))
    np.testing.assert_allclose(on_cuda.history.loss, on_cpu.history.loss, rtol=2e-2)


@pytest.mark.gpu
def test_no_step_waits_for_the_device(
    tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch raises where a step of the loop would synchronise."""
    monkeypatch.setenv(GRAPH, "off")
    run = StageRun(job(get_method("ce"), epochs=1), tiny_split, tiny_images, pick_device("cuda"), tmp_path)
    plan = run.batches.plan(0)
    run.network.train_mode()
    run._train_step(plan, slice(0, 16), 3)  # allocations and cuDNN's choices
    torch.cuda.set_sync_debug_mode("error")
    try:
        run._train_step(plan, slice(16, 32), 3)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.parametrize(("name", "stage"), STAGES)
def test_a_graph_gives_the_numbers_of_eager_steps(
    name: str,
    stage: Stage,
    tiny_split: Split,
    tiny_images: ImagesByPart,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As `test_graph.py` shows it on a tape; here within what a GPU's order of sums allows."""
    losses = []
    for mode in ("off", "on"):
        monkeypatch.setenv(GRAPH, mode)
        device = pick_device("cuda")
        run = StageRun(common_job(name, stage, batch_size=9), tiny_split, tiny_images, device, tmp_path)
        for epoch in (0, run.job.recipe.epochs - 1):
            run.epoch, run.step = epoch, 0
            run._train_steps()
        losses.append(torch.stack(run.losses))
    assert run.costs.graph_steps > 0
    assert run.costs.fell_back == []
    torch.testing.assert_close(losses[1], losses[0], rtol=5e-2, atol=1e-3)


CELL = "run --dataset mnist5k --method ce --seeds {seed} --device cuda --set recipe.epochs=1 --out {out}"


@pytest.mark.gpu
def test_in_deterministic_mode_runs_beside_others_give_the_bits_of_runs_alone(tmp_path: Path) -> None:
    environment = os.environ | {"LTBENCH_DETERMINISTIC": "1"}

    def begin(seed: int, out: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "harness", *CELL.format(seed=seed, out=out).split()]
        return subprocess.Popen(command, env=environment)

    for seed in (0, 1):
        assert begin(seed, tmp_path / f"alone{seed}").wait() == 0
    together = [begin(seed, tmp_path / f"together{seed}") for seed in (0, 1)]
    assert [process.wait() for process in together] == [0, 0]
    for seed in (0, 1):
        alone, beside = (sorted((tmp_path / f"{how}{seed}").rglob("seed*.npz")) for how in ("alone", "together"))
        assert [path.read_bytes() for path in alone] == [path.read_bytes() for path in beside] != []


SUITE = """
cards:
  splits: [mnist5k-lt-if100]
  entries: [ce@common, tau_norm@common]
  seeds: [0, 1]
"""


@pytest.mark.gpu
def test_a_campaign_of_two_workers_on_one_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each worker begins with `cuda:0`, and every run failed there; what its numbers rest on stands in its costs."""
    pytest.importorskip("mlxtend", reason="the extra 'pipeline' (mlxtend) is not installed")
    (tmp_path / "suites.yaml").write_text(SUITE)
    monkeypatch.setattr(suites, "SUITES_FILE", tmp_path / "suites.yaml")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # the workers' too
    monkeypatch.delenv(DETERMINISTIC, raising=False)
    monkeypatch.chdir(tmp_path)
    settings = Settings(tmp_path / "out", device="cuda:0", per_device=2, overrides=("recipe.epochs=1",))
    assert campaign.campaign("cards", 300.0, settings) == Outcome(made=4)
    records = sorted(settings.out.glob("records/**/seed?.json"))
    assert [read_record(path).status for path in records] == ["ok"] * 4
    for path in records:
        costs = json.loads(costs_path(path).read_text())
        assert costs["device"] == torch.cuda.get_device_name(0)
        assert costs["peak_memory_mb"] > 0
        assert (costs["runs_at_once"], costs["tf32"], costs["cudnn_benchmark"]) == (2, False, True)


@pytest.mark.gpu
def test_a_device_that_is_not_there_is_named() -> None:
    with pytest.raises(UserError, match="cuda:99"):
        pick_device("cuda:99")
