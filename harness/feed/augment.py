"""Batched augmentation of uint8 images on the device; every random number was drawn on the host before.

A plan says for each image which operations it gets, in steps (two of AutoAugment, three of colour jitter). A step sorts
the images by operation, so that each operation sees its images as one slice: the host knows the sizes of the slices
from its own copy of the plan, and nothing waits for the device. Where steps may be replayed from a graph, whose shapes
are fixed, each operation that the recipe has is done to all images instead, and kept where it is wanted.

The operations follow Pillow, with which the papers' code ran. So AutoAugment is here what the papers ran, and differs
from torchvision's: a rotation has one direction, a shear is bicubic, a translation goes to the nearest pixel, solarize
starts at 256 instead of 255, and grey 128 moves in.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from harness.base.errors import UserError
from harness.feed.image_operations import BLENDS, CODES, OPERATIONS, pixel_centres
from harness.spec.stage_recipe import Augment

CROP_RATIO, CROP_TRIES = (3 / 4, 4 / 3), 10  # as torchvision's RandomResizedCrop

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]

# AutoAugment's policy for CIFAR-10 (Cubuk et al., CVPR 2019, appendix, table 7): an operation, its probability, and its
# magnitude, a bin from 0 to 9; 0 where the operation has none.
POLICY = (
    (("invert", 0.1, 0), ("contrast", 0.2, 6)),
    (("rotate", 0.7, 2), ("translate_x", 0.3, 9)),
    (("sharpness", 0.8, 1), ("sharpness", 0.9, 3)),
    (("shear_y", 0.5, 8), ("translate_y", 0.7, 9)),
    (("autocontrast", 0.5, 0), ("equalize", 0.9, 0)),
    (("shear_y", 0.2, 7), ("posterize", 0.3, 7)),
    (("color", 0.4, 3), ("brightness", 0.6, 7)),
    (("sharpness", 0.3, 9), ("brightness", 0.7, 9)),
    (("equalize", 0.6, 0), ("equalize", 0.5, 0)),
    (("contrast", 0.6, 7), ("sharpness", 0.6, 5)),
    (("color", 0.7, 7), ("translate_x", 0.5, 8)),
    (("equalize", 0.3, 0), ("autocontrast", 0.4, 0)),
    (("translate_y", 0.4, 3), ("sharpness", 0.2, 6)),
    (("brightness", 0.9, 6), ("color", 0.2, 8)),
    (("solarize", 0.5, 2), ("invert", 0.0, 0)),
    (("equalize", 0.2, 0), ("autocontrast", 0.6, 0)),
    (("equalize", 0.2, 0), ("equalize", 0.6, 0)),
    (("color", 0.9, 9), ("equalize", 0.6, 0)),
    (("autocontrast", 0.8, 0), ("solarize", 0.2, 8)),
    (("brightness", 0.1, 3), ("color", 0.7, 0)),
    (("solarize", 0.4, 5), ("autocontrast", 0.9, 0)),
    (("translate_y", 0.9, 9), ("translate_y", 0.7, 9)),
    (("autocontrast", 0.9, 0), ("solarize", 0.8, 3)),
    (("equalize", 0.8, 0), ("invert", 0.1, 0)),
    (("translate_y", 0.7, 9), ("autocontrast", 0.9, 0)),
)
# Parameters at bin 0, and at bin 9 for either sign; the bins between are equally far apart. A rotation has no sign: the
# papers' code turns every image the same way.
MAGNITUDES = {
    "rotate": (0.0, 30.0, 30.0),  # degrees, counter-clockwise
    "shear_y": (0.0, -0.3, 0.3),  # pixels down for each pixel to the right
    "translate_x": (0.0, -150 / 331, 150 / 331),  # of the width
    "translate_y": (0.0, -150 / 331, 150 / 331),  # of the height
    "brightness": (1.0, 0.1, 1.9),  # factors
    "color": (1.0, 0.1, 1.9),
    "contrast": (1.0, 0.1, 1.9),
    "sharpness": (1.0, 0.1, 1.9),
    "posterize": (8.0, 4.0, 4.0),  # bits kept, rounded to a whole number
    "solarize": (256.0, 0.0, 0.0),  # grey level from which a value is inverted
}
JITTER = ("brightness", "contrast", "color")
# RandAugment's operations (Cubuk et al., NeurIPS 2020), of which the first does nothing, with their parameters at the
# largest of 30 bins, as in torchvision; those between are equally far apart. "": there is none.
RAND_OPERATIONS = ("", "shear_x", "shear_y", "translate_x", "translate_y", "rotate", *JITTER, "sharpness", "posterize",
    "solarize", "autocontrast", "equalize")  # fmt: skip
RAND_MAGNITUDES = MAGNITUDES | {"shear_x": (0.0, -0.3, 0.3), "rotate": (0.0, -30.0, 30.0)}
RAND_BINS = 30
ERASED_AREA, ERASED_RATIO = (0.02, 1 / 3), (0.3, 10 / 3)  # as in timm and torchvision
BLUR = (0.1, 2.0)  # standard deviations in pixels
ON_HOST = ("host_code", "seed")  # tensors of a plan that the host works with
# Principal components of ImageNet's RGB values on the scale 0 to 1, a column each, and their eigenvalues, as Torch's
# ResNet training handed them on.
COMPONENTS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))
EIGENVALUES = (0.2175, 0.0188, 0.0045)


# ---- plans ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AugmentPlan:
    """What is done to each of n images. A slice of a plan is the plan of those images."""

    shift: Tensor  # (n, 2) row and column where the crop starts in the padded image
    flip: Tensor  # (n,) whether the image is mirrored
    box: Tensor | None  # (n, 4) top, left, height and width of the part that is enlarged to the whole image
    code: Tensor  # (n, steps) operation of each step: place in `OPERATIONS`, from 1; 0: none
    host_code: Tensor  # the same, on the host
    value: Tensor  # (n, steps) parameter of each operation
    light: Tensor | None  # (n, 3) grey levels that are added to red, green and blue
    centre: Tensor | None  # (n, 2) row and column of the centre of Cutout's square
    cutout: int  # side of that square
    erased: Tensor | None  # (n, 4) top, left, bottom and right of the rectangle that is painted black
    seed: Tensor | None = None  # (n,) on the host: images that are read from files draw their crop and flip from it
    strong: bool = False  # whether crop and flip of such images are those of a strong view
    possible: tuple[tuple[str, ...], ...] = ()  # for each step the operations that the recipe has

    def __len__(self) -> int:
        return len(self.shift)

    def __getitem__(self, where: slice) -> AugmentPlan:
        return self._map(lambda _, tensor: tensor[where])

    def at(self, positions: Tensor) -> AugmentPlan:
        """The plan of these positions, shape (B,)."""
        return self._map(lambda _, tensor: tensor[positions.to(tensor.device)])

    def to(self, device: torch.device) -> AugmentPlan:
        """The plan on the device, except what the host works with."""
        return self._map(lambda name, tensor: tensor if name in ON_HOST else tensor.to(device))

    def copied(self) -> AugmentPlan:
        """The plan in memory of its own."""
        return self._map(lambda _, tensor: tensor.clone())

    def on_device(self) -> list[Tensor]:
        """Its tensors but for the host's own, always in the same order."""
        return [value for name, value in vars(self).items() if isinstance(value, Tensor) and name not in ON_HOST]

    def _map(self, change: Callable[[str, Tensor], Tensor]) -> AugmentPlan:
        fields = vars(self).items()
        changed: dict[str, Any] = {name: change(name, value) for name, value in fields if isinstance(value, Tensor)}
        return dataclasses.replace(self, **changed)


