"""One attempt at a run: `python -m harness.running.sweep.attempt FOLDER`, the same under every executor.

It holds the folder's lock while it is at work, so that a run submitted twice is done once: the second attempt waits,
finds `DONE`, and ends. It dies with the process that started it.
"""

from __future__ import annotations

import contextlib
import os
import pkgutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from harness.base.errors import UserError
from harness.base.processes import die_with_stdin
from harness.running.sweep.contract import ATTEMPT, is_done, only_one, read_spec, write_done

INCOMPLETE = 4  # exit code: the work ended well without its output


def start(folder: Path, environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Starts an attempt; it ends when it is done, or when its standard input is closed (by our death, say)."""
    command = [sys.executable, "-m", "harness.running.sweep.attempt", str(folder)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, env=os.environ | dict(environment or {}))  # noqa: S603


def supervise(folder: str) -> int:
    """An attempt from start to end, as the engines call it on a worker; returns its exit code."""
    with start(Path(folder)) as process:
        return process.wait()


def run(folder: Path) -> int:
    """Does the run unless it is done; returns the exit code. From then on, what this process prints is in the log."""
    root, key = folder.parent.parent, folder.name
    with contextlib.suppress(PermissionError):  # a group of its own already
        os.setsid()  # Ctrl-C is the head's, which then closes our standard input
    die_with_stdin(lambda: os.killpg(0, signal.SIGKILL))  # with all that it has started
    spec = read_spec(folder)
    with only_one(root, key), open(folder / "log.txt", "ab") as log:
        if is_done(root, key):
            return 0
        for stream in (sys.stdout, sys.stderr):
            os.dup2(log.fileno(), stream.fileno())
        print(ATTEMPT, flush=True)
        os.chdir(spec["cwd"])
        os.environ |= spec["environment"]
        work, *arguments = spec["call"]
        if code := pkgutil.resolve_name(work)(*arguments):
            return int(code)
        if missing := write_done(root, key, spec["outputs"], spec["byproducts"]):
            print(missing)
            return INCOMPLETE
    return 0


def main() -> int:
    """The command line: one folder."""
    try:
        return run(Path(sys.argv[1]))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
