"""Batched augmentation against Pillow and torchvision, image by image; and the distributions of what is drawn."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps
from scipy import stats
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.transforms import InterpolationMode, RandAugment, RandomResizedCrop
from torchvision.transforms.v2 import functional as reference

from harness.base.errors import UserError
from harness.feed.augment import (
    COMPONENTS,
    EIGENVALUES,
    POLICY,
    RAND_OPERATIONS,
    AugmentPlan,
    _parameters,
    apply_operations,
    apply_plan,
    apply_to_all,
    check_channels,
    cut_out,
    draw_augment,
    pasted,
    resized_crop,
)
from harness.feed.image_operations import CODES, OPERATIONS
from harness.feed.plans import EpochPlan, plan_epoch
from harness.spec.stage_recipe import Augment

EVERYTHING = Augment(
    resized_crop=True,
    flip=True,
    auto_augment="cifar10",
    color_jitter=0.4,
    lighting=0.1,
    cutout=5,
    crop_area=0.2,
    jitter_share=0.8,
    hue=0.1,
    grey=0.2,
    blur=0.5,
)
DRAWS = 20000
Pixels = npt.NDArray[np.uint8]


def picture(shape: tuple[int, ...], seed: int = 0) -> Pixels:
    """Smooth with a little noise, as photographs are; shape (height, width) or (height, width, 3)."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (5, 6, *shape[2:]), dtype=np.uint8)
    smooth = np.array(Image.fromarray(coarse).resize((shape[1], shape[0]), Image.Resampling.BICUBIC), np.int64)
    noisy: Pixels = np.clip(smooth + rng.integers(-8, 9, shape), 0, 255).astype(np.uint8)
    return noisy


def batch_of(*images: Pixels) -> Tensor:
    stack = np.stack([image.reshape(*image.shape[:2], -1) for image in images])
    return torch.from_numpy(stack).permute(0, 3, 1, 2).contiguous()


def applied(images: Tensor, plan: AugmentPlan) -> Tensor:
    return apply_operations(images, plan.code, plan.value, plan.host_code)


def draw(augment: Augment, count: int = DRAWS, shape: Sequence[int] = (32, 32, 3), seed: int = 0) -> AugmentPlan:
    return draw_augment(augment, count, shape, np.random.default_rng(seed))


def tensors(plan: AugmentPlan) -> dict[str, Tensor]:
    values = {field.name: getattr(plan, field.name) for field in dataclasses.fields(plan)}
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}


def assert_same(one: AugmentPlan, other: AugmentPlan) -> None:
    left, right = tensors(one), tensors(other)
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 3]), st.integers(1, 40))
def test_an_image_alone_is_changed_as_in_a_batch(seed: int, channels: int, side: int) -> None:
    """One that is read from a file keeps its values as floats between the steps of colour jitter: the same bits."""
    images = torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (6, channels, side, side), dtype=np.uint8))
    plan = draw(Augment(color_jitter=1.0, jitter_share=0.8), 6, seed=seed)
    alone = [applied(images[i : i + 1], plan[i : i + 1]) for i in range(6)]
    assert torch.equal(torch.cat(alone), applied(images, plan))


# ---- operations ----------------------------------------------------------------------------------------------------


def in_policy() -> list[tuple[str, float]]:
    """Every operation with every parameter that AutoAugment's policy can give it."""
    found = {(name, value) for pair in POLICY for name, _, level in pair for value in _parameters(name, level)}
    return sorted(found)


