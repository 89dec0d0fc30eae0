"""The recipe of one stage, and the keys that a recipe in YAML may have.

docs/recipes.md is made from the `Attributes` below: `python -m harness.plugins.recipe_docs` writes it.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from typing import Any, Literal

from harness.base import config
from harness.base.errors import unknown
from harness.toolbox.schedules import SCHEDULES, Steps, batch_sizes, share, whole_epochs

AT_LEAST_1 = {"batch_size", "eval_every", "rand_operations"}
AT_MOST = {
    "rand_augment": 30, "random_erasing": 1, "crop_area": 1, "jitter_share": 1, "hue": 0.5, "grey": 1, "blur": 1,
}  # fmt: skip
NEEDS = {"hue": (0, "color_jitter"), "jitter_share": (1, "color_jitter"), "crop_area": (0.08, "resized_crop")}
EMA_SPANS = 5  # that a stage must have: of the weights it began with e^-5 is left in its average
BELOW_1 = ("ema", "label_smoothing", "drop_path")


def _check_numbers(values: Any, prefix: str = "") -> None:
    """Every number of a dataclass must be finite and at least 0; those of `AT_LEAST_1` at least 1."""
    for name, value in vars(values).items():
        least = int(name in AT_LEAST_1)
        if isinstance(value, int | float) and not least <= value < float("inf"):
            raise ValueError(f"{prefix}{name} must be a number of at least {least}, found {value}")


@dataclass(frozen=True)
class Augment:
    """What is done to training images: (resized) crop, flip, and the others in this order; then they are normalised.

    Attributes:
        crop_padding: zero padding in pixels on each side before a random crop back to the image's size; 0: no crop.
            Not together with `resized_crop`.
        flip: mirror each image left to right with probability 1/2.
        resized_crop: cut out a part of random size and aspect ratio, and enlarge it to the image's size.
        auto_augment: AutoAugment with the policy published for CIFAR-10. RGB or grey images.
        color_jitter: largest change of brightness, contrast and saturation, as a share (0.4: between 60 % and 140 %);
            0: none. RGB or grey images.
        lighting: standard deviation of AlexNet's PCA lighting noise; 0: none. RGB images.
        cutout: side in pixels of the square that is painted black at a random place; 0: none.
        random_erasing: probability that a rectangle of random size and shape is painted black; 0: none.
        crop_area: smallest share of the image that `resized_crop` cuts out, at most 1.
        jitter_share: share of the images that `color_jitter` changes, at most 1.
        hue: largest turn of the hue within `color_jitter`, as a share of the circle, at most 0.5; 0: none. RGB images.
        grey: share of the images that become grey, at most 1; after the jitter.
        blur: share of the images that are blurred, at most 1, by a Gaussian with a standard deviation of 0.1 to 2
            pixels; after `grey`.
        rand_augment: magnitude of RandAugment, a bin from 1 to 30 as torchvision counts them; 0: none. RGB or grey
            images; not together with `auto_augment`; after `blur`.
        rand_operations: how many operations RandAugment does to an image, at least 1.
    """

    crop_padding: int = 0
    flip: bool = False
    resized_crop: bool = False
    auto_augment: Literal["none", "cifar10"] = "none"
    color_jitter: float = 0.0
    lighting: float = 0.0
    cutout: int = 0
    rand_augment: int = config.later(0)
    rand_operations: int = config.later(2)
    random_erasing: float = config.later(0.0)
    crop_area: float = config.later(0.08)
    jitter_share: float = config.later(1.0)
    hue: float = config.later(0.0)
    grey: float = config.later(0.0)
    blur: float = config.later(0.0)

    def __post_init__(self) -> None:
        _check_numbers(self, "augment.")
        for name, most in AT_MOST.items():
            if getattr(self, name) > most:
                raise ValueError(f"augment.{name} must be at most {most}, found {getattr(self, name)}")
        for name, (least, needs) in NEEDS.items():
            if getattr(self, name) != least and not getattr(self, needs):
                raise ValueError(f"augment.{name} does nothing without augment.{needs}")
        if self.rand_augment and self.auto_augment != "none":
            raise ValueError("either augment.rand_augment or augment.auto_augment must be off")
        if self.crop_padding and self.resized_crop:
            raise ValueError(f"either augment.crop_padding ({self.crop_padding}) or augment.resized_crop must be off")


@dataclass(frozen=True)
class StageRecipe:
    """The recipe of one stage.

    A length published in steps stands in `iterations` (then `epochs` is 0): the released code makes whole epochs of it
    by the number of batches in an epoch, with the last, partial batch (`count_partial_batch`) or without it.

    Attributes:
        epochs: passes over the training images, at least 1; 0 in a second stage that applies a rule to a finished
            network, or where `iterations` gives the length.
        batch_size: images in a batch, at least 1; all processes together. A single image that is left over at the end
            of an epoch joins the batch before it.
        lr: learning rate at the schedule's factor 1, at least 0.
        weight_decay: weight decay of the optimizer (of SGD an L2 penalty), at least 0, on all parameters unless the
            method sets another.
        momentum: momentum of SGD, or what the optimizer has in its place, at least 0.
        nesterov: Nesterov momentum; `momentum` must be above 0.
        schedule: how the learning rate changes over the stage; a name, or milestones and factors (both below).
        warmup_epochs: epochs of linear warm-up at the start, at most `epochs`; the schedules `cosine_epoch` and
            `constant` ignore them.
        iterations: length in steps, as some papers give it, rounded up to whole epochs; 0: `epochs` counts.
        warmup_iterations: warm-up in steps, at most `iterations`; replaces `warmup_epochs` where `iterations` is set.
        count_partial_batch: whether an epoch's last, partial batch counts as a step when `iterations` become epochs.
        augment: augmentation of training images; its keys are below.
        mixup_alpha: alpha of mixup's Beta(alpha, alpha), at least 0; 0: no mixup.
        drop_last: leave out an epoch's last batch when it is not full.
        eval_every: epochs from one evaluation to the next, at least 1; the last epoch is always evaluated.
        frozen_bn: BatchNorm of a backbone that is not trained; `eval` keeps the statistics of the first stage,
            `train_as_published` goes on with those of each batch, as some released code does.
        redraw: second stage only; train on another subset of the images, drawn by the rule `hash:<k>` or
            `pool-hash:<k>`; empty: the split's own.
        flip_average: predict from the mean of the logits of an image and its mirror image.
        eval_all_after: share of the epochs, 0 to 1, after which every epoch is evaluated; 1: `eval_every` holds to
            the end.
        head_init: initial weights of a linear head; `default` is PyTorch's own.
        optimizer: `sgd`, PyTorch's SGD; or a name that timm knows (`adamw`, `lamb`, `muon`, ...), unless the method
            needs SGD.
        clip_grad: largest norm of all gradients of a step together, at least 0; 0: no limit.
        strong_augment: augmentation of a second view, for methods that ask for a strong one; its `crop_padding` must
            be that of `augment`, unless it has `resized_crop`. Its keys are below. None: the same as `augment`.
        layer_decay: learning rate of a layer of the backbone as a share of the next one's, above 0 and at most 1; the
            layers are timm's, and the head has the full rate.
        decay_all: whether weight decay holds for norms, biases and what timm's model exempts, too.
        label_smoothing: part of each label that is spread over all classes, below 1; for methods that train with plain
            cross-entropy.
        ema: decay of a moving average of the weights, below 1; in a stage of fewer than 5 / (1 - ema) steps it is
            1 - 5 / steps, or else the start would weigh too much. The averaged weights are evaluated, saved and handed
            to a second stage; a note says which decay it was and what the raw ones score. 0: none.
        drop_path: rate of stochastic depth, below 1, where timm's network has it.
        gradient_checkpointing: compute activations again in the backward pass instead of keeping them: less memory,
            more time. Not for networks with BatchNorm, whose statistics would move twice.
        cutmix_alpha: alpha of CutMix's Beta(alpha, alpha), at least 0; 0: none. With mixup as well, each batch gets one
            of the two, with equal chances.
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
    drop_last: bool = False
    eval_every: int = 1
    frozen_bn: Literal["eval", "train_as_published"] = "eval"
    redraw: str = ""
    flip_average: bool = False
    eval_all_after: float = config.later(1.0)
    head_init: Literal["default", "kaiming_normal"] = config.later("default")
    optimizer: str = config.later("sgd")
    clip_grad: float = config.later(0.0)
    strong_augment: Augment | None = field(default=None, metadata={"later": True})
    layer_decay: float = config.later(1.0)
    decay_all: bool = config.later(True)
    label_smoothing: float = config.later(0.0)
    ema: float = config.later(0.0)
    drop_path: float = config.later(0.0)
    gradient_checkpointing: bool = config.later(False)
    cutmix_alpha: float = config.later(0.0)

    def __post_init__(self) -> None:
        if isinstance(self.schedule, str) and self.schedule not in SCHEDULES:
            raise ValueError(str(unknown("schedule", self.schedule, SCHEDULES)))
        _check_numbers(self)
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
        strong = self.strong_augment or self.augment
        if not strong.resized_crop and strong.crop_padding != self.augment.crop_padding:
            raise ValueError("strong_augment must have resized_crop, or the crop_padding of augment")
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"layer_decay must be above 0 and at most 1, found {self.layer_decay}")
        for name in BELOW_1:
            if getattr(self, name) >= 1:
                raise ValueError(f"{name} must be below 1, found {getattr(self, name)}")
        if self.eval_all_after > 1:
            raise ValueError(f"eval_all_after must be a share of the epochs from 0 to 1, found {self.eval_all_after}")

    def is_evaluated(self, epoch: int) -> bool:
        """Whether the network is evaluated after an epoch, counted from 1. The last one always is."""
        regular = epoch % self.eval_every == 0
        return regular or epoch == self.epochs or epoch > share(self.eval_all_after, self.epochs)

    def batches(self, positions: int) -> list[int]:
        """Images of each batch of an epoch over so many positions."""
        sizes = batch_sizes(positions, self.batch_size, drop_last=self.drop_last)
        return [size for size in sizes if size == self.batch_size] or sizes if self.drop_last else sizes

    def for_images(self, count: int) -> StageRecipe:
        """The recipe in whole epochs for a training part of so many images, with an `ema` that fits their steps."""
        recipe = self
        if self.iterations:
            epochs, warmup = (
                whole_epochs(steps, count, self.batch_size, count_partial_batch=self.count_partial_batch)
                for steps in (self.iterations, self.warmup_iterations)
            )
            recipe = dataclasses.replace(self, epochs=epochs, warmup_epochs=warmup, iterations=0, warmup_iterations=0)
        if not recipe.ema:
            return recipe
        steps = recipe.epochs * -(-count // recipe.batch_size)
        return dataclasses.replace(recipe, ema=min(recipe.ema, round(max(0.0, 1 - EMA_SPANS / max(steps, 1)), 4)))


@dataclass(frozen=True)
class Layer(StageRecipe):
    """The keys that a recipe in YAML may have: those of the first stage, and these.

    Attributes:
        base: name of a published recipe (section `published` of harness/recipes.yaml) to start from; of what stands
            before it only `params` are kept.
        backbone: the network, a name of `ltbench list backbones`; the recipe as a whole needs one.
        image_size: side in pixels of what is trained on; a user's own images, and those that stay files, may have any
            size and shape, others must be square; 0: as they are.
        precision: arithmetic of the backbone; head and loss are never below float32.
        pretrained: weights that the backbone starts from: one of timm's tags for it (`augreg_in21k`), or a file
            (safetensors, or one of torch's that holds plain tensors), by its path or by its name in `weights/` of the
            data folder; a recipe keeps the file's sha256. Empty: random weights.
        mean: mean of each channel that images are normalised by, for pixels from 0 to 1. Empty: that of the
            pretrained weights where timm knows it, else the split's.
        std: standard deviation of each channel; as `mean`.
        interpolation: how images are resized; with timm's weights, where it is not given, as their training did.
        reader: how image files are read: `exact`, as torchvision decodes and resizes, or `fast` (extra `fast`), whose
            pixels differ a little. Either reads a set that fits into memory from its files too, where it has any, and
            `exact` to the same bits. Empty: `exact` for what does not fit into memory.
        params: the method's own hyper-parameters, the fields of its `Params`.
        finetune: keys of the second stage; those that are missing are the first stage's.
    """

    backbone: str = ""
    image_size: int = 0
    precision: Literal["float32", "bfloat16"] = "float32"
    pretrained: str = ""
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    interpolation: Literal["", "bilinear", "bicubic"] = ""
    reader: Literal["", "exact", "fast"] = ""
    params: dict[str, Any] = field(default_factory=dict)
    finetune: dict[str, Any] = field(default_factory=dict)


LAYER_KEYS = {key.name for key in dataclasses.fields(Layer)} | {"base"}
