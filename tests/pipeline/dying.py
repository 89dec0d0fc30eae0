"""Workers of a campaign that die of the run they are given. They import nothing that takes time: they start often."""

from __future__ import annotations

import os
import signal
from multiprocessing.connection import Connection


def by_segmentation_fault(connection: Connection, *_: object) -> None:
    connection.recv()
    os.kill(os.getpid(), signal.SIGSEGV)


def by_a_kill(connection: Connection, *_: object) -> None:
    connection.recv()
    os.kill(os.getpid(), signal.SIGKILL)


def by_an_exit(connection: Connection, *_: object) -> None:
    connection.recv()
    os._exit(7)
