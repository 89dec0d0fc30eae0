"""How a run is spread over devices: as the command line asks for it, and as a record's recipe says it. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from harness.base import config
from harness.base.errors import UserError
from harness.base.launch import world_size

KEY = "parallel"  # of a recipe in a record


@dataclass(frozen=True)
class Spread:
    """All of it is part of a run's identity, because BatchNorm sees what a process sees at once.

    ranks: processes; micro_batch: images at once in a process, 0 for its whole share; gradients of parts are added up.
    """

    ranks: int = 1
    micro_batch: int = 0
    sync_bn: bool = False  # BatchNorm over all ranks; CUDA only

    def __post_init__(self) -> None:
        if self.ranks < 1 or self.micro_batch < 0:
            given = f"--nproc {self.ranks} --micro-batch {self.micro_batch}"
            raise UserError(f"{given}: at least 1 process, and at least 0 images (0: no limit)")
        if self.micro_batch and self.sync_bn:
            raise UserError("--sync-bn: would synchronise parts of a batch, not the batch; leave out --micro-batch")
        if self.sync_bn and self.ranks == 1:
            raise UserError("--sync-bn: one process has nothing to synchronise; give --nproc as well, or leave it out")

    @property
    def changes_numbers(self) -> bool:
        """Whether the run differs from one in one process with whole batches."""
        return self != ONE_PROCESS

    @property
    def in_recipe(self) -> dict[str, Any]:
        """What it adds to the recipe that identifies a run."""
        return {KEY: asdict(self)} if self.changes_numbers else {}

    @property
    def options(self) -> str:
        """The options that ask for it."""
        given = [f"--nproc {self.ranks}"] if self.ranks > 1 else []
        given += [f"--micro-batch {self.micro_batch}"] if self.micro_batch else []
        given += ["--sync-bn"] if self.sync_bn else []
        return " ".join(given) or "--nproc 1"


ONE_PROCESS = Spread()


def asked_for(nproc: int, micro_batch: int, sync_bn: bool) -> Spread:
    """What the command line says; as one of torchrun's processes, their number is the one that counts.

    Raises:
        UserError: options that do not fit together, or torchrun started another number of processes.
    """
    world = world_size()
    if world > 1 and nproc not in (1, world):
        raise UserError(f"--nproc {nproc}: {world} processes were started already (WORLD_SIZE); leave it out")
    return Spread(world if world > 1 else nproc, micro_batch, sync_bn)


def spread_of(recipe: Mapping[str, Any], where: str) -> Spread:
    """How the run of a record was spread.

    Raises:
        UserError: the recipe says something else there.
    """
    return config.build(Spread, recipe[KEY], f"{where}: {KEY}") if KEY in recipe else ONE_PROCESS
