"""What one stage of one run is, and what it took."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from harness.api import Method, Stage
from harness.spec.spread import ONE_PROCESS, Spread
from harness.spec.stage_recipe import StageRecipe


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
    pretrained: str = ""  # what the backbone starts from: `harness.spec.pretrained`

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
    shared_seconds: float = 0.0  # of these, what other runs spent on features that this one took over
    images: int = 0  # training images seen
    graph_steps: int = 0  # training steps that were replayed from a graph; those that checked it do not count
    fell_back: list[str] = field(default_factory=list)  # what was not trusted, and why
    processors: list[dict[str, Any]] = field(default_factory=list)  # in turn: name, first and last epoch, from 1

    def ran_on(self, processor: str, epoch: int) -> None:
        """An epoch, counted from 1, or a part of it ran there: a resumed run may go on where other bits come out."""
        if self.processors and self.processors[-1]["processor"] == processor:
            self.processors[-1]["last_epoch"] = epoch
        else:
            self.processors.append({"processor": processor, "first_epoch": epoch, "last_epoch": epoch})