def joined_augment(plans: Sequence[AugmentPlan]) -> AugmentPlan:
    """Plans of one recipe one after the other."""
    return plans[0]._map(lambda name, _: torch.cat([getattr(plan, name) for plan in plans]))


def check_channels(augment: Augment, channels: int) -> None:
    """Checks that images with this many channels can be augmented this way.

    Raises:
        UserError: colours of images that are neither RGB nor grey, or lighting of images that are not RGB.
    """
    colours = augment.auto_augment != "none" or augment.rand_augment or augment.color_jitter or augment.grey
    if colours and channels not in (1, 3):
        keys = "auto_augment, rand_augment, color_jitter and grey"
        raise UserError(f"augment: {keys} need images of 1 or 3 channels, found {channels}")
    if augment.lighting and channels != 3:
        raise UserError(f"augment: lighting needs RGB images, found images with {channels} channel(s)")


def draw_augment(augment: Augment, count: int, image_shape: Sequence[int], rng: np.random.Generator) -> AugmentPlan:
    """Draws what is done to each of `count` images.

    Crops and flips come from `rng` itself. Everything else has a generator of its own, so that with one seed a recipe
    with AutoAugment and one without it see the same crops, flips and mixup.

    Args:
        image_shape: height, width, channels.
    """
    of_box, of_policy, of_jitter, of_light, of_cutout, of_grey, of_blur = rng.spawn(7)
    shift = rng.integers(0, 2 * augment.crop_padding + 1, (count, 2))
    flip = rng.random(count) < 0.5 if augment.flip else np.zeros(count, dtype=bool)
    steps = [(np.zeros((count, 0), np.int64), np.zeros((count, 0), np.float32))]
    if augment.auto_augment == "cifar10":
        steps.append(_draw_policy(count, of_policy))
    if augment.color_jitter:
        steps.append(_draw_jitter(augment, count, of_jitter))
    if augment.grey:
        steps.append(_draw_one("color", augment.grey, (0.0, 0.0), count, of_grey))
    if augment.blur:
        steps.append(_draw_one("blur", augment.blur, BLUR, count, of_blur))
    if augment.rand_augment:
        steps.append(_draw_rand_augment(augment, count, of_policy))
    erased = _draw_erased(augment.random_erasing, count, image_shape, rng) if augment.random_erasing else None
    code = torch.from_numpy(np.concatenate([codes for codes, _ in steps], 1))
    possible = _possible(augment)
    assert len(possible) == code.shape[1]
    return AugmentPlan(
        shift=torch.from_numpy(shift),
        flip=torch.from_numpy(flip),
        box=torch.from_numpy(_draw_boxes(count, image_shape, of_box, augment.crop_area))
        if augment.resized_crop
        else None,
        code=code,
        host_code=code,
        value=torch.from_numpy(np.concatenate([values for _, values in steps], 1)),
        light=torch.from_numpy(_draw_light(augment.lighting, count, of_light)) if augment.lighting else None,
        centre=torch.from_numpy(of_cutout.integers(0, image_shape[:2], (count, 2))) if augment.cutout else None,
        cutout=augment.cutout,
        erased=None if erased is None else torch.from_numpy(erased),
        possible=possible,
    )