def pillow(name: str, image: Image.Image, value: float) -> Image.Image:
    """The operation as the papers' code has it."""
    grey = 128 if image.mode == "L" else (128, 128, 128)

    def affine(*matrix: float, how: Image.Resampling = Image.Resampling.NEAREST) -> Image.Image:
        return image.transform(image.size, Image.Transform.AFFINE, matrix, how, fillcolor=grey)

    enhancers = {"color": "Color", "brightness": "Brightness", "contrast": "Contrast", "sharpness": "Sharpness"}
    if name in enhancers:
        enhanced: Image.Image = getattr(ImageEnhance, enhancers[name])(image).enhance(value)
        return enhanced
    forms: dict[str, Callable[[], Image.Image]] = {
        "rotate": lambda: image.rotate(value, fillcolor=grey),
        "translate_x": lambda: affine(1, 0, value * image.width, 0, 1, 0),
        "translate_y": lambda: affine(1, 0, 0, 0, 1, value * image.height),
        "shear_x": lambda: affine(1, value, 0, 0, 1, 0, how=Image.Resampling.BICUBIC),
        "shear_y": lambda: affine(1, 0, 0, value, 1, 0, how=Image.Resampling.BICUBIC),
        "posterize": lambda: ImageOps.posterize(image, int(value)),
        "solarize": lambda: ImageOps.solarize(image, value),  # type: ignore[arg-type]
        "autocontrast": lambda: ImageOps.autocontrast(image),
        "equalize": lambda: ImageOps.equalize(image),
        "invert": lambda: ImageOps.invert(image),
    }
    return forms[name]()


@pytest.mark.parametrize("shape", [(32, 32, 3), (24, 40, 3), (24, 40)], ids=["square", "wide", "grey"])
@pytest.mark.parametrize(("name", "value"), [*in_policy(), ("solarize", 256.0), ("posterize", 8.0), ("shear_x", 0.09)])
def test_operations_equal_pillows(name: str, value: float, shape: tuple[int, ...]) -> None:
    pictures = [picture(shape, seed) for seed in range(6)]
    found = OPERATIONS[name](batch_of(*pictures), torch.full((6,), value))
    expected = batch_of(*(np.array(pillow(name, Image.fromarray(image), value)) for image in pictures))
    assert found.dtype == torch.uint8
    difference = (found.int() - expected.int()).abs()
    assert int(difference.max()) <= 1
    assert float((difference > 0).float().mean()) < 0.02  # where bicubic weights round to the other side


def torchvisions(name: str, image: Tensor, value: float) -> Tensor:
    nearest: dict[str, Any] = {"interpolation": InterpolationMode.NEAREST, "fill": [128.0] * 3}
    height, width = image.shape[-2:]

    def moved(x: float, y: float) -> Tensor:
        found: Tensor = reference.affine(image, 0.0, [x, y], 1.0, [0.0, 0.0], **nearest)
        return found

    forms: dict[str, Callable[[], Tensor]] = {
        "rotate": lambda: reference.rotate(image, value, **nearest),
        "translate_x": lambda: moved(-round(value * width), 0),  # its AutoAugment cuts where Pillow rounds
        "translate_y": lambda: moved(0, -round(value * height)),
        "brightness": lambda: reference.adjust_brightness(image, value),
        "color": lambda: reference.adjust_saturation(image, value),
        "contrast": lambda: reference.adjust_contrast(image, value),
        "sharpness": lambda: reference.adjust_sharpness(image, value),
        "posterize": lambda: reference.posterize(image, int(value)),
        "solarize": lambda: reference.solarize(image, min(value, 255.0)),
        "autocontrast": lambda: reference.autocontrast(image),
        "equalize": lambda: reference.equalize(image),
        "invert": lambda: reference.invert(image),
    }
    return forms[name]()


@pytest.mark.parametrize(("name", "value"), [item for item in in_policy() if item[0] != "shear_y"])
def test_operations_equal_torchvisions(name: str, value: float) -> None:
    """All but the shear, for which torchvision's tensors have no bicubic interpolation."""
    images = batch_of(*(picture((32, 32, 3), seed) for seed in range(6)))
    found = OPERATIONS[name](images, torch.full((6,), value))
    # It cuts the grey value of a pixel to a whole number where Pillow rounds it: one level, times up to 0.9.
    tolerance = 2 if name in ("color", "contrast") else 1
    assert int((found.int() - torchvisions(name, images, value).int()).abs().max()) <= tolerance


