"""The plugin contract: what a method may know, and the hooks it may override.

A method is a folder `methods/<name>/` with `method.py` (a subclass of `Method` whose `name` is the folder's name) and
`recipes.yaml`. The loop, data, checkpoints and evaluation live in the harness; a method holds only what its paper adds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.base.config import later
from harness.base.errors import RunFailed
from harness.toolbox.samplers import Sampler

Stage = Literal["train", "finetune"]

__all__ = [
    "Batch",
    "Classifier",
    "Method",
    "RunFailed",
    "Sampler",
    "Stage",
    "StepContext",
    "StepModel",
    "Task",
    "View",
    "later",
    "second_stage",
]


@dataclass(frozen=True)
class Task:
    """What a method may know before training starts."""

    num_classes: int  # C
    feature_dim: int  # d, width of the pooled backbone features
    class_counts: Tensor  # training images of each class, int64, shape (C,), on the device


class Classifier(nn.Module):
    """Backbone and head: images -> features -> logits.

    Features are (B, d) and logits (B, C), unless a method builds another network: three experts may give features
    (B, 3, d) and logits (B, 3, C), which its `inference` averages. What else a method attaches (a projector, a queue as
    a buffer, a teacher) is saved and resumed with it.
    """

    head: Any  # an nn.Module whose attributes (weight, bias, ...) are known to the method that made it

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images (B, channels, height, width), shape (B, C)."""
        logits: Tensor = self.head(self.backbone(images))
        return logits


@dataclass(frozen=True)
class View:
    """One of the batches that a training step sees.

    Attributes:
        sampler: the order of its images; None: those of the first view, augmented anew. Views that share a sampler show
            the same images, each augmented anew.
        augment: "recipe", what the recipe does to training images; "strong", its key `strong_augment`; or "none".
        balanced: instead of both, a held-out batch of so many images, as many of each class, on every process.
        part: where those come from: the training part, or the validation part for methods published with it.
    """

    sampler: Sampler | None = None
    augment: Literal["recipe", "strong", "none"] = "recipe"
    balanced: int = 0
    part: Literal["train", "val"] = "train"


@dataclass(frozen=True)
class Batch:
    """Images as the network sees them, and their classes; with mixup also those of the images mixed in."""

    images: Tensor  # (B, channels, height, width), normalised and augmented
    target: Tensor  # (B,) int64
    index: Tensor  # (B,) position in the training part
    other: Tensor | None = None  # (B,) classes of the mixup partners
    share: Tensor | float = 1.0  # of `target` in the loss; the rest is for `other`

    def mixed(self, loss: Callable[[Tensor], Tensor]) -> Tensor:
        """`loss(target)`; with mixup its mean with `loss(other)`, weighted by their shares."""
        if self.other is None:
            return loss(self.target)
        return self.share * loss(self.target) + (1 - self.share) * loss(self.other)