def _possible(augment: Augment) -> tuple[tuple[str, ...], ...]:
    """The operations that each step of a plan may have, in the order in which `draw_augment` draws the steps."""
    found: list[tuple[str, ...]] = []
    if augment.auto_augment == "cifar10":
        found += [tuple(sorted({pair[place][0] for pair in POLICY})) for place in (0, 1)]
    if augment.color_jitter:
        names = _jitter_names(augment)
        found += [names] * len(names)
    found += [("color",)] if augment.grey else []
    found += [("blur",)] if augment.blur else []
    if augment.rand_augment:
        found += [RAND_OPERATIONS[1:]] * augment.rand_operations
    return tuple(found)


def _jitter_names(augment: Augment) -> tuple[str, ...]:
    return (*JITTER, "hue") if augment.hue else JITTER


def _draw_policy(count: int, rng: np.random.Generator) -> tuple[Integers, Floats]:
    """Codes and parameters of two operations an image: a sub-policy, whether each operation happens, and its sign."""
    codes, probabilities, values = _policy_tables()
    chosen = rng.integers(0, len(POLICY), count)
    happens = rng.random((count, 2)) < probabilities[chosen]
    sign = rng.integers(0, 2, (count, 2))
    return np.where(happens, codes[chosen], 0), values[chosen[:, None], np.arange(2), sign]


