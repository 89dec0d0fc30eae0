"""DiVE: He et al., Distilling Virtual Examples for Long-tailed Recognition, ICCV 2021; beside it KD and balanced KD."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.api import Classifier, Method, Stage, StepContext
from harness.toolbox.losses import balanced_softmax_loss, check_batch, class_balanced_loss_weights


def distance(student_logits: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """T^2 KL(taught || softmax(s / T)), a mean over images; `taught` are probabilities, shape (B, C)."""
    return temperature**2 * F.kl_div(F.log_softmax(student_logits / temperature, dim=1), taught, reduction="batchmean")


def kd_loss(
    student_logits: Tensor, teacher_logits: Tensor, target: Tensor, *, temperature: float = 2.0, alpha: float = 1.0
) -> Tensor:
    """Distillation (Hinton et al., 2015): CE(s, y) + a T^2 KL(softmax(t / T) || softmax(s / T)).

    Args:
        student_logits, teacher_logits: s and t, shape (B, C).
        target: shape (B,).
    """
    check_batch(student_logits, target)
    taught = F.softmax(teacher_logits / temperature, dim=1)
    return F.cross_entropy(student_logits, target) + alpha * distance(student_logits, taught, temperature)


def balanced_kd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor,
    class_weights: Tensor,
    *,
    temperature: float = 2.0,
    alpha: float = 1.0,
) -> Tensor:
    """Balanced Knowledge Distillation (Zhang et al., 2021): as `kd_loss`, the teacher's probabilities weighted
    by class, shape (C,), and normalised again; published with `class_balanced_loss_weights`, beta 0.9999."""
    check_batch(student_logits, target)
    taught = F.softmax(teacher_logits / temperature + class_weights.to(teacher_logits).log(), dim=1)
    return F.cross_entropy(student_logits, target) + alpha * distance(student_logits, taught, temperature)


def dive_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor,
    class_counts: Tensor | Sequence[int],
    *,
    temperature: float = 2.0,
    power: float = 0.5,
    alpha: float = 0.5,
    base_loss: Literal["balanced_softmax", "cross_entropy"] = "balanced_softmax",
) -> Tensor:
    """(1 - a) L_base(s, y) + a T^2 KL(p || softmax(s / T)), p = softmax(t / T)^power, normalised.

    A power below 1 flattens the virtual examples, which moves more of them to the rare classes. It follows Bag of
    Tricks' code.
    """
    check_batch(student_logits, target, class_counts)
    plain = base_loss == "cross_entropy"
    base = (
        F.cross_entropy(student_logits, target)
        if plain
        else balanced_softmax_loss(student_logits, target, class_counts)
    )
    taught = F.softmax(power * teacher_logits / temperature, dim=1)
    return (1 - alpha) * base + alpha * distance(student_logits, taught, temperature)


class Student(Classifier):
    """A network with the frozen one that it learns from."""

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__(backbone, head)
        self.teacher = Classifier(copy.deepcopy(backbone), copy.deepcopy(head))


class DiVE(Method):
    """Stage 1 is the teacher's training; in stage 2 a fresh network learns from labels and from the teacher."""

    name = "dive"
    stages = ("train", "finetune")
    first_stage = "balanced_softmax"
    detached = "no gradient goes through the teacher"
    not_compiled = "its teacher is a network of its own within the loss"

    @dataclass(frozen=True)
    class Params:
        """power belongs to DiVE, beta to balanced KD. teacher: the method whose first stage it is."""

        loss: Literal["dive", "kd", "balanced_kd"] = "dive"
        teacher: Literal["balanced_softmax", "ce"] = "balanced_softmax"
        temperature: float = 2.0
        power: float = 0.5
        alpha: float = 0.5
        beta: float = 0.9999

        def __post_init__(self) -> None:
            if not (self.temperature > 0 and self.power > 0 and self.alpha >= 0):
                raise ValueError(f"{self.temperature=} and {self.power=} must be above 0, {self.alpha=} at least 0")
            if self.loss == "dive" and self.alpha > 1:
                raise ValueError(f"alpha is DiVE's share of the teacher, at most 1, found {self.alpha}")
            if not 0 <= self.beta < 1:
                raise ValueError(f"beta must lie in [0, 1), found {self.beta}")

    @classmethod
    def first_stage_of(cls, params: Any) -> str:
        """The teacher's."""
        return str(params.teacher)

    def continues_head(self) -> bool:
        """The teacher is stage 1 whole."""
        return True

    def build(self, backbone: nn.Module, stage: Stage) -> Classifier:
        """In stage 2 with a teacher, saved and resumed with the student."""
        return super().build(backbone, stage) if stage == "train" else Student(backbone, self.head(stage))

    def on_stage_start(self, model: Classifier, stage: Stage) -> None:
        """Stage 1's weights, which came to the student, go to the teacher; the student starts afresh."""
        if isinstance(model, Student):
            for own, taught in ((model.backbone, model.teacher.backbone), (model.head, model.teacher.head)):
                fresh = copy.deepcopy(taught.state_dict())
                taught.load_state_dict(own.state_dict())
                own.load_state_dict(fresh)

    def param_groups(self, model: Classifier, stage: Stage) -> list[dict[str, Any]]:
        """The student, all of it."""
        return [{"params": [*model.backbone.parameters(), *model.head.parameters()]}]

    @cached_property
    def class_weights(self) -> Tensor:
        """Of balanced distillation, shape (C,)."""
        return class_balanced_loss_weights(self.task.class_counts, self.params.beta)

    def loss(self, logits: Tensor, target: Tensor, step: StepContext) -> Tensor:
        """The teacher sees the same augmented images, in evaluation mode."""
        assert step.batch is not None
        p = self.params
        with torch.no_grad():
            taught: Tensor = cast(Student, step.model).teacher.eval()(step.batch.images)
        scale = {"temperature": p.temperature, "alpha": p.alpha}
        if p.loss == "kd":
            return kd_loss(logits, taught, target, **scale)
        if p.loss == "balanced_kd":
            return balanced_kd_loss(logits, taught, target, self.class_weights, **scale)
        return dive_loss(logits, taught, target, self.task.class_counts, power=p.power, **scale)