@pytest.mark.parametrize("name", OPERATIONS)
def test_each_image_has_its_own_parameter(name: str) -> None:
    images = batch_of(*(picture((16, 20, 3), seed) for seed in range(4)))
    scale = {"rotate": 30, "solarize": 255, "posterize": 8}.get(name, 1)
    values = scale * torch.tensor([0.25, 0.5, 0.75, 1.0])
    one_by_one = [OPERATIONS[name](images[i : i + 1], values[i : i + 1]) for i in range(4)]
    assert torch.equal(OPERATIONS[name](images, values), torch.cat(one_by_one))


@pytest.mark.parametrize("turn", [-0.5, -0.1, 0.0, 0.07, 0.5])
def test_hue_equals_torchvisions(turn: float) -> None:
    images = batch_of(*(picture((32, 32, 3), seed) for seed in range(6)))
    found = OPERATIONS["hue"](images, torch.full((6,), turn))
    assert int((found.int() - reference.adjust_hue(images, turn).int()).abs().max()) <= 1
    grey = images[:, :1]
    assert torch.equal(OPERATIONS["hue"](grey, torch.full((6,), turn)), grey)
    assert torch.equal(OPERATIONS["hue"](grey.expand_as(images), torch.full((6,), turn)), grey.expand_as(images))


@pytest.mark.parametrize("std", [0.1, 0.7, 2.0])
def test_blur_equals_torchvisions(std: float) -> None:
    """But at the border, which torchvision reflects."""
    images = batch_of(*(picture((32, 32, 3), seed) for seed in range(6)))
    found = OPERATIONS["blur"](images, torch.full((6,), std))
    expected = reference.gaussian_blur(images, [13, 13], [std, std])
    assert int((found.int() - expected.int())[..., 6:-6, 6:-6].abs().max()) <= 1
    flat = torch.full_like(images, 77)
    assert torch.equal(OPERATIONS["blur"](flat, torch.full((6,), std)), flat)


def test_a_rotation_is_counter_clockwise() -> None:
    images = batch_of(picture((9, 9, 3)))
    turned = OPERATIONS["rotate"](images, torch.tensor([90.0]))
    assert torch.equal(turned, images.rot90(1, (2, 3)))


def test_tiny_images_have_nothing_to_sharpen() -> None:
    images = batch_of(picture((2, 5, 3)))
    assert torch.equal(OPERATIONS["sharpness"](images, torch.tensor([1.9])), images)


# ---- crops, Cutout -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(32, 32, 3), (24, 40, 3), (17, 11)])
def test_resized_crops_equal_torchvisions(shape: tuple[int, ...]) -> None:
    images = batch_of(*(picture(shape, seed) for seed in range(40)))
    plan = draw(Augment(resized_crop=True, flip=True), 40, (*shape[:2], 3))
    assert plan.box is not None
    found = resized_crop(images, plan.box, plan.flip)
    for image, box, flip, result in zip(images, plan.box.tolist(), plan.flip.tolist(), found, strict=True):
        expected = reference.resized_crop(image, *box, size=list(shape[:2]), antialias=True)
        expected = expected.flip(-1) if flip else expected
        assert int((result.int() - expected.int()).abs().max()) <= 1


@pytest.mark.parametrize("side", [1, 5, 16, 100])
def test_cutout_is_a_clipped_square(side: int) -> None:
    images = batch_of(*[np.full((12, 20, 3), 7, np.uint8)] * 6)
    centres = [(0, 0), (11, 19), (6, 10), (0, 10), (3, 19), (8, 1)]
    found = cut_out(images, torch.tensor(centres), side)
    for (row, col), result in zip(centres, found, strict=True):
        expected = np.full((12, 20), 7)
        top, left = row - side // 2, col - side // 2
        expected[max(0, top) : top + side, max(0, left) : left + side] = 0
        assert all(np.array_equal(channel, expected) for channel in result.numpy())
    assert int(images.min()) == 7


def test_cutout_centres_are_uniform_over_the_image() -> None:
    plan = draw(Augment(cutout=16), shape=(8, 12, 3))
    assert plan.centre is not None
    cells = np.bincount((plan.centre[:, 0] * 12 + plan.centre[:, 1]).numpy(), minlength=96)
    assert len(cells) == 96
    assert stats.chisquare(cells).pvalue > 0.001


