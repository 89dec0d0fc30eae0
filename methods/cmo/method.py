"""CMO: Park et al., The Majority Can Help the Minority: Context-rich Minority Oversampling, CVPR 2022."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.api import Batch, Method, Stage, StepContext, StepModel, View
from harness.toolbox.heads import NormedHead
from harness.toolbox.losses import balanced_softmax_loss, class_balanced_loss_weights, ldam_margins, with_margin
from harness.toolbox.mixing import cutmix_mask
from harness.toolbox.samplers import WeightedSampler, class_balanced_weights


class CMO(Method):
    """CutMix whose backgrounds are the data as they are, and whose patches come from a sampler of rare classes.

    An augmentation, for any loss. One box a batch; where several processes share the batch, each draws its own.
    """

    name = "cmo"

    @dataclass(frozen=True)
    class Params:
        """foreground_power q: an image of class c is drawn for a patch at a rate of 1 / n_c^q.

        probability: of mixing a batch, in the epochs (from 0) after skip_first and more than skip_last before the end.
        largest_margin and scale are LDAM's; beta and reweight_from those of deferred re-weighting (DRW).
        """

        loss: Literal["ce", "ce_drw", "balanced_softmax", "ldam_drw"] = "ce"
        foreground_power: float = 1.0
        probability: float = 0.5
        skip_first: int = 3
        skip_last: int = 3
        largest_margin: float = 0.5
        scale: float = 30.0
        beta: float = 0.9999
        reweight_from: float = 0.8

        def __post_init__(self) -> None:
            if not (0 <= self.probability <= 1 and 0 <= self.beta < 1):
                raise ValueError(f"{self.probability=} must lie in [0, 1], {self.beta=} in [0, 1)")
            if min(self.foreground_power, self.skip_first, self.skip_last) < 0:
                raise ValueError(f"{self.foreground_power=}, {self.skip_first=}, {self.skip_last=} must be at least 0")
            if not self.scale > 0 or not 0 <= self.largest_margin < float("inf"):
                raise ValueError(f"{self.scale=} must be above 0, {self.largest_margin=} at least 0")

    @cached_property
    def margins(self) -> Tensor:
        """LDAM's, shape (C,)."""
        return ldam_margins(self.task.class_counts, self.params.largest_margin)

    @cached_property
    def class_weights(self) -> Tensor:
        """The weight of each class once re-weighting has begun, shape (C,)."""
        return class_balanced_loss_weights(self.task.class_counts, self.params.beta)

    def head(self, stage: Stage) -> nn.Module:
        """Cosines for LDAM."""
        ldam = self.params.loss == "ldam_drw"
        return NormedHead(self.task.feature_dim, self.task.num_classes) if ldam else super().head(stage)

    def views(self, labels: np.ndarray, stage: Stage) -> tuple[View, ...]:
        """Backgrounds and foregrounds, paired by position."""
        counts = torch.from_numpy(np.bincount(labels, minlength=self.task.num_classes))
        weights = class_balanced_weights(counts).pow(self.params.foreground_power)
        return View(self.sampler(labels, stage)), View(WeightedSampler(labels, self.task.num_classes, weights))

    def step_loss(self, model: StepModel, views: tuple[Batch, ...], step: StepContext) -> Tensor:
        """Losses of background and foreground class, by the area that each has; one value an image."""
        background, foreground = views
        p, images, share = self.params, background.images, torch.ones((), device=background.images.device)
        if p.skip_first < step.epoch < step.epochs - p.skip_last:
            mask = self.mask(images, step.generator)
            images, share = torch.where(mask, foreground.images, images), 1 - mask.to(images).mean()
        step.features, logits = model.embed(images)
        behind = background.mixed(lambda target: self.image_losses(logits, target, model, step))
        return share * behind + (1 - share) * self.image_losses(logits, foreground.target, model, step)

    def mask(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Where a batch gets patches, (H, W): a box whose side has the share sqrt(1 - l), l uniform; or nowhere."""
        height, width = images.shape[-2:]
        draws = torch.rand(4, generator=generator, dtype=torch.float64, device=images.device)
        centre = ((draws[0] * height).floor(), (draws[1] * width).floor())
        mask = cutmix_mask(draws[2], centre, (height, width), "truncate")
        return mask & (draws[3] < float(self.params.probability))

    def image_losses(self, logits: Tensor, target: Tensor, model: StepModel, step: StepContext) -> Tensor:
        """Of each image, shape (B,), with the weight of its class relative to the batch's mean weight."""
        p = self.params
        if p.loss == "balanced_softmax":
            return balanced_softmax_loss(logits, target, self.task.class_counts, "none")
        if p.loss == "ldam_drw":
            logits = float(p.scale) * with_margin(logits, target, self.margins)
        values = F.cross_entropy(logits, target, reduction="none")
        if p.loss == "ce" or not step.passed(p.reweight_from):
            return values
        weights = self.class_weights.to(logits)[target]
        return values * weights / model.average(weights.mean())

    def inference(self, logits: Tensor, stage: Stage) -> Tensor:
        """Scaled where they are cosines."""
        return logits * float(self.params.scale) if self.params.loss == "ldam_drw" else logits
