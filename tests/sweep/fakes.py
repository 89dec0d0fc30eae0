"""Specs of fake runs, and executors for them by name: for the contract's tests and the heads that they kill."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from harness.running.sweep.contract import Executor, Spec
from harness.running.sweep.head import Head, Rules, Summary
from harness.running.sweep.local import LocalExecutor
from harness.running.sweep.ray_tasks import RayExecutor
from harness.running.sweep.slurm_jobs import SlurmExecutor, parse_options

QUICK = Rules(attempts=3, back_off=0.05)


def spec(root: Path, key: str, what: str = "works", after: str = "") -> Spec:
    """A fake run."""
    return Spec(key, ("tests.sweep.fake:main", str(root), key, what), (f"records/{key}.json",), after)


def open_fake_executor(name: str, root: Path, address: str = "") -> Executor:
    """Two runs at once."""
    if name == "local":
        return LocalExecutor(root, [{}, {}])
    if name == "ray":
        return RayExecutor(pytest.importorskip("ray"), root, address)
    options = parse_options(["cluster=local"] if name == "slurm" else ["partition=main"])
    return SlurmExecutor(pytest.importorskip("submitit"), root, options, local_jobs=2)


def drive(root: Path, executor: Executor, specs: list[Spec]) -> Summary:
    """All of them, with a head of its own; what it says is in ROOT/notes.txt."""
    with open(root / "notes.txt", "a") as notes:

        def gave_up(key: str, reason: str) -> None:
            notes.write(f"gave up {key}: {reason}\n")

        return Head(root, executor, QUICK, lambda text: print(text, file=notes, flush=True), gave_up).drive(specs)


def table(root: Path) -> list[str]:
    """The runs that have a record, each on its own."""
    assert not (root / "overlaps.txt").exists(), "a run was on twice at once"
    return sorted(json.loads(path.read_text())["key"] for path in root.glob("records/*.json"))


def starts(root: Path) -> list[str]:
    """The key of each start of a command, in the order in which they came."""
    path = root / "starts.txt"
    return path.read_text().split() if path.is_file() else []


def main() -> None:
    """A head that can be killed: ROOT, executor, its address, and (key, what) pairs as JSON."""
    root, name, address, runs = Path(sys.argv[1]), sys.argv[2], sys.argv[3], json.loads(sys.argv[4])
    executor = open_fake_executor(name, root, address)
    try:
        drive(root, executor, [spec(root, key, what) for key, what in runs])
    finally:
        executor.close()


if __name__ == "__main__":
    main()
