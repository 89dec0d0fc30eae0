"""Which device a run uses."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from pathlib import Path

import torch

from harness.errors import UserError


def pick_device(name: str = "auto") -> torch.device:
    """The device named, or with "auto" CUDA where there is one, else the CPU; and the CPU's number of threads is fixed.

    Raises:
        UserError: no such device here.
    """
    _set_threads()
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"--device {name}: no such device; use auto, cpu, cuda or cuda:<number>") from None
    if device.type not in ("cpu", "cuda") or (device.type == "cpu" and device.index):
        raise UserError(f"--device {name}: only cpu and cuda are supported")
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        raise UserError(f"--device {name}: this machine has {count} CUDA devices")
    return device


def _set_threads() -> None:
    """One thread for a run on the CPU (`LTBENCH_THREADS` for more): its bits must not depend on the number of cores.

    Raises:
        UserError: LTBENCH_THREADS is not a whole number above 0.
    """
    text = os.environ.get("LTBENCH_THREADS") or "1"
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"LTBENCH_THREADS={text}: expected a whole number above 0")
    torch.set_num_threads(int(text))


def device_name(device: torch.device) -> str:
    """The device as people know it."""
    threads = torch.get_num_threads()
    return (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"CPU, {threads} thread{'s' if threads > 1 else ''}"
    )


def reset_peak_memory(device: torch.device) -> None:
    """Makes `peak_memory_mb` start over: a process may do several runs."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with contextlib.suppress(OSError):  # Linux; elsewhere the peak stays that of the process
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_memory_mb(device: torch.device) -> float:
    """Most memory in use since `reset_peak_memory`, in MB: of the device on CUDA, of this process on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3
