"""RIDE: Wang et al., Long-Tailed Recognition by Routing Diverse Distribution-Aware Experts, ICLR 2021."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor, nn

from harness.api import Classifier, Method, Sampler, Stage, StepContext, second_stage
from harness.toolbox.heads import ExpertHeads
from harness.toolbox.losses import class_balanced_loss_weights, ldam_margins
from harness.toolbox.networks import with_experts
from harness.toolbox.samplers import make_sampler
from methods.ride.losses import class_temperatures, divergence, individual_loss
from methods.ride.routing import RoutedHeads, routed_logits, router_loss


class RIDE(Method):
    """Experts on a shared trunk, each with LDAM's loss, driven apart from their mean; and deferred re-weighting."""

    name = "ride"
    detached = "the mean that the experts are driven from is a constant"

    @dataclass(frozen=True)
    class Params:
        """width: of an expert's stages, as a share of the backbone's. diversity: lambda, below 0 as published.

        temperature_tilt: eta. collaborative: the experts' mean is trained instead, for comparison (released code: what
        lambda = 0 means). assign: stage 2 trains routers that decide how many experts an image needs (EA).
        """

        experts: int = 3
        width: float = 0.75
        diversity: float = -0.45
        temperature: float = 1.0
        temperature_tilt: float = 0.05
        largest_margin: float = 0.5
        scale: float = 30.0
        beta: float = 0.9999
        reweight_from: float = 0.8
        collaborative: bool = False
        assign: bool = second_stage(False)
        router_logits: int = second_stage(30)
        router_weight: float = second_stage(100.0)

        def __post_init__(self) -> None:
            if self.experts < 1 or not 0 < self.width <= 1:
                raise ValueError(f"{self.experts=} must be at least 1, {self.width=} above 0 and at most 1")
            if not (0 <= self.beta < 1 and 0 <= self.temperature_tilt < 1):
                raise ValueError(f"{self.beta=} and {self.temperature_tilt=} must lie in [0, 1)")
            if not (self.scale > 0 and self.temperature > 0 and self.largest_margin >= 0):
                raise ValueError(
                    f"{self.scale=}, {self.temperature=} must be above 0, {self.largest_margin=} at least 0"
                )
            if self.assign and (self.experts < 2 or self.router_logits < 1 or not self.router_weight > 0):
                raise ValueError(f"{self.experts=} must be at least 2 to assign, {self.router_logits=} at least 1, "
                                 f"{self.router_weight=} above 0")  # fmt: skip

    @classmethod
    def stages_of(cls, params: Any) -> tuple[Stage, ...]:
        """A second stage for routers."""
        return ("train", "finetune") if params.assign else ("train",)

    def build(self, backbone: nn.Module, stage: Stage) -> Classifier:
        """The last two stages and the head once for each expert."""
        return Classifier(with_experts(backbone, self.params.experts, self.params.width), self.head(stage))

    def head(self, stage: Stage) -> nn.Module:
        """Scaled cosines of each expert; with routers in stage 2."""
        p = self.params
        size = (p.experts, int(p.width * self.task.feature_dim), self.task.num_classes, p.scale)
        return ExpertHeads(*size) if stage == "train" else RoutedHeads(*size, p.router_logits)

    def continues_head(self) -> bool:
        """Stage 2 only adds routers."""
        return True

    def param_groups(self, model: Classifier, stage: Stage) -> list[dict[str, Any]]:
        """Stage 2: the routers."""
        if stage == "train":
            return super().param_groups(model, stage)
        return [{"params": [*model.head.routers.parameters(), *model.head.decide.parameters()]}]

    def sampler(self, labels: np.ndarray, stage: Stage) -> Sampler:
        """Class-balanced for the routers."""
        name = "instance_balanced" if stage == "train" else "class_balanced"
        return make_sampler(name, labels, self.task.num_classes)

    @cached_property
    def margins(self) -> Tensor:
        """LDAM's, times the scale, shape (C,)."""
        return float(self.params.scale) * ldam_margins(self.task.class_counts, self.params.largest_margin)

    @cached_property
    def class_weights(self) -> Tensor:
        """The weight of each class once re-weighting has begun, shape (C,)."""
        return class_balanced_loss_weights(self.task.class_counts, self.params.beta)

    @cached_property
    def temperatures(self) -> list[Tensor]:
        """Of each class before and after re-weighting has begun, both (C,)."""
        p, counts = self.params, self.task.class_counts
        return [class_temperatures(counts, p.temperature, tilt) for tilt in (0.0, p.temperature_tilt)]

    def loss(self, logits: Tensor, target: Tensor, step: StepContext) -> Tensor:
        """Individual losses and lambda times the divergence; not divided by the number of experts, as published."""
        p = self.params
        if step.stage == "finetune":
            return router_loss(logits, target, float(p.router_weight))
        late = step.passed(p.reweight_from)
        if p.collaborative:  # one loss of the mean, as often as there are experts
            logits = logits.mean(1, keepdim=True).expand(-1, p.experts, -1)
        loss = individual_loss(logits, target, self.margins, self.class_weights if late else None)
        loss = loss * step.relative_weight(self.class_weights, target) if late else loss
        return loss if p.collaborative else loss + p.diversity * divergence(logits, self.temperatures[late])

    def inference(self, logits: Tensor, stage: Stage) -> Tensor:
        """The mean of the experts; after stage 2 of as many as an image needs."""
        return logits.mean(1) if stage == "train" else routed_logits(logits)
