"""Processes that never outlive the one that started them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import wait


def become_dependent() -> None:
    """Makes this process die with the one that started it, and leaves Ctrl-C to that one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def die_with_stdin(first: Callable[[], None] = lambda: None) -> None:
    """Makes this process end when its standard input does, which is when the one that holds the other end dies.

    For a process that was started as a command. `first` is called before the end.
    """

    def die() -> None:
        while os.read(0, 4096):  # not through sys.stdin, whose lock would be held when the interpreter ends
            pass
        first()
        os._exit(1)

    threading.Thread(target=die, daemon=True).start()
