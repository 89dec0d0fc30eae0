"""Time and memory of each method's head and loss, forward and backward, against a linear head with cross-entropy."""

from __future__ import annotations

import math
import statistics
from typing import Any

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn

from harness.api import Batch, Classifier, Method, Stage, StepContext, Task
from harness.reading.profiles import exponential_class_counts
from harness.spec.registry import get_method
from tests.bench.material import CrossEntropy
from tests.bench.sizes import device, sizes
from tests.bench.timing import SUBJECT, interleaved, ratio, timed
from tests.conformance.suite import SOUND, STAGES

MOST_IMAGES = {10: 5000, 100: 500, 1000: 1280}  # of a class, in CIFAR-10, CIFAR-100 and ImageNet-LT
HOOKS = ("choose", "step_loss", "after_step")


def is_head_and_loss(name: str) -> bool:
    """Whether these two are what the method adds: no network or steps of its own, which only whole runs can time."""
    method = get_method(name)
    return method.build is Method.build and (method.loss is not Method.loss or method.step_loss is Method.step_loss)


MEASURED = [name for name in SOUND if is_head_and_loss(name)]
CASES = [(name, stage) for name, stage in STAGES if name in MEASURED]


class Subject:
    """Head and loss of one method in one stage, on features that carry gradients where the stage trains its backbone.

    Calling it runs forward and backward once. Parameters that the stage does not tune get no gradient, as in the loop.
    """

    def __init__(self, method: Method, stage: Stage, batch: int) -> None:
        torch.manual_seed(0)
        task, generator = method.task, torch.Generator().manual_seed(0)
        backbone = nn.Linear(task.feature_dim, task.feature_dim)  # stands for the one that param_groups asks about
        self.method, self.model = method, Classifier(backbone, method.head(stage)).to(device())
        labels = np.repeat(np.arange(task.num_classes), task.class_counts.cpu().numpy())
        method.sampler(labels, stage)
        method.on_stage_start(self.model, stage)
        tuned = {parameter for group in method.param_groups(self.model, stage) for parameter in group["params"]}
        for parameter in self.model.parameters():
            parameter.requires_grad_(parameter in tuned)
        index = torch.randint(len(labels), (batch,), generator=generator)
        features = torch.randn(batch, task.feature_dim, generator=generator).relu().to(device())
        self.features = features.requires_grad_(any(parameter in tuned for parameter in backbone.parameters()))
        self.target = torch.from_numpy(labels)[index].to(device())
        self.leaves = [leaf for leaf in (*self.model.parameters(), self.features) if leaf.requires_grad]
        self.step = self._prepared_step(stage, index.to(device()))

    def _prepared_step(self, stage: Stage, index: Tensor) -> StepContext:
        """After what the loop does around the loss, untimed: a loss may rest on what its hooks left."""
        optimizer = torch.optim.SGD([p for p in self.model.parameters() if p.requires_grad], lr=0.1)
        generator = torch.Generator(device()).manual_seed(0)
        step = StepContext(stage, 0, 2, 0, 0.1, self.model, optimizer, generator)
        self.method.choose(index, step)
        step.features, step.batch = self.features, Batch(self.features, self.target, index)
        return step

    def loss(self) -> Tensor:
        """Forward."""
        return self.method.loss(self.model.head(self.features), self.target, self.step)

    def __call__(self) -> None:
        """Forward and backward."""
        for leaf in self.leaves:
            leaf.grad = None
        self.loss().backward()

    def memory_bytes(self) -> int:
        """On CUDA the peak of the allocator above what stood before; on the CPU what forward keeps for backward.

        The CPU has no allocator that counts. Its figure leaves parameters and features out, which are there anyway.
        """
        if device().type == "cuda":
            self()
            before = torch.cuda.memory_allocated(device())
            torch.cuda.reset_peak_memory_stats(device())
            self()
            return torch.cuda.max_memory_allocated(device()) - before
        kept: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = self.loss()  # held until the count is over: a freed address would be counted as another tensor
        there = {leaf.untyped_storage().data_ptr() for leaf in (*self.model.parameters(), self.features, self.target)}
        assert loss.ndim == 0
        return sum(size for address, size in kept.items() if address not in there)


def make(method: type[Method], stage: Stage, classes: int) -> Subject:
    """A method with its default params on long-tailed counts; skips the test where it declines the task."""
    batch, features = sizes().classes[classes]
    counts = exponential_class_counts(MOST_IMAGES.get(classes, 50), classes, 100)
    made = method(Task(classes, features, torch.tensor(counts, device=device())), method.Params())
    reason = made.skip()
    if reason:
        pytest.skip(reason)
    return Subject(made, stage, batch)


@pytest.mark.parametrize("classes", sizes().classes)
@pytest.mark.parametrize(("name", "stage"), CASES)
def test_loss(benchmark: BenchmarkFixture, name: str, stage: Any, classes: int) -> None:
    """The method with its default params; both sides in the same stage, on the same features."""
    ours, plain = make(get_method(name), stage, classes), make(CrossEntropy, stage, classes)
    once = statistics.median(timed(plain) for _ in range(5))
    times = max(1, math.ceil(sizes().round_seconds / once))
    seconds = interleaved(benchmark, ours, {"plain": plain}, sizes().loss_rounds, times)
    batch, features = sizes().classes[classes]
    memory, plain_memory = ours.memory_bytes(), plain.memory_bytes()
    benchmark.extra_info |= {
        "part": "losses",
        "method": name,
        "stage": stage,
        "classes": classes,
        "batch": batch,
        "features": features,
        "milliseconds": round(1e3 * statistics.median(seconds[SUBJECT]) / times, 4),
        "plain_milliseconds": round(1e3 * statistics.median(seconds["plain"]) / times, 4),
        "ratio": ratio(seconds[SUBJECT], seconds["plain"]),
        "memory_bytes": memory,
        "plain_memory_bytes": plain_memory,
        "hooks_not_timed": [hook for hook in HOOKS if getattr(get_method(name), hook) is not getattr(Method, hook)],
    }