@pytest.mark.parametrize("shape", [(224, 224), (64, 48), (96, 32), (40, 96)])
def test_boxes_are_drawn_as_torchvisions(shape: tuple[int, int]) -> None:
    """Squares, and shapes of which many or most random boxes do not fit."""
    plan = draw(Augment(resized_crop=True), 3000, (*shape, 3), seed=1)
    assert plan.box is not None
    torch.manual_seed(2)
    image = torch.empty(1, *shape)
    theirs = np.array([RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(3000)])
    for of_box in (lambda b: b[:, 0], lambda b: b[:, 1], lambda b: b[:, 2] * b[:, 3], lambda b: b[:, 3] / b[:, 2]):
        assert stats.ks_2samp(of_box(plan.box.numpy()), of_box(theirs)).pvalue > 0.001


@pytest.mark.parametrize(("shape", "size"), [((400, 10), (13, 10)), ((10, 400), (10, 13)), ((1, 1), (1, 1))])
def test_where_no_box_fits_the_largest_allowed_one_in_the_middle_is_taken(
    shape: tuple[int, int], size: tuple[int, int]
) -> None:
    plan = draw(Augment(resized_crop=True), 300, (*shape, 3))
    assert plan.box is not None
    middle = [(shape[0] - size[0]) // 2, (shape[1] - size[1]) // 2, *size]
    assert middle in plan.box.tolist()


# ---- what is drawn -------------------------------------------------------------------------------------------------


def names_of(plan: AugmentPlan) -> npt.NDArray[np.str_]:
    names: npt.NDArray[np.str_] = np.array(["", *OPERATIONS])[plan.host_code.numpy()]
    return names


def test_operations_are_as_frequent_as_the_policy_says() -> None:
    names = names_of(draw(Augment(auto_augment="cifar10")))
    assert names.shape == (DRAWS, 2)
    for slot in (0, 1):
        for name in OPERATIONS:
            expected = sum(pair[slot][1] for pair in POLICY if pair[slot][0] == name) / len(POLICY)
            assert np.mean(names[:, slot] == name) == pytest.approx(expected, abs=0.01)


def test_sub_policies_are_uniform_and_their_operations_independent() -> None:
    """Of pairs that only one sub-policy has: probability 1/25 times that of both operations."""
    names = names_of(draw(Augment(auto_augment="cifar10"), 100_000))
    pairs = [(pair[0][0], pair[1][0]) for pair in POLICY]
    assert len(POLICY) == 25
    for pair in POLICY:
        (first, p, _), (second, q, _) = pair
        if pairs.count((first, second)) == 1:
            share = np.mean((names[:, 0] == first) & (names[:, 1] == second))
            assert share == pytest.approx(p * q / 25, abs=0.002)


def test_signs_are_even_and_a_rotation_has_none() -> None:
    plan = draw(Augment(auto_augment="cifar10"))
    names, values = names_of(plan), plan.value.numpy()
    for name, middle in (("shear_y", 0.0), ("translate_x", 0.0), ("translate_y", 0.0), ("brightness", 1.0)):
        assert np.mean(values[names == name] > middle) == pytest.approx(0.5, abs=0.05)
    assert set(values[names == "rotate"]) == {np.float32(30 * 2 / 9)}
    assert set(values[names == "posterize"]) == {5}


def test_magnitudes_are_ten_equal_bins() -> None:
    assert _parameters("translate_x", 9) == pytest.approx((-150 / 331, 150 / 331))
    assert _parameters("color", 0) == (1.0, 1.0)
    assert _parameters("contrast", 6) == pytest.approx((0.4, 1.6))
    assert [_parameters("posterize", level)[0] for level in range(10)] == [8, 8, 7, 7, 6, 6, 5, 5, 4, 4]
    assert _parameters("solarize", 3) == pytest.approx((256 * 2 / 3, 256 * 2 / 3))
    assert _parameters("invert", 0) == (0.0, 0.0)


@pytest.mark.parametrize(("strength", "low"), [(0.4, 0.6), (1.5, 0.0)])
def test_jitter_has_each_operation_once_in_random_order_with_uniform_factors(strength: float, low: float) -> None:
    plan = draw(Augment(color_jitter=strength))
    codes, counts = np.unique(plan.code.numpy(), axis=0, return_counts=True)
    wanted = sorted(CODES[name] for name in ("brightness", "contrast", "color"))
    assert all(sorted(row) == wanted for row in codes.tolist())
    assert len(codes) == 6
    assert stats.chisquare(counts).pvalue > 0.001
    uniform = stats.uniform(low, 1 + strength - low)
    for code in set(plan.code.flatten().tolist()):
        assert stats.kstest(plan.value[plan.code == code].numpy(), uniform.cdf).pvalue > 0.001


def test_hue_grey_and_blur_are_drawn_as_often_as_asked() -> None:
    jittered = draw(Augment(color_jitter=0.4, hue=0.1, jitter_share=0.8))
    names, hue = names_of(jittered), jittered.code == CODES["hue"]
    assert {*names.ravel()} == {"", "brightness", "contrast", "color", "hue"}
    assert abs(float((names != "").all(1).mean()) - 0.8) < 0.02
    assert bool((hue.any(1) == (jittered.code > 0).all(1)).all())
    turns = jittered.value[hue]
    assert -0.1 <= float(turns.min()) < -0.09
    assert 0.09 < float(turns.max()) <= 0.1

    plan = draw(Augment(grey=0.2, blur=0.5))
    grey, blurred = (plan.code > 0).float().mean(0).tolist()
    assert grey == pytest.approx(0.2, abs=0.02)
    assert blurred == pytest.approx(0.5, abs=0.02)
    assert {*names_of(plan)[:, 0]} == {"", "color"}
    assert bool((plan.value[:, 0] == 0).all())
    std = plan.value[plan.code == CODES["blur"]]
    assert 0.1 <= float(std.min()) < 0.12
    assert 1.98 < float(std.max()) <= 2.0
    images = batch_of(*(picture((16, 16, 3), seed) for seed in range(4)))
    found = applied(images, draw(Augment(grey=1.0), 4))
    assert torch.equal(found[:, 0], found[:, 2])


def test_crops_keep_the_area_asked_for() -> None:
    box = draw(Augment(resized_crop=True, crop_area=0.5), shape=(224, 224, 3)).box
    assert box is not None
    area = box[:, 2:].prod(1) / 224**2
    assert 0.49 < float(area.min()) < 0.52


def test_lighting_has_the_covariance_of_its_components() -> None:
    light = draw(Augment(lighting=0.1)).light
    assert light is not None
    components = np.array(COMPONENTS)
    expected = components @ np.diag((255 * 0.1 * np.array(EIGENVALUES)) ** 2) @ components.T
    np.testing.assert_allclose(np.cov(light.numpy().T), expected, rtol=0.05)
    np.testing.assert_allclose(light.mean(0).numpy(), 0, atol=0.1)


def test_nothing_is_drawn_that_is_not_wanted() -> None:
    """A recipe without the newer fields draws what it always has, and leaves its generator where it always did."""
    rng, same = np.random.default_rng(3), np.random.default_rng(3)
    plan = draw_augment(Augment(crop_padding=4, flip=True), 50, (32, 32, 3), rng)
    np.testing.assert_array_equal(plan.shift.numpy(), same.integers(0, 9, (50, 2)))
    np.testing.assert_array_equal(plan.flip.numpy(), same.random(50) < 0.5)
    assert rng.bit_generator.state == same.bit_generator.state
    assert plan.code.shape == plan.value.shape == (50, 0)
    assert plan.box is plan.light is plan.centre is None


def test_each_kind_of_augmentation_is_drawn_for_itself() -> None:
    """Switching one on changes nothing about the others."""
    everything, some = draw(EVERYTHING, 100), draw(Augment(flip=True, auto_augment="cifar10", cutout=9), 100)
    assert torch.equal(everything.flip, some.flip)
    assert torch.equal(everything.code[:, :2], some.code)
    assert everything.centre is not None
    assert some.centre is not None
    assert torch.equal(everything.centre, some.centre)


# ---- plans ---------------------------------------------------------------------------------------------------------


shapes = st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3]))


