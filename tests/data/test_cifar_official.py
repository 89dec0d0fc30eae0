"""The official CIFAR archives: small ones with their layout, read without trusting a single byte of them."""

from __future__ import annotations

import dataclasses
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.base.errors import UserError
from harness.base.files import sha256_file
from harness.datasets import cifar10
from harness.reading.archives import read_members
from harness.reading.dataset import Dataset, Images
from harness.reading.profiles import exponential_class_counts
from harness.splits import store
from harness.splits.rules import hash_rule, members_of
from harness.splits.splits import Split, build_split, select
from tests.data import made, official

PER_CLASS = 30
SHAPE = (32, 32, 3)


def random_images(per_class: int, seed: int, classes: int = 10) -> Images:
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(classes), per_class))
    return Images(rng.integers(0, 256, (len(labels), *SHAPE), dtype=np.uint8), labels)


TRAIN, TEST = random_images(PER_CLASS, 0), random_images(2, 1)


def with_pins(dataset: Dataset, official_archive: Path, pool_archive: Path | None = None) -> Dataset:
    """The real data set, but with the small archives' hashes."""
    pool = dataclasses.replace(dataset.forms[0], train_class_size=PER_CLASS)
    if pool_archive is not None:
        pool = dataclasses.replace(pool, files={pool_archive.name: sha256_file(pool_archive)})
    files = {official_archive.name: sha256_file(official_archive)}
    return dataclasses.replace(dataset, files=files, train_class_size=PER_CLASS, forms=(pool,))


