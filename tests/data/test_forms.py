"""Users' own data as Hugging Face shards, WebDataset shards and COCO's annotations: the same data set as a folder."""

from __future__ import annotations

import io
import json
import pickle
import re
import shutil
import sys
import tarfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness import cli
from harness.base.errors import UserError
from harness.datasets import _folder
from harness.datasets._coco import read_coco
from harness.datasets._forms import FORMS, KINDS
from harness.datasets._huggingface import read_huggingface
from harness.datasets._rows import by_part
from harness.datasets._walk import FaultsError, Found
from harness.datasets._webdataset import read_webdataset
from harness.feed.parts import closing, make_parts
from harness.reading.dataset import Dataset, ImageFiles, Images
from harness.reading.pieces import Piece, read_bytes
from harness.spec.stage_recipe import Augment
from harness.splits import store
from harness.splits.notes import data_notes
from harness.splits.split_names import name_split, parse_split_name
from harness.splits.splits import Split, build_split, select
from harness.splits.verify import verify
from tests.data import made

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

NEW = ("hf", "hf saved", "hf file", "wds", "coco")
SUFFIXES = {"hf": "parquet", "hf saved": "arrow", "hf file": "arrow", "wds": "tar", "coco": "json"}
CLASSES = ("ant", "bee", "cow")
Sample = tuple[str, str, bytes]  # part, class, PNG
Rows = Sequence[Mapping[str, Any]]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LTBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def png(seed: int, side: int = 8) -> bytes:
    return made.encoded(made.pixels(seed, (side, side, 3)), "PNG")


def samples(side: int = 8) -> list[Sample]:
    """12, 8 and 4 training images and 2 of each class in the other parts; an image of val is in train too."""
    found = []
    for part, counts in (("train", (12, 8, 4)), ("val", (2, 2, 2)), ("test", (2, 2, 2))):
        for label, count in enumerate(counts):
            seeds = [1000 * label + 100 * (part == "test") + i for i in range(count)]
            found += [(part, CLASSES[label], png(seed + 50 * (part == "val" and seed % 2), side)) for seed in seeds]
    return found


def parts_of(some: Sequence[Sample]) -> dict[str, list[tuple[str, bytes]]]:
    return {part: [(name, data) for own, name, data in some if own == part] for part, _, _ in some}


def metadata(*names: str) -> dict[bytes, bytes]:
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    return {b"huggingface": json.dumps({"info": {"features": features}}).encode()}


IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
LABELLED = pa.schema([("image", IMAGE), ("label", pa.int64())], metadata=metadata(*CLASSES))


def table(rows: Sequence[tuple[str, bytes]], schema: Any = LABELLED) -> Any:
    images = [{"bytes": data, "path": None} for _, data in rows]
    return pa.table({"image": images, "label": [CLASSES.index(name) for name, _ in rows]}, schema=schema)


def arrow(path: Path, content: Any, new: Callable[..., Any] = pa.ipc.new_stream) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with pa.OSFile(str(path), "wb") as file, new(file, content.schema) as stream:
        stream.write_table(content, max_chunksize=3)