@given(shapes, st.integers(0, 12), st.integers(0, 10**6))
@settings(max_examples=40)
def test_images_stay_images_and_the_same_plan_gives_the_same_bits(
    shape: tuple[int, int, int], count: int, seed: int
) -> None:
    height, width, channels = shape
    images = torch.from_numpy(
        np.random.default_rng(seed).integers(0, 256, (count, channels, height, width), dtype=np.uint8)
    )
    before = images.clone()
    augment = dataclasses.replace(EVERYTHING, lighting=0.0 if channels == 1 else 0.1)
    plan, again = (draw(augment, count, shape, seed) for _ in range(2))
    assert len(plan) == count
    assert_same(plan, again)
    found = applied(images, plan)
    if count:
        assert torch.equal(apply_to_all(images, plan.code, plan.value, plan.possible), found)
    assert (found.dtype, found.shape) == (torch.uint8, images.shape)
    assert torch.equal(found, applied(images, again))
    assert torch.equal(images, before)
    assert plan.box is not None
    cropped = resized_crop(images, plan.box, plan.flip)
    assert (cropped.dtype, cropped.shape) == (torch.uint8, images.shape)
    assert count == 0 or (int(cropped.min()) >= int(images.min()) and int(cropped.max()) <= int(images.max()))


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 10**6))
@settings(max_examples=30)
def test_a_slice_of_a_plan_is_the_plan_of_those_images(start: int, stop: int, seed: int) -> None:
    images = batch_of(*(picture((6, 7, 3), seed) for seed in range(30)))
    plan, where = draw(EVERYTHING, 30, (6, 7, 3), seed), slice(start, stop)
    assert torch.equal(applied(images[where], plan[where]), applied(images, plan)[where])
    assert plan.box is not None
    whole = resized_crop(images, plan.box, plan.flip)[where]
    part = plan[where]
    assert part.box is not None
    assert torch.equal(resized_crop(images[where], part.box, part.flip), whole)


