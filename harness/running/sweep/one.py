"""The command of one run of a sweep: `python -m harness.running.sweep.one`, a stage of a run as campaigns do it."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.base.errors import UserError
from harness.base.processes import die_with_stdin
from harness.base.progress import reporter
from harness.running.plans import OtherRunError, Run, do, workplace
from harness.running.sweep.contract import FAILED, OTHER_RUN, UNUSABLE


def command(run: Run, out: Path, device: str, at_once: int) -> tuple[str, ...]:
    """The argument list that does `run` when `main` reads it."""
    given = json.dumps(dataclasses.asdict(run))
    return sys.executable, "-m", "harness.running.sweep.one", given, str(out), device, str(at_once)


def main(arguments: Sequence[str]) -> int:
    """Does it; the exit code is 0, `FAILED` if the failure is the result, or another that asks for a new attempt."""
    given, out, device, at_once = arguments
    value = json.loads(given)
    run = Run(**value | {"overrides": tuple(value["overrides"])})
    try:
        with reporter() as progress:
            outcome = do(run, Path(out), workplace(Path(out), device, int(at_once), progress))
    except OtherRunError as error:  # no fault of its files; another machine may have the right code
        print(f"error: {error}", file=sys.stderr)
        return OTHER_RUN
    except UserError as error:  # data that cannot be read, for a while perhaps
        print(f"error: {error}", file=sys.stderr)
        return UNUSABLE
    print(outcome.how_it_ended)
    return FAILED if outcome.status == "failed" else 0


if __name__ == "__main__":
    die_with_stdin()
    sys.exit(main(sys.argv[1:]))