def parquet(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(content, path, row_group_size=5)


SHARDS: dict[str, Any] = {"hf": parquet, "hf saved": arrow, "hf file": partial(arrow, new=pa.ipc.new_file)}


def tar(path: Path, members: Mapping[str, bytes]) -> Path:
    return made.write_archive(path, members)


def members(rows: Sequence[tuple[str, bytes]], start: int = 0) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for i, (name, data) in enumerate(rows, start):
        text = json.dumps({"label": name, "width": 8}).encode()
        found |= {f"{i:06}.png": data, f"{i:06}.txt": b"a caption"}
        found |= {f"{i:06}.json": text} if i % 2 else {f"{i:06}.cls": name.encode() + b"\n"}
    return found


def coco(rows: Sequence[tuple[str, bytes]], part: str) -> dict[str, Any]:
    return {
        "images": [{"id": i, "file_name": f"{part}/{i}.png"} for i in range(len(rows))],
        "annotations": [{"id": i, "image_id": i, "category_id": 7 + CLASSES.index(c)} for i, (c, _) in enumerate(rows)],
        "categories": [{"id": 7 + i, "name": name, "supercategory": "animal"} for i, name in enumerate(CLASSES)],
    }


def write(root: Path, form: str, some: Sequence[Sample]) -> str:
    """The samples in that form; the name of the data set."""
    for part, rows in parts_of(some).items():
        half = len(rows) // 2
        if form == "hf":
            hub = "validation" if part == "val" else part
            for i, piece in enumerate((rows[:half], rows[half:])):
                parquet(root / "data" / f"{hub}-0000{i}-of-00002.parquet", table(piece))
        elif form.startswith("hf "):
            for i, piece in enumerate((rows[:half], rows[half:])):
                SHARDS[form](root / part / f"data-0000{i}-of-00002.arrow", table(piece))
            (root / part / "state.json").write_text("{}")
            arrow(root / part / "cache-0123.arrow", table(rows))  # what map() leaves behind
        elif form == "wds":
            tar(root / f"pets-{part}-000000.tar", members(rows[:half]))
            tar(root / f"pets-{part}-000001.tar", members(rows[half:], half))
        else:
            for i, (name, data) in enumerate(rows):
                path = root / part / (f"{i}.png" if form == "coco" else f"{name}/{i}.png")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
            if form == "coco":
                (root / f"pets_{part}2018.json").write_text(json.dumps(coco(rows, part)))
    return f"{form.split()[0]}:{root}"


def opened(name: str, holdout: float = 0.0) -> Dataset:
    _folder._scan.cache_clear()  # as a new process
    return store.get_dataset(name, holdout=holdout)


def drawn(dataset: Dataset, factor: float | None = None) -> Split:
    return build_split(str(name_split(dataset, factor)), dataset, store.load(dataset))


def read(form: str, root: Path, **more: Any) -> Found:
    if form == "hf":
        return read_huggingface(root, parts_of_its_own=True, cache=root / "cache", **more)
    return {"wds": read_webdataset, "coco": read_coco}[form](root, parts_of_its_own=True, **more)


# ---- the same data set -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", NEW)
def test_every_form_gives_what_a_folder_gives(here: Path, form: str) -> None:
    folder, other = opened(write(here / "a", "folder", samples())), opened(write(here / "b", form, samples()))
    assert other.name.startswith(f"{form.split()[0]}-b-")
    for factor in (None, 4):
        one, two = drawn(folder, factor), drawn(other, factor)
        assert (one.train, one.val, one.test, one.class_names) == (two.train, two.val, two.test, two.class_names)
        assert data_notes(one, folder) == data_notes(two, other) != []
        for part, images in select(one, store.load(folder)).items():
            same = select(two, store.load(other))[part]
            assert isinstance(images, Images)
            assert isinstance(same, Images)
            assert np.array_equal(images.pixels, same.pixels)
            assert images.labels.tolist() == same.labels.tolist()
    report = verify(other)
    assert report.sound, report.lines()
    facts, expected = report.as_dict(), verify(folder).as_dict()
    assert len(facts.pop("copies")) == len(expected.pop("copies")) == 3
    assert facts == expected | {"dataset": other.name, "folder": str(here / "b")}


@pytest.mark.parametrize("form", NEW)
def test_it_is_known_by_its_content_wherever_it_lies(here: Path, form: str) -> None:
    name = opened(write(here / "b", form, samples())).name
    (here / "b").rename(here / "c")
    with pytest.raises(UserError, match="lay there and does not any more"):
        opened(name)
    assert opened(f"{form.split()[0]}:{here / 'c'}").name == name == opened(name).name
    assert parse_split_name(f"{form.split()[0]}:{here / 'c'}-lt-if4").dataset == name
    shutil.rmtree(here / "c")
    write(here / "c", form, samples()[1:])
    with pytest.raises(UserError, match="its images are not those of"):
        opened(name)


def test_arrow_and_parquet_of_the_same_rows_are_one_data_set(here: Path) -> None:
    names = {opened(write(here / form, form, samples())).name.rpartition("-")[2] for form in SHARDS}
    assert len(names) == 1


@pytest.mark.parametrize("form", NEW)
def test_large_images_stay_where_they_are(here: Path, form: str) -> None:
    """Nothing is kept of them in memory, and the reader of files gives the same bits as of a folder."""
    batches = []
    for kind in ("folder", form):
        dataset = opened(write(here / kind, kind, samples(120)))
        split = drawn(dataset)
        images = select(split, store.load(dataset))
        assert isinstance(images["train"], ImageFiles)
        parts = make_parts(images, split, torch.device("cpu"), Augment(), 8)
        with closing(parts):
            batches.append(torch.cat(list(parts["train"].in_order(8, range(len(parts["train"]))))))
    assert torch.equal(*batches)
    assert len(batches[0]) == 24
    if form in ("wds", "hf saved", "hf file"):  # read in place
        assert not [*here.glob("data/.cache/*.arrow")]
        assert all(isinstance(images["train"].place(i), Piece) for i in range(24))


@pytest.mark.parametrize("form", NEW)
def test_holdout_makes_the_test_part(here: Path, form: str) -> None:
    own = [sample for sample in samples() if sample[0] == "train"]
    folder, other = (opened(write(here / kind, kind, own), 0.25) for kind in ("folder", form))
    assert drawn(folder).test == drawn(other).test
    assert opened(other.name).name == other.name
    with pytest.raises(UserError, match=r"leave out --holdout"):
        opened(write(here / "whole", form, samples()), 0.25)


def test_shards_that_name_no_part_are_training_part(here: Path) -> None:
    rows = [(name, data) for part, name, data in samples() if part == "train"]
    arrow(here / "one" / "data-00000-of-00001.arrow", table(rows))
    assert opened(f"hf:{here / 'one'}", 0.25).class_names == CLASSES


# ---- labels and columns ----------------------------------------------------------------------------------------------


def hf(root: Path, content: Mapping[str, Sequence[object]], **more: Any) -> Found:
    """A parquet data set of three images with these columns besides, in both parts."""
    images = [{"bytes": png(i), "path": None} for i in range(3)]
    for part in ("train", "test"):
        parquet(root / f"{part}.parquet", pa.table({"image": images, **content}))
    return read("hf", root, **more)


@pytest.mark.parametrize(
    ("labels", "names"),
    [(["b", "a", "b"], ["a", "b"]), ([10, 9, 9], ["9", "10"]), ([" Café", "Cafe\u0301", "x"], ["Café", "x"])],
)
def test_labels_are_text_or_numbers(here: Path, labels: list[object], names: list[str]) -> None:
    found = hf(here, {"label": labels})
    assert (found.class_names, found.faults) == (names, [])


def test_numbers_of_a_class_label_stand_for_names_in_their_order(here: Path) -> None:
    some = [("cow", png(1)), ("ant", png(2))]
    for part in ("train", "test"):
        parquet(here / f"{part}.parquet", table(some, LABELLED.with_metadata(metadata("zebra", "ant", "cow"))))
    found = read("hf", here)
    assert found.class_names == ["zebra", "cow"]  # the numbers 2 and 0; nobody has the 1
    assert found.files["train"] == [("train.parquet/0", 1), ("train.parquet/1", 0)]


def test_text_in_one_part_and_a_class_label_in_the_other_mean_the_same_classes(here: Path) -> None:
    parquet(here / "train.parquet", table([("cow", png(1)), ("ant", png(2))]))
    for labels, faults in ((["ant", "cow"], []), ([0, 2], ["row 0: a class that the training part has not: '0'"])):
        parquet(here / "test.parquet", pa.table({"image": [png(3), png(4)], "label": labels}))
        found = read("hf", here)
        assert found.class_names == ["ant", "cow"]
        assert [fault.endswith(faults[0]) for fault in found.faults[:1]] == [True for _ in faults]
        assert found.files["test"] == ([] if faults else [("test.parquet/0", 0), ("test.parquet/1", 1)])


def test_a_category_of_pandas_is_a_label(here: Path) -> None:
    assert hf(here, {"label": pa.array(["b", "a", "b"]).dictionary_encode()}).class_names == ["a", "b"]


def test_columns_are_named_behind_the_path(here: Path) -> None:
    columns: dict[str, Any] = {"coarse": [0, 0, 1], "fine": ["x", "y", "z"], "photo": [png(i) for i in (7, 8, 9)]}
    found = hf(here, columns, columns="photo,fine")
    assert found.class_names == ["x", "y", "z"]
    assert read_bytes(found.pieces["train.parquet/1"]).tobytes() == png(8)
    assert opened(f"hf:{here}#photo,coarse").class_names == ("0", "1")
    assert opened(opened(f"hf:{here}#photo,fine").name).class_names == ("x", "y", "z")
    assert str(parse_split_name(f"hf:{here}#photo,fine-lt-if2")).endswith("-lt-if2")
    (here / "c#fine").mkdir()
    with pytest.raises(UserError, match="nothing of the kind is there"):  # that is a folder's own name
        opened(f"hf:{here / 'c#fine'}")


@pytest.mark.parametrize(
    ("columns", "choice", "fault"),
    [
        ({"target": ["a", "b", "a"]}, "", r"no column holds labels; its columns: .*target \(string\); to name it: hf:"),
        ({"label": [0.5, 1.0, 2.0]}, "", r"no column holds labels; .*label \(double\)"),
        ({"label": [[1], [2], [3]]}, "", r"no column holds labels"),
        ({"label": ["a", "b", "a"]}, "labels", r"there is no column 'labels'; its columns: image .*label \(string\)"),
        ({"x": ["a", "b", "a"], "y": ["a", "b", "a"]}, "x,y", r"2 columns may hold labels \(x, y\)"),
        ({"label": ["a", None, "b"]}, "", r"row 1: 'label' is neither text nor a whole number: None"),
        ({"label": ["a", " ", "b"]}, "", r"row 1: 'label' is neither text"),
        ({"label": ["a", "a", "a"]}, "", r"the training part has 1 classes"),
    ],
)
def test_columns_that_are_none(here: Path, columns: Mapping[str, Sequence[object]], choice: str, fault: str) -> None:
    assert re.search(fault, hf(here, columns, columns=choice).faults[0])


def test_several_columns_of_images_are_not_guessed(here: Path) -> None:
    content = pa.table({"left": [png(1), png(2)], "right": [png(3), png(4)], "label": ["a", "b"]})
    for part in ("train", "test"):
        parquet(here / f"{part}.parquet", content)
    assert "2 columns may hold images (left, right)" in read("hf", here).faults[0]
    assert not read("hf", here, columns="right").faults


@pytest.mark.parametrize(
    ("images", "labels", "fault"),
    [
        ([{"bytes": png(1)}, None, {"bytes": png(2)}], [0, 1, 2], "train.parquet, row 1: there is no image in 'image'"),
        ([{"bytes": png(1)}, {"path": "x.png"}, {"bytes": png(2)}], [0, 1, 2], "row 1: there is no image in 'image'"),
        ([{"bytes": png(i)} for i in range(3)], [0, 1, -1], "row 2: 'label' is none of its 3 classes: -1"),
        ([{"bytes": png(i)} for i in range(3)], [0, 3, 1], "row 1: 'label' is none of its 3 classes: 3"),
    ],
)
@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_rows_without_an_image_or_a_class(here: Path, images: Rows, labels: list[int], fault: str, suffix: str) -> None:
    whole = [(name, png(i)) for i, name in enumerate(CLASSES)]
    make = parquet if suffix == "parquet" else arrow
    make(here / f"train.{suffix}", pa.table({"image": images, "label": labels}, schema=LABELLED))
    make(here / f"test.{suffix}", table(whole))
    with pytest.raises(FaultsError) as caught:
        opened(f"hf:{here}")
    assert fault.replace("parquet", suffix) in str(caught.value)
    assert len(caught.value.faults) == (1 if "no image" in fault else 2)  # the only one of its class
    told = pickle.loads(pickle.dumps(caught.value))
    assert (str(told), told.faults) == (str(caught.value), caught.value.faults)


def test_two_classes_of_one_name_are_refused(here: Path) -> None:
    for part in ("train", "test"):
        parquet(here / f"{part}.parquet", table([("ant", png(1))], LABELLED.with_metadata(metadata("a", "b", "a"))))
    assert "two classes of 'label' have the same name" in read("hf", here).faults[0]


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"info": {"features": {"label": 3}}}', b"[" * 5000, b"\xff"])
def test_strange_metadata_are_passed_over(here: Path, text: bytes) -> None:
    for part in ("train", "test"):
        some = table([("ant", png(1)), ("bee", png(2))], LABELLED.with_metadata({b"huggingface": text}))
        parquet(here / f"{part}.parquet", some)
    assert read("hf", here).class_names == ["0", "1"]