def test_images_without_an_operation_stay_as_they_are() -> None:
    images = batch_of(*(picture((8, 8, 3), seed) for seed in range(200)))
    plan = draw(Augment(auto_augment="cifar10"), 200, (8, 8, 3))
    untouched = (plan.code == 0).all(1)
    assert 0 < int(untouched.sum()) < 200
    assert torch.equal(applied(images, plan)[untouched], images[untouched])


def test_steps_are_applied_one_after_the_other() -> None:
    images = batch_of(*(picture((16, 16, 3), seed) for seed in range(50)))
    plan = draw(Augment(auto_augment="cifar10", color_jitter=0.4), 50, (16, 16, 3))
    functions = [None, *OPERATIONS.values()]
    expected = []
    for i, image in enumerate(images.split(1)):
        for code, value in zip(plan.code[i].tolist(), plan.value[i], strict=True):
            function = functions[code]
            image = image if function is None else function(image, value[None])
        expected.append(image)
    assert torch.equal(applied(images, plan), torch.cat(expected))


@pytest.mark.parametrize("augment", [EVERYTHING, Augment(rand_augment=9, rand_operations=3, grey=0.2, blur=0.5)])
def test_shapes_that_are_fixed_give_the_same_images(augment: Augment) -> None:
    images = batch_of(*(picture((16, 16, 3), seed) for seed in range(100)))
    plan = draw(augment, 100, (16, 16, 3))
    assert torch.equal(apply_plan(images, plan, fixed_shapes=True), apply_plan(images, plan))
    for step, names in enumerate(plan.possible):
        assert set(plan.code[:, step].tolist()) <= {0, *(CODES[name] for name in names)}


class NoWaiting(TorchDispatchMode):
    """Refuses what makes the host wait for a GPU: values, positions and shapes that depend on a tensor's content."""

    REFUSED = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "unique", "repeat_interleave")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert name not in self.REFUSED
        if name == "index":
            assert all(index is None or index.dtype != torch.bool for index in args[1])
        return func(*args, **(kwargs or {}))


def apply_all(images: Tensor, plan: AugmentPlan) -> Tensor:
    assert plan.box is not None
    assert plan.centre is not None
    return cut_out(applied(resized_crop(images, plan.box, plan.flip), plan), plan.centre, plan.cutout)


