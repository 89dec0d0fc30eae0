"""Fast ways to take a training step, each trusted only after it has done what the plain step did.

A GPU does a step of a small network faster than the host can launch its kernels one by one. A graph is launched as a
whole, but it can be wrong without a word: it reads and writes the memory that it was captured with, and numbers of the
host are those of the capture. So its first steps are taken twice from the same state, eagerly and from the graph, and
losses, weights, statistics and the method's state are compared; so they are once more in epochs 1, 2, 4, 8 and so on,
since other runs may share the card by then. A method that counts on the host in its steps has no graph, and one whose
numbers on the host are others after an epoch gets a new one. Likewise bfloat16 and TF32 are held against float32.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor

from harness.api import StepContext
from harness.base.errors import RunFailed, UserError
from harness.engine.batches import StepPlans
from harness.engine.state import Content, Saved, State

GRAPH = "LTBENCH_GRAPH"
NO_MEMORY = "there is no memory for a copy of the state"
WARM_UP = 2  # steps before anything is checked: what is made once is made, and cuDNN has chosen its algorithms
CHECKS = 3  # steps that are taken in both ways before the fast one is trusted; 1 where only the epoch is another
EAGER, EXACT = "eager steps instead of a graph", "float32 instead of"  # how lines begin that say what was given up
TRUSTED = "it was trusted"  # what a run must say of itself: numbers of its earlier epochs may be wrong
# Relative, as a GPU sums in another order each time. Other convolutions of a CPU move a tensor's step by 1e-5 mostly,
# and by up to 0.03 where a ReLU's input changes its sign; a wrong gradient by about 1.
TOLERANCE = {"loss": 1e-3, "state": 0.1}
# Of a precision, relative to float32: the loss, and all weights' movement in a step, of which bfloat16 is off by 0.02
# to 0.16 on a CPU.
PRECISION_TOLERANCE = {"bfloat16": {"loss": 0.05, "weights": 0.4}, "TF32": {"loss": 0.01, "weights": 0.1}}


class Graph(Protocol):
    """A step that was recorded once and is done again from the memory that it was recorded with."""

    def capture(self, step: Callable[[], Tensor]) -> None:
        """Records the step, without doing it; it returns its loss."""

    def replay(self) -> Tensor:
        """Does it. The loss lies where the next replay writes its own."""


class CudaGraph:
    """A graph of PyTorch.

    Args:
        generators: that the step draws from, besides PyTorch's own of the device.
    """

    def __init__(self, device: torch.device, generators: Sequence[torch.Generator]) -> None:
        self._graph: Any = torch.cuda.CUDAGraph()
        self._device = torch.device("cuda", torch.cuda.current_device()) if device.index is None else device
        self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        for generator in generators:
            self._graph.register_generator_state(generator)

    def capture(self, step: Callable[[], Tensor]) -> None:
        """Records the step on a stream of its own."""
        now = torch.cuda.current_stream(self._device)
        # The outer `stream` brings this one back if the capture fails, which `torch.cuda.graph` then does not.
        captured = torch.cuda.graph(self._graph, stream=self._stream)
        with torch.cuda.device(self._device), torch.cuda.stream(now), captured:
            self._loss = step()

    def replay(self) -> Tensor:
        """One launch."""
        self._graph.replay()
        return self._loss


class Watched(StepContext):
    """A step's context that notes what of the epoch it is asked for: a graph holds while the answers stay the same."""

    asked: dict[str | float, Any] | None = None

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        if name in ("epoch", "step") and (asked := super().__getattribute__("asked")) is not None:
            asked[name] = value
        return value

    def passed(self, share: float) -> bool:
        """As a step asks it; noted, and not the epoch."""
        answer = bool(super().__getattribute__("epoch") >= share * self.epochs)
        if self.asked is not None:
            self.asked[share] = answer
        return answer

    def same(self, asked: dict[str | float, Any]) -> bool:
        """Whether all answers are still those."""
        return all(
            (getattr(self, key) if isinstance(key, str) else self.passed(key)) == value for key, value in asked.items()
        )