def test_parquet_is_copied_once_and_again_when_it_has_changed(here: Path) -> None:
    name, cache = write(here / "b", "hf", samples()), here / "data" / ".cache"
    first = opened(name).name
    copies = {path.name: path.stat().st_mtime_ns for path in cache.glob("shard-*")}
    assert len(copies) == 6
    assert opened(name).name == first
    assert {path.name: path.stat().st_mtime_ns for path in cache.glob("shard-*")} == copies
    write(here / "b", "hf", samples()[1:])
    assert opened(name).name != first
    assert len([*cache.glob("shard-*")]) == 6
    second = opened(name).name
    for damage in (b"", b"damaged"):
        next(cache.glob("shard-*")).write_bytes(damage)
        assert opened(name).name == second


# ---- shards ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("train.tar", "train"), ("data/train-00000-of-00002.parquet", "train"), ("test/data-0.arrow", "test"),
        ("pets_validation_3.tar", "val"), ("train2017.json", "train"), ("annotations/instances_val2017.json", "val"),
        ("train/test-0.tar", "test"), ("TRAIN/0.tar", "train"), ("a/0.tar", ""), ("trainer.tar", ""),
        ("train_and_test.tar", ""), ("training/0.tar", "train"),
    ],
)  # fmt: skip
def test_a_file_says_which_part_it_is_of(name: str, part: str) -> None:
    others = ["train/train.x", "test/test.x"]
    assert name in by_part(Path(), [name, *others], "", parts_of_its_own=True)[part]


