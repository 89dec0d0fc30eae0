"""ImageNet-LT, Places-LT, iNaturalist 2018: official lists known by their ids, images that stay on disk."""

from __future__ import annotations

import dataclasses
import gzip
from pathlib import Path

import numpy as np
import pytest

from harness.base.errors import UserError
from harness.datasets import _lists, imagenet_lt, places_lt
from harness.datasets.places_lt import official_name
from harness.reading import pins
from harness.reading.dataset import Dataset, ImageFiles
from harness.reading.lists import read_list
from harness.splits import store
from harness.splits.splits import build_split, select
from harness.splits.verify import verify
from tests.data import official
from tests.data.mirror import mirror_with

NAMES = ("imagenet-lt", "places-lt", "inat2018")
COUNTS = [120, 30, 5]  # one class of each group
CLASSES = ("n01", "n02", "n03")


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LTBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("LTBENCH_MIRROR", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data"


def lines(counts: list[int], folder: str = "train") -> bytes:
    listed = [f"{folder}/{CLASSES[c]}/{i}.JPEG {c}\n" for c, count in enumerate(counts) for i in range(count)]
    return "".join(listed[::-1]).encode()


def make_dataset(lists: dict[str, bytes]) -> Dataset:
    """A data set of three classes with these lists."""
    return _lists.list_dataset(
        name="made",
        title="Made",
        citation="",
        lists_folder="Made",
        lists={part: f"{part}.txt" for part in lists},
        git_ids={part: (pins.git_blob_id(content),) for part, content in lists.items()},
        num_classes=3,
        class_name=imagenet_lt.DATASET.class_name or str,
        largest_class=120,
        smallest_class=5,
    )


@pytest.fixture
def made_set(data: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """A small data set with its lists and images in place."""
    lists = {"train": lines(COUNTS), "test": lines([2, 2, 2], "val")}
    for part, content in lists.items():
        (data / "made").mkdir(parents=True, exist_ok=True)
        (data / "made" / f"{part}.txt").write_bytes(content)
        for seed, line in enumerate(content.decode().splitlines()):
            path = data / "made" / line.split()[0]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(official.jpeg(seed + 1000 * (part == "test"), 8))
    dataset = make_dataset(lists)
    monkeypatch.setattr(store, "available_datasets", lambda: ["made"])
    monkeypatch.setattr(store, "get_dataset", lambda name, **_: dataset)
    return dataset


def test_git_ids_are_gits() -> None:
    assert pins.git_blob_id(b"") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    assert pins.git_blob_id(b"hello\n") == "ce013625030ba8dba906f756967f9e9ca394464a"


@pytest.mark.parametrize("name", NAMES)
def test_registry(name: str) -> None:
    dataset = store.get_dataset(name)
    assert dataset.image_shape == (224, 224, 3)
    assert dataset.given
    assert not dataset.profiled
    assert all(pin.startswith("git:") for pin in dataset.files.values())
    assert dataset.num_classes == {"imagenet-lt": 1000, "places-lt": 365, "inat2018": 8142}[name]
    with pytest.raises(UserError, match=f"'{name}' is used as it is; the split is '{name}'"):
        build_split(f"{name}-lt-if100", dataset, {})


def test_a_split_lists_names(made_set: Dataset, data: Path) -> None:
    parts = store.load(made_set)
    split = build_split("made", made_set, parts)
    assert split.class_counts == COUNTS
    assert split.class_names == list(CLASSES)
    assert split.imbalance_factor == 24
    assert split.train[2] == [f"train/n03/{i}.JPEG" for i in range(5)]
    images = select(split, parts)
    assert isinstance(images["train"], ImageFiles)
    assert images["train"].root == data / "made"
    assert images["train"].names[-1] == "train/n03/4.JPEG"
    assert np.bincount(images["train"].labels).tolist() == COUNTS
    assert images["test"].labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert images["val"] == ImageFiles(data / "made", (), images["val"].labels)


def test_another_list_is_refused_by_its_id(made_set: Dataset, data: Path) -> None:
    path = data / "made" / "train.txt"
    path.write_bytes(path.read_bytes().replace(b" 2\n", b" 1\n", 1))
    with pytest.raises(
        UserError, match=r"train.txt: wrong content: expected git [0-9a-f]{40}, found git|found [0-9a-f]"
    ):
        store.load(made_set)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"a.jpg\n", "line 1 is not `relative/path label`"),
        (b"a.jpg 0\nb.jpg 3\n", "line 2 is not"),
        (b"a.jpg -1\n", "line 1 is not"),
        (b"a.jpg x\n", "line 1 is not"),
        (b"\n", "line 1 is not"),
        ("a.jpg ²\n".encode(), "line 1 is not"),
        (b"../../etc/passwd 0\n", "line 1: its path leads out"),
        (b"a\\..\\b.jpg 0\n", "line 1: its path leads out"),
        (b"\xff\xfe 0\n", "cannot be read"),
    ],
)
def test_lists_of_another_form(tmp_path: Path, content: bytes, match: str) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(UserError, match=match) as caught:
        read_list(tmp_path / "a.txt", 3)
    assert "\n" not in str(caught.value)


def test_a_leading_slash_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("/train/a b.jpg 1\n")
    assert read_list(tmp_path / "a.txt", 2).names == ("train/a b.jpg",)


# ---- verify ----------------------------------------------------------------------------------------------------------


