"""Tiny ImageNet and its long-tailed subset: the real archive where it is at hand, and small zips with the layout."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from harness.base.errors import UserError
from harness.base.files import sha256_bytes
from harness.datasets import _tiny_imagenet as tiny
from harness.datasets import tiny_imagenet, tiny_imagenet_lt
from harness.metrics.shots import group_sizes
from harness.reading.dataset import AnyImages, Images
from harness.reading.identity import image_hash
from harness.splits import store
from harness.splits.splits import build_split, select
from tests.data import official
from tests.data.mirror import mirror_with

WNIDS = tiny.WNIDS[:4]
COUNTS = [5, 3, 2, 1]


def test_registry() -> None:
    assert len(tiny.WNIDS) == 200
    assert list(tiny.WNIDS) == sorted(set(tiny.WNIDS))
    assert len(set(tiny.CLASS_NAMES)) == 200
    assert tiny.CLASS_NAMES[:2] == ("goldfish", "European fire salamander")
    counts = tiny_imagenet_lt.COUNTS
    assert (sum(counts), counts[0], counts[-1]) == (21_549, 500, 5)
    assert group_sizes(counts) == {"many": 70, "medium": 70, "few": 60}
    assert tiny_imagenet.DATASET.num_classes * tiny_imagenet.DATASET.train_class_size == 100_000
    assert {"tiny-imagenet", "tiny-imagenet-lt"} <= set(store.available_datasets())


@pytest.fixture
def four_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny, "WNIDS", WNIDS)


@pytest.fixture
def archive(four_classes: None, tmp_path: Path) -> Path:
    return official.write_zip(tmp_path / tiny.ZIP, official.tiny_imagenet_members(WNIDS, 6, 8))


def test_a_zip_is_cut_to_the_lowest_numbered_images(archive: Path) -> None:
    parts = tiny.read_zip(archive, COUNTS)
    train, test = parts["train"], parts["test"]
    assert np.bincount(train.labels).tolist() == COUNTS
    assert np.bincount(test.labels).tolist() == [2, 2, 2, 2]
    assert train.pixels.shape == (11, 64, 64, 3)
    wanted = sorted(sha256_bytes(official.jpeg(1000 * c + i)) for c, count in enumerate(COUNTS) for i in range(count))
    assert sorted(image_hash(train, i) for i in range(11)) == wanted


def test_a_split_of_jpeg_files_knows_them_by_their_bytes(archive: Path) -> None:
    test = tiny.read_zip(archive, COUNTS)["test"]
    by_file = [sha256_bytes(official.jpeg(10**6 + i)) for i in range(8)]
    assert [image_hash(test, i) for i in range(8)] == by_file
    assert image_hash(test, 3, b"1:") == sha256_bytes(b"1:" + official.jpeg(10**6 + 3))


def test_grey_images_become_rgb(archive: Path) -> None:
    test = tiny.read_zip(archive, COUNTS)["test"]
    grey = [bool((image == image[:, :, :1]).all()) for image in test.pixels]
    assert grey == [(10**6 + i) % 3 == 0 for i in range(8)]


@pytest.mark.parametrize(
    ("member", "data", "match"),
    [
        (f"train/{WNIDS[0]}/images/{WNIDS[0]}_0.JPEG", b"no image", "cannot be read: it is in none of the formats"),
        (f"train/{WNIDS[0]}/images/{WNIDS[0]}_0.JPEG", official.jpeg(0, 32), "it has 32 x 32 pixels, expected 64 x 64"),
        ("val/val_annotations.txt", b"", "no images of the part 'test'"),
    ],
)
def test_damaged_zips(four_classes: None, tmp_path: Path, member: str, data: bytes, match: str) -> None:
    members = official.tiny_imagenet_members(WNIDS, 6, 8) | {f"tiny-imagenet-200/{member}": data}
    path = official.write_zip(tmp_path / tiny.ZIP, members)
    with pytest.raises(UserError, match=match) as caught:
        tiny.read_zip(path, COUNTS)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_one_zip_serves_both_data_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LTBENCH_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    long_tailed, full = store.get_dataset("tiny-imagenet-lt"), store.get_dataset("tiny-imagenet")
    assert not store.is_here(long_tailed)
    (tmp_path / "tiny-imagenet").mkdir()
    (tmp_path / "tiny-imagenet" / tiny.ZIP).write_bytes(b"a zip")
    assert store.is_here(long_tailed)
    assert store.is_here(full)
    assert store.folder_of(store.find(long_tailed)) == tmp_path / "tiny-imagenet"


# ---- the real images -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, AnyImages]]:
    source = mirror_with(tiny_imagenet_lt.ARCHIVE)
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("data")
        patch.setenv("LTBENCH_DATA", str(root))
        patch.chdir(root)
        dataset = store.get_dataset("tiny-imagenet-lt")
        store.fetch(dataset, root, source)
        yield store.load(dataset)


def test_the_real_archive(real: Mapping[str, AnyImages]) -> None:
    train, test = real["train"], real["test"]
    assert np.bincount(train.labels).tolist() == tiny_imagenet_lt.COUNTS
    assert np.bincount(test.labels).tolist() == [50] * 200
    assert isinstance(test, Images)
    mean = test.pixels[::5].mean(axis=(0, 1, 2), dtype=np.float64) / 255
    spread = test.pixels[::5].std(axis=(0, 1, 2), dtype=np.float64) / 255
    np.testing.assert_allclose(mean, tiny.MEAN, atol=5e-3)
    np.testing.assert_allclose(spread, tiny.STD, atol=5e-3)


def test_its_split_is_all_of_it(real: Mapping[str, AnyImages]) -> None:
    split = build_split("tiny-imagenet-lt", store.get_dataset("tiny-imagenet-lt"), real)
    assert (split.profile, split.subset_rule, split.imbalance_factor) == ("given", "given", 100.0)
    assert split.class_counts == tiny_imagenet_lt.COUNTS
    assert len(select(split, real)["train"].labels) == 21_549


def test_cut_further(real: Mapping[str, AnyImages]) -> None:
    dataset = store.get_dataset("tiny-imagenet-lt")
    cut, other = (build_split(f"tiny-imagenet-lt-cut200{rule}", dataset, real) for rule in ("", "-hash1"))
    assert (cut.class_counts[0], cut.class_counts[-1], cut.imbalance_factor) == (500, 2, 200.0)
    assert cut.class_counts == other.class_counts
    assert cut.train[0] == other.train[0]
    assert cut.train[100] != other.train[100]
    with pytest.raises(UserError, match=r"class .* has .* images in its pool"):
        build_split("tiny-imagenet-lt-cut10", dataset, real)