@cache
def _policy_tables() -> tuple[Integers, npt.NDArray[np.float64], Floats]:
    """`POLICY` as arrays of code and probability, shape (25, 2), and of parameters by sign, shape (25, 2, 2)."""
    codes = np.array([[CODES[name] for name, _, _ in pair] for pair in POLICY])
    probabilities = np.array([[probability for _, probability, _ in pair] for pair in POLICY])
    values = np.array([[_parameters(name, level) for name, _, level in pair] for pair in POLICY], np.float32)
    return codes, probabilities, values


def _parameters(name: str, level: int) -> tuple[float, float]:
    """An operation's parameter at a bin of its magnitude, for the negative sign and for the positive one."""
    start, *ends = MAGNITUDES.get(name, (0.0, 0.0, 0.0))
    negative, positive = (start + level / 9 * (end - start) for end in ends)
    return (round(negative), round(positive)) if name == "posterize" else (negative, positive)


def _draw_rand_augment(augment: Augment, count: int, rng: np.random.Generator) -> tuple[Integers, Floats]:
    """Codes and parameters of the operations of each image, drawn with replacement, and a sign for each."""
    level = augment.rand_augment / RAND_BINS
    table = [RAND_MAGNITUDES.get(name, (0.0, 0.0, 0.0)) for name in RAND_OPERATIONS]
    values = np.array([[start + level * (end - start) for end in ends] for start, *ends in table], np.float32)
    values[RAND_OPERATIONS.index("posterize")] = round(8 - 4 * level)
    codes = np.array([CODES.get(name, 0) for name in RAND_OPERATIONS])
    chosen, sign = (rng.integers(0, many, (count, augment.rand_operations)) for many in (len(codes), 2))
    return codes[chosen], values[chosen, sign]


def _draw_erased(probability: float, count: int, image_shape: Sequence[int], rng: np.random.Generator) -> Integers:
    """Rectangles by the rule of timm's RandomErasing: of ten random sizes the first that fits; an empty one else."""
    (own,), shape = rng.spawn(1), np.array(image_shape[:2])
    sizes, fits = _random_sizes(count, image_shape, ERASED_AREA, ERASED_RATIO, own)
    fits &= (sizes < shape).all(-1)
    size = np.take_along_axis(sizes, fits.argmax(1)[:, None, None], 1)[:, 0]
    happens: npt.NDArray[np.bool_] = fits.any(1) & (own.random(count) < probability)
    size = np.where(happens[:, None], size, 0)
    corner = own.integers(0, shape - size + 1)
    return np.concatenate([corner, corner + size], 1)


def _draw_jitter(augment: Augment, count: int, rng: np.random.Generator) -> tuple[Integers, Floats]:
    """Codes and parameters of the operations of colour jitter, each once, in random order."""
    names, strength = _jitter_names(augment), augment.color_jitter
    order = rng.permuted(np.tile([CODES[name] for name in names], (count, 1)), axis=1)
    values = rng.uniform(max(0.0, 1 - strength), 1 + strength, (count, len(names)))
    if augment.hue:
        values = np.where(order == CODES["hue"], rng.uniform(-augment.hue, augment.hue, (count, 1)), values)
    if augment.jitter_share < 1:
        order[rng.random(count) >= augment.jitter_share] = 0
    return order, values.astype(np.float32)


def _draw_one(
    name: str, share: float, bounds: tuple[float, float], count: int, rng: np.random.Generator
) -> tuple[Integers, Floats]:
    """Codes and parameters of one operation, which a share of the images gets."""
    values = rng.uniform(*bounds, (count, 1)).astype(np.float32)
    return np.where(rng.random((count, 1)) < share, CODES[name], 0), values


