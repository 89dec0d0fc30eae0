"""Training steps of each method, images and optimiser included, against those of cross-entropy."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from rich.console import Console
from rich.progress import Progress

from harness.api import Stage
from harness.base.progress import Reporter
from harness.bench.command import QUICK
from harness.engine.job import StageJob
from harness.engine.loop import StageRun
from harness.spec.recipes import Cell, resolve
from harness.spec.suites import entries_for, get_suite
from tests.bench.material import material
from tests.bench.sizes import device, sizes
from tests.bench.timing import SUBJECT, interleaved, ratio

SUITE, DATASET = "cifar10-short", "cifar10"
STEPS, ROUNDS = 2, 3  # many stages, so little of each


@cache
def cells() -> dict[str, Cell]:
    """By method."""
    return {entry.path.name: resolve(entry, DATASET) for entry in entries_for(get_suite(SUITE), DATASET)}


def stages() -> Iterator[tuple[str, Stage]]:
    """Those that train; a first stage that methods share is its own method's. Some of them for a quick look."""
    for name, cell in cells().items():
        if os.environ.get(QUICK) and name not in ("ce", "crt", "balms"):
            continue
        if cell.first_stage is cell.method:
            yield name, "train"
        if cell.recipe.finetune and cell.recipe.finetune.epochs:
            yield name, "finetune"


def run_of(cell: Cell, stage: Stage, folder: Path) -> StageRun:
    """A run on the benchmarks' images that is never evaluated; the number of epochs stays, for schedules rest on it."""
    first, (split, images) = stage == "train", material(STEPS)
    recipe = cell.recipe.train if first else cell.recipe.finetune
    assert recipe is not None
    recipe = dataclasses.replace(
        recipe, batch_size=sizes().batch_size, eval_every=10**6, eval_all_after=1.0, epochs=recipe.epochs + ROUNDS
    )
    method, params = (cell.first_stage, cell.first_stage_params) if first else (cell.method, cell.recipe.params)
    job = StageJob(stage, method, params, recipe, sizes().backbone, cell.recipe.precision, 0, "bench")
    return StageRun(job, split, images, device(), folder)


@pytest.mark.parametrize(("method", "stage"), list(stages()))
def test_steps(
    benchmark: BenchmarkFixture, method: str, stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Time for each training image, over that of cross-entropy. A round is an epoch."""
    monkeypatch.setenv("LTBENCH_CHECKPOINT_SECONDS", "1e9")
    silent = Reporter(Progress(console=Console(quiet=True), disable=True))
    ours = run_of(cells()[method], stage, tmp_path / "ours" / "run")
    plain = run_of(cells()["ce"], "train", tmp_path / "plain" / "run")
    work = {run: partial(run.train_epoch, silent) for run in (ours, plain)}
    seconds = interleaved(benchmark, work[ours], {"ce": work[plain]}, ROUNDS)
    images = {run: run.costs.images / run.epoch for run in (ours, plain)}
    benchmark.extra_info |= {
        "part": "steps",
        "method": method,
        "stage": stage,
        "shared_by": [
            name for name, cell in cells().items() if stage == "train" and cell.first_stage.name == method != name
        ],
        "backbone": sizes().backbone,
        "batch": sizes().batch_size,
        "ratio": ratio(
            [value / images[ours] for value in seconds[SUBJECT]], [value / images[plain] for value in seconds["ce"]]
        ),
    }
