"""All that a training step changes: kept, brought back, and held against what another way of taking it made of it."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

CODE = (type, ModuleType, FunctionType, MethodType, BuiltinFunctionType)  # not looked into, unlike all other objects
PLAIN = (bool, int, float, complex, str, bytes, type(None))

Content = dict[Any, Any]


@dataclass(frozen=True)
class Saved:
    """A state: tensors by where they are found, their values, what their containers held, generators, and the numbers
    and texts of the host."""

    tensors: dict[str, Tensor]
    values: dict[str, Tensor]
    containers: list[tuple[Content, Content]]
    generators: list[Tensor]
    host: dict[str, Any]


class State:
    """The state that a step starts from and leaves.

    Args:
        parts: by name, modules, optimizers, and dictionaries of whatever else; what is inside is found.
        generators: that a step draws from.
    """

    def __init__(self, parts: dict[str, Any], generators: Sequence[torch.Generator]) -> None:
        self._parts, self._generators = parts, generators

    def tensors(self) -> dict[str, Tensor]:
        """All tensors, by where they are found."""
        return self._walk()[0]

    def taken_for_granted(self) -> tuple[dict[str, int], dict[str, Any]]:
        """Where in memory the tensors lie, and the numbers and texts of the host: a graph has both in it."""
        tensors, _, host = self._walk()
        return {path: tensor.data_ptr() for path, tensor in tensors.items()}, host

    @torch.no_grad()
    def saved(self) -> Saved:
        """A copy."""
        tensors, containers, host = self._walk()
        values = {path: tensor.detach().clone() for path, tensor in tensors.items()}
        states = [generator.get_state() for generator in self._generators]
        return Saved(tensors, values, [(container, dict(container)) for container in containers], states, host)

    @torch.no_grad()
    def restore(self, saved: Saved, *, values_only: bool = False) -> None:
        """Brings it back into the same memory. What was cached since then is kept; so is, with `values_only`, what was
        put in a tensor's place."""
        for container, content in () if values_only else saved.containers:
            container.update(content)
        for path, tensor in saved.tensors.items():
            if tensor.untyped_storage().nbytes() >= tensor.nbytes:  # else expanded: nothing can write to it
                tensor.copy_(saved.values[path])
        for generator, state in zip(self._generators, saved.generators, strict=True):
            generator.set_state(state)

    def replaced(self, saved: Saved) -> list[tuple[Content, Content]]:
        """The containers in which other tensors stand than at that time, and these tensors by their keys."""
        found = [
            (container, {k: v for k, v in container.items() if isinstance(v, Tensor) and v is not content.get(k)})
            for container, content in saved.containers
        ]
        return [(container, other) for container, other in found if other]

    @torch.no_grad()
    def apart(self, before: Saved, wanted: Saved) -> tuple[float, str]:
        """How far the state now is from the wanted one, and where the most.

        Of each tensor |now - wanted| / |wanted - before|, in Euclidean norms: 0 is the same, and of the order of 1 what
        another gradient makes of it. What has hardly moved is measured by its size. Counts must be equal.
        """
        now, worst, where = self.tensors(), 0.0, ""
        for path, value in wanted.values.items():
            if path in now:
                ratio = float(_ratio(now[path], value, before.values.get(path)))
                if not ratio <= worst:
                    worst, where = ratio if math.isfinite(ratio) else math.inf, path
        return worst, where

    @torch.no_grad()
    def weights_apart(self, before: Saved, wanted: Saved) -> float:
        """|now - wanted| / |now - before| over all parameters together."""
        now = self.tensors()
        paths = [path for path, tensor in now.items() if isinstance(tensor, nn.Parameter) and path in before.values]
        zero = torch.zeros((), dtype=torch.float64)
        apart, moved = (
            sum(((now[path].double() - of.values[path].double()).square().sum() for path in paths), zero).sqrt()
            for of in (wanted, before)
        )
        return float(apart / moved.clamp_min(torch.finfo(torch.float32).tiny))

    def _walk(self) -> tuple[dict[str, Tensor], list[Content], dict[str, Any]]:
        tensors, containers, host, seen = dict[str, Tensor](), list[Content](), dict[str, Any](), set[int]()
        for path, found in _inside(self._parts, "", seen):
            if isinstance(found, Tensor):
                tensors[path] = found
            elif isinstance(found, dict):
                containers.append(found)
            else:
                host[path] = found
        return tensors, containers, host


def _ratio(now: Tensor, wanted: Tensor, before: Tensor | None) -> Tensor:
    if now.shape != wanted.shape or now.dtype != wanted.dtype:
        return torch.full((), torch.inf, device=wanted.device, dtype=torch.float64)
    if not wanted.is_floating_point():
        return torch.where((now == wanted).all(), 0.0, torch.inf).double()
    wanted = wanted.double()
    moved = (wanted - before.double()).norm() if before is not None and before.shape == wanted.shape else wanted.norm()
    apart = (now.double() - wanted).norm()
    return torch.where(apart == 0, 0.0, apart / (moved + 1e-5 * wanted.norm()))


def _inside(value: Any, path: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """The tensors and dictionaries below a value, each once, and the numbers and texts, with their places."""
    if isinstance(value, PLAIN):
        yield path, value
    elif isinstance(value, np.ndarray):
        yield path, value.tobytes()
    elif isinstance(value, list | tuple | set | deque):
        yield path, (len(value), *(item for item in value if isinstance(item, PLAIN)))
        for number, item in enumerate(value):
            if not isinstance(item, PLAIN):
                yield from _inside(item, f"{path}.{number}", seen)
    elif id(value) not in seen:
        seen.add(id(value))
        yield from _inside_once(value, path, seen)


def _inside_once(value: Any, path: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Tensor):
        yield path, value
    elif isinstance(value, dict):
        yield path, value
        for number, (key, item) in enumerate(list(value.items())):
            name = key if isinstance(key, str) else str(number)  # an optimizer's state is kept by parameter
            yield from _inside(item, f"{path}.{name}" if path else name, seen)
    elif isinstance(value, nn.Module):
        for name, tensor in (*value.named_parameters(), *value.named_buffers()):
            yield from _inside(tensor, f"{path}.{name}", seen)
    elif hasattr(value, "__dict__") and not isinstance(value, CODE):
        yield from _inside(vars(value), path, seen)
