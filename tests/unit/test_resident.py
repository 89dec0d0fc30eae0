"""Batched augmentation on the device against a naive implementation, image by image."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.data.resident import EpochPlan, ResidentPart, plan_epoch
from harness.data.splits import Part, Split
from harness.datasets.base import Images

CPU = torch.device("cpu")


def split_of(shape: tuple[int, int, int], mean: list[float], std: list[float]) -> Split:
    part = Part([1], "")
    return Split(1, "x", "x", "exponential", 1.0, "hash:0", 0, ["a"], list(shape), mean, std, [1], [[""]], part, part)


def make_part(
    count: int, shape: tuple[int, int, int], padding: int, seed: int = 0
) -> tuple[ResidentPart, Images, Split]:
    rng = np.random.default_rng(seed)
    channels = shape[2]
    images = Images(rng.integers(0, 256, (count, *shape), dtype=np.uint8), rng.integers(0, 3, count))
    split = split_of(shape, list(rng.uniform(0.2, 0.6, channels)), list(rng.uniform(0.1, 0.4, channels)))
    return ResidentPart(images, split, CPU, padding), images, split


def naive(images: Images, split: Split, index: int, shift: tuple[int, int], flip: bool, padding: int) -> np.ndarray:
    """Pad with zeros, crop, mirror, scale to 0..1, normalise; (channels, height, width)."""
    height, width, channels = split.image_shape
    canvas = np.zeros((height + 2 * padding, width + 2 * padding, channels), np.float64)
    canvas[padding : padding + height, padding : padding + width] = images.pixels[index]
    crop = canvas[shift[0] : shift[0] + height, shift[1] : shift[1] + width]
    if flip:
        crop = crop[:, ::-1]
    return ((crop / 255 - np.array(split.mean)) / np.array(split.std)).transpose(2, 0, 1)


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
    part, images, split = make_part(5, (height, width, channels), padding, seed)
    rng = np.random.default_rng(seed)
    index, shift = rng.integers(0, 5, 7), rng.integers(0, 2 * padding + 1, (7, 2))
    flip = rng.random(7) < 0.5 if flips else None
    found = part.batch(
        torch.from_numpy(index), torch.from_numpy(shift), None if flip is None else torch.from_numpy(flip)
    )
    for i in range(7):
        mirrored = flip is not None and bool(flip[i])
        expected = naive(images, split, int(index[i]), (int(shift[i, 0]), int(shift[i, 1])), mirrored, padding)
        np.testing.assert_allclose(found[i].numpy(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("padding", [0, 2])
def test_without_augmentation_it_is_the_image_itself(padding: int) -> None:
    part, images, split = make_part(4, (5, 6, 3), padding)
    found = part.batch(torch.arange(4))
    pixels = found.numpy().transpose(0, 2, 3, 1) * np.array(split.std) + np.array(split.mean)
    np.testing.assert_array_equal(np.rint(pixels * 255).astype(np.uint8), images.pixels)


def test_flip_without_crop_keeps_the_centre() -> None:
    part, images, split = make_part(2, (4, 4, 1), padding=2)
    found = part.batch(torch.arange(2), flip=torch.tensor([True, False]))
    np.testing.assert_allclose(found[0].numpy(), naive(images, split, 0, (2, 2), True, 2), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found[1].numpy(), naive(images, split, 1, (2, 2), False, 2), rtol=1e-5, atol=1e-5)


def test_normalised_to_zero_mean_and_unit_deviation() -> None:
    rng = np.random.default_rng(0)
    images = Images(rng.integers(0, 256, (50, 8, 8, 3), dtype=np.uint8), np.zeros(50, np.int64))
    scaled = images.pixels.reshape(-1, 3) / 255
    part = ResidentPart(images, split_of((8, 8, 3), list(scaled.mean(0)), list(scaled.std(0))), CPU)
    values = part.batch(torch.arange(50)).permute(1, 0, 2, 3).reshape(3, -1).double()
    torch.testing.assert_close(values.mean(1), torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-4)
    torch.testing.assert_close(values.std(1, correction=0), torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-4)


def test_memory_is_channels_last_and_the_source_untouched() -> None:
    part, images, _ = make_part(4, (5, 6, 3), padding=1)
    before = part.pixels.clone()
    found = part.batch(torch.arange(4))
    assert found.dtype == torch.float32
    assert found.shape == (4, 3, 5, 6)
    assert found.is_contiguous(memory_format=torch.channels_last)
    found.zero_()
    assert torch.equal(part.pixels, before)
    assert len(part) == 4
    np.testing.assert_array_equal(part.labels.numpy(), images.labels)


# ---- the plan of an epoch ------------------------------------------------------------------------------------------


def plan(
    count: int, batch_size: int, *, padding: int = 2, flip: bool = True, alpha: float = 1.0, seed: int = 0
) -> EpochPlan:
    order = np.random.default_rng(99).permutation(count)
    generator = np.random.default_rng(seed)
    return plan_epoch(order, batch_size, generator, padding=padding, flip=flip, mixup_alpha=alpha, device=CPU)


def batches(count: int, batch_size: int) -> list[slice]:
    return [slice(start, min(start + batch_size, count)) for start in range(0, count, batch_size)]


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


def test_same_generator_same_plan() -> None:
    one, same, other = plan(30, 8, seed=1), plan(30, 8, seed=1), plan(30, 8, seed=2)
    for field in dataclasses.fields(EpochPlan):
        assert torch.equal(getattr(one, field.name), getattr(same, field.name))
    assert not torch.equal(one.shift, other.shift)
    assert not torch.equal(one.flip, other.flip)


def test_shifts_cover_the_padding_and_flips_are_even() -> None:
    made = plan(4000, 64, padding=2)
    for axis in (0, 1):
        share = np.bincount(made.shift[:, axis].numpy(), minlength=5) / 4000
        np.testing.assert_allclose(share, 0.2, atol=0.03)
    assert float(made.flip.double().mean()) == pytest.approx(0.5, abs=0.03)


def test_nothing_is_drawn_that_is_not_wanted() -> None:
    made = plan(20, 8, padding=0, flip=False, alpha=0)
    assert not made.shift.any()
    assert not made.flip.any()
    assert made.flip.dtype == torch.bool
