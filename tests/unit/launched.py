"""What `test_launch.py` starts in several processes."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from harness.base import launch
from harness.base.errors import RunFailed, UserError
from harness.base.launch import LOST

launch.GRACE = 120  # a slow machine's


def rank() -> int:
    return int(os.environ["RANK"])


def write(folder: Path) -> None:
    names = ("WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    (folder / str(rank())).write_text(" ".join(os.environ[name] for name in names))


def all_mistaken() -> None:
    raise UserError("no such thing")


def second_fails() -> None:
    """The first notices, and is done before."""
    if rank() == 0:
        raise RunFailed(f"{LOST} (connection closed)")
    time.sleep(0.3)
    raise RunFailed("out of luck")


def second_is_killed() -> None:
    if rank() == 0:
        raise RunFailed(f"{LOST} (connection closed)")
    time.sleep(0.3)
    os.kill(os.getpid(), signal.SIGKILL)


def first_waits_for_ever() -> None:
    if rank() == 0:
        time.sleep(600)
    raise OSError(28, "No space left on device", "weights")


def second_says_nothing() -> None:
    if rank() == 1:
        os._exit(7)
