"""LIFT: Shi et al., Long-Tail Learning with Foundation Model: Heavy Fine-Tuning Hurts, ICML 2024."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.api import Batch, Classifier, Method, RunFailed, Stage, StepContext, StepModel, second_stage
from harness.toolbox.class_means import ClassMeans
from harness.toolbox.heads import ScaledCosine
from harness.toolbox.losses import check_batch
from methods.lift.tuners import attach, bottleneck, check_fits, is_transformer


def lift_loss(logits: Tensor, target: Tensor, class_counts: Tensor, tau: float = 1.0) -> Tensor:
    """CE(z + tau log pi, y), pi the share of each class in the training images; a class without one cannot win.

    Raises:
        ValueError: see `check_batch`.
    """
    check_batch(logits, target, class_counts)
    counts = class_counts.double()
    return F.cross_entropy(logits + (tau * (counts / counts.sum()).clamp_min(1e-12).log()).to(logits), target)


class LIFT(Method):
    """A pretrained backbone stays as it is. Stage 1 takes each class's mean feature as its weight vector; stage 2 tunes
    the head and little else: adapters, prompts, biases or norms, under a logit-adjusted loss.

    The start from a text encoder's features, which CLIP allows, is left out, and so are five crops at test time.
    """

    name = "lift"
    stages = ("train", "finetune")

    @dataclass(frozen=True)
    class Params:
        """tuning: what stage 2 tunes besides the head; `auto` is AdaptFormer on a transformer, else norms; `none` is a
        linear probe, `full` usual fine-tuning. tau: of the loss.

        size: hidden width of adapters, LoRA's rank, or number of prompts; 0: by classes and blocks, and 10 prompts.
        """

        scale: float = 25.0
        tuning: Literal[
            "auto", "adaptformer", "adapter", "lora", "prompts", "deep_prompts", "norm", "bias", "none", "full"
        ] = second_stage("auto")
        size: int = second_stage(0)
        tau: float = second_stage(1.0)

        def __post_init__(self) -> None:
            if not self.scale > 0 or self.size < 0 or not 0 <= self.tau < float("inf"):
                raise ValueError(f"{self.scale=} must be above 0, {self.size=} and {self.tau=} at least 0")

    def head(self, stage: Stage) -> nn.Module:
        """Scaled cosines."""
        return ScaledCosine(self.task.feature_dim, self.task.num_classes, self.params.scale)

    def continues_head(self) -> bool:
        """The class means."""
        return True

    def build(self, backbone: nn.Module, stage: Stage) -> Classifier:
        """With what is attached, in stage 2.

        Raises:
            ValueError: see `check_fits`; in stage 1 already.
        """
        model = super().build(backbone, stage)
        self.tuning: str = self.params.tuning
        if self.tuning == "auto":
            self.tuning = "adaptformer" if is_transformer(backbone) else "norm"
        if self.tuning in ("norm", "bias", "none", "full"):
            return model
        check_fits(backbone, self.tuning)
        if stage == "finetune":
            blocks: Any = getattr(backbone, "blocks", ())
            size = 10 if "prompts" in self.tuning else bottleneck(self.task.num_classes, max(len(blocks), 1))
            model.tuner = self.tuner = attach(backbone, self.tuning, self.params.size or size)
        return model

    def param_groups(self, model: Classifier, stage: Stage) -> list[dict[str, Any]]:
        """Stage 1 tunes nothing; stage 2 the head, and what `tuning` says."""
        if stage == "train":
            return [{"params": [model.head.weight], "lr_scale": 0.0, "weight_decay": 0.0}]
        return [{"params": [model.head.weight, *self._tuned(model)]}]

    def _tuned(self, model: Classifier) -> list[nn.Parameter]:
        if self.tuning == "full":
            return list(model.backbone.parameters())
        inside: Any = model.backbone.blocks if is_transformer(model.backbone) else model.backbone
        if self.tuning == "bias":
            return [parameter for name, parameter in inside.named_parameters() if name.endswith("bias")]
        if self.tuning == "norm":
            norms = [module for module in inside.modules() if "Norm" in type(module).__name__]
            return [parameter for norm in norms for parameter in norm.parameters(recurse=False)]
        return [] if self.tuning == "none" else list(self.tuner.parameters())

    @cached_property
    def means(self) -> ClassMeans:
        """Of the training images, as stage 1 goes through them."""
        return ClassMeans(self.task.num_classes, self.task.feature_dim, self.task.class_counts.device)

    def step_loss(self, model: StepModel, views: tuple[Batch, ...], step: StepContext) -> Tensor:
        """Stage 1 gathers class means; its loss is for the log alone."""
        loss = super().step_loss(model, views, step)
        if step.stage == "train":
            assert step.features is not None
            if views[0].other is not None:
                raise RunFailed("lift takes class means of images as they are: no mixing in stage 1", agreed=True)
            whole = len(views[0].target if step.classes is None else step.classes)
            self.means.add(step.features, views[0].target, model.average, whole)
        return loss

    def loss(self, logits: Tensor, target: Tensor, step: StepContext) -> Tensor:
        """Logit-adjusted cross-entropy."""
        return lift_loss(logits, target, self.task.class_counts, self.params.tau)

    @torch.no_grad()
    def on_epoch_end(self, step: StepContext) -> None:
        """Stage 1: a class's weight vector is its mean feature, of length 1; one without an image keeps its start."""
        if step.stage == "train":
            means, head = self.means, step.model.head
            found = F.normalize(means.of_classes, dim=1).to(head.weight)
            head.weight.copy_(torch.where((means.seen > 0)[:, None], found, head.weight))
            means.clear()

    def state_dict(self) -> dict[str, Any]:
        """The running sums."""
        return self.means.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes them back."""
        self.means.load_state_dict(state)