def test_nothing_waits_for_the_device() -> None:
    images = batch_of(*(picture((8, 8, 3), seed) for seed in range(1500)))
    other = dataclasses.replace(EVERYTHING, auto_augment="none", rand_augment=9, random_erasing=0.5)
    plans = [draw(augment, 1500, (8, 8, 3)) for augment in (EVERYTHING, other)]
    assert {code for plan in plans for code in plan.code.unique().tolist()} == set(range(len(OPERATIONS) + 1))
    with NoWaiting():
        for plan in plans:
            apply_plan(apply_all(images, plan), plan, operations=False)
        pasted(images, images, torch.tensor([1, 2, 5, 6]), images)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_nothing_waits_for_a_gpu_and_it_gives_the_same_images() -> None:
    images, device = batch_of(*(picture((32, 32, 3), seed) for seed in range(300))), torch.device("cuda")
    plan = draw(EVERYTHING, 300)
    there, on_device = images.to(device), plan.to(device)
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = apply_all(there, on_device)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    differs = (found.cpu().int() - apply_all(images, plan).int()).abs() > 2
    assert float(differs.float().mean()) < 0.002


# ---- RandAugment, random erasing, CutMix -----------------------------------------------------------------------------


def test_rand_augment_draws_each_operation_alike_with_torchvisions_magnitudes() -> None:
    plan = draw(Augment(rand_augment=9, rand_operations=3))
    assert plan.code.shape == (DRAWS, 3)
    counts = np.array([int((plan.code == CODES.get(name, 0)).sum()) for name in RAND_OPERATIONS])
    assert stats.chisquare(counts).pvalue > 1e-4
    space = RandAugment(num_ops=1, magnitude=9)._augmentation_space(31, (32, 32))
    names = {"brightness": "Brightness", "color": "Color", "rotate": "Rotate", "shear_x": "ShearX"}
    for name, theirs in names.items():
        found = plan.value[plan.code == CODES[name]].unique()
        start = 0.0 if name in ("rotate", "shear_x") else 1.0
        magnitude = float(space[theirs][0][9])
        torch.testing.assert_close(found, torch.tensor([start - magnitude, start + magnitude]))
    assert plan.value[plan.code == CODES["posterize"]].unique().tolist() == [int(space["Posterize"][0][9])]


def test_random_erasing_paints_the_wanted_share_of_images_with_boxes_of_the_wanted_sizes() -> None:
    plan = draw(Augment(random_erasing=0.25))
    assert plan.erased is not None
    size = (plan.erased[:, 2:] - plan.erased[:, :2]).double()
    happens = size.prod(1) > 0
    assert float(happens.double().mean()) == pytest.approx(0.25, abs=0.012)
    area, ratio = size[happens].prod(1) / 32**2, size[happens, 0] / size[happens, 1]
    assert 0.015 < float(area.min()) < 0.03
    assert 0.29 < float(area.max()) < 0.36
    assert 0.25 < float(ratio.min()) < float(ratio.max()) < 4
    assert int(plan.erased.min()) >= 0
    assert int(plan.erased.max()) <= 32
    images = batch_of(*(picture((32, 32, 3), seed) for seed in range(20))).clamp(1)
    black = (apply_plan(images, plan[:20]) == 0).all(1)
    assert torch.equal(black.sum((1, 2)), size[:20].prod(1).long())


def test_the_new_draws_leave_the_others_as_they_are() -> None:
    one = draw(Augment(crop_padding=4, flip=True, color_jitter=0.4, cutout=5), 100)
    other = draw(Augment(crop_padding=4, flip=True, color_jitter=0.4, cutout=5, random_erasing=0.5), 100)
    assert_same(one, dataclasses.replace(other, erased=None))


def epoch(cutmix: float, mixup: float = 0.0, seed: int = 0) -> EpochPlan:
    how: dict[str, Any] = {"augment": Augment(flip=True), "image_shape": (32, 32, 3), "device": torch.device("cpu")}
    rng = np.random.default_rng(seed)
    return plan_epoch(np.arange(8000), 8, rng, mixup_alpha=mixup, cutmix_alpha=cutmix, **how)