def _draw_light(std: float, count: int, rng: np.random.Generator) -> Floats:
    """Grey levels along the principal components of RGB values (Krizhevsky et al., NeurIPS 2012, section 4.1)."""
    amounts = rng.normal(0, std, (count, 3)) * EIGENVALUES
    return np.asarray(255 * amounts @ np.array(COMPONENTS).T, np.float32)


def _draw_boxes(count: int, image_shape: Sequence[int], rng: np.random.Generator, smallest: float) -> Integers:
    """Boxes by the rule of torchvision's RandomResizedCrop: of ten random sizes the first that fits."""
    height, width = image_shape[:2]
    sizes, fits = _random_sizes(count, image_shape, (smallest, 1.0), CROP_RATIO, rng)
    size = np.take_along_axis(sizes, fits.argmax(1)[:, None, None], 1)[:, 0]
    fitting = np.asarray(fits.any(1))[:, None]
    size = np.where(fitting, size, np.array(_largest_box(height, width)))
    free = np.array((height, width)) - size
    corner = np.where(fitting, rng.integers(0, free + 1), free // 2)
    return np.concatenate([corner, size], 1)


def _random_sizes(
    count: int,
    image_shape: Sequence[int],
    areas: tuple[float, float],
    ratios: tuple[float, float],
    rng: np.random.Generator,
) -> tuple[Integers, npt.NDArray[np.bool_]]:
    """Ten random heights and widths an image, shape (n, 10, 2), and which of them fit into it, shape (n, 10)."""
    height, width = image_shape[:2]
    area = height * width * rng.uniform(*areas, (count, CROP_TRIES))
    narrow, wide = np.log(ratios)
    ratio = np.exp(rng.uniform(narrow, wide, (count, CROP_TRIES)))
    sizes = np.rint(np.stack([np.sqrt(area / ratio), np.sqrt(area * ratio)], -1)).astype(np.int64)
    return sizes, ((sizes > 0) & (sizes <= (height, width))).all(-1)


def _largest_box(height: int, width: int) -> tuple[int, int]:
    """Height and width of the largest box that has an allowed ratio; it stands in where no random one fits."""
    narrow, wide = CROP_RATIO
    if width / height < narrow:
        return round(width / narrow), width
    return height, round(height * wide) if width / height > wide else width


# ---- applying them -------------------------------------------------------------------------------------------------


def resized_crop(images: Tensor, box: Tensor, flip: Tensor) -> Tensor:
    """Parts of the images, enlarged to their size (bilinear) and mirrored where wanted.

    A part is never larger than its image, so torchvision's antialias, which is for shrinking, has nothing to do here.

    Args:
        images: uint8, shape (n, channels, H, W).
        box: top, left, height and width of each part in pixels, shape (n, 4).
        flip: whether to mirror, shape (n,).
    """
    height, width = images.shape[-2:]
    top, left, box_height, box_width = box[:, :, None].float().unbind(1)
    rows = _inside(pixel_centres(height, images) / height, top, box_height)
    across = torch.where(flip[:, None], pixel_centres(width, images).flip(0), pixel_centres(width, images))
    cols = _inside(across / width, left, box_width)
    across, down = 2 * cols[:, None] / width - 1, 2 * rows[:, :, None] / height - 1
    grid = torch.stack((across.expand(-1, height, -1), down.expand(-1, -1, width)), -1)
    found = F.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)
    return found.round_().clamp_(0, 255).to(torch.uint8)


def _inside(share: Tensor, start: Tensor, size: Tensor) -> Tensor:
    """Positions in the image at shares of a box, not nearer to its border than half a pixel: what is outside of the box
    must not be mixed in."""
    return start + (share * size).clamp(min=torch.full_like(size, 0.5), max=size - 0.5)


