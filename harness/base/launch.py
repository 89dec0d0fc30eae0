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
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import Synchronized

from harness.base.errors import RunFailed, UserError, complaint
from harness.base.processes import become_dependent

LOST = "another process of this run ended"  # what a process says that would have gone on
GRACE = 5.0  # seconds that it waits before it says so: the other one has the word


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


def launch(count: int, work: Callable[[], None]) -> None:
    """Calls `work` in `count` processes, and waits for them; where one dies, the others are ended.

    Args:
        work: can be pickled, as `functools.partial` of a module's function.

    Raises:
        RunFailed: one was killed; the same command goes on from the last saved state.
        SystemExit: one failed; its line was printed, once, and this is its exit code.
    """
    spawn = multiprocessing.get_context("spawn")
    said = spawn.Value("b", False)  # whether a line was printed
    port = free_port()
    processes = [spawn.Process(target=_rank, args=(work, rank, count, port, said)) for rank in range(count)]
    try:
        for process in processes:
            process.start()
        rank, code = _first_failure(processes)
    finally:
        for process in processes:
            if process.pid:
                process.kill()
                process.join()
    if code < 0:
        name = signal.Signals(-code).name
        raise RunFailed(f"process {rank} of {count} was ended by {name}; the same command goes on where it was saved")
    if code:
        _say_once(f"failed: a process ended with exit code {code}", said)
        raise SystemExit(code)


def _first_failure(processes: Sequence[BaseProcess]) -> tuple[int, int]:
    """Waits until all have ended well or one has not: its rank and exit code."""
    running = list(processes)
    while running:
        wait([process.sentinel for process in running])
        failed = [(rank, process.exitcode) for rank, process in enumerate(processes) if process.exitcode]
        if failed:
            return min(failed, key=lambda some: some[1] == -signal.SIGABRT)  # NCCL aborts those that lost another one
        running = [process for process in running if process.is_alive()]
    return 0, 0


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _rank(work: Callable[[], None], rank: int, count: int, port: int, said: Synchronized[int]) -> None:
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
        if LOST in line:
            time.sleep(GRACE)
        _say_once(line, said)
        sys.stdout.flush()
        os._exit(code)  # at once: to leave in order would be to wait for the others


def _say_once(line: str, said: Synchronized[int]) -> None:
    with said.get_lock():
        if not said.value:
            print(line, file=sys.stderr, flush=True)
        said.value = True
