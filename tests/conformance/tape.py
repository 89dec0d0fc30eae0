"""A graph for machines without a GPU: it records a step's operations and does them again in the same memory.

So it has the traps of a CUDA graph. It reads what lay where when it was recorded, numbers of the host are those of the
recording, and Python does not run again. What it cannot show: streams, the allocator, and the driver's own refusals.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from harness.base.progress import Reporter
from harness.engine import graph, loop, network, tuning
from harness.engine.job import StageJob
from harness.engine.loop import StageRun
from harness.feed.resident import ResidentPart
from harness.reading.dataset import Images
from harness.splits.splits import Split

aten = torch.ops.aten
# The host's own looks, which `tests/engine/fake_cuda.py` refuses on a GPU; and what changes a shape and no memory.
NOTHING = {aten._local_scalar_dense, aten.equal, aten.unsqueeze_, aten.squeeze_}


class Tape(TorchDispatchMode):
    """What `harness.engine.graph.CudaGraph` is on a GPU."""

    def __init__(self, *_: Any) -> None:
        super().__init__()
        self._done: list[tuple[Any, Any, Any, list[Tensor]]] = []

    def capture(self, step: Callable[[], Tensor]) -> None:
        """Records the step; it is done as well, which the caller undoes."""
        with self:
            self._loss = step()

    @torch.no_grad()
    def replay(self) -> Tensor:
        """Does it again."""
        for func, args, kwargs, found in self._done:
            again = _tensors(func(*args, **kwargs))
            for old, new in zip(found, again, strict=True):
                if old.data_ptr() != new.data_ptr():
                    old.copy_(new)
        return self._loss

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        kept = _kept(args), {key: _kept(value) for key, value in kwargs.items()}  # as they are before it
        found = func(*args, **kwargs)
        if func.overloadpacket not in NOTHING and not _is_view(func):
            self._done.append((func, *kept, _tensors(_kept(found))))
        return found


def _is_view(func: Any) -> bool:
    """Whether its result lies in an argument's memory: it does so again whenever that is written to."""
    returns = [given.alias_info for given in func._schema.returns]
    return bool(returns) and all(alias is not None and not alias.is_write for alias in returns)


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def _kept(value: Any) -> Any:
    """The same memory with the shape of now; lists as they are now."""
    if isinstance(value, Tensor):
        return value.detach()
    return type(value)(_kept(item) for item in value) if isinstance(value, list | tuple) else value


class FusedAdam(torch.optim.Adam):
    """Counts its steps in a tensor, as on a GPU with `capturable`, which PyTorch refuses on a CPU."""

    def __init__(self, parameters: Any, **options: Any) -> None:
        super().__init__(parameters, **{**options, "fused": True, "capturable": False})


def train(
    job: StageJob,
    given: tuple[Split, dict[str, Images]],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
    epochs: Sequence[int],
    made: Callable[..., graph.Graph] = Tape,
) -> StageRun:
    """Trains epochs of a job as on a GPU, with `LTBENCH_GRAPH` at `mode`; goes on with a state that is there."""
    for name, value in (("CHECKPOINT_SECONDS", "10000"), ("DETERMINISTIC", ""), ("GRAPH", mode)):
        monkeypatch.setenv(f"LTBENCH_{name}", value)
    with on_tape(monkeypatch, made):
        run = StageRun(job, *given, torch.device("cpu"), folder)
        run._resume(Reporter())
        for run.epoch in epochs:
            run.step = 0
            run._train_steps()
    return run


def without_opt_out(job: StageJob) -> StageJob:
    """As if its method had never said that no graph can hold its steps."""
    method = type(job.method.__name__, (job.method,), {"no_graph": ""})
    return dataclasses.replace(job, method=method)


def holds_in_a_graph(run: StageRun) -> bool:
    """Whether a graph was trusted, and never given up."""
    return run.costs.graph_steps > 0 and not run.costs.fell_back


def assert_same(run: StageRun, other: StageRun) -> None:
    """Weights, statistics and losses, to the last bit."""
    ours, theirs = ({**one.model.state_dict(), "losses": torch.stack(one.losses)} for one in (run, other))
    for (name, value), wanted in zip(ours.items(), theirs.values(), strict=True):
        assert torch.equal(value, wanted), name


@contextmanager
def on_tape(monkeypatch: pytest.MonkeyPatch, made: Callable[..., graph.Graph] = Tape) -> Iterator[None]:
    """While it is on, runs on a CPU take the way of a GPU, with a tape for a graph."""
    with monkeypatch.context() as changed:
        for module in (loop, network, tuning):
            changed.setattr(module, "replays", lambda _device: True)
        changed.setattr(graph, "CudaGraph", made)
        changed.setattr(network.Network, "share_features", lambda *_: None)  # which only a processor does
        changed.setattr(torch.optim, "Adam", FusedAdam)
        changed.setattr(ResidentPart, "fixed_shapes", True)
        yield