class _Captured:
    """A graph with the memory that it reads its plans from, and what it takes for granted."""

    def __init__(self, graph: Graph, plans: StepPlans, checks: int) -> None:
        self.graph, self.checks, self.epoch = graph, checks, -1  # checks that are left before it is trusted
        self.checked: int | None = None  # in which epoch it was, the last time
        self._plans = tuple(plan.copied() for plan in plans)
        self.asked: dict[str | float, Any] = {}
        self.addresses: dict[str, int] = {}  # of what steps change in place
        self.host: dict[str, Any] = {}  # the method's numbers and texts there
        self._made: list[tuple[Content, Content]] = []  # where tensors that a step makes anew belong

    def capture(self, step: Callable[[StepPlans], Tensor], context: Watched, state: State, before: Saved) -> None:
        """Records the step, and leaves the state at `before`."""
        context.asked = self.asked
        context.features = None  # of an earlier step: its gradients' last nodes belong to the stream of that one
        try:
            self.graph.capture(lambda: step(self._plans))
        finally:
            context.asked = None
        self.epoch, self._made, self.host = context.epoch, state.replaced(before), before.host
        state.restore(before, values_only=True)

    def replay(self, plans: StepPlans) -> Tensor:
        for own, given in zip(self._plans, plans, strict=True):
            torch._foreach_copy_(own.on_device(), given.on_device())
        for container, made in self._made:  # an eager step in between has put its own there
            container.update(made)
        return self.graph.replay().clone()

    def holds(self, context: Watched, state: State) -> bool:
        """Whether nothing has changed that it takes for granted. Memory and host are looked at once an epoch: in
        between, no code but the step's own has run."""
        if context.same(self.asked) and self.epoch != context.epoch:
            lies, host = state.taken_for_granted()
            same = host == self.host and all(lies.get(p) == there for p, there in self.addresses.items())
            self.epoch = context.epoch if same else -1
        return self.epoch == context.epoch and context.same(self.asked)


class Precision(Protocol):
    """How a step rounds."""

    @property
    def low(self) -> str:
        """What it rounds to, "" for float32."""

    def exact(self) -> AbstractContextManager[None]:
        """For a while float32."""

    def stay_exact(self) -> None:
        """From here on float32."""


