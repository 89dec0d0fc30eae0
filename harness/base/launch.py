"""Starting work in several processes that train one run together on this machine.

`torchrun -m harness train ...` does the same over several machines; the processes find each other by its variables.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from harness.base.errors import RunFailed, UserError, complaint
from harness.base.processes import become_dependent

GRACE = 5.0  # seconds after a process died in which others may die too: of the same cause, or of having lost it
LOST = "another process of this run ended"  # what a process says that would have gone on


def world_size() -> int:
    """The number of processes of this run, 1 where there are no others.

    Raises:
        UserError: the environment says no number.
    """
    return _count("WORLD_SIZE")


def ranks_here() -> int:
    """How many of them are on this machine.

    Raises:
        UserError: the environment says no number.
    """
    return _count("LOCAL_WORLD_SIZE") if is_rank() else 1


def is_rank() -> bool:
    """Whether this process is one of several of a run."""
    return world_size() > 1


def _count(variable: str) -> int:
    text = os.environ.get(variable) or "1"
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"{variable}={text}: expected a whole number above 0")
    return int(text)


@dataclass(frozen=True)
class _Rank:
    """A started process, and where it says why it failed."""

    process: BaseProcess
    said: Connection

    def line(self) -> str:
        """The line that it ended with, if it had the time to say one."""
        try:
            return str(self.said.recv()) if self.said.poll() else ""
        except (EOFError, OSError):
            return ""


def launch(count: int, work: Callable[[], None]) -> None:
    """Calls `work` in `count` processes, and waits for them; where one dies, the others are ended.

    Args:
        work: can be pickled, as `functools.partial` of a module's function.

    Raises:
        RunFailed: one was killed; the same command goes on from the last saved state.
        SystemExit: one failed; its line was printed, once, and this is its exit code.
    """
    port = free_port()
    started = [_start(work, rank, count, port) for rank in range(count)]
    try:
        _wait([rank.process for rank in started])
        codes = [rank.process.exitcode or 0 for rank in started]  # of those that would go on 0
        _report_killed(codes)
        _report_failed(started, codes)
    finally:
        for rank in started:
            rank.process.kill()
            rank.process.join()


def _start(work: Callable[[], None], rank: int, count: int, port: int) -> _Rank:
    spawn = multiprocessing.get_context("spawn")
    said, say = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_rank, args=(work, rank, count, port, say))
    process.start()
    say.close()  # only that process holds it now
    return _Rank(process, said)


def _wait(started: Sequence[BaseProcess]) -> None:
    """Until all have ended; or, where one failed, a moment longer, as the first to be seen need not be the cause."""
    running, deadline = list(started), float("inf")
    while running:
        left = None if deadline == float("inf") else max(0.0, deadline - time.monotonic())
        if not wait([process.sentinel for process in running], left):
            return
        running = [process for process in running if process.is_alive()]
        if any(process.exitcode for process in started):
            deadline = min(deadline, time.monotonic() + GRACE)


def _report_killed(codes: Sequence[int]) -> None:
    killed = [(rank, -code) for rank, code in enumerate(codes) if code < 0]
    if not killed:
        return
    rank, number = min(killed, key=lambda some: some[1] == signal.SIGABRT)  # NCCL aborts those that lost another one
    name = signal.Signals(number).name
    raise RunFailed(f"process {rank} of {len(codes)} was ended by {name}; the same command goes on where it was saved")


def _report_failed(ranks: Sequence[_Rank], codes: Sequence[int]) -> None:
    failed = [(rank.line(), code) for rank, code in zip(ranks, codes, strict=True) if code]
    if failed:
        line, code = min(failed, key=lambda some: LOST in some[0])
        print(line or f"failed: a process ended with exit code {code}", file=sys.stderr)
        raise SystemExit(code)


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _rank(work: Callable[[], None], rank: int, count: int, port: int, say: Connection) -> None:
    become_dependent()
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCH_CPP_LOG_LEVEL": "ERROR",  # else each warns that it looked for unused parameters and found none
    }
    try:
        work()
    except (UserError, RunFailed, OSError) as error:
        line, code = complaint(error)
        say.send(line)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # at once: to leave in order would be to wait for the others
