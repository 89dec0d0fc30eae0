"""Several processes that train one run together, one device each (torchrun): who does what, and how they agree.

Every rank draws the same plan for an epoch, so a sampler covers the classes exactly as in one process. A rank takes
positions rank, rank + world, ... of each batch. Gradients are averaged by the sizes of these shares, so a step equals
that of one process with the whole batch. Only layers that look across a batch see a share: BatchNorm, unless it is
synchronised. Test images are split without duplicates. Rank 0 alone writes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from harness.base.errors import RunFailed, UserError, reason
from harness.base.launch import LOST, is_rank, ranks_here
from harness.engine.device import check_one_each

T = TypeVar("T")

TIMEOUT = timedelta(minutes=30)  # the slowest thing that ranks wait for: rank 0 reads and decodes a data set


@dataclass(frozen=True)
class Ranks:
    """This process among those of its run. For a process alone, every method here does nothing."""

    rank: int = 0
    world: int = 1
    local: int = 0  # this rank among those of its machine
    control: Any = field(default=None, repr=False)  # a gloo group: what is on the host goes over it

    @property
    def first(self) -> bool:
        """Whether this rank writes."""
        return self.rank == 0

    def share(self, where: slice) -> slice:
        """This rank's positions of a batch. If it has fewer images than ranks, some repeat one with weight 0."""
        if self.world == 1:
            return where
        start = where.start + self.rank
        return slice(start, where.stop, self.world) if start < where.stop else slice(where.start, where.start + 1)

    def weight(self, where: slice) -> float:
        """This rank's fraction of a batch's images; the weights of all ranks add up to 1."""
        size: int = where.stop - where.start
        return len(range(self.rank, size, self.world)) / size

    def chunk(self, count: int) -> range:
        """This rank's part of `count` images in a row, each image in exactly one."""
        return range(count * self.rank // self.world, count * (self.rank + 1) // self.world)

    def noise(self, name: str) -> list[str]:
        """Names a source of noise: another one on each rank, on the first rank the same as in one process."""
        return [name, str(self.rank)] if self.rank else [name]

    def sum(self, values: Tensor) -> Tensor:
        """The sum over ranks, on every rank."""
        if self.world == 1:
            return values
        values = values.clone()
        dist.all_reduce(values)
        return values

    def told(self, value: T) -> T:
        """Rank 0's value, on every rank."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self.control)
        return box[0]

    def gathered(self, value: T) -> list[T]:
        """Every rank's value on rank 0; nothing on the others."""
        if self.world == 1:
            return [value]
        found: list[T] | None = cast(list[T], [None] * self.world) if self.first else None
        dist.gather_object(value, found, dst=0, group=self.control)
        return found or []

    def rows(self, mine: Tensor) -> Tensor | None:
        """The rows of all ranks, in the order of `chunk`, on rank 0; `mine` is on the host, shape (n, C)."""
        if self.world == 1:
            return mine
        parts = self.gathered(mine.numpy())
        return torch.cat([torch.from_numpy(part) for part in parts]) if parts else None

    def average_buffers(self, model: nn.Module) -> None:
        """Replaces each rank's running statistics by their mean over the ranks."""
        if self.world == 1:
            return
        for buffer in saved_buffers(model).values():
            if buffer.is_floating_point():
                dist.all_reduce(buffer)
                buffer /= self.world

    @contextmanager
    def machine_by_machine(self) -> Iterator[None]:
        """One rank of each machine goes first: it fills a cache that the others then only read."""
        if self.local:
            self.wait()
        yield
        if not self.local:
            self.wait()

    def wait(self) -> None:
        """Waits until every rank is here."""
        if self.world > 1:
            dist.barrier(group=self.control)


ALONE = Ranks()


def saved_buffers(model: nn.Module) -> dict[str, Tensor]:
    """The buffers that are part of a model's state; others are made anew with it."""
    saved = model.state_dict().keys()
    return {name: buffer for name, buffer in model.named_buffers() if name in saved}


def local_device(name: str) -> str:
    """The device of this rank, if the command line leaves it open.

    Raises:
        UserError: the ranks of this machine cannot have one each.
    """
    if is_rank():
        check_one_each(name, ranks_here())
    cuda = name in ("auto", "cuda") and torch.cuda.is_available()
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if is_rank() and cuda else name


@contextmanager
def joined(device: torch.device) -> Iterator[Ranks]:
    """Joins the other ranks and leaves them at the end; alone, it does nothing.

    Raises:
        UserError: they cannot be reached.
        RunFailed: any other error inside: the other ranks wait, so this process must end with one line.
    """
    if not is_rank():
        yield ALONE
        return
    us = _join(device)
    try:
        yield us
    except (UserError, RunFailed, OSError):
        raise
    except Exception as error:
        raise RunFailed(_reason(error, us)) from None
    dist.destroy_process_group()  # not after an error: the others would be waited for


PEERS = ("third_party/gloo", "Connection closed by peer", "Connection reset by peer", "NCCL")


def _reason(error: Exception, us: Ranks) -> str:
    text = " ".join(str(error).split())[:300]
    lost = isinstance(error, RuntimeError) and (isinstance(error, dist.DistError) or any(w in text for w in PEERS))
    return f"{LOST} ({text})" if lost else f"process {us.rank} of {us.world}: {type(error).__name__}: {text}"


def _join(device: torch.device) -> Ranks:
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
        control = dist.new_group(backend="gloo", timeout=TIMEOUT)
    except (RuntimeError, ValueError) as error:
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        why = reason(error)[:200]
        raise UserError(f"the other processes of this run cannot be reached at {where}: {why}") from None
    return Ranks(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK") or 0), control)
