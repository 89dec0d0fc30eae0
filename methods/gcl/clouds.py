"""How large each class's cloud is: the strategies that the paper's Table 3 compares."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from harness.toolbox.samplers import cloud_size


def _differences(transform: Callable[[Tensor], Tensor]) -> Callable[[Tensor | Sequence[int]], Tensor]:
    """Cloud sizes f(n_max) - f(n_c), divided by the largest; zero for uniform counts."""

    def size(class_counts: Tensor | Sequence[int]) -> Tensor:
        values = transform(torch.as_tensor(class_counts).double().clamp_min(1))
        delta = values.max() - values
        return delta / delta.max() if bool(delta.max() > 0) else delta

    return size


# The paper's Table 3 compares these; its formulas are not legible in our source, this is our reading of their names.
CLOUD_SIZES: dict[str, Callable[[Tensor | Sequence[int]], Tensor]] = {
    "log": cloud_size,
    "power13": _differences(lambda n: n.pow(1 / 3)),
    "power14": _differences(lambda n: n.pow(1 / 4)),
    "cosine": _differences(lambda n: -torch.cos(math.pi / 2 * n / n.max())),
}