def test_shards_that_say_how_many_they_are_must_all_be_there(here: Path) -> None:
    write(here, "hf", samples())
    (here / "data" / "train-00000-of-00002.parquet").rename(here / "x")
    with pytest.raises(UserError, match="train-00000-of-00002 is missing; there are 1 of 2 shards"):
        opened(f"hf:{here}")
    (here / "x").rename(here / "data" / "train-00000-of-00002.parquet")
    shutil.copytree(here / "data", here / "other")
    with pytest.raises(UserError, match=r"the train part has several sets of shards \(data/train.*, other/train"):
        opened(f"hf:{here}")


@pytest.mark.parametrize(("form", "suffix"), [("hf", "parquet"), ("wds", "tar")])
def test_a_part_that_is_not_there(here: Path, form: str, suffix: str) -> None:
    with pytest.raises(UserError, match=f"no such folder; {form}:PATH needs"):
        opened(f"{form}:{here / 'gone'}")
    with pytest.raises(UserError, match=f"nothing of the kind is there.*; {form}:PATH needs .*train-"):
        opened(f"{form}:{here}")
    (here / f"train.{suffix}").touch()
    with pytest.raises(UserError, match=r"no files of the test part .* --holdout 0.2"):
        opened(f"{form}:{here}")


def wds(root: Path, *shards: Mapping[str, bytes], label: str = "") -> Found:
    """Training shards, and a test shard that is right."""
    for i, content in enumerate(shards):
        tar(root / f"train-{i}.tar", content)
    tar(root / "test-0.tar", members([("ant", png(100)), ("bee", png(101))]))
    return read("wds", root, label=label)


