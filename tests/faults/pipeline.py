"""The smallest real pipeline, as processes that can be killed: three entries, then the table and the report.

Each command is `ltbench` itself, in a fork of this process, which has imported everything already. So a kill falls
into the command's work and not into the imports, and hundreds of kills take minutes. The forking process must never
train: threads of autograd do not survive a fork.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import pkgutil
import random
import signal
import sys
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import harness

SHORT = ("--dataset", "mnist5k", "--seeds", "0,1", "--device", "cpu", "--set", "recipe.epochs=1", "--out", "runs")
COMMANDS: dict[str, tuple[str, ...]] = {
    "run ce": ("run", "--method", "ce", *SHORT),
    "run crt": ("run", "--method", "crt", "--set", "recipe.finetune.epochs=1", *SHORT),
    "run tau_norm": ("run", "--method", "tau_norm", "--set", "recipe.finetune.epochs=0", *SHORT),
    "collect": ("collect", "runs/records", "--out", "table.csv"),
    "report": ("report", "runs/records", "--out", "report"),
}
ENVIRONMENT = {"LTBENCH_CHECKPOINT_SECONDS": "0.2"}  # a state every few steps, so that kills fall between and into them
SCRATCH = Path("runs/work/.scratch")
KEPT = SCRATCH / "features"  # for other runs to take over; the seconds they took are in them
VARIES = ("costs/", ".run.json", "report/leaderboard.html")  # times, and the page that shows them
Target = Literal["all", "command", "worker"]
TARGETS: tuple[Target, ...] = ("all", "command", "worker")


@dataclass(frozen=True)
class End:
    """How a pipeline ended: `code` of the last command, or `killed` with where that was."""

    command: str
    code: int
    killed: Target | None = None
    place: str = ""
    orphans_seconds: float = 0.0  # until the last worker of a killed command was gone


def import_everything() -> None:
    """So that a forked command imports nothing any more."""
    for module in pkgutil.walk_packages(harness.__path__, "harness."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def run(
    folder: Path, kill_after: float | None = None, target: Target = "all", names: Collection[str] = tuple(COMMANDS)
) -> End:
    """The commands of these names in `folder`, or as many as there is time for until the kill."""
    folder.mkdir(parents=True, exist_ok=True)
    until = None if kill_after is None else time.monotonic() + kill_after
    for name in names:
        pid = _start(folder, COMMANDS[name])
        code = _wait(pid, until)
        if code is None:
            return _kill(folder, name, pid, target)
        if code:
            return End(name, code)
    return End("", 0)


def command(folder: Path, arguments: tuple[str, ...]) -> int:
    """One command, undisturbed; its exit code."""
    folder.mkdir(parents=True, exist_ok=True)
    code = _wait(_start(folder, arguments), None)
    assert code is not None
    return code


def _start(folder: Path, arguments: tuple[str, ...]) -> int:
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        os.setsid()
        os.chdir(folder)
        log = os.open("log.txt", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.update(ENVIRONMENT)
        sys.argv = ["ltbench", *arguments]
        code = _main()
    finally:
        os._exit(code)


def _main() -> int:
    from harness.cli import main

    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def _wait(pid: int, until: float | None) -> int | None:
    """The exit code; None when the time is over first."""
    while True:
        done, status = os.waitpid(pid, os.WNOHANG if until is not None else 0)
        if done:
            return os.waitstatus_to_exitcode(status)
        if until is not None and time.monotonic() >= until:
            return None
        time.sleep(0.002)


def _kill(folder: Path, name: str, pid: int, target: Target) -> End:
    """Kills the command, one of its workers (it then ends by itself), or all at once; waits until all are gone."""
    place = _place(folder)
    workers = [process for process in _group(pid) if process != pid]
    if target == "worker" and workers:
        os.kill(random.choice(workers), signal.SIGKILL)
    elif target == "all":
        os.killpg(pid, signal.SIGKILL)
    else:
        os.kill(pid, signal.SIGKILL)
        target = "command"
    _, status = os.waitpid(pid, 0)
    began = time.monotonic()
    while _group(pid):
        time.sleep(0.002)
    return End(name, os.waitstatus_to_exitcode(status), target, place, time.monotonic() - began)


def _place(folder: Path) -> str:
    if not list((folder / "runs/splits").glob("*.json")):
        return "data and split"
    if list((folder / SCRATCH).glob("*-cpu/*")):
        return "training"
    return "in between"


def _group(leader: int) -> list[int]:
    """Living processes of a process group."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, _, group = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
            except OSError:
                continue
            if int(group) == leader and state != "Z":
                found.append(int(entry.name))
    return found


def fingerprint(folder: Path) -> dict[str, str]:
    """Every file that the pipeline left and whose bytes must not vary, by its sha256; those that vary by their place.

    Hidden temporary files are left out: no reader looks for them, which `leftovers` counts.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        passing = name in ("log.txt", "runs/.lock") or path.parent == folder / KEPT or path in leftovers(folder)
        if path.is_file() and not passing:
            varies = any(part in name for part in VARIES)
            found[name] = "" if varies else hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def leftovers(folder: Path) -> set[Path]:
    """Temporary files that a kill left behind."""
    return {path for path in folder.rglob(".*.tmp") if path.is_file()}
