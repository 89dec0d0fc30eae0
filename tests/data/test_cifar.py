"""cifar10 and cifar100 from the real pool archives, where they are at hand; and the registry's facts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.base.errors import UserError
from harness.base.files import sha256_bytes
from harness.reading.dataset import Images
from harness.reading.identity import pixel_hash
from harness.reading.profiles import exponential_class_counts
from harness.splits import store
from harness.splits.splits import build_split, select
from tests.data.mirror import REPOSITORY, mirror_with

NAMES = ("cifar10", "cifar100")
GOLDEN = json.loads((REPOSITORY / "tests/golden/cifar_lt_subsets.json").read_text())


@pytest.mark.parametrize("name", NAMES)
def test_registry(name: str) -> None:
    dataset = store.get_dataset(name)
    assert dataset.image_shape == (32, 32, 3)
    assert dataset.num_classes * dataset.train_class_size == 50_000
    assert list(dataset.class_names) == sorted(set(dataset.class_names))  # the official order is alphabetical
    assert dataset.default_imbalance_factor == 100
    assert set(NAMES) <= set(store.available_datasets())
    assert "_cifar" not in store.available_datasets()


def test_a_wrong_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "cifar10-lt-pool.tar.xz").write_bytes(b"another archive")
    with pytest.raises(UserError, match="wrong content: expected sha256 c564be5b"):
        store.fetch(store.get_dataset("cifar10"), tmp_path / "data", tmp_path / "mirror")


# ---- the real images ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=NAMES)
def pool(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Mapping[str, Images]]]:
    """Name and decoded parts of one data set; its archive is fetched and decoded once for all tests of this file."""
    source = mirror_with(f"{request.param}-lt-pool.tar.xz")
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("data")
        patch.setenv("LTBENCH_DATA", str(root))
        patch.chdir(root)
        dataset = store.get_dataset(request.param)
        store.fetch(dataset, root, source)
        parts: Mapping[str, Any] = store.load(dataset)
        yield request.param, parts


def hashes(images: Images) -> list[str]:
    return [pixel_hash(image) for image in images.pixels]


def test_splits_are_those_of_the_specification(pool: tuple[str, Mapping[str, Images]]) -> None:
    name, parts = pool
    dataset = store.find(store.get_dataset(name))
    for factor, expected in GOLDEN[name].items():
        split = build_split(f"{name}-lt-{factor}", dataset, parts)
        assert sum(split.class_counts) == expected["images"]
        chosen = sorted(hash_ for group in split.train for hash_ in group)
        assert sha256_bytes("".join(chosen).encode()) == expected["sha256_of_sorted_pixel_hashes"]
        assert split.test.class_counts == [10_000 // dataset.num_classes] * dataset.num_classes
    images = select(split, parts)
    assert np.bincount(images["train"].labels).tolist() == split.class_counts


def test_a_step_needs_more_than_the_pool_has(pool: tuple[str, Mapping[str, Images]]) -> None:
    name, parts = pool
    with pytest.raises(UserError, match=r"class '\w+' has .* images in its pool, .* are needed"):
        build_split(f"{name}-lt-if100-step", store.find(store.get_dataset(name)), parts)


@pytest.mark.parametrize("suffix", ["lt-if5", "lt-if100-hash1", "lt-if100-numpy0", "lt-if100-first_n"])
def test_the_pool_refuses_what_it_cannot_serve(pool: tuple[str, Mapping[str, Images]], suffix: str) -> None:
    name, parts = pool
    form = store.find(store.get_dataset(name))
    with pytest.raises(
        UserError, match=r"pool archive of .* serves only hash:0 with an imbalance factor of at least 10"
    ):
        build_split(f"{name}-{suffix}", form, parts)


def test_a_subset_redrawn_within_the_pool(pool: tuple[str, Mapping[str, Images]]) -> None:
    """It shares more images with `hash:0` than a draw from the full set would: in the tail 1 of 10, not 1 of 100."""
    name, parts = pool
    form = store.find(store.get_dataset(name))
    plain, again = (build_split(f"{name}-lt-if100{suffix}", form, parts) for suffix in ("", "-pool-hash1"))
    assert again.subset_rule == "pool-hash:1"
    assert again.class_counts == plain.class_counts
    assert again.train[0] == plain.train[0]  # of the largest class, the pool has all images and both take them all
    tail = range(form.num_classes // 2, form.num_classes)
    shared = sum(len(set(again.train[c]) & set(plain.train[c])) for c in tail) / sum(
        plain.class_counts[c] for c in tail
    )
    pools = exponential_class_counts(form.train_class_size, form.num_classes, 10)
    expected = sum(plain.class_counts[c] ** 2 / pools[c] for c in tail) / sum(plain.class_counts[c] for c in tail)
    assert shared == pytest.approx(expected, abs=0.05)


def test_the_pool_is_what_imbalance_factor_10_selects(pool: tuple[str, Mapping[str, Images]]) -> None:
    name, parts = pool
    dataset = store.get_dataset(name)
    counts = exponential_class_counts(dataset.train_class_size, dataset.num_classes, 10)
    assert np.bincount(parts["train"].labels).tolist() == counts
    assert np.bincount(parts["test"].labels).tolist() == [10_000 // dataset.num_classes] * dataset.num_classes


def test_duplicates(pool: tuple[str, Mapping[str, Images]]) -> None:
    """CIFAR-100 has duplicates, even with two labels: an image is found by class *and* hash, never by hash alone."""
    name, parts = pool
    train, test = Counter(hashes(parts["train"])), Counter(hashes(parts["test"]))
    repeated = sum(train.values()) - len(train)
    shared = len(train.keys() & test.keys())
    assert (repeated, shared) == {"cifar10": (0, 0), "cifar100": (6, 4)}[name]


def test_statistics_are_near_the_published_ones(pool: tuple[str, Mapping[str, Images]]) -> None:
    name, parts = pool
    published = {"cifar10": (0.4942, 0.4851, 0.4504), "cifar100": (0.5088, 0.4874, 0.4419)}[name]  # of the test sets
    mean = parts["test"].pixels.mean(axis=(0, 1, 2), dtype=np.float64) / 255
    np.testing.assert_allclose(mean, published, atol=5e-4)