GOOD = {"0.png": png(0), "0.cls": b"ant", "1.png": png(1), "1.cls": b"bee"}


@pytest.mark.parametrize(
    ("shards", "fault"),
    [
        (({**GOOD, "2.png": png(2)},), "train-0.tar: '2': no label: neither .cls nor .json has its key"),
        (({**GOOD, "2.cls": b"ant"},), "train-0.tar: '2' has a label but no image"),
        (({**GOOD, "0.jpg": png(2)},), "train-0.tar: '0' has several images: 0.png, 0.jpg"),
        ((GOOD, {"1.png": png(3), "1.cls": b"ant"}), "train-1.tar: '1' is also a key in train-0.tar; a part needs"),
        (({**GOOD, "1.cls": b"\xff"},), "train-0.tar: '1': 'utf-8' codec"),
        (({**GOOD, "1.cls": b" "},), "'1': its label is neither text nor a whole number"),
        (({"0.png": png(0), "0.json": b'{"a": 1, "b": 2}', **GOOD},), None),
        (({"2.png": png(0), "2.json": b'{"a": 1, "b": 2}', **GOOD},), "'2': its JSON has no 'label' but a, b; which"),
        (({"2.png": png(0), "2.json": b'{"label": [1]}', **GOOD},), "'2': its label is neither text nor a whole"),
        (({"2.png": png(0), "2.json": b'{"label": true}', **GOOD},), "'2': its label is neither text nor a whole"),
        (({"2.png": png(0), "2.json": b"[1]", **GOOD},), "'2': its JSON has no 'label' but no keys"),
        (({"2.png": png(0), "2.json": b"[" * 100_000, **GOOD},), "'2': "),
        (({"2.png": png(0), "2.json": b"{", **GOOD},), "'2': Expecting property name"),
        (({"0.png": png(0), "0.cls": b"ant"},), "the training part has 1 classes"),
        (({"0.txt": b"nothing"},), "the training part has 0 classes, at least 2 are needed"),
    ],
)
def test_samples_that_are_none(here: Path, shards: Sequence[Mapping[str, bytes]], fault: str | None) -> None:
    found = wds(here, *shards)
    assert [fault in one for one in found.faults[:1]] == [True] if fault else found.faults == []


def test_a_member_that_is_there_twice(here: Path) -> None:
    twice = io.BytesIO()
    with tarfile.open(fileobj=twice, mode="w") as archive:
        for name, data in [*GOOD.items(), ("1.cls", b"ant")]:
            made.add(archive, name, data)
    wds(here, GOOD)
    (here / "train-0.tar").write_bytes(twice.getvalue())
    assert read("wds", here).faults == [f"{here}/train-0.tar: '1.cls' is there twice"]


def test_the_label_may_stand_elsewhere(here: Path) -> None:
    some = {**GOOD, "0.json": b'{"kind": "y", "label": "n"}', "1.json": b'{"kind": "x"}', "0.txt": b"u", "1.txt": b"v"}
    tar(here / "test.tar", some)
    tar(here / "train.tar", some)
    assert opened(f"wds:{here}").class_names == ("ant", "bee")
    assert opened(f"wds:{here}#kind").class_names == ("x", "y")
    assert opened(f"wds:{here}#txt").class_names == ("u", "v")
    with pytest.raises(UserError, match="its JSON has no 'id' but kind, label"):
        opened(f"wds:{here}#id")


def test_what_is_not_used_of_a_shard_is_named(here: Path) -> None:
    found = wds(
        here,
        {**GOOD, "0.seg.png": png(5), "README": b"x", "._1.png": b"junk", "dir/1.png": png(3), "dir/1.cls": b"ant"},
    )
    assert not found.faults
    assert sorted(found.passed_over) == [
        "passed over: 1 x .seg.png (train-0.tar/0.seg.png)",
        "passed over: 1 x without key and extension (train-0.tar/README)",
        "passed over: 2 x .txt (test-0.tar/000000.txt, test-0.tar/000001.txt)",
    ]
    assert [name for name, _ in found.files["train"]] == [
        "train-0.tar/0.png",
        "train-0.tar/1.png",
        "train-0.tar/dir/1.png",
    ]


def test_packed_shards_are_refused(here: Path) -> None:
    for part in ("train", "test"):
        tar(here / f"{part}.tar.gz", GOOD)
    assert "a packed shard cannot be read image by image; unpack it to .tar" in read("wds", here).faults[0]
    shutil.move(here / "train.tar.gz", here / "train.tar")
    assert "train.tar: damaged or cut off" in read("wds", here).faults[0]