def write_pool(path: Path) -> Path:
    """The pool archive that belongs to the small training set."""
    counts = exponential_class_counts(PER_CLASS, 10, 10)
    kept = [i for g, n in zip(members_of(TRAIN, 10), counts, strict=True) for i in hash_rule(TRAIN, g, n, 0)]
    members = {
        f"pool/{part}/{cifar10.CLASS_NAMES[images.labels[i]]}/{i}.webp": made.encoded(images.pixels[i])
        for part, images, chosen in (("train", TRAIN, kept), ("test", TEST, range(len(TEST.labels))))
        for i in chosen
    }
    return made.write_archive(path, members)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LTBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("LTBENCH_MIRROR", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data" / "cifar10"


@pytest.fixture
def both(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """cifar10 with small archives, both in a mirror."""
    members = official.cifar10_members(TRAIN, TEST, cifar10.CLASS_NAMES)
    archive = made.write_archive(tmp_path / "mirror" / "cifar-10-python.tar.gz", members)
    dataset = with_pins(cifar10.DATASET, archive, write_pool(tmp_path / "mirror" / "cifar10-lt-pool.tar.xz"))
    monkeypatch.setattr(cifar10, "DATASET", dataset)
    return dataset


def drawn(name: str, dataset: Dataset) -> Split:
    return build_split(name, store.find(dataset), store.load(dataset))


def test_pixels_labels_and_the_official_order(both: Dataset, tmp_path: Path) -> None:
    store.fetch(both, tmp_path / "data", tmp_path / "mirror")
    parts = store.load(both)
    for part, expected in (("train", TRAIN), ("test", TEST)):
        images = parts[part]
        assert isinstance(images, Images)
        np.testing.assert_array_equal(images.pixels, expected.pixels)
        np.testing.assert_array_equal(images.labels, expected.labels)


def test_cifar100_has_fine_labels(tmp_path: Path) -> None:
    from harness.datasets import cifar100

    train, test = random_images(2, 2, 100), random_images(1, 3, 100)
    members = official.cifar100_members(train, test, cifar100.CLASS_NAMES)
    made.write_archive(tmp_path / "cifar-100-python.tar.gz", members)
    parts = cifar100.DATASET.decode(tmp_path)
    np.testing.assert_array_equal(parts["train"].labels, train.labels)
    assert isinstance(parts["test"], Images)
    np.testing.assert_array_equal(parts["test"].pixels, test.pixels)


@pytest.mark.parametrize("suffix", ["lt-if10", "lt-if30", "lt-if30-pool-hash1"])
def test_a_split_is_the_same_from_either_archive(both: Dataset, data: Path, tmp_path: Path, suffix: str) -> None:
    name, splits, chosen = f"cifar10-{suffix}", [], []
    for archive in ("cifar-10-python.tar.gz", "cifar10-lt-pool.tar.xz"):
        data.mkdir(parents=True, exist_ok=True)
        (data / archive).write_bytes((tmp_path / "mirror" / archive).read_bytes())
        splits.append(drawn(name, both))
        chosen.append(select(splits[0], store.load(both)))
        (data / archive).unlink()
    assert splits[0] == splits[1]
    for part in ("train", "test"):
        one, other = chosen[0][part], chosen[1][part]
        assert isinstance(one, Images)
        assert isinstance(other, Images)
        np.testing.assert_array_equal(one.pixels, other.pixels)


def test_a_redrawn_pool_that_is_too_small_is_refused(both: Dataset, tmp_path: Path) -> None:
    """With the full archive at hand, too: the images are drawn from what the pool would hold."""
    store.fetch(both, tmp_path / "data", tmp_path / "mirror")
    for name in ("cifar10-lt-if5-pool-hash1", "cifar10-lt-if20-step-pool-hash1"):
        with pytest.raises(UserError, match="images in its pool"):
            drawn(name, both)


def test_published_rules_follow_the_official_order(both: Dataset, tmp_path: Path) -> None:
    store.fetch(both, tmp_path / "data", tmp_path / "mirror")
    counts = exponential_class_counts(PER_CLASS, 10, 5)
    np.random.seed(0)  # the published procedure, word for word
    shuffled, first = [], []
    for c, count in enumerate(counts):
        index = np.where(TRAIN.labels == c)[0]
        first.append(index[:count].copy())
        np.random.shuffle(index)
        shuffled.append(index[:count])
    for rule, expected in (("numpy0", shuffled), ("first_n", first)):
        split = drawn(f"cifar10-lt-if5-{rule}", both)
        assert split.subset_rule == rule
        images = select(split, {"train": TRAIN, "test": TEST})["train"]
        assert isinstance(images, Images)
        wanted = {TRAIN.pixels[i].tobytes() for group in expected for i in group}
        assert {image.tobytes() for image in images.pixels} == wanted


def test_the_official_archive_goes_before_the_pool(both: Dataset, data: Path, tmp_path: Path) -> None:
    store.fetch(both, tmp_path / "data", tmp_path / "mirror")
    assert [path.name for path in data.iterdir()] == ["cifar-10-python.tar.gz"]
    assert store.find(both).pool_min_imbalance_factor is None
    drawn("cifar10-lt-if2-hash3", both)


def test_a_mirror_with_the_pool_alone_is_enough(both: Dataset, data: Path, tmp_path: Path) -> None:
    (tmp_path / "mirror" / "cifar-10-python.tar.gz").unlink()
    store.fetch(both, tmp_path / "data", tmp_path / "mirror")
    assert [path.name for path in data.iterdir()] == ["cifar10-lt-pool.tar.xz"]
    with pytest.raises(UserError, match="serves only hash:0"):
        drawn("cifar10-lt-if20-hash1", both)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_without_a_network_the_error_is_one_line_that_helps(
    name: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("urllib.request.urlopen", _no_network)
    with pytest.raises(UserError) as caught:
        store.fetch(store.get_dataset(name), tmp_path / "data")
    message = str(caught.value)
    archive = f"{name.replace('cifar', 'cifar-')}-python.tar.gz"
    for part in (f"https://www.cs.toronto.edu/~kriz/{archive}", "no network", "--mirror", f"{name}-lt-pool.tar.xz"):
        assert part in message
    assert "\n" not in message
    assert not [path for path in (tmp_path / "data").rglob("*") if path.is_file()]


def _no_network(*_: object, **__: object) -> None:
    raise OSError("no network")


def test_a_download_is_checked_before_it_is_put_in_place(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "page").write_bytes(b"<html>not found</html>")
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: (tmp_path / "page").open("rb"))
    with pytest.raises(UserError, match=r"cifar-10-python.tar.gz: wrong content: expected md5 c58f30108f718f9"):
        store.fetch(cifar10.DATASET, tmp_path / "data")
    assert not [path for path in (tmp_path / "data").rglob("*") if path.is_file()]


# ---- hostile archives ------------------------------------------------------------------------------------------------


class Evil:
    """Unpickled without care, it runs a command."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize(
    "value",
    [
        Evil(os.system, "touch pwned"),
        {"data": Evil(os.system, "touch pwned"), "labels": []},
        Evil(eval, "open('pwned', 'w')"),
        Evil(getattr, "x", "upper"),
        Evil(np.load, "pwned"),
        Evil(pickle.loads, b"x"),
    ],
)
def test_a_pickle_that_would_run_something_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    members = official.cifar10_members(TRAIN, TEST, cifar10.CLASS_NAMES, test_batch=pickle.dumps(value, protocol=2))
    message = refusal(tmp_path, members)
    assert "'test_batch' cannot be read: it asks for" in message
    assert not (tmp_path / "pwned").exists()


def test_damaged_anywhere(tmp_path: Path) -> None:
    members = official.cifar10_members(TRAIN, TEST, cifar10.CLASS_NAMES)
    whole, rng = members["cifar-10-batches-py/test_batch"], np.random.default_rng(0)
    for length in rng.integers(0, len(whole), 40):
        assert "test_batch" in refusal(tmp_path, members | {"cifar-10-batches-py/test_batch": whole[:length]})


def refusal(folder: Path, members: dict[str, bytes]) -> str:
    """The one line with which an archive of these members is refused."""
    path = made.write_archive(folder / "cifar-10-python.tar.gz", members)
    with pytest.raises(UserError) as caught:
        cifar10.DATASET.decode(folder)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


def test_only_what_is_wanted_is_read(tmp_path: Path) -> None:
    members = official.cifar10_members(TRAIN, TEST, cifar10.CLASS_NAMES)
    path = made.write_archive(tmp_path / "a.tar.gz", members)
    assert [name.name for name, _ in read_members(path, only=lambda name: name.name == "test_batch")] == ["test_batch"]
