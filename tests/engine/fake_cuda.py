"""A pretended CUDA device, for tests on machines without one: tensors with a shape and a device, but without values.

What happens on the host really happens. Whatever touches the device goes to PyTorch's fake tensors, which refuse to mix
devices. In a steady step nothing may wait for the device, or copy between it and the host. Outside of one, who asks the
device for a value hears no, or 0; to pick by a mask is more than these tensors can do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

DEVICE = torch.device("cuda:0")
aten = torch.ops.aten

# What gives the host a value, or memory of a size that only the device knows.
ASKS = {
    *(aten._local_scalar_dense, aten.equal, aten.nonzero, aten.masked_select, aten.bincount, aten.repeat_interleave),
    *(aten._unique, aten._unique2, aten.unique_dim, aten.unique_consecutive),
}
INDEXES = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_, aten._unsafe_index}


class WaitError(AssertionError):
    """A steady step waits for the device, or copies between it and the host."""


class PretendedCuda(TorchDispatchMode):
    """While it is on, `cuda:0` is there."""

    def __init__(self) -> None:
        super().__init__()
        self._fake = FakeTensorMode(allow_non_fake_inputs=True, allow_fallback_kernels=False)
        self._steady = False
        self.shapes: list[tuple[str, tuple[torch.Size, ...]]] = []  # of the last steady step: what was done to which

    def __enter__(self) -> PretendedCuda:
        self._fake.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *details: Any) -> None:
        super().__exit__(*details)
        self._fake.__exit__(*details)

    @contextmanager
    def steady(self) -> Iterator[None]:
        """While it is on, a wait or a copy is a `WaitError`."""
        self._steady, self.shapes = True, []
        try:
            yield
        finally:
            self._steady = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if not any(isinstance(tensor, FakeTensor) for tensor in tensors) and not _is_cuda(kwargs.get("device")):
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        if self._steady:
            check(func, args, kwargs)
            self.shapes.append((str(func), tuple(tensor.shape for tensor in tensors)))
        if func.overloadpacket is aten._local_scalar_dense:  # there is no value to tell
            return _nothing(args[0].dtype)
        if func.overloadpacket is aten._fused_sgd_:  # in place, and PyTorch has no fake of it
            assert all(tensor.device == DEVICE for tensor in tensors), [tensor.device for tensor in tensors]
            return None
        if "generator" in kwargs:  # one of the host stands in for the device's, which needs a driver
            kwargs["generator"] = None
        return func(*args, **kwargs)


def _nothing(dtype: torch.dtype) -> bool | int | float:
    if dtype is torch.bool:
        return False
    return 0.0 if dtype.is_floating_point else 0


def _is_cuda(device: Any) -> bool:
    return device is not None and torch.device(device).type == "cuda"


def check(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
    """Whether an operation on a device's tensors lets the host go on.

    Raises:
        WaitError: it does not.
    """
    packet = func.overloadpacket
    if packet in ASKS:
        raise WaitError(f"{func} asks the device for a value")
    if packet in INDEXES and not _fills(args):
        for index in (index for index in args[1] if index is not None):
            if index.dtype in (torch.bool, torch.uint8):
                raise WaitError(f"{func} by a mask: the device has to count first")
            _same(func, index.device, args[0].device)
    if packet is aten._to_copy:
        _same(func, args[0].device, torch.device(kwargs.get("device") or args[0].device))
    if packet is aten.copy_:
        _same(func, args[1].device, args[0].device)


def _fills(args: Sequence[Any]) -> bool:
    """Whether one number of the host is put where a mask is set: PyTorch makes a `masked_fill_` of it, which waits for
    nothing."""
    indices = [index for index in args[1] if index is not None]
    number = len(args) > 2 and args[2].numel() == 1 and args[2].device.type == "cpu"
    return number and args[3:4] != (True,) and all(index.dtype in (torch.bool, torch.uint8) for index in indices)


def _same(func: Any, source: torch.device, target: torch.device) -> None:
    if source.type != target.type:
        raise WaitError(f"{func} copies from {source} to {target}")


def backward(loss: Tensor) -> None:
    """Stands in for `Tensor.backward`, whose engine wants a stream of the driver: runs the graph's nodes itself."""
    received: dict[Any, dict[int, Tensor]] = {loss.grad_fn: {0: torch.ones_like(loss)}}
    with torch.no_grad():
        for node in sorted(_nodes(loss.grad_fn), key=lambda node: node._sequence_nr(), reverse=True):
            got = received.pop(node, None)
            if got is None:
                continue
            call = node if callable(node) else node.apply  # of an `autograd.Function`
            found = call(*(got.get(slot) for slot in range(len(node._input_metadata))))
            found = found if isinstance(found, tuple) else (found,)
            for gradient, (target, slot) in zip(found, node.next_functions, strict=True):
                if target is not None and gradient is not None:
                    _deliver(gradient, target, slot, received)


def _nodes(last: Any) -> set[Any]:
    """The nodes that a loss hangs on, but for its leaves."""
    found, left = {last}, [last]
    while left:
        for node, _ in left.pop().next_functions:
            if node is not None and not hasattr(node, "variable") and node not in found:
                found.add(node)
                left.append(node)
    return found


def _deliver(gradient: Tensor, node: Any, slot: int, received: dict[Any, dict[int, Tensor]]) -> None:
    """Adds a gradient to what a node has received, or to a leaf's; as the engine does, without what was broadcast."""
    if hasattr(node, "variable"):
        leaf = node.variable
        gradient = gradient.sum_to_size(leaf.shape)
        assert gradient.dtype == leaf.dtype
        assert gradient.device == leaf.device
        leaf.grad = gradient if leaf.grad is None else leaf.grad + gradient
        return
    gradient = gradient.sum_to_size(node._input_metadata[slot].shape)
    slots = received.setdefault(node, {})
    slots[slot] = slots[slot] + gradient if slot in slots else gradient
