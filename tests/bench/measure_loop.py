"""The training loop against the plain one, and its distance to the kernels alone."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pytest_benchmark.fixture import BenchmarkFixture
from rich.console import Console
from rich.progress import Progress

from harness.api import Stage
from harness.base.processes import become_dependent
from harness.base.progress import Reporter
from harness.engine.job import StageJob
from harness.engine.loop import StageRun
from harness.spec.stage_recipe import Augment
from tests.bench.material import CROP_AND_FLIP, CrossEntropy, classifier, material, recipe
from tests.bench.plain import PlainLoop, plain_loader
from tests.bench.sizes import device, sizes
from tests.bench.timing import SUBJECT, Work, interleaved, ratio, speeds, timed


@dataclass(frozen=True)
class Case:
    """What is trained; the plain loop does the same."""

    title: str
    stage: Stage
    augment: Augment


CASES = (
    Case("stage 1", "train", CROP_AND_FLIP),
    Case("stage 2", "finetune", CROP_AND_FLIP),
)


def plain_loop(case: Case, workers: int) -> PlainLoop:
    """The plain loop for a case, with a new model."""
    split, images = material()
    loader = plain_loader(images["train"], split, recipe(case.augment), device(), workers)
    return PlainLoop(classifier(), loader, recipe(case.augment), device(), frozen=case.stage == "finetune")


@cache
def images_per_second_by_workers() -> dict[int, float]:
    """Of the plain loop in stage 1, for each worker count that is tried: the better of two epochs after a first one."""
    speeds = {}
    for workers in sizes().workers:
        loop = plain_loop(CASES[0], workers)
        loop.epoch()
        seconds = min(timed(loop.epoch) for _ in range(2))
        speeds[workers] = round(len(material()[1]["train"].labels) / seconds, 1)
    return speeds


def best_workers() -> int:
    """The worker count with which the plain loop is fastest."""
    speeds = images_per_second_by_workers()
    return max(speeds, key=speeds.__getitem__)


class Floor:
    """The kernels alone: forward, backward and step on one batch that stays on the device; no data, no bookkeeping.

    On CUDA the step is one captured graph. Calling it runs as many steps as an epoch has.
    """

    def __init__(self, precision: str) -> None:
        size, pixels = sizes().batch_size, sizes().pixels
        self.model = classifier().to(device(), memory_format=torch.channels_last)  # type: ignore[call-overload]
        images = torch.randn(size, 3, pixels, pixels, device=device())
        self.images = images.contiguous(memory_format=torch.channels_last)
        self.target = torch.arange(size, device=device()) % 10
        self.low = precision == "bfloat16"
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
        self.run_step: Callable[[], None] = self._captured() if device().type == "cuda" else self._step

    def _step(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device().type, dtype=torch.bfloat16) if self.low else contextlib.nullcontext():
            features = self.model.backbone(self.images)
        F.cross_entropy(self.model.head(features.float()), self.target).backward()
        self.optimizer.step()

    def _captured(self) -> Callable[[], None]:
        side = torch.cuda.Stream(device())
        side.wait_stream(torch.cuda.current_stream(device()))
        with torch.cuda.stream(side):
            for _ in range(3):  # allocations and cuDNN's choices must be over before the capture
                self._step()
        torch.cuda.current_stream(device()).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._step()
        replay: Callable[[], None] = graph.replay
        return replay

    def __call__(self) -> None:
        """One epoch's steps."""
        for _ in range(sizes().steps):
            self.run_step()


def has_bfloat16() -> bool:
    """Whether the device computes in bfloat16; a processor without the instructions emulates them slowly."""
    if device().type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # not in older versions of torch
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_loop(
    benchmark: BenchmarkFixture,
    case: Case,
    precision: str,
    compiled: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An epoch of `StageRun` against one of the plain loop, which is always float32, and the floor of stage 1."""
    if precision == "bfloat16" and not has_bfloat16():
        pytest.skip("no bfloat16 here")
    if compiled and device().type == "cpu":
        pytest.skip("compiling gains nothing on a processor")
    monkeypatch.setenv("LTBENCH_COMPILE", str(int(compiled)))
    monkeypatch.setenv("LTBENCH_CHECKPOINT_SECONDS", "1e9")
    others: dict[str, Work] = {"plain": plain_loop(case, best_workers()).epoch}
    if case.stage == "train":
        others["floor"] = Floor(precision)
    ours = epoch_of(case, precision, tmp_path)
    seconds = interleaved(benchmark, ours, others, sizes().rounds)
    note(benchmark, f"{case.title}, compiled" if compiled else case.title, precision, seconds)


def test_runs_at_once(benchmark: BenchmarkFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many runs as there are cores, one thread each, against one of the plain loop with all of them.

    This is how the seeds of a cell are trained on a processor. A round is an epoch of every run.
    """
    if device().type != "cpu":
        pytest.skip("runs at once on a GPU are measured by campaigns")
    monkeypatch.setenv("LTBENCH_CHECKPOINT_SECONDS", "1e9")
    count = max(2, torch.get_num_threads())
    others: dict[str, Work] = {"plain": plain_loop(CASES[0], best_workers()).epoch}
    with runs_at_once(count, tmp_path) as ours:
        seconds = interleaved(benchmark, ours, others, sizes().rounds)
    seconds[SUBJECT] = [value / count for value in seconds[SUBJECT]]  # of one run's epoch
    note(benchmark, f"stage 1, {count} runs at once", "float32", seconds)


def epoch_of(case: Case, precision: str, folder: Path, seed: int = 0) -> Work:
    """The next epoch of a run of the harness's loop."""
    split, images = material()
    method, params = CrossEntropy, CrossEntropy.Params()
    job = StageJob(case.stage, method, params, recipe(case.augment), sizes().backbone, precision, seed, "bench")
    silent = Reporter(Progress(console=Console(quiet=True), disable=True))
    return partial(StageRun(job, split, images, device(), folder).train_epoch, silent)


@contextlib.contextmanager
def runs_at_once(count: int, folder: Path) -> Iterator[Work]:
    """An epoch of so many runs of stage 1, each in a process and on a thread of its own."""
    spawn = multiprocessing.get_context("spawn")  # a fork would inherit a library that has started its threads
    with contextlib.ExitStack() as stack:
        members = [ProcessPoolExecutor(1, spawn, _start_member, (folder / str(seed), seed)) for seed in range(count)]
        for member in members:
            stack.enter_context(member)

        def epoch() -> None:
            for done in [member.submit(_member_epoch) for member in members]:
                done.result()

        epoch()  # processes start slowly
        yield epoch


_epoch: Work  # of a member


def _start_member(folder: Path, seed: int) -> None:
    global _epoch
    os.environ["LTBENCH_THREADS"] = "1"
    become_dependent()
    _epoch = epoch_of(CASES[0], "float32", folder, seed)


def _member_epoch() -> None:
    _epoch()


def note(benchmark: BenchmarkFixture, case: str, precision: str, seconds: dict[str, list[float]]) -> None:
    """Writes down what was measured: the seconds of each round, by who took them."""
    split, images = material()
    benchmark.extra_info |= speeds(seconds, len(images["train"].labels)) | {
        "part": "loop",
        "case": case,
        "precision": precision,
        "backbone": sizes().backbone,
        "data": split.id,
        "batch": sizes().batch_size,
        "plain_workers": best_workers(),
        "plain_images_per_second_by_workers": images_per_second_by_workers(),
        "of_floor": ratio(seconds["floor"], seconds[SUBJECT]) if "floor" in seconds else None,
    }
