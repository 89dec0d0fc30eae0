"""Made workers of a campaign; some die of the run they are given. They import nothing that takes time."""

from __future__ import annotations

import errno
import os
import signal
import time
from multiprocessing.connection import Connection
from operator import methodcaller


def by_segmentation_fault(connection: Connection, *_: object) -> None:
    connection.recv()
    os.kill(os.getpid(), signal.SIGSEGV)


def by_a_kill(connection: Connection, *_: object) -> None:
    connection.recv()
    os.kill(os.getpid(), signal.SIGKILL)


def by_an_exit(connection: Connection, *_: object) -> None:
    connection.recv()
    os._exit(7)


def of_a_full_disk(connection: Connection, *_: object) -> None:
    connection.recv()
    raise OSError(errno.ENOSPC, "No space left on device", "costs.json")


def at_once(*_: object) -> None:
    os._exit(7)


def within_a_message(connection: Connection, *_: object) -> None:
    connection.recv()
    os.write(connection.fileno(), b"\0\0\1\0 of 256 bytes")
    os.kill(os.getpid(), signal.SIGKILL)


def while_idle(connection: Connection, *_: object) -> None:
    """Does runs, those of seed 1 slowly; whoever is done with seed 0 dies while it waits for another one."""
    from harness.records.runs import RunInfo

    while True:
        run = connection.recv()
        time.sleep(2.0 * run.seed)
        connection.send(RunInfo("", "", "", run.seed, run.split, "", [], {}, "", "", run.run_key, "", "ok"))
        if (run.seed, run.stage) == (0, "finetune"):
            os._exit(7)


def on_a_card(connection: Connection, *_: object) -> None:
    """Does a run in 40 epochs at 20,000 image passes a second, beside others as alone, with a fifth of the card."""
    from harness.records.runs import RunInfo
    from harness.running.packing import Asked, Memory

    while True:
        run = connection.recv()
        for epoch in range(1, 41):
            time.sleep(run.passes / 40 / 20_000)
            connection.send(Memory(80, 100))
            connection.send(Asked())
            connection.send(methodcaller("epoch", str(run), epoch, 40, f"beside {connection.recv():.2f}"))
        connection.send(RunInfo("", "", "", run.seed, run.split, "", [], {}, "", "", run.run_key, "", "ok"))
