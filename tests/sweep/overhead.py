"""What an executor costs per run, measured with runs that do nothing (`python -m tests.sweep.overhead`)."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from harness.running.plans import Settings
from harness.running.sweep.contract import Spec
from harness.running.sweep.executors import NAMES, Options, open_executor
from harness.running.sweep.head import Head, Rules


def measure(name: str, runs: int, slots: int, root: Path) -> dict[str, object]:
    """Seconds of wall time for `runs` runs that leave an empty file, from a started engine to the last `DONE`.

    `slots` is how many run at once on this machine (with `slurm`, processes of submitit).
    """
    options = Options(name, slurm=("cluster=local",) if name == "slurm" else ())
    started = time.perf_counter()
    executor, _ = open_executor(options, Settings(root, "cpu", slots), root)
    opened = time.perf_counter()
    specs = [_nothing(root, f"run{number}") for number in range(runs)]
    try:
        summary = Head(root, executor, Rules(), lambda _: None, lambda *_: None).drive(specs)
        seconds = time.perf_counter() - opened
        again = time.perf_counter()
        Head(root, executor, Rules(), lambda _: None, lambda *_: None).drive(specs)
        skipping = time.perf_counter() - again
    finally:
        executor.close()
    return {
        "executor": name,
        "runs": runs,
        "slots": slots,
        "done": len(summary.done),
        "start_seconds": round(opened - started, 2),
        "seconds": round(seconds, 2),
        "milliseconds_per_run": round(1000 * seconds / runs, 1),
        "milliseconds_per_skipped_run": round(1000 * skipping / runs, 3),
    }


def _nothing(root: Path, key: str) -> Spec:
    return Spec(key, ("tests.sweep.overhead:touch", str(root / f"{key}.out")), (f"{key}.out",))


def touch(path: str) -> int:
    """The run."""
    Path(path).touch()
    return 0


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the figures as a line of JSON."""
    parser = argparse.ArgumentParser(prog="tests.sweep.overhead", description=__doc__)
    parser.add_argument("--executor", choices=NAMES, default="local")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--slots", type=int, default=2)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(given.executor, given.runs, given.slots, Path(folder))))


if __name__ == "__main__":
    main()