# ---- a shard cut off -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["hf", "hf saved", "hf file", "wds"])
def test_a_shard_cut_off_anywhere_is_refused(here: Path, form: str) -> None:
    """Also where a member or a batch ends: what is gone would be missed by nobody."""
    rows = [(CLASSES[i % 3], png(i, 3)) for i in range(6)]
    path, make = here / f"train.{SUFFIXES[form]}", form.split()[0]
    if form == "wds":
        tar(path, members(rows))
        shutil.copy(path, here / "test.tar")
        with tarfile.open(path) as archive:
            end = 512 + max(header.offset_data + -(-header.size // 512) * 512 for header in archive)
    else:
        SHARDS[form](path, table(rows))
        shutil.copy(path, path.with_stem("test"))
        end = path.stat().st_size
    whole = path.read_bytes()
    assert not read(make, here).faults
    for length in [*range(0, end, 61), *range(0, end, 512), end - 1]:
        path.write_bytes(whole[:length])
        faults = read(make, here).faults
        assert faults, f"{length} of {len(whole)} bytes"
        assert str(path) in faults[0]


def test_a_member_of_a_negative_size_ends_the_reading(here: Path) -> None:
    wds(here, GOOD)
    path = here / "train-0.tar"
    with tarfile.open(path) as archive:
        header = archive.getmembers()[-1]
    header.size = -1024
    path.write_bytes(path.read_bytes()[: header.offset] + header.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
    assert "member '1.cls' is no plain file" in read("wds", here).faults[0]


@pytest.mark.parametrize("extra", [b"x", bytes(5000) + b"x"])
def test_a_shard_that_goes_on_behind_its_end_is_refused(here: Path, extra: bytes) -> None:
    wds(here, GOOD)
    with open(here / "train-0.tar", "ab") as file:
        file.write(extra)
    assert "there is more after its end mark" in read("wds", here).faults[0]


def test_a_shard_that_becomes_shorter_is_one_line(here: Path) -> None:
    dataset = opened(write(here / "b", "wds", samples(120)))
    images = store.load(dataset)["train"]
    assert isinstance(images, ImageFiles)
    shard = here / "b" / "pets-train-000001.tar"
    shard.write_bytes(shard.read_bytes()[:5000])
    with pytest.raises(OSError, match="cut off since it was listed"):
        read_bytes(images.place(23))
    report = verify(dataset)
    assert [line for line in report.damaged if "cut off since it was listed" in line]


def test_a_damaged_image_in_a_shard_is_named(here: Path) -> None:
    some = [(part, name, data if i else data[:60]) for i, (part, name, data) in enumerate(samples())]
    for form in ("hf", "hf saved", "hf file", "wds"):
        dataset = opened(write(here / form, form, some))
        (line,) = verify(dataset).damaged
        assert line.startswith(str(here / form))
        with pytest.raises(UserError, match="cannot be read"):
            store.load(dataset)


# ---- annotations -----------------------------------------------------------------------------------------------------

CATEGORIES = coco([], "")["categories"]
IMAGES = [{"id": i, "file_name": f"train/{i}.png"} for i in range(4)]
NOTED = [{"image_id": i, "category_id": 7 + i % 2} for i in range(4)]


def annotated(root: Path, **changes: object) -> Found:
    """Annotations of four images, with these lists instead; those of the test part are right."""
    for i in range(4):
        (root / "train").mkdir(exist_ok=True)
        (root / "train" / f"{i}.png").write_bytes(png(i))
    content = {"images": IMAGES, "annotations": NOTED, "categories": CATEGORIES}
    (root / "test.json").write_text(json.dumps(content))
    (root / "train.json").write_text(json.dumps({k: v for k, v in (content | changes).items() if v is not None}))
    return read("coco", root)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"images": [*IMAGES, {"id": 9, "file_name": "train/9.png"}]}, "images[4]: no such file: 'train/9.png'"),
        ({"images": [*IMAGES, {"id": 9, "file_name": "\0"}]}, "images[4]: no such file"),
        ({"images": [*IMAGES, {"id": 9, "file_name": "/etc/passwd"}]}, "images[4]: leads out of the folder: '/etc/pa"),
        ({"images": [*IMAGES, {"id": 9, "file_name": "a/../../x.png"}]}, "images[4]: leads out of the folder: 'a/../"),
        ({"images": [*IMAGES, {"id": 9, "file_name": "\ud800"}]}, "images[4]: no such file"),
        ({"images": [*IMAGES, {"id": 9}]}, "images[4]: 'file_name' is neither text nor a whole number"),
        ({"images": [*IMAGES, IMAGES[0]]}, "images[4]: id 0 or file 'train/0.png' stands twice, also in "),
        ({"images": [*IMAGES, {"id": 9, "file_name": "train/0.png"}]}, "images[4]: id 9 or file 'train/0.png' stands"),
        ({"images": [*IMAGES, None]}, "images[4]: 'id' is neither text"),
        ({"images": IMAGES[1:]}, "annotations[0]: image_id 0 is not among the images"),
        ({"annotations": [*NOTED, {"image_id": 0, "category_id": 3}]}, "annotations[4]: category_id 3 is not among"),
        ({"annotations": [*NOTED, {"image_id": 0, "category_id": 8}]},
         "annotations[4]: image_id 0 is 'bee' here and 'ant' in annotations[0]"),
        ({"annotations": [*NOTED, {"image_id": [0], "category_id": 8}]}, "annotations[4]: 'image_id' is neither"),
        ({"annotations": []}, "train.json: gives no image a class"),
        ({"annotations": None}, "train.json: has no list 'annotations'"),
        ({"categories": {"7": "ant"}}, "train.json: has no list 'categories'"),
        ({"categories": [*CATEGORIES, {"id": 7, "name": "dog"}]}, "categories[3]: id 7 or name 'dog' stands twice"),
        ({"categories": [*CATEGORIES, {"id": 9, "name": " ant"}]}, "categories[3]: id 9 or name 'ant' stands twice"),
        ({"categories": [*CATEGORIES, {"id": 5, "name": True}]}, "categories[3]: 'name' is neither"),
        ({"categories": CATEGORIES[1:]}, "annotations[0]: category_id 7 is not among the categories"),
    ],
)  # fmt: skip
def test_entries_that_are_none(here: Path, changes: Mapping[str, object], fault: str) -> None:
    try:
        faults = annotated(here, **changes).faults
    except UserError as error:
        faults = [str(error)]
    assert fault in faults[0]
    assert str(here / "train.json") in faults[0]


