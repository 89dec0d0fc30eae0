"""What one stage of one run is, and what it took."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from harness.api import Method, Stage
from harness.recipes import StageRecipe
from harness.spread import ONE_PROCESS, Spread


@dataclass(frozen=True)
class StageJob:
    """All that decides the outcome of one stage of one run."""

    stage: Stage
    method: type[Method]
    params: Any
    recipe: StageRecipe
    backbone: str
    precision: str
    seed: int
    run_key: str
    start: dict[str, Tensor] = field(default_factory=dict)  # weights of the first stage, for the second one
    spread: Spread = ONE_PROCESS

    @property
    def title(self) -> str:
        """For progress lines."""
        return f"{self.method.name} seed {self.seed} {self.stage}"


@dataclass
class Costs:
    """What a stage took, resumed runs added up."""

    wall_seconds: float = 0.0  # all of it, set-up and files included
    train_seconds: float = 0.0
    eval_seconds: float = 0.0
    images: int = 0  # training images seen
