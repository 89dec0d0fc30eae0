"""Starting a command as several processes that train one run together on this machine.

`torchrun -m harness train ...` does the same over several machines; the processes find each other by its variables.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
from multiprocessing.connection import wait

from harness.errors import RunFailed
from harness.processes import become_dependent


def is_rank() -> bool:
    """Whether this process is one of several of a run."""
    return int(os.environ.get("WORLD_SIZE") or 1) > 1


def launch(count: int) -> None:
    """Runs this very command in `count` processes, and waits for them; where one dies, the others are ended.

    Raises:
        RunFailed: one was killed; the same command goes on from the last saved state.
        SystemExit: one ended with an error of its own, which it has said.
    """
    spawn = multiprocessing.get_context("spawn")
    port = free_port()
    started = [spawn.Process(target=_rank, args=(sys.argv[1:], rank, count, port)) for rank in range(count)]
    for process in started:
        process.start()
    try:
        running = list(started)
        while running:
            wait([process.sentinel for process in running])
            for process in [process for process in running if not process.is_alive()]:
                running.remove(process)
                _check(process.exitcode or 0, started.index(process), count)
    finally:
        for process in started:
            process.kill()
            process.join()


def _check(code: int, rank: int, count: int) -> None:
    if code < 0:
        name = signal.Signals(-code).name
        raise RunFailed(f"process {rank} of {count} was ended by {name}; the same command goes on where it was saved")
    if code:
        raise SystemExit(code)


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _rank(arguments: list[str], rank: int, count: int, port: int) -> None:
    become_dependent()
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCH_CPP_LOG_LEVEL": "ERROR",  # else each warns that it looked for unused parameters and found none
    }
    sys.argv[1:] = arguments
    from harness.cli import main

    main()
