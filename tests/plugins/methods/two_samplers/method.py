"""Two batches a step, one as the images are and one with balanced classes; training moves from one to the other."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.api import Batch, Method, Sampler, Stage, StepContext, StepModel, View
from harness.toolbox.samplers import make_sampler


class TwoSamplers(Method):
    """L = a CE(instance-balanced) + (1 - a) CE(class-balanced), a = 1 - (t / T)^2: BBN's schedule on one branch."""

    name = "two_samplers"

    def views(self, labels: np.ndarray, stage: Stage) -> tuple[View, ...]:
        """Each with its own order."""
        balanced = make_sampler("class_balanced", labels, self.task.num_classes)
        return View(Sampler(labels, self.task.num_classes)), View(balanced)

    def step_loss(self, model: StepModel, views: tuple[Batch, ...], step: StepContext) -> Tensor:
        """One value an image of the first batch, with that of its partner in the second."""
        logits = model(torch.cat([view.images for view in views]))
        usual, balanced = (
            F.cross_entropy(part, view.target, reduction="none")
            for part, view in zip(logits.split(len(views[0].images)), views, strict=True)
        )
        share = 1 - (step.epoch / step.epochs) ** 2
        return share * usual + (1 - share) * balanced
