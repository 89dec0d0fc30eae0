"""Names of splits: each says all of how a split is drawn, and one split has one name."""

from __future__ import annotations

import dataclasses

import pytest

from harness.base.errors import UserError
from harness.reading.dataset import Dataset
from harness.splits import store
from harness.splits.split_names import SplitName, name_split, parse_split_name
from tests.unit import toys


@pytest.mark.parametrize("name", ["toy-lt-if4", "toy-lt-if2.5", "toy-lt-if1"])
def test_a_split_name_is_written_as_it_is_read(toy: Dataset, name: str) -> None:
    assert str(parse_split_name(name)) == name


@pytest.mark.parametrize("factor", [1.0, 4.0, 2.5, 100.0, 100.1234567, 1e6, 1234567.0])
def test_every_factor_survives_its_name(toy: Dataset, factor: float) -> None:
    name = str(SplitName("toy", factor))
    assert parse_split_name(name).imbalance_factor == factor


@pytest.mark.parametrize("name", ["toy-lt-if4.0", "toy-lt-if04", "toy-lt-if٤"])
def test_one_split_has_one_name(toy: Dataset, name: str) -> None:
    with pytest.raises(UserError, match="toy-lt-if"):
        parse_split_name(name)


@pytest.mark.parametrize(
    "name", ["toy", "toy-lt", "toy-lt-if", "toy-lt-if-4", "toy-lt-ifnan", "toy-lt-if4 ", "", "toy-lt-if0.5"]
)
def test_what_is_not_a_split_name(toy: Dataset, name: str) -> None:
    with pytest.raises(UserError):
        parse_split_name(name)


def test_a_factor_beyond_floats(toy: Dataset) -> None:
    with pytest.raises(UserError, match="imbalance factor"):
        parse_split_name("toy-lt-if" + "9" * 400)


def test_unknown_data_set_names_the_near_ones_and_the_place(toy: Dataset) -> None:
    with pytest.raises(UserError, match=r"suites\.yaml: no data set is named 'toi' \(closest: toy"):
        parse_split_name("toi-lt-if4", where="suites.yaml")


@pytest.mark.parametrize(
    ("name", "parsed"),
    [
        ("cifar10-lt-if100", SplitName("cifar10", 100.0)),
        ("cifar100-lt-if100-first_n", SplitName("cifar100", 100.0, rule="first_n")),
        ("cifar100-lt-if50-numpy0", SplitName("cifar100", 50.0, rule="numpy0")),
        ("cifar100-lt-if50-step", SplitName("cifar100", 50.0, "step")),
        ("cifar100-lt-if2.5-zipf-hash12", SplitName("cifar100", 2.5, "zipf", "hash:12")),
        ("cifar10-lt-if100-pool-hash1", SplitName("cifar10", 100.0, rule="pool-hash:1")),
        ("tiny-imagenet-lt", SplitName("tiny-imagenet-lt", None)),
        ("tiny-imagenet-lt-cut200", SplitName("tiny-imagenet-lt", 200.0)),
        ("tiny-imagenet-lt-cut200-hash1", SplitName("tiny-imagenet-lt", 200.0, rule="hash:1")),
        ("tiny-imagenet-lt-if100", SplitName("tiny-imagenet", 100.0)),
        ("imagenet-lt", SplitName("imagenet-lt", None)),
        ("fashion-mnist-lt-if10", SplitName("fashion-mnist", 10.0)),
    ],
)
def test_all_kinds(name: str, parsed: SplitName) -> None:
    assert parse_split_name(name) == parsed
    assert str(parsed) == name


def test_the_seed_of_a_rule() -> None:
    assert [SplitName("x", 1.0, rule=rule).seed for rule in ("hash:0", "hash:7", "pool-hash:3", "numpy0")] == [
        0,
        7,
        3,
        0,
    ]


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("cifar10", "is not a split"),
        ("cifar10-lt-if100-hash0", "write cifar10-lt-if100$"),
        ("cifar10-lt-if100-hash01", "is not a split"),
        ("cifar10-lt-if100-exponential", "is not a split"),
        ("cifar10-lt-if100-first_n-step", "is not a split"),
        ("cifar10-cut100", "write cifar10-lt-if100$"),
        ("mnist5k-lt-if100-pool-hash1", "has no pool archive"),
        ("tiny-imagenet-lt-lt-if200", "write tiny-imagenet-lt-cut200$"),
        ("tiny-imagenet-lt-cut200-first_n", "only hash rules can cut it"),
        ("imagenet-lt-cut100", "'imagenet-lt' is used as it is"),
        ("tiny-imagenet-cut100", "write tiny-imagenet-lt-if100$"),
    ],
)
def test_splits_that_cannot_be(name: str, match: str) -> None:
    with pytest.raises(UserError, match=match) as caught:
        parse_split_name(name)
    assert "\n" not in str(caught.value)


def test_what_run_takes_without_a_factor(toy: Dataset) -> None:
    assert str(name_split(toys.make_dataset(), None)) == "toy-lt-if4"
    assert str(name_split(toys.make_dataset(), 10)) == "toy-lt-if10"
    given = dataclasses.replace(toys.make_dataset(), given=True)
    assert str(name_split(given, None)) == "toy"
    assert str(name_split(store.get_dataset("tiny-imagenet-lt"), 200)) == "tiny-imagenet-lt-cut200"
