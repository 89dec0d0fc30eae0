"""The executors, and what each takes from the command line. An engine is imported only when it is asked for."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from harness.base.errors import UserError, unknown
from harness.running.plans import ON_CUDA, Settings, slots
from harness.running.sweep.contract import Executor

NAMES = ("local", "ray", "slurm")


@dataclass(frozen=True)
class Share:
    """What a run gets of a machine.

    Attributes:
        device: as the command line of a run names it.
        at_once: runs that share the device, this one included.
    """

    device: str
    at_once: int = 1

    @property
    def gpus(self) -> float:
        """The part of a GPU."""
        return 0.0 if self.device == "cpu" else 1 / self.at_once


Opened = tuple[Executor, Share]


@dataclass(frozen=True)
class Options:
    """What the command line says about the executor."""

    name: str = "local"
    ray_address: str = ""  # of a running cluster; without one, Ray is started here, on the loopback address
    slurm: tuple[str, ...] = ()  # KEY=VALUE

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise unknown("executor", self.name, NAMES, where="--executor")
        for option, value, name in (("--ray-address", self.ray_address, "ray"), ("--slurm", self.slurm, "slurm")):
            if value and self.name != name:
                raise UserError(f"{option}: needs --executor {name}, found {self.name}")


def open_executor(options: Options, settings: Settings, root: Path) -> Opened:
    """The executor, ready for runs, and what it gives each of them.

    Raises:
        UserError: its engine is not installed or not to be reached, or there is no such device.
    """
    return {"local": _local, "ray": _ray, "slurm": _slurm}[options.name](options, settings, root)


def engine(module: str, extra: str) -> ModuleType:
    """The module of an engine.

    Raises:
        UserError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise UserError(
            f"--executor {extra}: {module} is not installed; to add it: pip install 'ltbench[{extra}]'"
        ) from None


def _local(_options: Options, settings: Settings, root: Path) -> Opened:
    from harness.running.sweep.local import LocalExecutor

    devices = slots(settings)
    if devices[0] == "cpu":
        return LocalExecutor(root, [{}] * len(devices)), Share("cpu", len(devices))
    share = Share("cuda", devices.count(devices[0]))
    return LocalExecutor(root, [{"CUDA_VISIBLE_DEVICES": _visible(device)} for device in devices]), share


def _visible(device: str) -> str:
    """The GPU of a slot as CUDA_VISIBLE_DEVICES names it, which may be set for us too."""
    index = int(device.partition(":")[2] or 0)
    ours = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return ours[index] if ours else str(index)


def _ray(options: Options, settings: Settings, root: Path) -> Opened:
    """Ray of this machine alone takes `--per-device` runs on its cores; a cluster's nodes as many as they offer."""
    from harness.running.sweep.ray_tasks import RayExecutor, prepare

    _check_device(options, settings, ("auto", "cpu", "cuda"))
    alone, device = not options.ray_address, settings.device
    if alone:
        device = _device_here(device)
    elif device == "cpu" and settings.per_device:
        raise UserError("--per-device: a node of a Ray cluster takes a run for each of its ray start --num-cpus")
    prepare(options.ray_address)
    cores = (settings.per_device or None) if alone and device == "cpu" else None
    executor = RayExecutor(engine("ray", "ray"), root, options.ray_address, cores)
    if device == "auto":
        device = "cuda" if executor.gpus else "cpu"
    if device == "cuda" and not executor.gpus:
        executor.close()
        raise UserError("--device cuda: no node of this Ray has a GPU; name --device cpu, or join one that has")
    return executor, Share(device, settings.per_device or ON_CUDA) if device == "cuda" else Share("cpu", executor.cores)


def _check_device(options: Options, settings: Settings, known: Sequence[str]) -> None:
    """Refuses a wrong name here, before each run on another machine does."""
    if settings.device not in known:
        expected = f"{', '.join(known[:-1])} or {known[-1]}"
        raise UserError(f"--device {settings.device}: --executor {options.name} takes {expected}")


def _device_here(name: str) -> str:
    from harness.engine.device import pick_device  # imports torch

    return pick_device(name).type


def _slurm(options: Options, settings: Settings, root: Path) -> Opened:
    from harness.running.sweep.slurm_jobs import SlurmExecutor, parse_options

    if settings.device == "auto":
        raise UserError("--executor slurm: the head cannot see the nodes' devices; name --device cuda or --device cpu")
    _check_device(options, settings, ("cpu", "cuda"))
    cores, given = settings.per_device or len(os.sched_getaffinity(0)), parse_options(options.slurm)
    on_this_machine = given.get("cluster") == "local"
    if settings.per_device and not on_this_machine:
        raise UserError(
            "--per-device: Slurm gives each run a place of its own; to limit them: --slurm array_parallelism=N"
        )
    executor = SlurmExecutor(engine("submitit", "slurm"), root, given, cores)
    return executor, Share(settings.device, cores if on_this_machine and settings.device == "cpu" else 1)
