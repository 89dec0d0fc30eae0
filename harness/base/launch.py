"""Starts the processes that train one run together on this machine.

`torchrun -m harness train ...` does the same over several machines; the processes find each other by its variables.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

from harness.base.errors import RunFailed, UserError, complaint
from harness.base.processes import Exited, Pool

LOST = "another process of this run ended"  # what a process says that lost another one
GRACE = 5.0  # seconds that it waits first: the process that was the cause should be heard


def world_size() -> int:
    """The number of processes of this run, 1 where there are no others.

    Raises:
        UserError: the environment says no number.
    """
    return count_in("WORLD_SIZE")


def ranks_here() -> int:
    """How many of them are on this machine.

    Raises:
        UserError: the environment says no number.
    """
    return count_in("LOCAL_WORLD_SIZE") if is_rank() else 1


def is_rank() -> bool:
    """Whether this process is one of several of a run."""
    return world_size() > 1


def count_in(variable: str) -> int:
    """The count that an environment variable says; 1 where it is not set.

    Raises:
        UserError: it is not a whole number above 0.
    """
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
    port, said = free_port(), dict[Connection, str]()
    with Pool("spawn") as pool:
        ranks = {pool.start(_rank, work, rank, count, port): rank for rank in range(count)}
        while ranks:
            for connection, message in pool.heard():
                if not isinstance(message, Exited):
                    said[connection] = message
                    continue
                rank = ranks.pop(connection)
                if message.code < 0:
                    again = "the same command goes on where it was saved"
                    raise RunFailed(f"process {rank} of {count}: {message.cause}; {again}")
                if message.code:
                    line = said.get(connection) or f"failed: a process ended with exit code {message.code}"
                    print(line, file=sys.stderr)
                    raise SystemExit(message.code)


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _rank(connection: Connection, work: Callable[[], None], rank: int, count: int, port: int) -> None:
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
        connection.send(line)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # at once: to leave in order would be to wait for the others