class StepModel(Protocol):
    """The network in a training step: in the recipe's precision, and wrapped where several processes train it."""

    def __call__(self, images: Tensor) -> Tensor:
        """Logits of images, in float32 at least."""

    def embed(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features and logits of images."""

    def extract(self, images: Tensor) -> Tensor:
        """Features alone, of further images."""

    def average(self, values: Tensor) -> Tensor:
        """Turns a mean over this process's images into the mean over the whole batch."""


@dataclass
class StepContext:
    """Where training stands. The loop keeps one for each stage and renews its fields before each step."""

    stage: Stage
    epoch: int  # from 0
    epochs: int
    step: int  # within the epoch, from 0
    learning_rate: float | Tensor  # on a GPU a tensor there, shape (): a step never waits for it
    model: Classifier
    optimizer: torch.optim.Optimizer
    generator: torch.Generator  # on the model's device; the method's own noise comes from it
    batch: Batch | None = None  # the first view, or the micro-batch of it that is at work
    features: Tensor | None = None  # (B, d) of `batch`, with gradients where the backbone is trained
    label_smoothing: float = 0.0  # the recipe's
    classes: Tensor | None = None  # of the whole batch as planned, where `batch` is one process's or a micro-batch

    def passed(self, share: float) -> bool:
        """Whether this share of the epochs is over. A GPU can replay a step that asks this, and not for the epoch
        itself, from one graph until the answer changes."""
        return self.epoch >= share * self.epochs

    def relative_weight(self, weights: Tensor, target: Tensor) -> Tensor | float:
        """Mean of the class weights (C,) over these images, relative to the mean over the whole batch.

        A loss that divides by the sum of its weights is multiplied by it: then the shares of a batch add up.
        """
        return 1.0 if self.classes is None else weights[target].mean() / weights[self.classes].mean()


def second_stage(default: Any) -> Any:
    """A field of `Params` that the first stage never reads, so that variants differing in it share their stage 1."""
    return dataclasses.field(default=default, metadata={"stage": "finetune"})


class Method:
    """A long-tailed method. Override only what differs from a linear softmax head, cross-entropy and SGD.

    Attributes:
        name: the folder's name.
        stages: ("train",) or ("train", "finetune").
        first_stage: name of the method whose first stage this one starts from, "" for its own. Methods that name the
            same one share its checkpoint.
        detached: why the loss's gradient is not its derivative, where a paper means it so; "" otherwise.
        not_compiled: why `torch.compile` cannot take the loss as one graph; "" where it can.
        whole_batch: why the loss is no mean over images (it compares the images of a batch with each other, say); then
            one process has to see all of them. "" where a batch may be split.
        only_sgd: why nothing but SGD without `clip_grad` will do, in every stage; "" where any optimiser will.
        no_graph: why a GPU cannot replay its steps from a graph; "" where it can, as nearly all do.

    Where a variant has other stages than the default, `stages_of` and `first_stage_of` decide by its params.
    """

    name: ClassVar[str]
    stages: ClassVar[tuple[Stage, ...]] = ("train",)
    first_stage: ClassVar[str] = ""
    detached: ClassVar[str] = ""
    not_compiled: ClassVar[str] = ""
    whole_batch: ClassVar[str] = ""
    only_sgd: ClassVar[str] = ""
    no_graph: ClassVar[str] = ""

    @dataclass(frozen=True)
    class Params:
        """Hyper-parameters that recipes are checked against. `__post_init__` raises ValueError for a bad value."""

    params: Any

    def __init__(self, task: Task, params: Any) -> None:
        self.task, self.params = task, params

    @classmethod
    def stages_of(cls, params: Any) -> tuple[Stage, ...]:
        """The stages with these params."""
        return cls.stages

    @classmethod
    def first_stage_of(cls, params: Any) -> str:
        """The method whose first stage is used with these params."""
        return cls.first_stage

    def skip(self) -> str | None:
        """A reason why the method cannot work on this task, or None."""
        return None

    def head(self, stage: Stage) -> nn.Module:
        """A freshly initialised head: features (B, d) -> logits (B, C), used in training and at test time."""
        return nn.Linear(self.task.feature_dim, self.task.num_classes)

    def build(self, backbone: nn.Module, stage: Stage) -> Classifier:
        """The network of a stage, from a fresh backbone: the place for experts, projectors, queues, teachers, adapters.

        It is called before weights are loaded. In the second stage each weight of the first one must find its place
        again (those of the head only if `continues_head`); what is new there keeps its start.
        """
        return Classifier(backbone, self.head(stage))

    def continues_head(self) -> bool:
        """Whether the second stage goes on with the first stage's head (its `head` must have the same parameters)."""
        return False

    def loss(self, logits: Tensor, target: Tensor, step: StepContext) -> Tensor:
        """Mean loss of a batch, a scalar. `logits` (B, C) come in float32 or float64; with mixup it is called twice.

        A batch may be split over processes or micro-batches. The loss must be a mean over images, so that the losses
        of the pieces, averaged by their sizes, are that of the batch; a mean with class weights is multiplied by
        `step.relative_weight`. It must not wait for other processes: they may have fewer micro-batches.
        """
        return F.cross_entropy(logits, target, label_smoothing=step.label_smoothing)

    def step_loss(self, model: StepModel, views: tuple[Batch, ...], step: StepContext) -> Tensor:
        """The loss of a training step: one value an image, shape (B,), or their mean; with `whole_batch` any scalar.

        Override it where `loss`, of one batch's logits, is not enough: several views, several losses of one network,
        an inner step. Where several processes train, call `model` once (`torch.cat` the views' images).
        """
        step.features, logits = model.embed(views[0].images)
        return views[0].mixed(lambda target: self.loss(logits, target, step))

    def views(self, labels: np.ndarray, stage: Stage) -> tuple[View, ...]:
        """The batches that a step sees; the first has a sampler, and mixup where the recipe asks for it."""
        return (View(self.sampler(labels, stage)),)

    def inference(self, logits: Tensor, stage: Stage) -> Tensor:
        """Logits that predict after that stage, shape (B, C), from the head's. Their softmax is the confidence."""
        return logits

    def class_quantities(self, model: Classifier) -> dict[str, Tensor]:
        """Numbers of each class that a trained model holds, by name, shape (C,): the report shows them against class
        frequency. Default: the norms of the head's weight vectors."""
        weight = getattr(model.head, "weight", None)
        if not isinstance(weight, Tensor) or weight.ndim != 2 or len(weight) != self.task.num_classes:
            return {}
        return {"weight norm": weight.norm(dim=1)}

    def sampler(self, labels: np.ndarray, stage: Stage) -> Sampler:
        """The order of images in an epoch; default instance-balanced."""
        return Sampler(labels, self.task.num_classes)

    def choose(self, index: Tensor, step: StepContext) -> Tensor:
        """The training images of this step, as positions in the training part, shape (B,).

        Default those that the sampler planned. A learned sampler, whose draws depend on the step before, replaces
        them here; `step` does not hold this step's batch yet.
        """
        return index

    def param_groups(self, model: Classifier, stage: Stage) -> list[dict[str, Any]]:
        """The optimiser's parameter groups; what is left out stays frozen. Default: what requires a gradient, in
        stage 2 of the head only.

        A group may set `weight_decay`, `momentum` and `lr_scale` (a factor on the schedule's learning rate).
        """
        tuned = model if stage == "train" else model.head
        return [{"params": [parameter for parameter in tuned.parameters() if parameter.requires_grad]}]

    def on_stage_start(self, model: Classifier, stage: Stage) -> None:
        """Called after the initial weights are in place, before the first step (and before a resumed run's state)."""

    def after_step(self, step: StepContext) -> None:
        """Called after the optimiser's step: projections, running statistics."""

    def on_epoch_end(self, step: StepContext) -> None:
        """Called after an epoch's last step, before it is evaluated."""

    def state_dict(self) -> dict[str, Any]:
        """State besides the model's that a resumed run needs, as tensors and plain values."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes back what `state_dict` gave."""