class Steps:
    """Takes a stage's steps, from graphs where those have proved themselves: one for each size of batch.

    Args:
        step: takes one eagerly.
        new_graph: makes a graph; None: steps are eager.
        precision: what is held against float32 first; None: nothing is.
        exact: whether the graph's numbers must be the eager step's to the last bit.
        fell_back: told in a line what was not trusted.

    Attributes:
        replayed: whether the last step came from a graph alone.
    """

    def __init__(
        self,
        step: Callable[[StepPlans], Tensor],
        state: State,
        context: Watched,
        new_graph: Callable[[], Graph] | None,
        precision: Precision | None,
        *,
        exact: bool,
        fell_back: Callable[[str], None],
    ) -> None:
        self._step, self._state, self._context, self._new_graph = step, state, context, new_graph
        self._precision = precision if precision is not None and precision.low else None
        self._tolerance = dict.fromkeys(TOLERANCE, 0.0) if exact else TOLERANCE
        self._fell_back, self.replayed = fell_back, False
        self._taken = self._compared = 0
        self._graphs = dict[int, _Captured]()  # by size of batch
        self._checks = dict[int, int]()  # for the next graph of that size
        self._eager = set[int]()  # sizes whose graphs never held for long enough

    def take(self, plans: StepPlans) -> Tensor:
        """Takes a step; returns its loss."""
        self.replayed, self._taken = False, self._taken + 1
        size = len(plans[0].order)
        if self._taken > WARM_UP and self._precision is not None and self._compared < CHECKS:
            return self._in_both_precisions(plans, self._precision)
        if self._new_graph is None or self._taken <= WARM_UP or size in self._eager:
            return self._step(plans)
        known = self._graphs.get(size)
        if known is not None and not known.holds(self._context, self._state):
            del self._graphs[size]
            if known.checks:
                self._eager.add(size)
                return self._step(plans)
            self._checks[size] = 1 if "epoch" in known.asked else CHECKS
            known = None
        if known is None or known.checks or self._due(known):
            return self._checked(known, plans)
        self.replayed = True
        return known.replay(plans)

    def _due(self, known: _Captured) -> bool:
        """Whether a trusted graph is to prove itself again."""
        epoch = self._context.epoch
        return epoch != known.checked and epoch & (epoch - 1) == 0

    def _in_both_precisions(self, plans: StepPlans, precision: Precision) -> Tensor:
        """A step in the low precision and in float32; where they differ too much, float32 stands from here on."""
        state, low, self._compared = self._state, precision.low, self._compared + 1
        before = self._copied()
        if before is None:
            self._round_no_more(f"{EXACT} {low}: {NO_MEMORY}")
            return self._step(plans)
        loss = self._step(plans)
        after = self._copied()
        state.restore(before)
        with precision.exact():
            exact = self._step(plans)
        if after is None:
            self._round_no_more(f"{EXACT} {low}: {NO_MEMORY}")
            return exact
        limits, rounded, right = PRECISION_TOLERANCE[low], float(loss), float(exact)
        apart = state.weights_apart(before, after)
        if abs(rounded - right) <= limits["loss"] * max(abs(right), 1e-3) and apart <= limits["weights"]:
            state.restore(after)
            return loss
        self._round_no_more(
            f"{EXACT} {low}: its loss was {rounded:.6g} and not {right:.6g}, "
            f"its weights {apart:.2g} of their movement away"
        )
        return exact

    def _round_no_more(self, line: str) -> None:
        self.give_up_as_before([line])
        self._fell_back(line)

    def give_up_as_before(self, lines: Sequence[str]) -> None:
        """Does not try again what `fell_back` was told of, before a run was resumed say."""
        if self._precision is not None and any(line.startswith(EXACT) for line in lines):
            self._precision.stay_exact()
            self._precision = None
        if any(line.startswith(EAGER) for line in lines):
            self._new_graph = None
            self._graphs.clear()

    def _copied(self) -> Saved | None:
        """A copy of the state; None where there is no memory for one."""
        try:
            return self._state.saved()
        except torch.OutOfMemoryError:
            return None

    def _checked(self, known: _Captured | None, plans: StepPlans) -> Tensor:
        """A step that is taken eagerly and by the graph; where they differ, the eager one stands from here on."""
        trusted = known is not None and not known.checks
        before = self._copied()
        loss = self._step(plans)
        after = self._copied() if before else None
        if before is None or after is None:
            return self._without_graph(NO_MEMORY, trusted, loss)
        if counted := _counted(before, after):
            return self._without_graph(f"each step changes '{counted}' on the host", trusted, loss)
        self._state.restore(before)
        try:
            known = known or self._captured(plans, before, after)
            found = known.replay(plans)
            reason = self._differs(before, after, loss, found)
        except Exception as error:
            # CUDA's, of what a graph cannot hold, or a method's own; the eager step has just worked.
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        if reason or known is None:
            self._state.restore(after)
            return self._without_graph(reason, trusted, loss)
        known.checks, known.checked = max(known.checks - 1, 0), self._context.epoch
        self._graphs[len(plans[0].order)] = known
        return found

    def _captured(self, plans: StepPlans, before: Saved, after: Saved) -> _Captured:
        assert self._new_graph is not None
        known = _Captured(self._new_graph(), plans, self._checks.get(len(plans[0].order), CHECKS))
        known.capture(self._step, self._context, self._state, before)
        known.addresses = _in_place(before, after)
        return known

    def _differs(self, before: Saved, after: Saved, loss: Tensor, found: Tensor) -> str:
        """In words what makes the graph's step another one than the eager step; "" if nothing does."""
        eager, graph = float(loss), float(found)
        if not abs(eager - graph) <= self._tolerance["loss"] * max(abs(eager), 1e-3):
            return f"its loss was {graph:.6g}, that of the eager step {eager:.6g}"
        apart, where = self._state.apart(before, after)
        if not apart <= self._tolerance["state"]:
            return f"'{where}' was {apart:.2g} of its movement away from the eager step's"
        return ""

    def _without_graph(self, reason: str, trusted: bool, loss: Tensor) -> Tensor:
        """Gives graphs up, after a step that was taken eagerly."""
        if wanted() == "on":
            raise RunFailed(f"{GRAPH}=on: the graph failed: {reason}")
        line = f"{EAGER}: {f'{TRUSTED} until epoch {self._context.epoch}; then ' if trusted else ''}{reason}"
        self.give_up_as_before([line])
        self._fell_back(line)
        return loss


def _counted(before: Saved, after: Saved) -> str:
    """Where a step has left another number or text on the host; "" if nowhere. A replayed step would not."""
    paths = (*before.host, *(path for path in after.host if path not in before.host))
    return next((path for path in paths if before.host.get(path) != after.host.get(path)), "")


def _in_place(before: Saved, after: Saved) -> dict[str, int]:
    """Where tensors lie that a step leaves where they are; the others are its own and made anew in each one."""
    kept = (path for path, tensor in before.tensors.items() if after.tensors.get(path) is tensor)
    return {path: before.tensors[path].data_ptr() for path in kept}


def wanted() -> str:
    """What `LTBENCH_GRAPH` asks for: auto, on or off.

    Raises:
        UserError: something else.
    """
    text = os.environ.get(GRAPH) or "auto"
    if text not in ("auto", "on", "off"):
        raise UserError(f"{GRAPH}={text}: expected auto, on or off")
    return text
