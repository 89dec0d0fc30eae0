"""Which executors there are, and what each makes of the command line. An engine is imported when it is asked for."""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from harness.errors import UserError, unknown
from harness.plans import ON_CUDA, Settings, slots
from harness.sweep.suite import Opened, Share

NAMES = ("local", "ray", "slurm")


@dataclass(frozen=True)
class Options:
    """What the command line says about the executor."""

    name: str = "local"
    ray_address: str = ""  # of a running cluster; without one, Ray is started here, on the loopback address
    slurm: tuple[str, ...] = ()  # KEY=VALUE

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise unknown("executor", self.name, NAMES, where="--executor")


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
    from harness.sweep.local import LocalExecutor

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
    from harness.sweep.ray_tasks import RayExecutor, prepare

    prepare(options.ray_address)
    executor = RayExecutor(engine("ray", "ray"), root, options.ray_address)
    wants_gpus = settings.device != "cpu" and (settings.device != "auto" or executor.gpus > 0)
    return executor, Share("cuda", settings.per_device or ON_CUDA) if wants_gpus else Share("cpu")


def _slurm(options: Options, settings: Settings, root: Path) -> Opened:
    from harness.sweep.slurm_jobs import SlurmExecutor, parse_options

    if settings.device == "auto":
        raise UserError("--executor slurm: the head cannot see the nodes' devices; name --device cuda or --device cpu")
    cores = settings.per_device or len(os.sched_getaffinity(0))
    executor = SlurmExecutor(engine("submitit", "slurm"), root, parse_options(options.slurm), cores)
    return executor, Share(settings.device)