def test_boxes_of_one_category_are_one_image(here: Path) -> None:
    found = annotated(here, annotations=[*NOTED, NOTED[1], NOTED[1]])
    assert (found.faults, len(found.files["train"])) == ([], 4)


def test_images_without_an_annotation_are_named(here: Path) -> None:
    found = annotated(here, annotations=NOTED[:3])
    assert (found.faults, len(found.files["train"])) == ([], 3)
    assert found.passed_over == ("passed over: 1 x without an annotation (train/3.png)",)


def test_files_that_systems_leave_beside_annotations_are_none(here: Path) -> None:
    (here / "annotations").mkdir()
    for name in ("._train.json", ".train.json", "annotations/._test.json"):
        (here / name).write_bytes(b"\0\5\x16\7")
    assert annotated(here).faults == []


def test_cocos_own_layout(here: Path) -> None:
    for part in ("train", "test"):
        (here / f"{part}2017").mkdir()
        for i in range(4):
            (here / f"{part}2017" / f"{i}.png").write_bytes(png(i + 10 * (part == "test")))
        (here / "annotations").mkdir(exist_ok=True)
        content = {"images": [{"id": f"a{i}", "file_name": f"{i}.png"} for i in range(4)], "categories": CATEGORIES}
        content["annotations"] = [
            {"image_id": f"a{i}", "category_id": 7 + i % 2, "bbox": [0, 0, 1, 1]} for i in range(4)
        ]
        (here / "annotations" / f"instances_{part}2017.json").write_text(json.dumps(content))
    assert opened(f"coco:{here}").class_names == ("ant", "bee")
    (here / "annotations" / "captions_train2017.json").write_text("{}")
    with pytest.raises(UserError, match=r"several files of the train part: .*captions.*leave one there"):
        opened(f"coco:{here}")


def test_a_class_that_only_the_test_part_has(here: Path) -> None:
    rows = [("ant", png(1)), ("bee", png(2))]
    write(here / "coco", "coco", [*(("train", *row) for row in rows), ("test", "cow", png(3))])
    tar(here / "wds" / "train.tar", members(rows))
    tar(here / "wds" / "test.tar", members([("cow", png(3))]))
    for form in ("coco", "wds"):
        with pytest.raises(UserError, match=r"a class that .* has not: 'cow'"):
            opened(f"{form}:{here / form}")


# ---- the command line ------------------------------------------------------------------------------------------------


