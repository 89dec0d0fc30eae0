"""Batched augmentation on the device against a naive implementation, image by image."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.base.errors import UserError
from harness.feed.augment import AugmentPlan, apply_operations, cut_out, draw_augment, resized_crop
from harness.feed.plans import EpochPlan, plan_epoch
from harness.feed.resident import ResidentPart
from harness.reading.dataset import Images
from harness.spec.stage_recipe import Augment
from harness.splits.splits import Part, Split

CPU = torch.device("cpu")


def split_of(shape: tuple[int, int, int], mean: list[float], std: list[float]) -> Split:
    part = Part([1], "")
    return Split(1, "x", "x", "exponential", 1.0, "hash:0", 0, ["a"], list(shape), mean, std, [1], [[""]], part, part)


def make_part(
    count: int, shape: tuple[int, int, int], augment: Augment, seed: int = 0
) -> tuple[ResidentPart, Images, Split]:
    rng = np.random.default_rng(seed)
    channels = shape[2]
    images = Images(rng.integers(0, 256, (count, *shape), dtype=np.uint8), rng.integers(0, 3, count))
    split = split_of(shape, list(rng.uniform(0.2, 0.6, channels)), list(rng.uniform(0.1, 0.4, channels)))
    return ResidentPart(images, split, CPU, augment), images, split


def naive(images: Images, split: Split, index: int, shift: tuple[int, int], flip: bool, padding: int) -> np.ndarray:
    """Pad with zeros, crop, mirror, scale to 0..1, normalise; (channels, height, width)."""
    height, width, channels = split.image_shape
    canvas = np.zeros((height + 2 * padding, width + 2 * padding, channels), np.float64)
    canvas[padding : padding + height, padding : padding + width] = images.pixels[index]
    crop = canvas[shift[0] : shift[0] + height, shift[1] : shift[1] + width]
    if flip:
        crop = crop[:, ::-1]
    normalised: np.ndarray = (crop / 255 - np.array(split.mean)) / np.array(split.std)
    return normalised.transpose(2, 0, 1)


@given(
    st.integers(1, 6),
    st.integers(1, 6),
    st.sampled_from([1, 2, 3]),
    st.integers(0, 3),
    st.integers(0, 10**6),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_batch_equals_the_naive_one(
    height: int, width: int, channels: int, padding: int, seed: int, flips: bool
) -> None:
    augment = Augment(crop_padding=padding, flip=flips)
    part, images, split = make_part(5, (height, width, channels), augment, seed)
    rng = np.random.default_rng(seed)
    index = rng.integers(0, 5, 7)
    drawn = draw_augment(augment, 7, split.image_shape, rng)
    found = part.batch(torch.from_numpy(index), drawn)
    for i in range(7):
        row, col = drawn.shift[i].tolist()
        expected = naive(images, split, int(index[i]), (row, col), bool(drawn.flip[i]), padding)
        np.testing.assert_allclose(found[i].numpy(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("padding", [0, 2])
def test_without_augmentation_it_is_the_image_itself(padding: int) -> None:
    part, images, split = make_part(4, (5, 6, 3), Augment(crop_padding=padding))
    found = part.batch(torch.arange(4))
    pixels = found.numpy().transpose(0, 2, 3, 1) * np.array(split.std) + np.array(split.mean)
    np.testing.assert_array_equal(np.rint(pixels * 255).astype(np.uint8), images.pixels)


def test_parts_are_cut_out_of_the_image_also_where_it_has_padding_for_another_view() -> None:
    padded, plain = (make_part(6, (8, 7, 3), Augment(crop_padding=padding))[0] for padding in (3, 0))
    drawn = draw_augment(Augment(resized_crop=True, flip=True), 6, (8, 7, 3), np.random.default_rng(0))
    assert torch.equal(padded.batch(torch.arange(6), drawn), plain.batch(torch.arange(6), drawn))


def test_normalised_to_zero_mean_and_unit_deviation() -> None:
    rng = np.random.default_rng(0)
    images = Images(rng.integers(0, 256, (50, 8, 8, 3), dtype=np.uint8), np.zeros(50, np.int64))
    scaled = images.pixels.reshape(-1, 3) / 255
    part = ResidentPart(images, split_of((8, 8, 3), list(scaled.mean(0)), list(scaled.std(0))), CPU, Augment())
    values = part.batch(torch.arange(50)).permute(1, 0, 2, 3).reshape(3, -1).double()
    torch.testing.assert_close(values.mean(1), torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-4)
    torch.testing.assert_close(values.std(1, correction=0), torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-4)


def test_memory_is_channels_last_and_the_source_untouched() -> None:
    augment = Augment(crop_padding=1, auto_augment="cifar10", lighting=0.1, cutout=3)
    part, images, split = make_part(4, (5, 6, 3), augment)
    before = part.batch(torch.arange(4))
    found = part.batch(torch.arange(4), draw_augment(augment, 4, split.image_shape, np.random.default_rng(0)))
    assert found.dtype == torch.float32
    assert found.shape == (4, 3, 5, 6)
    assert found.is_contiguous(memory_format=torch.channels_last)
    found.zero_()
    assert torch.equal(part.batch(torch.arange(4)), before)
    assert len(part) == 4
    np.testing.assert_array_equal(part.labels.numpy(), images.labels)


EVERYTHING = Augment(resized_crop=True, flip=True, auto_augment="cifar10", color_jitter=0.4, lighting=0.1, cutout=4)


def in_order(images: Images, split: Split, index: np.ndarray, drawn: AugmentPlan) -> np.ndarray:
    """The augmentation by its parts, normalised at the end; (n, channels, height, width)."""
    assert drawn.box is not None
    assert drawn.light is not None
    assert drawn.centre is not None
    pixels = torch.from_numpy(images.pixels[index]).permute(0, 3, 1, 2)
    cropped = resized_crop(pixels, drawn.box, drawn.flip)
    changed = apply_operations(cropped, drawn.code, drawn.value, drawn.host_code)
    black = cut_out(torch.ones_like(changed), drawn.centre, drawn.cutout).numpy() == 0
    values = np.where(black, 0.0, changed.numpy() + drawn.light.double().numpy()[:, :, None, None])
    normalised: np.ndarray = (values / 255 - np.reshape(split.mean, (-1, 1, 1))) / np.reshape(split.std, (-1, 1, 1))
    return normalised


def test_all_of_it_in_its_order_and_normalised_last() -> None:
    part, images, split = make_part(20, (12, 9, 3), EVERYTHING)
    drawn = draw_augment(EVERYTHING, 30, split.image_shape, np.random.default_rng(1))
    index = np.random.default_rng(2).integers(0, 20, 30)
    found = part.batch(torch.from_numpy(index), drawn)
    assert found.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(found.numpy(), in_order(images, split, index, drawn), rtol=1e-4, atol=1e-4)


@given(st.integers(1, 3), st.integers(0, 20), st.integers(0, 10**6))
@settings(max_examples=25)
def test_a_batch_is_a_slice_of_the_epoch(channels: int, start: int, seed: int) -> None:
    augment = EVERYTHING if channels == 3 else Augment(crop_padding=2, flip=True, cutout=4)
    part, _, split = make_part(6, (7, 5, channels), augment, seed)
    index = torch.from_numpy(np.random.default_rng(seed).integers(0, 6, 20))
    drawn, where = draw_augment(augment, 20, split.image_shape, np.random.default_rng(seed)), slice(start, start + 8)
    assert torch.equal(part.batch(index[where], drawn[where]), part.batch(index, drawn)[where])


def test_cutout_is_black_not_the_mean() -> None:
    augment = Augment(cutout=100)
    part, _, split = make_part(3, (4, 4, 3), augment)
    found = part.batch(torch.arange(3), draw_augment(augment, 3, split.image_shape, np.random.default_rng(0)))
    black = (-torch.tensor(split.mean) / torch.tensor(split.std)).float()
    torch.testing.assert_close(found, black.view(1, 3, 1, 1).expand(3, 3, 4, 4).contiguous(), rtol=1e-4, atol=1e-4)


def test_grey_images_have_no_lighting() -> None:
    with pytest.raises(UserError, match="lighting needs RGB"):
        make_part(2, (4, 4, 1), Augment(lighting=0.1))


# ---- the plan of an epoch ------------------------------------------------------------------------------------------


USUAL = Augment(crop_padding=2, flip=True)


def plan(count: int, batch_size: int, *, augment: Augment = USUAL, alpha: float = 1.0, seed: int = 0) -> EpochPlan:
    order = np.random.default_rng(99).permutation(count)
    generator = np.random.default_rng(seed)
    return plan_epoch(
        order, batch_size, generator, augment=augment, image_shape=(8, 8, 3), mixup_alpha=alpha, device=CPU
    )


def content(made: EpochPlan) -> dict[str, torch.Tensor]:
    """All tensors of a plan by name."""
    everything = {**vars(made), **vars(made.augment)}
    return {name: value for name, value in everything.items() if isinstance(value, torch.Tensor)}


def batches(count: int, batch_size: int) -> list[slice]:
    """Those of an epoch; a single image that is left over belongs to the last full one."""
    full, rest = divmod(count, batch_size)
    ends = [batch_size * (i + 1) for i in range(full)]
    if rest == 1 and full:
        ends[-1] = count
    elif rest:
        ends.append(count)
    return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]


@given(st.integers(1, 50), st.integers(1, 20), st.integers(0, 100))
def test_mixup_has_one_lambda_a_batch_and_partners_inside_it(count: int, batch_size: int, seed: int) -> None:
    made = plan(count, batch_size, seed=seed)
    for where in batches(count, batch_size):
        size = where.stop - where.start
        assert len(set(made.mixup[where].tolist())) == 1
        assert 0 <= float(made.mixup[where.start]) <= 1
        assert sorted(made.partner[where].tolist()) == list(range(size))


def test_lambdas_differ_between_batches_and_follow_their_distribution() -> None:
    values = np.array(plan(4000, 2, alpha=1.0).mixup[::2])
    assert len(np.unique(values)) > 1900
    assert values.mean() == pytest.approx(0.5, abs=0.03)
    assert values.var() == pytest.approx(1 / 12, abs=0.01)  # Beta(1, 1) is uniform
    narrow = np.array(plan(4000, 2, alpha=50.0).mixup[::2])
    assert narrow.var() == pytest.approx(1 / (4 * 101), rel=0.2)  # Beta(a, a): 1 / (4 (2a + 1))


def test_alpha_zero_is_no_mixup() -> None:
    made = plan(11, 4, alpha=0)
    assert made.mixup.tolist() == [1.0] * 11
    assert made.partner.tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2]


@pytest.mark.parametrize("augment", [USUAL, EVERYTHING], ids=["usual", "everything"])
def test_a_resumed_epoch_draws_the_same_plan_again(augment: Augment) -> None:
    """The loop seeds a generator for each epoch, so a new one with the seed is all that a resumed run has."""
    one, same, other = (content(plan(30, 8, augment=augment, seed=seed)) for seed in (1, 1, 2))
    assert one.keys() == same.keys()
    for name in one:
        assert torch.equal(one[name], same[name])
        assert name in ("order", "shift", "code", "value", "host_code") or not torch.equal(one[name], other[name])


def test_recipes_without_the_newer_augmentation_see_the_numbers_that_they_always_saw() -> None:
    made, rng = plan(30, 8, seed=5), np.random.default_rng(5)
    np.testing.assert_array_equal(made.augment.shift.numpy(), rng.integers(0, 5, (30, 2)))
    np.testing.assert_array_equal(made.augment.flip.numpy(), rng.random(30) < 0.5)
    np.testing.assert_array_equal(made.mixup[::8].numpy(), rng.beta(1.0, 1.0, 4).astype(np.float32))
    partners = [rng.permutation(size) for size in (8, 8, 8, 6)]
    np.testing.assert_array_equal(made.partner.numpy(), np.concatenate(partners))


def test_the_newer_augmentation_changes_no_other_number() -> None:
    newer = dataclasses.replace(USUAL, auto_augment="cifar10", cutout=4, color_jitter=0.4, lighting=0.1)
    one, other = content(plan(30, 8)), content(plan(30, 8, augment=newer))
    for name in ("order", "shift", "flip", "mixup", "partner"):
        assert torch.equal(one[name], other[name])


def test_shifts_cover_the_padding_and_flips_are_even() -> None:
    made = plan(4000, 64).augment
    for axis in (0, 1):
        share = np.bincount(made.shift[:, axis].numpy(), minlength=5) / 4000
        np.testing.assert_allclose(share, 0.2, atol=0.03)
    assert float(made.flip.double().mean()) == pytest.approx(0.5, abs=0.03)


def test_nothing_is_drawn_that_is_not_wanted() -> None:
    made = plan(20, 8, augment=Augment(), alpha=0).augment
    assert not made.shift.any()
    assert not made.flip.any()
    assert made.flip.dtype == torch.bool