def apply_plan(images: Tensor, plan: AugmentPlan, *, operations: bool = True, fixed_shapes: bool = False) -> Tensor:
    """Does the rest of the plan to cropped and mirrored images; uint8, or float32 on the scale 0 to 255.

    Args:
        images: uint8, shape (n, channels, H, W); they are left as they are.
        plan: of the same n images, on their device.
        operations: whether its operations are still to be done.
        fixed_shapes: whether no tensor's shape may hang on what was drawn; the same images at a higher price.
    """
    if operations and fixed_shapes:
        images = apply_to_all(images, plan.code, plan.value, plan.possible)
    elif operations:
        images = apply_operations(images, plan.code, plan.value, plan.host_code)
    if plan.light is not None:
        images = images + plan.light[:, :, None, None]
    if plan.erased is not None:
        images = images * ~inside(plan.erased, images)
    return images if plan.centre is None else cut_out(images, plan.centre, plan.cutout)


def apply_operations(images: Tensor, code: Tensor, value: Tensor, host_code: Tensor) -> Tensor:
    """The images after the steps of their plan.

    Args:
        images: uint8, shape (n, channels, H, W); they are left as they are.
        code, value, host_code: as in `AugmentPlan`, of the same n images.
    """
    if host_code.shape[1]:
        images = images.contiguous()
    if len(images) == 1 and all(one in BLENDS for one in host_code[0].tolist() if one):
        return _blended(images, value[0], host_code[0].tolist())
    for step in range(host_code.shape[1]):
        images = _apply_step(images, code[:, step], value[:, step], host_code[:, step])
    return images


def _blended(image: Tensor, value: Tensor, codes: Sequence[int]) -> Tensor:
    """As the steps of a plan give it, but as floats in between: a processor turns one into the other slowly."""
    values = image.float()
    for step, code in enumerate(codes):
        values = BLENDS[code](values, value[step : step + 1]) if code else values
    return values.to(torch.uint8)


def _apply_step(images: Tensor, code: Tensor, value: Tensor, host_code: Tensor) -> Tensor:
    order = code.argsort(stable=True)
    images, value = images.index_select(0, order), value[order]
    sizes = torch.bincount(host_code, minlength=len(OPERATIONS) + 1).tolist()
    start = sizes[0]
    for operation, size in zip(OPERATIONS.values(), sizes[1:], strict=True):
        if size:
            images[start : start + size] = operation(images[start : start + size], value[start : start + size])
        start += size
    return images.index_select(0, order.argsort())


def apply_to_all(images: Tensor, code: Tensor, value: Tensor, possible: Sequence[Sequence[str]]) -> Tensor:
    """As `apply_operations`; each possible operation is done to all images, and kept where the code asks for it."""
    for step, names in enumerate(possible):
        given = images.contiguous()
        for name in names:
            wanted = (code[:, step] == CODES[name])[:, None, None, None]
            images = torch.where(wanted, OPERATIONS[name](given, value[:, step]), images)
    return images


def cut_out(images: Tensor, centre: Tensor, side: int) -> Tensor:
    """The images with a square of zeros, clipped at the border of the image (DeVries & Taylor, arXiv:1708.04552).

    Args:
        images: shape (n, channels, H, W).
        centre: row and column, shape (n, 2); the square starts at centre - side // 2.
        side: in pixels.
    """
    start = centre - side // 2
    return images * ~inside(torch.cat([start, start + side], 1), images)


def inside(box: Tensor, images: Tensor) -> Tensor:
    """Which pixels of the images (n, channels, H, W) lie in their boxes (n, 4): top, left, bottom and right, the last
    two not included. Shape (n, 1, H, W)."""
    top, left, bottom, right = box[:, :, None].unbind(1)
    rows, cols = (torch.arange(size, device=images.device) for size in images.shape[2:])
    return (((rows >= top) & (rows < bottom))[:, :, None] & ((cols >= left) & (cols < right))[:, None])[:, None]


def pasted(images: Tensor, others: Tensor, box: Tensor, mixed: Tensor) -> Tensor:
    """The images with the box, shape (4,), of the others; `mixed` where the box is empty, without asking the device."""
    there = torch.where((box[2:] > box[:2]).all(), images, mixed)
    return torch.where(inside(box[None], images), others, there)
