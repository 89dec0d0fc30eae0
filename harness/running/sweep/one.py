"""The command of one run of a sweep: `python -m harness.running.sweep.one`, a stage of a run as campaigns do it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.base.errors import UserError
from harness.base.processes import die_with_stdin
from harness.base.progress import reporter
from harness.records.runs import RunInfo
from harness.running.plans import OtherRunError, Run, do
from harness.running.sweep.contract import FAILED, OTHER_RUN, UNUSABLE


def command(run: Run, out: Path, device: str, at_once: int) -> tuple[str, ...]:
    """The argument list that does `run` when `main` reads it."""
    words = [sys.executable, "-m", "harness.running.sweep.one", "--out", str(out), "--device", device]
    words += ["--at-once", str(at_once), "--split", run.split, "--dataset", run.dataset, "--entry", run.entry]
    words += ["--seed", str(run.seed), "--stage", run.stage, "--run-key", run.run_key]
    return (*words, *(f"--set={override}" for override in run.overrides))


def main(arguments: Sequence[str] | None = None) -> int:
    """Does it; the exit code is 0, `FAILED` if the failure is the result, or another that asks for a new attempt."""
    parser = argparse.ArgumentParser(prog="harness.running.sweep.one", description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--at-once", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    for name in ("device", "split", "dataset", "entry", "stage", "run-key"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--set", action="append", default=[])
    given = parser.parse_args(arguments)
    run = Run(given.split, given.dataset, given.entry, given.seed, given.stage, tuple(given.set), given.run_key)
    try:
        outcome = _do(run, given.out, given.device, given.at_once)
    except OtherRunError as error:  # no fault of its files; another machine may have the right code
        print(f"error: {error}", file=sys.stderr)
        return OTHER_RUN
    except UserError as error:  # data that cannot be read, for a while perhaps
        print(f"error: {error}", file=sys.stderr)
        return UNUSABLE
    print(outcome.how_it_ended)
    return FAILED if outcome.status == "failed" else 0


def _do(run: Run, out: Path, device: str, at_once: int) -> RunInfo:
    from harness.engine.device import pick_device
    from harness.running import stages

    with reporter() as progress:
        place = stages.Workplace(pick_device(device), progress, out / "work" / ".scratch", at_once=at_once)
        return do(run, out, place)


if __name__ == "__main__":
    die_with_stdin()
    sys.exit(main())
