"""`ltbench bench`: that it measures and reports what it says. How fast anything is, no test asserts."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from harness.base.errors import RunFailed, UserError
from harness.bench import command, table
from tests.bench import measure_losses
from tests.bench.measure_losses import MEASURED
from tests.bench.timing import ratio

ROOT = Path(__file__).parents[2]
COMMITTED = sorted((ROOT / "results/bench").glob("*.json"))
COMMON = {"part", "rounds", "ratio"}
KEYS = {
    "losses": {
        "method", "stage", "classes", "batch", "features", "milliseconds", "plain_milliseconds", "memory_bytes",
        "plain_memory_bytes", "hooks_not_timed",
    },
    "loader": {"case", "data", "images", "batch", "processes", "plain_processes", "images_per_second"},
    "loop": {
        "case", "precision", "backbone", "data", "images", "batch", "plain_workers",
        "plain_images_per_second_by_workers", "images_per_second", "of_floor",
    },
    "steps": {"method", "stage", "shared_by", "backbone", "batch"},
    "report": {"records", "test_images", "seconds", "peak_memory_mb", "page_mb"},
}  # fmt: skip


def check_report(report: dict[str, Any]) -> None:
    """The schema in tests/bench/README.md."""
    assert set(report) == {"schema", "quick", "machine", "parts"}
    assert report["schema"] == command.SCHEMA
    assert set(report["machine"]) == {
        "device", "processor", "threads", "cpus", "platform", "python", "versions", "commit",
    }  # fmt: skip
    assert set(report["parts"]) == set(command.PARTS)
    for part, rows in report["parts"].items():
        for row in rows:
            assert set(row) == KEYS[part] | (COMMON if part != "report" else {"part", "rounds"})
            assert part == "report" or 0 < row["ratio"]["low"] <= row["ratio"]["median"] <= row["ratio"]["high"]


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """Report and output of every benchmark at tiny sizes, as a user runs them."""
    folder = tmp_path_factory.mktemp("bench")
    line = [sys.executable, "-m", "harness", "bench", "--quick", "--device", "cpu", "--threads", "1"]
    line += ["--json", "deep/down/bench.json"]
    # Benchmarks are off in the workers of a test run that goes side by side, and this one is no part of it.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    environment |= {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((folder / "deep/down/bench.json").read_text()), done.stdout


def test_every_part_is_measured_and_written_by_the_schema(quick: tuple[dict[str, Any], str]) -> None:
    report, _ = quick
    check_report(report)
    assert report["quick"]
    assert {row["method"] for row in report["parts"]["losses"]} == set(MEASURED)
    assert {row["case"] for row in report["parts"]["loop"]} >= {"stage 1", "stage 2"}
    floors = [row["of_floor"] for row in report["parts"]["loop"] if row["case"] == "stage 1"]
    assert floors
    assert all(floors)
    assert report["parts"]["loader"]
    assert {(row["method"], row["stage"]) for row in report["parts"]["steps"]} == {
        ("ce", "train"),
        ("crt", "finetune"),
        ("balms", "finetune"),
    }


def test_the_tables_name_every_method_and_no_host(quick: tuple[dict[str, Any], str]) -> None:
    report, output = quick
    assert all(method in output for method in MEASURED)
    assert "above the aim of 3x" in output
    assert "ours / plain" in output
    assert platform.node() not in report["machine"].values()


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.name)
def test_committed_figures_follow_the_schema_and_were_not_quick(path: Path) -> None:
    report = json.loads(path.read_text())
    check_report(report)
    assert not report["quick"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("lopo", "cpu", None, None), "no benchmark is named 'lopo' (closest: loop"),
        (("loop", "gpu", None, None), "--device gpu"),
        (("loop", "cpu", 0, None), "--threads 0"),
        (("loop", "cpu", None, Path()), "--json"),
    ],
)
def test_mistakes_are_found_before_anything_is_measured(
    arguments: tuple[str, str, int | None, Path | None], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LTBENCH_THREADS", "1")
    monkeypatch.setattr(command, "_measure", lambda *_: pytest.fail("it measured"))
    with pytest.raises(UserError) as caught:
        command.bench(*arguments, quick=True)
    assert message in str(caught.value)


def test_a_benchmark_that_fails_leaves_the_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LTBENCH_THREADS", "1")
    monkeypatch.setattr(command, "_measure", lambda *_: (1, [loss_row("fine", 1.5)]))
    with pytest.raises(RunFailed, match="a benchmark failed"):
        command.bench("losses", "cpu", 1, tmp_path / "bench.json", quick=True)
    assert "fine" in capsys.readouterr().out
    assert json.loads((tmp_path / "bench.json").read_text())["parts"]["losses"][0]["method"] == "fine"


def loss_row(method: str, times: float, classes: int = 10) -> dict[str, Any]:
    return {
        "part": "losses",
        "method": method,
        "stage": "train",
        "classes": classes,
        "milliseconds": times,
        "ratio": {"median": times, "low": times, "high": times},
        "memory_bytes": 20,
        "plain_memory_bytes": 10,
    }


def test_losses_above_the_aim_are_marked_and_listed_slowest_first() -> None:
    rows = [loss_row("fine", 3.0), loss_row("slow", 3.5), loss_row("slower", 4.0), loss_row("fine", 2.0, 1000)]
    console = Console(width=120)
    with console.capture() as capture:
        console.print(table.loss_table(rows))
    lines = {line.split()[1]: line for line in capture.get().splitlines() if "train" in line}
    assert "3.50!" in lines["slow"]
    assert "!" not in lines["fine"]
    assert "2.00" in lines["fine"]
    assert table.above(rows).splitlines() == [
        "above the aim of 3x: 2", "  slower train C=10: 4.00x, 4.00 ms", "  slow train C=10: 3.50x, 3.50 ms",
    ]  # fmt: skip
    assert table.above(rows[:1]) == "above the aim of 3x: none"


def test_ratio_is_the_median_of_the_rounds() -> None:
    assert ratio([2.0, 9.0, 4.0], [1.0, 3.0, 4.0]) == {"median": 2.0, "low": 1.0, "high": 3.0}
    with pytest.raises(ValueError, match="no rounds"):
        ratio([], [])
    with pytest.raises(ValueError, match="shorter"):
        ratio([1.0, 2.0], [1.0])


def test_memory_counts_what_forward_keeps_for_backward(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cross-entropy keeps the log-probabilities, and a scalar; a loss that keeps as much again has twice of it."""
    from harness.api import Method, StepContext, Task
    from tests.bench.material import CrossEntropy

    class Squared(CrossEntropy):
        def loss(self, logits: torch.Tensor, target: torch.Tensor, step: StepContext) -> torch.Tensor:
            return super().loss(logits, target, step) + logits.square().mean()

    monkeypatch.setattr(measure_losses, "device", lambda: torch.device("cpu"))

    def kept(method: type[Method]) -> int:
        task = Task(7, 5, torch.tensor([9, 8, 7, 6, 5, 4, 3]))
        return measure_losses.Subject(method(task, method.Params()), "train", batch=11).memory_bytes()

    logits = 4 * 11 * 7
    assert kept(CrossEntropy) == pytest.approx(logits, abs=16)
    assert kept(Squared) == pytest.approx(2 * logits, abs=16)
