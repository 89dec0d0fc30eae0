"""How long a report takes, how much memory, and how large its page is, by the number of records."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from harness.metrics.shots import group_sizes, shot_accuracy
from harness.reading.profiles import exponential_class_counts
from harness.records.arrays import write_arrays
from harness.records.evidence import evidence_path
from harness.records.schema import SCHEMA, Record, Scores, costs_path, write_record
from tests.bench.sizes import sizes

SEEDS = 3
ROWS = 33  # of a table: what 16 methods come to with their variants
TEST_IMAGES = 10_000
EPOCHS = 200
# The largest resident memory of the process itself, in kB: what `resource` says of children includes their parent's.
CALL = """
import contextlib, pathlib, sys
from harness.cli import main
with contextlib.suppress(SystemExit):
    main()
lines = pathlib.Path("/proc/self/status").read_text().splitlines()
print(next(line.split()[1] for line in lines if line.startswith("VmHWM")))
"""


def write_records(folder: Path, count: int, images: int) -> None:
    """So many made records with evidence, in tables of `ROWS` rows; every number follows from the predictions."""
    generator = np.random.default_rng(0)
    for number in range(count):
        table, place = divmod(number, ROWS * SEEDS)
        _write(folder, f"made{table}", (10, 100)[table % 2], *divmod(place, SEEDS), images, generator)


def _write(
    folder: Path, dataset: str, classes: int, row: int, seed: int, images: int, generator: np.random.Generator
) -> None:
    counts = exponential_class_counts(500, classes, 100)
    targets = np.repeat(np.arange(classes, dtype=np.uint8), images // classes)
    right = generator.random(len(targets)) < 0.5 + 0.01 * row
    predicted = np.where(right, targets, generator.integers(0, classes, len(targets))).astype(np.uint8)
    shots = shot_accuracy(predicted, targets, counts)
    by_class = [float((predicted[targets == c] == c).mean()) for c in range(classes)]
    macro_f1 = shots["macro"] or 0.0  # what it is does not matter to how long a report takes
    scores = Scores(epoch=EPOCHS, macro_f1=macro_f1, ece=0.1, per_class=by_class, **shots)  # type: ignore[arg-type]
    key = f"{dataset}-{row}-{seed}"
    path = folder / dataset / f"method{row}" / f"seed{seed}.json"
    write_record(path, Record(
        schema=SCHEMA, status="ok", dataset=dataset, split=f"{dataset}-lt-if100", split_sha256=dataset,
        profile="exponential", imbalance_factor=100.0, subset_rule="hash:0", class_counts=counts,
        test_images=len(targets), val_images=0, method=f"method{row}", variant="", track="common",
        recipe={"backbone": "resnet32_cifar", "params": {}, "train": {"epochs": EPOCHS, "lr": 0.1 + row}},
        recipe_sha256=f"{row:064d}", backbone="resnet32_cifar", seed=seed, stages=["train"], stage1_selection=None,
        stage1_key=key, run_key=key, code_version="made", shot_policy="strict_100_20", groups=group_sizes(counts),
        results={"last": scores, "best_val": None, "best_test": scores},
    ))  # fmt: skip
    costs_path(path).write_text(json.dumps({"device": "made", "wall_seconds": 1.0 + seed}), encoding="utf-8")
    write_arrays(evidence_path(path), {
        "run_key": np.array(key),
        "targets": targets,
        "rules": np.array(["last", "best_test"]),
        "row": np.array([0, 0]),
        "predictions": predicted[None],
        "loss": np.linspace(2, 0.1, EPOCHS, dtype=np.float32),
        "learning_rate": np.linspace(0.1, 0, EPOCHS, dtype=np.float32),
        "epochs": np.arange(10, EPOCHS + 1, 10),
        "test": np.linspace(0.3, 0.7, EPOCHS // 10, dtype=np.float32),
        "val": np.empty(0, np.float32),
        "class/weight norm": np.linspace(2, 1, classes, dtype=np.float32),
    })  # fmt: skip


@pytest.mark.parametrize("index", range(2))
def test_report(benchmark: BenchmarkFixture, index: int, tmp_path: Path) -> None:
    """`ltbench report` as a user calls it: start-up, reading, tests, page, tables and figures."""
    count, images = sizes().records[index], sizes().test_images
    write_records(tmp_path / "records", count, images)
    command = [sys.executable, "-c", CALL, "report", str(tmp_path / "records"), "--out", str(tmp_path / "out")]
    peaks: list[float] = []

    def build() -> None:
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        peaks.append(int(done.stdout.split()[-1]) / 1e3)

    rounds = (sizes().rounds + 1) // 2 if index == 0 else 1
    benchmark.pedantic(build, rounds=rounds)
    assert benchmark.stats is not None
    seconds = list(benchmark.stats.stats.data)
    benchmark.extra_info |= {
        "part": "report",
        "records": count,
        "test_images": images,
        "seconds": round(min(seconds), 2),
        "peak_memory_mb": round(max(peaks), 1),
        "page_mb": round((tmp_path / "out" / "leaderboard.html").stat().st_size / 1e6, 2),
    }