def ltbench(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    _folder._scan.cache_clear()
    monkeypatch.setattr(sys, "argv", ["ltbench", *map(str, words)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return int(caught.value.code or 0)


@pytest.mark.parametrize("form", NEW)
def test_commands_take_every_form(
    here: Path, form: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = write(here / "b", form, samples())
    assert ltbench(monkeypatch, "fetch", name) == 0
    assert ltbench(monkeypatch, "verify", name) == 0
    assert "sound" in capsys.readouterr().out
    assert ltbench(monkeypatch, "split", f"{name}-lt-if4", "--out", here / "splits") == 0
    assert len([*(here / "splits").glob("*-lt-if4.json")]) == 1
    assert ltbench(monkeypatch, "doctor", name, "--backbone", "resnet8_cifar", "--device", "cpu") == 0
    assert f"(own {form.split()[0]}, 32 pixels, turned upright)" in capsys.readouterr().out


@pytest.mark.parametrize("form", NEW)
def test_bad_data_is_one_line_and_exit_code_2(
    here: Path, form: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = write(here / "b", form, samples())
    first = sorted(path for path in (here / "b").rglob("*train*") if path.is_file()) or sorted(
        here.rglob("train/data*")
    )
    first[0].write_bytes(first[0].read_bytes()[: first[0].stat().st_size // 2])
    before = {path: path.stat().st_size for path in (here / "b").rglob("*")}
    assert ltbench(monkeypatch, "run", "--dataset", name, "--method", "ce", "--seeds", "0") == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {first[0]}")
    assert error.count("\n") == 1
    assert ltbench(monkeypatch, "doctor", name) == 2
    assert {path: path.stat().st_size for path in (here / "b").rglob("*")} == before


STRANGE = ["\udcff", "\ud800", "\N{LATIN SMALL LETTER E WITH ACUTE}", "\33[2J", "\n"]


@pytest.mark.parametrize("form", ["folder", "wds", "coco"])
@pytest.mark.parametrize("strange", STRANGE)
def test_names_that_no_terminal_shows_are_escapes(
    here: Path, form: str, strange: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of images that are damaged, passed over, or not there; on a terminal that has nothing but ASCII."""
    root, name = here / "b", write(here / "b", form, samples())
    data = b"no image"
    if strange == "\ud800" and form != "coco":
        pytest.skip("no system has such a name")
    if form == "folder":
        for suffix in ("png", "doc"):
            (root / "train" / "ant" / f"{strange}.{suffix}").write_bytes(data)
    elif form == "wds":
        tar(root / "train.tar", {f"{strange}.png": data, f"{strange}.cls": b"ant", f"{strange}x.doc": data})
    else:
        path = root / "pets_train2018.json"
        content = json.loads(path.read_text())
        content["images"].append({"id": 99, "file_name": f"{strange}.png"})
        path.write_text(json.dumps(content))
    for words in (("doctor", name), ("verify", name, "--manifest", "m.json"), ("fetch", name), ("run", name, "ce")):
        out, err = (io.TextIOWrapper(io.BytesIO(), "ascii") for _ in range(2))
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        code = ltbench(monkeypatch, *words)
        said = b""
        for stream in (out, err):
            stream.flush()
            said += stream.buffer.getvalue()
        assert (code != 0) == (words[0] != "fetch" or form == "coco"), said
        assert b"Traceback" not in said
        assert b"\33" not in said
        assert re.search(rb"\.png: image|'[^']*\.png'|\.doc\)", said), said


def test_a_form_that_is_none_lists_the_forms(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("parquet:x", "webdataset:/data/x"):
        assert ltbench(monkeypatch, "run", "--dataset", name, "--method", "ce") == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert all(form in error for form in FORMS)
    assert ltbench(monkeypatch, "list", "datasets") == 0
    out = capsys.readouterr().out
    assert all(form in out for form in FORMS)
    assert set(_folder.READERS) == set(KINDS)


def test_without_pyarrow_it_says_what_to_install(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"hf:PATH needs pyarrow: pip install 'ltbench\[hf\]'"):
        opened(f"hf:{here}")


# ---- fuzzing ---------------------------------------------------------------------------------------------------------

FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def refused_in_one_line(read: Callable[[], Found]) -> Found:
    """What is found, or nothing but the one line that refuses it."""
    try:
        return read()
    except UserError as error:
        return Found([], faults=[str(error)])


@st.composite
def damage(draw: st.DrawFn, length: int) -> Callable[[bytes], bytes]:
    """One kind of damage to a file of that many bytes."""
    at, count = draw(st.integers(0, length - 1)), draw(st.integers(1, 40))
    new = draw(st.binary(min_size=1, max_size=8))
    kinds: list[Callable[[bytes], bytes]] = [
        lambda data: data[:at] + new + data[at + len(new) :],
        lambda data: data[:at] + data[at + count :],
        lambda data: data[: at + count] + data[at:],
        lambda data: data[:at],
    ]
    return draw(st.sampled_from(kinds))


@pytest.mark.parametrize("form", NEW)
@FUZZ
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, form: str, data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("fuzz")
    rows = [(CLASSES[i % 3], png(i, 3)) for i in range(4)]
    kind = form.split()[0]
    path = root / f"train.{SUFFIXES[form]}"
    if form == "wds":
        tar(path, members(rows))
        path.write_bytes(path.read_bytes().rstrip(b"\0") + bytes(1024 + 511))
    elif form == "coco":
        (root / "train").mkdir()
        for i, (_, image) in enumerate(rows):
            (root / "train" / f"{i}.png").write_bytes(image)
        path.write_text(json.dumps(coco(rows, "train")))
    else:
        SHARDS[form](path, table(rows))
    shutil.copy(path, path.with_stem("test"))
    whole = path.read_bytes()
    path.write_bytes(data.draw(damage(len(whole)))(whole))
    found = refused_in_one_line(lambda: read(kind, root))
    assert all(fault.startswith(str(root)) for fault in found.faults)
    for name, _ in () if found.faults else found.files["train"]:
        read_bytes(found.place(root, name))


values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=3) | st.sampled_from(["train/0.png", "ant", 7]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["id", "name", "file_name", "image_id", "category_id"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@FUZZ
@given(key=st.sampled_from(["images", "annotations", "categories"]), entries=st.lists(values, max_size=4) | values)
def test_strange_annotations_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, key: str, entries: object
) -> None:
    root = tmp_path_factory.getbasetemp() / "strange"
    root.mkdir(exist_ok=True)
    found = refused_in_one_line(lambda: annotated(root, **{key: entries}))
    used = sum(len(files) for files in found.files.values())
    assert found.faults or used == 8 - sum(map(len, found.skipped.values()))