def test_a_whole_set_is_sound(made_set: Dataset) -> None:
    report = verify(made_set)
    assert report.sound
    assert report.images == {"train": 155, "test": 6}
    assert report.duplicates_in_train == 0
    quick = verify(made_set, quick=True)
    assert quick.sound
    assert quick.duplicates_in_train is None
    assert quick.sha256 == report.sha256


def test_every_missing_and_damaged_image_is_listed(made_set: Dataset, data: Path) -> None:
    root = data / "made"
    (root / "train/n01/7.JPEG").unlink()
    (root / "val/n02/0.JPEG").unlink()
    (root / "train/n02/3.JPEG").write_bytes(official.jpeg(1, 8)[:-30])
    (root / "train/n02/4.JPEG").write_bytes(b"")
    report = verify(made_set)
    assert not report.sound
    assert report.missing == [str(root / "train/n01/7.JPEG"), str(root / "val/n02/0.JPEG")]
    assert sorted(fault.split(": ")[0] for fault in report.damaged) == [
        str(root / "train/n02/3.JPEG"), str(root / "train/n02/4.JPEG"),
    ]  # fmt: skip
    assert verify(made_set, quick=True).missing == report.missing
    assert len(report.lines()) == 5


def test_duplicates_are_reported_but_no_fault(made_set: Dataset, data: Path) -> None:
    root = data / "made"
    first = (root / "train/n01/0.JPEG").read_bytes()
    (root / "train/n03/0.JPEG").write_bytes(first)
    (root / "val/n01/0.JPEG").write_bytes(first)
    report = verify(made_set)
    assert report.sound
    assert (report.duplicates_in_train, report.in_train_and_test) == (1, 1)


def test_missing_lists_say_where_they_come_from(data: Path) -> None:
    report = verify(store.get_dataset("places-lt"))
    assert len(report.missing) == 2
    assert all("ltbench fetch places-lt" in fault for fault in report.missing)


# ---- the real lists --------------------------------------------------------------------------------------------------


def test_names_of_places() -> None:
    pairs = {
        "data_256/a/airfield/00000004.jpg": "train/airfield/00000004.jpg",
        "data_256/a/apartment_building/outdoor/1.jpg": "train/apartment_building-outdoor/1.jpg",
        "train/apartment_building-outdoor/1.jpg": "train/apartment_building-outdoor/1.jpg",
        "val_256/Places365_val_00003597.jpg": "val/Places365_val_00003597.jpg",
        "val/airfield/Places365_val_00003597.jpg": "val/Places365_val_00003597.jpg",
    }
    assert {name: official_name(name) for name in pairs} == pairs


@pytest.fixture
def places(data: Path) -> Dataset:
    source = mirror_with("split_lists/Places_LT_train.txt.gz", "split_lists/Places_LT_test.txt.gz")
    store.fetch(store.get_dataset("places-lt"), data, source)
    return store.get_dataset("places-lt")


def test_the_real_list_of_places(places: Dataset) -> None:
    split = build_split("places-lt", places, store.load(places))
    assert (sum(split.class_counts), max(split.class_counts), min(split.class_counts)) == (62_500, 4980, 5)
    assert split.test.class_counts == [100] * 365
    assert split.class_names[8] == "apartment_building-outdoor"
    assert split.imbalance_factor == 996


def test_either_variant_of_the_real_list_gives_the_same_split(places: Dataset, data: Path) -> None:
    """The official lists, made from the 256-pixel ones, have the published git ids: the variants agree line by line."""
    split = build_split("places-lt", places, store.load(places))
    folder, category = data / "places-lt", dict(enumerate(split.class_names))
    for file in places.files:
        official_lines = []
        for line in (folder / file).read_text().splitlines():
            name, label = line.split(" ")
            plain = official_name(name)
            if plain.startswith("val/"):
                plain = plain.replace("val/", f"val/{category[int(label)]}/")
            official_lines.append(f"{plain} {label}\n")
        (folder / file).write_text("".join(official_lines))
        assert pins.wrong(folder / file, places.files[file].split()[0]) == ""
    assert build_split("places-lt", places, store.load(places)) == split


@pytest.mark.parametrize(
    ("name", "file", "classes", "per_class"),
    [("imagenet-lt", "ImageNet_LT_test.txt", 1000, 50), ("inat2018", "iNaturalist18_val.txt", 8142, 3)],
)
def test_the_other_real_lists(tmp_path: Path, name: str, file: str, classes: int, per_class: int) -> None:
    source = mirror_with(f"split_lists/{file}.gz")
    (tmp_path / file).write_bytes(gzip.decompress((source / "split_lists" / f"{file}.gz").read_bytes()))
    dataset = store.get_dataset(name)
    assert pins.wrong(tmp_path / file, dataset.files[file]) == ""
    images = read_list(tmp_path / file, classes)
    assert np.bincount(images.labels).tolist() == [per_class] * classes
    assert dataset.class_name is not None
    assert len({dataset.class_name(image) for image in images.names}) == classes


def test_a_damaged_mirror(data: Path, tmp_path: Path) -> None:
    (tmp_path / "split_lists").mkdir()
    for content in (b"no gzip", gzip.compress(b"another list"), gzip.compress(b"x" * 99)[:20]):
        for file in places_lt.DATASET.files:
            (tmp_path / "split_lists" / f"{file}.gz").write_bytes(content)
        with pytest.raises(UserError, match=r"Places_LT_train.txt.gz: (damaged|wrong)") as caught:
            store.fetch(dataclasses.replace(places_lt.DATASET), data, tmp_path)
        assert "\n" not in str(caught.value)
        assert not [path for path in data.rglob("*") if path.is_file()]
