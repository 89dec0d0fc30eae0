"""Samplers: what an epoch visits, and the class weights behind it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from harness.toolbox.samplers import (
    ClassAwareSampler,
    Sampler,
    WeightedSampler,
    cben_weights,
    class_balanced_weights,
    effective_number_weights,
)

COUNTS = [50, 12, 3, 1]
LABELS = np.repeat(np.arange(4), COUNTS)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# ---- instance-balanced ---------------------------------------------------------------------------------------------


def test_instance_balanced_is_a_permutation() -> None:
    sampler, generator = Sampler(LABELS, 4), rng()
    first, second = sampler.order(generator), sampler.order(generator)
    assert sorted(first) == sorted(second) == list(range(len(LABELS)))
    assert list(first) != list(second)
    assert list(first) == list(Sampler(LABELS, 4).order(rng()))


# ---- class-aware ---------------------------------------------------------------------------------------------------


@given(st.integers(1, 5), st.integers(1, 60), st.integers(0, 100))
def test_class_aware_visits_every_class_equally(k: int, visits: int, seed: int) -> None:
    order = ClassAwareSampler(LABELS, 4, k).draw(visits * k, rng(seed))
    classes = LABELS[order].reshape(visits, k)
    assert (classes == classes[:, :1]).all(), "k consecutive items are of one class"
    times = Counter(classes[:, 0])
    assert max(times.values()) - min(times[c] for c in range(4)) <= 1
    for start in range(0, visits - 3, 4):
        assert sorted(classes[start : start + 4, 0]) == [0, 1, 2, 3], "a cycle visits each class once"


@given(st.integers(1, 5), st.integers(0, 100))
def test_class_aware_walks_each_class_in_whole_cycles(k: int, seed: int) -> None:
    order = ClassAwareSampler(LABELS, 4, k).draw(80 * k, rng(seed))
    for c, count in enumerate(COUNTS):
        mine = [i for i in order if LABELS[i] == c]
        for start in range(0, len(mine) - count + 1, count):
            assert len(set(mine[start : start + count])) == count, "no image again before all others of its class"


def test_class_aware_epoch_has_the_length_of_the_set() -> None:
    for k in (1, 4, 7):
        assert len(ClassAwareSampler(LABELS, 4, k).order(rng())) == len(LABELS)


def test_class_aware_cycles_go_on_across_epochs() -> None:
    labels = np.repeat(np.arange(2), 8)
    sampler, generator = ClassAwareSampler(labels, 2, k=2), rng()
    two_epochs = np.concatenate([sampler.order(generator), sampler.order(generator)])
    assert np.bincount(two_epochs, minlength=16).tolist() == [2] * 16
    sampler = ClassAwareSampler(np.zeros(6, np.int64), 1, k=2)
    halves = np.concatenate([sampler.draw(2, generator), sampler.draw(4, generator)])
    assert sorted(halves) == list(range(6))


@given(st.integers(1, 5), st.integers(1, 40), st.integers(1, 40))
def test_class_aware_resumes_where_it_stopped(k: int, before: int, after: int) -> None:
    sampler, generator = ClassAwareSampler(LABELS, 4, k), rng()
    sampler.draw(before, generator)
    state, where = sampler.state_dict(), generator.bit_generator.state
    expected = sampler.draw(after, generator)
    resumed, generator = ClassAwareSampler(LABELS, 4, k), rng(9)
    resumed.load_state_dict(state)
    generator.bit_generator.state = where
    np.testing.assert_array_equal(resumed.draw(after, generator), expected)


def test_class_aware_state_survives_a_file(tmp_path) -> None:  # type: ignore[no-untyped-def]
    sampler = ClassAwareSampler(LABELS, 4)
    sampler.draw(30, rng())
    torch.save(sampler.state_dict(), tmp_path / "state.pt")
    loaded = torch.load(tmp_path / "state.pt", weights_only=True)
    resumed = ClassAwareSampler(LABELS, 4)
    resumed.load_state_dict(loaded)
    np.testing.assert_array_equal(resumed.draw(40, rng(1)), sampler.draw(40, rng(1)))


def test_class_aware_passes_over_classes_without_images() -> None:
    labels = np.array([5, 5, 1, 1, 1])
    visited = labels[ClassAwareSampler(labels, 7, k=2).draw(200, rng())]
    assert Counter(visited) == {1: 100, 5: 100}


def test_class_aware_draws_nothing_when_asked_for_nothing() -> None:
    assert len(ClassAwareSampler(LABELS, 4).draw(0, rng())) == 0


@pytest.mark.parametrize("k", [0, -1])
def test_class_aware_refuses_k(k: int) -> None:
    with pytest.raises(ValueError, match="k must be at least 1"):
        ClassAwareSampler(LABELS, 4, k)


# ---- weighted ------------------------------------------------------------------------------------------------------


def test_class_balanced_draws_are_uniform_over_classes() -> None:
    sampler = WeightedSampler(LABELS, 4, class_balanced_weights(COUNTS))
    generator = rng()
    drawn = np.concatenate([LABELS[sampler.order(generator)] for _ in range(600)])  # about 39,600 draws
    np.testing.assert_allclose(np.bincount(drawn) / len(drawn), 0.25, atol=0.02)


def test_weights_decide_the_frequencies() -> None:
    sampler, generator = WeightedSampler(LABELS, 4, torch.tensor([0.0, 1.0, 4.0, 0.0])), rng()
    drawn = np.concatenate([sampler.order(generator) for _ in range(600)])
    share = np.bincount(LABELS[drawn], minlength=4) / len(drawn)
    np.testing.assert_allclose(share, [0, 0.5, 0.5, 0], atol=0.02)
    within = np.bincount(drawn, minlength=len(LABELS))[LABELS == 1] / len(drawn)
    np.testing.assert_allclose(within, 0.5 / 12, atol=0.01)


# ---- class weights -------------------------------------------------------------------------------------------------

Weights = Callable[[Tensor | list[int]], Tensor]
ALL: list[Weights] = [
    class_balanced_weights,
    lambda counts: effective_number_weights(counts, 0.9999),
    lambda counts: cben_weights(counts, 0.9999, 1e-5),
]
each = pytest.mark.parametrize("weights", ALL, ids=["balanced", "effective", "cben"])


@each
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_is_kept(weights: Weights, dtype: torch.dtype) -> None:
    counts = torch.tensor(COUNTS, dtype=dtype)
    assert weights(counts).dtype == dtype
    assert weights(torch.tensor(COUNTS)).dtype == torch.float64


@each
def test_float32_counts_lose_no_more_than_float32_does(weights: Weights) -> None:
    exact = weights([5000, 500, 50, 1])
    torch.testing.assert_close(weights(torch.tensor([5000.0, 500.0, 50.0, 1.0])).double(), exact, rtol=1e-6, atol=0)


@each
@pytest.mark.parametrize("counts", [[5, 0, 3], torch.tensor([5.0, 0.0, 3.0])], ids=["list", "float32"])
def test_a_class_of_none_weighs_nothing(weights: Weights, counts: Tensor | list[int]) -> None:
    found = weights(counts)
    assert float(found[1]) == 0
    assert bool(found.isfinite().all())
    assert float(found[2]) > float(found[0]) > 0


@each
def test_negative_counts_and_tables_are_refused(weights: Weights) -> None:
    with pytest.raises(ValueError, match="class_counts"):
        weights([3, -1])
    with pytest.raises(ValueError, match="class_counts"):
        weights(torch.ones(2, 2))


@each
def test_all_classes_empty(weights: Weights) -> None:
    assert weights([0, 0]).tolist() == [0, 0]


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=10), st.floats(0, 0.99999))
def test_effective_number_is_the_sum_it_stands_for(counts: list[int], beta: float) -> None:
    # E_n = 1 + beta + ... + beta^(n-1); weight = 1 / E_n
    for weight, n in zip(effective_number_weights(counts, beta).tolist(), counts, strict=True):
        assert weight == pytest.approx(1 / float(np.sum(beta ** np.arange(n))), rel=1e-9)


def test_effective_number_at_its_ends() -> None:
    torch.testing.assert_close(effective_number_weights([7, 2], 0), torch.ones(2, dtype=torch.float64))
    near_one = effective_number_weights([7, 2], 1 - 1e-10)
    torch.testing.assert_close(near_one, class_balanced_weights([7, 2]), rtol=1e-5, atol=0)


def test_effective_number_with_beta_next_to_one_in_float32() -> None:
    weights = effective_number_weights(torch.tensor([100.0, 10.0, 1.0]), 0.99999999)
    torch.testing.assert_close(weights, torch.tensor([0.01, 0.1, 1.0]), rtol=1e-4, atol=0)


@pytest.mark.parametrize("beta", [1.0, 1.5, -0.1, float("nan"), float("inf")])
def test_impossible_beta(beta: float) -> None:
    with pytest.raises(ValueError, match="beta must lie"):
        effective_number_weights([3, 2], beta)
    with pytest.raises(ValueError, match="beta_a must lie"):
        cben_weights([3, 2], beta, 0)


@pytest.mark.parametrize("beta_b", [0.5, -0.6, float("nan")])
def test_cben_refuses_a_range_that_leaves_the_interval(beta_b: float) -> None:
    with pytest.raises(ValueError, match="beta_a \\+ beta_b"):
        cben_weights([100, 10, 1], 0.5, beta_b)


def test_cben_on_uniform_counts_is_the_effective_number() -> None:
    torch.testing.assert_close(cben_weights([9, 9, 9], 0.9, 0.05), effective_number_weights([9, 9, 9], 0.9))
