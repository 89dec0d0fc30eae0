"""Runs in processes of their own: what they report, what they raise, how they die."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from harness.base.errors import UserError
from harness.base.processes import Exited
from harness.base.progress import Reporter
from harness.engine.side_by_side import run_side_by_side, workers_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only")


class Listener(Reporter):
    def __init__(self) -> None:
        super().__init__()
        self.heard: list[tuple[object, ...]] = []

    def note(self, text: str) -> None:
        self.heard.append(("note", text))

    def epoch(self, *arguments: object) -> None:
        self.heard.append(("epoch", *arguments))


def test_every_task_runs_and_is_heard(tmp_path: Path) -> None:
    def task(name: str) -> object:
        def work(reporter: Reporter) -> None:
            (tmp_path / name).write_text(str(os.getpid()))
            reporter.note(f"{name} notes")
            reporter.epoch(name, 1, 2, "detail")

        return work

    listener = Listener()
    names = ["a", "b", "c", "d"]
    assert run_side_by_side({name: task(name) for name in names}, 2, listener) == {}  # type: ignore[misc]
    assert len({(tmp_path / name).read_text() for name in names} | {str(os.getpid())}) == 5
    for name in names:
        assert ("note", f"{name} notes") in listener.heard
        assert ("epoch", name, 1, 2, "detail") in listener.heard


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("no such thing"), "no such thing"),
        (OSError(errno.ENOSPC, "No space left on device", "a/costs.json"), "a/costs.json: No space left on device"),
        (OSError("cut off"), "input/output: cut off"),
    ],
)
def test_a_users_mistake_or_a_full_disk_is_raised_here_and_stops_the_others(
    error: Exception, line: str, tmp_path: Path
) -> None:
    def mistaken(reporter: Reporter) -> None:
        raise error

    def endless(reporter: Reporter) -> None:
        time.sleep(60)
        (tmp_path / "ended").touch()

    began = time.monotonic()
    with pytest.raises(UserError, match=f"^{re.escape(line)}$"):
        run_side_by_side({"bad": mistaken, "long": endless}, 2, Listener())
    assert time.monotonic() - began < 30
    assert not (tmp_path / "ended").exists()


def test_a_killed_task_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    def killed(reporter: Reporter) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def fine(reporter: Reporter) -> None:
        (tmp_path / "fine").touch()

    died = run_side_by_side({"killed": killed, "fine": fine}, 1, Listener())
    assert list(died) == ["killed"]
    assert "out of memory" in died["killed"]
    assert (tmp_path / "fine").exists()


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        (-signal.SIGKILL, "its process was killed (SIGKILL); the machine may have run out of memory"),
        (-signal.SIGSEGV, "its process was ended by SIGSEGV"),
        (-signal.SIGTERM, "its process was ended by SIGTERM"),
        (-(signal.SIGRTMIN + 1), f"its process was ended by signal {signal.SIGRTMIN + 1}"),
        (1, "its process ended with exit code 1"),
        (0, "its process ended with exit code 0"),
    ],
)
def test_memory_is_suspected_only_of_a_kill(code: int, cause: str) -> None:
    assert Exited(code).cause == cause


def test_tasks_die_with_the_process_that_started_them(tmp_path: Path) -> None:
    """Else they would write into the files of the command that goes on where this one was killed."""
    code = f"""
        import os, time
        from pathlib import Path
        from harness.engine.side_by_side import run_side_by_side
        from harness.base.progress import Reporter

        def task(reporter):
            (Path({str(tmp_path)!r}) / "pid").write_text(str(os.getpid()))
            time.sleep(120)

        run_side_by_side({{"long": task}}, 1, Reporter())
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)])
    deadline = time.monotonic() + 60
    while not (tmp_path / "pid").is_file() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    child = int((tmp_path / "pid").read_text())
    parent.kill()
    parent.wait()
    while _alive(child):
        assert time.monotonic() < deadline, "the task outlived its parent"
        time.sleep(0.05)


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_workers_fill_the_cores_evenly() -> None:
    cores = len(os.sched_getaffinity(0))
    assert workers_for(1) == 1
    assert workers_for(1000) == cores + 1
