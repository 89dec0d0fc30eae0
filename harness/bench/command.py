"""Runs the benchmarks in a process of their own, and makes a table and a file of what they measured."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from harness.base.errors import RunFailed, UserError, unknown
from harness.base.files import read_json, write_json
from harness.bench import table
from harness.engine.device import device_name, pick_device
from harness.spec.provenance import machine

SCHEMA = 1
PARTS = ("losses", "loader", "loop", "steps", "report")
FOLDER = Path(__file__).parents[2] / "tests" / "bench"  # the pytest-benchmark tests, of a clone
DEVICE, QUICK = "LTBENCH_BENCH_DEVICE", "LTBENCH_BENCH_QUICK"  # their settings


def bench(part: str, device: str, threads: int | None, json_file: Path | None, quick: bool) -> None:
    """Measures one part or "all", prints its ratios, and writes them to `json_file` if there is one.

    Args:
        threads: torch's threads on the CPU; None for as many as there are cores.
        quick: sizes that show whether it works, not how fast it is.

    Raises:
        UserError: no such part or device, no benchmarks or pytest-benchmark here, or a folder in the file's place.
        RunFailed: a benchmark failed; the others are printed and written all the same.
    """
    if part not in (*PARTS, "all"):
        raise unknown("benchmark", part, (*PARTS, "all"))
    if threads is not None and threads < 1:
        raise UserError(f"--threads {threads}: at least one is needed")
    if json_file and json_file.is_dir():
        raise UserError(f"--json {json_file}: is a folder; name a file")
    if not FOLDER.is_dir():
        raise UserError(f"{FOLDER}: no benchmarks here; run bench in a clone of the repository")
    if not importlib.util.find_spec("pytest_benchmark"):
        raise UserError("bench needs pytest-benchmark; install the extra 'dev'")
    threads = threads or cores()
    os.environ["LTBENCH_THREADS"] = str(threads)
    chosen = pick_device(device)
    code, rows = _measure(PARTS if part == "all" else (part,), device, quick)
    report = {
        "schema": SCHEMA,
        "quick": quick,
        "machine": machine(device_name(chosen)) | {"threads": threads},
        "parts": {name: [row for row in rows if row["part"] == name] for name in PARTS},
    }
    table.show(report)
    if json_file:
        write_json(json_file, report)
        print(f"{json_file}: {len(rows)} figures")
    if code:
        raise RunFailed("a benchmark failed: see its error above")


def _measure(parts: tuple[str, ...], device: str, quick: bool) -> tuple[int, list[dict[str, Any]]]:
    """Exit code of pytest, and what each benchmark noted. Progress goes to standard error."""
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.json"
        options = ["-q", "--no-header", "--tb=short", "-p", "no:cacheprovider", "-o", "addopts="]
        # A benchmark that fails never used its fixture; that is no second failure.
        options += ["-W", "ignore::pytest_benchmark.logger.PytestBenchmarkWarning"]
        options += ["--benchmark-only", "--benchmark-quiet", f"--benchmark-json={results}"]
        files = [str(FOLDER / f"measure_{part}.py") for part in parts]
        environment = os.environ | {DEVICE: device, QUICK: "1" if quick else ""}
        command = [sys.executable, "-m", "pytest", *options, *files]
        done = subprocess.run(command, env=environment, stdout=sys.stderr, check=False)  # noqa: S603
        measured = read_json(results, "results of pytest-benchmark") if results.is_file() else {"benchmarks": []}
    rounds = [
        row["extra_info"] | {"rounds": row["stats"]["rounds"]} for row in measured["benchmarks"] if row["extra_info"]
    ]
    return done.returncode, rounds


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
