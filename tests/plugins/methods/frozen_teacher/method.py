"""Distillation: the second stage trains a fresh head and the backbone towards the first stage's predictions."""

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.api import Classifier, Method, Stage, StepContext


class FrozenTeacher(Method):
    """Stage 2: L = CE with the log prior + KL to the softened predictions of stage 1, whose network stays as it was."""

    name = "frozen_teacher"
    stages = ("train", "finetune")
    not_compiled = "its teacher is a network of its own within the loss"

    def build(self, backbone: nn.Module, stage: Stage) -> Classifier:
        """In stage 2 with a teacher, saved and resumed with the model."""
        model = Classifier(backbone, self.head(stage))
        if stage == "finetune":
            model.teacher = copy.deepcopy(model).requires_grad_(False)
        return model

    def continues_head(self) -> bool:
        """The teacher is stage 1 whole."""
        return True

    def on_stage_start(self, model: Classifier, stage: Stage) -> None:
        """Stage 1's weights become the teacher's."""
        if stage == "finetune":
            own = {name: value for name, value in model.state_dict().items() if not name.startswith("teacher.")}
            model.teacher.load_state_dict(own)

    def param_groups(self, model: Classifier, stage: Stage) -> list[dict[str, Any]]:
        """Everything but the teacher, in both stages."""
        return [{"params": [parameter for parameter in model.parameters() if parameter.requires_grad]}]

    def loss(self, logits: Tensor, target: Tensor, step: StepContext) -> Tensor:
        """Mean over images."""
        if step.stage == "train":
            return super().loss(logits, target, step)
        assert step.batch is not None
        with torch.no_grad():
            taught = F.softmax(step.model.teacher.eval()(step.batch.images) / 2, dim=1)
        prior = self.task.class_counts.clamp_min(1).to(logits).log()
        distance = F.kl_div(F.log_softmax(logits / 2, dim=1), taught, reduction="batchmean")
        return F.cross_entropy(logits + prior, target) + distance
