"""Compiling the backbone, where that is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from harness.engine.device import switched_on

COMPILE = "LTBENCH_COMPILE"


def compiled(backbone: nn.Module) -> Callable[[Tensor], Tensor] | None:
    """The backbone as fused kernels where `LTBENCH_COMPILE` is 1, on CUDA with a graph each for forward and backward.

    A step of a small network costs a GPU less than its launches cost the host; a graph has one launch. Off by default:
    sums are rounded in another order, and compiling takes up to a minute.
    """
    if not switched_on(COMPILE):
        return None
    return cast(Callable[[Tensor], Tensor], torch.compile(backbone, mode="reduce-overhead", dynamic=False))