def test_cutmix_shares_are_the_areas_that_stay() -> None:
    plan = epoch(1.0)
    assert plan.cut is not None
    area = (plan.cut[:, 2:] - plan.cut[:, :2]).prod(1) / 32**2
    torch.testing.assert_close(plan.mixup, (1 - area).float())
    one_a_batch = plan.cut.view(1000, 8, 4)
    assert torch.equal(one_a_batch, one_a_batch[:, :1].expand(-1, 8, -1))
    assert torch.equal(plan.partner.view(1000, 8).sort(1).values, torch.arange(8).expand(1000, 8))
    without = epoch(0.0)
    assert_same(plan.augment, without.augment)
    assert without.cut is None
    assert bool((without.mixup == 1).all())


def test_with_both_half_of_the_batches_get_cutmix_and_the_rest_are_as_with_mixup_alone() -> None:
    both, alone = epoch(1.0, 0.4), epoch(0.0, 0.4)
    assert both.cut is not None
    cut = (both.cut.view(1000, 8, 4)[:, 0, 2:] > 0).any(1)
    assert 430 < int(cut.sum()) < 570
    rest = ~cut.repeat_interleave(8)
    assert torch.equal(both.mixup[rest], alone.mixup[rest])
    assert torch.equal(both.partner[rest], alone.partner[rest])


def test_pasting_takes_the_box_from_the_others() -> None:
    images, others = torch.zeros(2, 3, 8, 8), torch.ones(2, 3, 8, 8)
    found = pasted(images, others, torch.tensor([2, 3, 6, 8]), images + 9)
    assert torch.equal(found[:, :, 2:6, 3:], others[:, :, 2:6, 3:])
    assert float(found.sum()) == 2 * 3 * 4 * 5
    assert torch.equal(pasted(images, others, torch.zeros(4, dtype=torch.long), images + 9), images + 9)


# ---- recipes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"crop_padding": -1}, "augment.crop_padding must be a number of at least 0, found -1"),
        ({"cutout": -2}, "augment.cutout must be a number of at least 0, found -2"),
        ({"color_jitter": math.inf}, "augment.color_jitter must be a number of at least 0, found inf"),
        ({"lighting": math.nan}, "augment.lighting must be a number of at least 0, found nan"),
        ({"crop_area": 1.5}, "augment.crop_area must be at most 1, found 1.5"),
        ({"hue": 0.6}, "augment.hue must be at most 0.5, found 0.6"),
        ({"crop_padding": 4, "resized_crop": True}, "either augment.crop_padding"),
        ({"hue": 0.1}, "augment.hue does nothing without augment.color_jitter"),
        ({"crop_area": 0.5}, "augment.crop_area does nothing without augment.resized_crop"),
        ({"rand_augment": 31}, "augment.rand_augment must be at most 30, found 31"),
        ({"random_erasing": 1.5}, "augment.random_erasing must be at most 1, found 1.5"),
        ({"rand_operations": 0}, "augment.rand_operations must be a number of at least 1"),
        ({"rand_augment": 9, "auto_augment": "cifar10"}, "either augment.rand_augment or augment.auto_augment"),
    ],
)
def test_values_out_of_their_domain_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Augment(**values)


@pytest.mark.parametrize(
    ("augment", "channels", "message"),
    [
        (Augment(lighting=0.1), 1, "lighting needs RGB images"),
        (Augment(auto_augment="cifar10"), 2, "1 or 3 channels, found 2"),
        (Augment(grey=0.1), 2, "1 or 3 channels, found 2"),
        (Augment(color_jitter=0.1), 4, "1 or 3 channels, found 4"),
    ],
)
def test_images_that_cannot_be_augmented_so_are_refused(augment: Augment, channels: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_channels(augment, channels)


def test_grey_images_can_have_all_but_lighting() -> None:
    check_channels(dataclasses.replace(EVERYTHING, lighting=0.0), 1)
    check_channels(Augment(cutout=3, resized_crop=True), 2)
