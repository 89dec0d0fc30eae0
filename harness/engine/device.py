"""Which device a run uses."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

from harness.base.errors import UserError
from harness.base.launch import count_in

DETERMINISTIC = "LTBENCH_DETERMINISTIC"
TF32 = "LTBENCH_TF32"


def pick_device(name: str = "auto") -> torch.device:
    """The device named, or with "auto" CUDA where there is one, else the CPU; and what its numbers depend on is fixed:
    the CPU's number of threads, and how CUDA multiplies.

    Raises:
        UserError: no such device here.
    """
    _set_threads()
    _set_determinism()
    device = _find(name)
    if device.type == "cuda":
        _begin_cuda(device)
    return device


def _begin_cuda(device: torch.device) -> None:
    torch.cuda.init()  # type: ignore[no-untyped-call]  # memory statistics of `cuda:0` cannot be reset before
    if device.index:
        torch.cuda.set_device(device)  # else a graph's capture would touch the first card too
    set_tf32(switched_on(TF32))
    torch.backends.cudnn.benchmark = not switched_on(DETERMINISTIC)  # which algorithm is fastest varies


def default_generator(device: torch.device) -> torch.Generator:
    """PyTorch's own, from which dropout draws."""
    if device.type != "cuda":
        return torch.default_generator
    return torch.cuda.default_generators[device.index or 0]


def replays(device: torch.device) -> bool:
    """Whether steps may be replayed from a graph there, so that all that they read has to lie on the device."""
    return device.type == "cuda"


def _find(name: str) -> torch.device:
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


def check_one_each(name: str, processes: int) -> None:
    """Checks that each of several processes on this machine has a device of its own.

    Raises:
        UserError: fewer GPUs than processes, or one GPU named for all of them.
    """
    if name.startswith("cuda:"):
        raise UserError(f"--device {name}: {processes} processes take a GPU each, and not this one all; say cuda")
    cuda, count = torch.cuda.is_available(), torch.cuda.device_count()
    if (name == "cuda" or (name == "auto" and cuda)) and count < processes:
        raise UserError(f"{processes} processes on this machine take a GPU each, and it has {count}; start fewer")


def _set_threads() -> None:
    """One thread for a run on the CPU (`LTBENCH_THREADS` for more): its bits must not depend on the number of cores.

    Raises:
        UserError: LTBENCH_THREADS is not a whole number above 0.
    """
    torch.set_num_threads(count_in("LTBENCH_THREADS"))


def switched_on(variable: str) -> bool:
    """Whether an environment variable is 1.

    Raises:
        UserError: it is neither 1, 0 nor empty.
    """
    text = os.environ.get(variable, "")
    if text not in ("", "0", "1"):
        raise UserError(f"{variable}={text}: expected 1 (on) or 0 (off)")
    return text == "1"


def _set_determinism() -> None:
    """On a processor the same run always gives the same bits; a GPU does so where `LTBENCH_DETERMINISTIC` is 1, and
    is slower then."""
    if switched_on(DETERMINISTIC):
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it is first used
        torch.use_deterministic_algorithms(True)


def set_tf32(allowed: bool) -> None:
    """Float32 means float32, unless `LTBENCH_TF32` is 1: PyTorch would let cuDNN round what it convolves to TF32, which
    has 10 bits of fraction.

    Both generations of switches are set, or reading one that disagrees with the other is an error in PyTorch.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # PyTorch 2.9 warns of the first generation, all that 2.8 has
        torch.backends.cuda.matmul.allow_tf32 = allowed
        torch.backends.cudnn.allow_tf32 = allowed
    for switch in _precision_switches():
        switch.fp32_precision = "tf32" if allowed else "ieee"


def _precision_switches() -> list[Any]:
    """The second generation, from PyTorch 2.9 on; with the first one alone there are none."""
    cudnn: Any = torch.backends.cudnn
    return [torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn] if hasattr(cudnn, "conv") else []


def arithmetic(device: torch.device) -> dict[str, bool]:
    """How CUDA multiplies in this process, for the cost file; both are false on a CPU.

    `tf32`: float32 may be rounded to TF32; `cudnn_benchmark`: cuDNN times its algorithms and takes the fastest.
    """
    if device.type != "cuda":
        return {"tf32": False, "cudnn_benchmark": False}
    if switches := _precision_switches():
        tf32 = any(switch.fp32_precision == "tf32" for switch in switches)
    else:
        tf32 = torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32
    return {"tf32": tf32, "cudnn_benchmark": torch.backends.cudnn.benchmark}


def device_name(device: torch.device) -> str:
    """The device as people know it."""
    threads = torch.get_num_threads()
    return (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"CPU, {threads} thread{'s' if threads > 1 else ''}"
    )


def reset_peak_memory(device: torch.device) -> None:
    """Restarts `peak_memory_mb`: a process may do several runs."""
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
