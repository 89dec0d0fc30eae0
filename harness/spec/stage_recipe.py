"""The recipe of one stage, and the keys that a recipe in YAML may have."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from typing import Any, Literal

from harness.base import config
from harness.base.errors import unknown
from harness.toolbox.schedules import SCHEDULES, Steps, share, whole_epochs


@dataclass(frozen=True)
class Augment:
    """What is done to training images: (resized) crop, flip, and the others in this order; then they are normalised."""

    crop_padding: int = 0  # pixels of zero padding for the random crop; 0: no crop
    flip: bool = False  # mirrored with probability 1/2
    resized_crop: bool = False  # a part of random size and ratio, enlarged to the size of the image
    auto_augment: Literal["none", "cifar10"] = "none"  # AutoAugment's policy for this data set
    color_jitter: float = 0.0  # brightness, contrast and saturation change by up to this share; 0: none
    lighting: float = 0.0  # standard deviation of AlexNet's PCA lighting; 0: none
    cutout: int = 0  # side in pixels of the square that becomes black; 0: none

    def __post_init__(self) -> None:
        for name in ("crop_padding", "color_jitter", "lighting", "cutout"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"augment.{name} must be a number of at least 0, found {getattr(self, name)}")
        if self.auto_augment not in ("none", "cifar10"):
            raise ValueError(f"augment.auto_augment must be 'none' or 'cifar10', found {self.auto_augment!r}")
        if self.crop_padding and self.resized_crop:
            raise ValueError(f"either augment.crop_padding ({self.crop_padding}) or augment.resized_crop must be off")

    @property
    def crop(self) -> tuple[int, bool]:
        """How images are cropped."""
        return self.crop_padding, self.resized_crop


@dataclass(frozen=True)
class StageRecipe:
    """The recipe of one stage.

    A length published in steps stands in `iterations` (then `epochs` is 0): the released code makes whole epochs of it
    by the number of batches in an epoch, with the last, partial batch (`count_partial_batch`) or without it.
    """

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    momentum: float = 0.9
    nesterov: bool = False
    schedule: str | Steps = "cosine"
    warmup_epochs: int = 0
    iterations: int = 0
    warmup_iterations: int = 0
    count_partial_batch: bool = True
    augment: Augment = field(default_factory=Augment)
    mixup_alpha: float = 0.0
    drop_last: bool = False  # leave out an epoch's last batch when it is not full
    eval_every: int = 1  # epochs; the last one is always evaluated
    frozen_bn: Literal["eval", "train_as_published"] = "eval"  # BatchNorm of a frozen backbone
    redraw: str = ""  # stage 2 only: trains on another subset, drawn by this rule (hash:<k> or pool-hash:<k>)
    flip_average: bool = False  # predict from the mean logits of an image and its mirror image
    eval_all_after: float = config.later(1.0)  # share of the epochs after which every one is evaluated; 1: never
    head_init: Literal["default", "kaiming_normal"] = config.later("default")  # of a linear head's weight
    optimizer: str = config.later("sgd")  # or a name of timm's: adamw, lamb, muon, ...
    clip_grad: float = config.later(0.0)  # largest norm of all gradients together; 0: no limit
    strong_augment: Augment | None = field(default=None, metadata={"later": True})  # of a view that asks for it

    def __post_init__(self) -> None:
        if isinstance(self.schedule, str) and self.schedule not in SCHEDULES:
            raise ValueError(str(unknown("schedule", self.schedule, SCHEDULES)))
        positive = {"batch_size": self.batch_size, "eval_every": self.eval_every}
        others = (
            "epochs",
            "lr",
            "weight_decay",
            "momentum",
            "warmup_epochs",
            "iterations",
            "warmup_iterations",
            "mixup_alpha",
            "clip_grad",
        )
        for name, value in positive.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, found {value}")
        for name in others:
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be a number of at least 0, found {getattr(self, name)}")
        if self.epochs and self.warmup_epochs > self.epochs:
            raise ValueError(f"warmup_epochs {self.warmup_epochs} must not be more than epochs {self.epochs}")
        if self.epochs and self.iterations:
            raise ValueError(f"either epochs ({self.epochs}) or iterations ({self.iterations}) must be 0")
        if self.iterations and self.warmup_iterations > self.iterations:
            found = f"{self.warmup_iterations} must not be more than iterations {self.iterations}"
            raise ValueError(f"warmup_iterations {found}")
        if not re.fullmatch(r"((pool-)?hash:\d+)?", self.redraw):
            raise ValueError(f"redraw must be hash:<k>, pool-hash:<k> or empty, found {self.redraw!r}")
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0")
        if self.strong_augment is not None and self.strong_augment.crop != self.augment.crop:
            raise ValueError("strong_augment must crop as augment does (crop_padding, resized_crop)")
        if not 0 <= self.eval_all_after <= 1:
            raise ValueError(f"eval_all_after must be a share of the epochs from 0 to 1, found {self.eval_all_after}")

    def is_evaluated(self, epoch: int) -> bool:
        """Whether the network is evaluated after an epoch, counted from 1. The last one always is."""
        regular = epoch % self.eval_every == 0
        return regular or epoch == self.epochs or epoch > share(self.eval_all_after, self.epochs)

    def for_images(self, count: int) -> StageRecipe:
        """The recipe in whole epochs for a training part of so many images."""
        if not self.iterations:
            return self
        epochs, warmup = (
            whole_epochs(steps, count, self.batch_size, count_partial_batch=self.count_partial_batch)
            for steps in (self.iterations, self.warmup_iterations)
        )
        return dataclasses.replace(self, epochs=epochs, warmup_epochs=warmup, iterations=0, warmup_iterations=0)


@dataclass(frozen=True)
class Layer(StageRecipe):
    """The keys that a recipe in YAML may have: those of the first stage, and these."""

    backbone: str = ""
    image_size: int = 0
    precision: Literal["float32", "bfloat16"] = "float32"
    params: dict[str, Any] = field(default_factory=dict)
    finetune: dict[str, Any] = field(default_factory=dict)


LAYER_KEYS = {key.name for key in dataclasses.fields(Layer)} | {"base"}
