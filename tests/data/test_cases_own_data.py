"""Users' own folders and lists: the cases of `cases.md` that once gave a wrong number, a crash or a puzzle."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import cli
from harness.base.errors import UserError
from harness.base.files import sha256_bytes, sha256_file
from harness.datasets import _folder
from harness.datasets._folder import hold_out
from harness.datasets._forms import OWN
from harness.datasets._walk import FaultsError
from harness.reading.dataset import Dataset, Images
from harness.records.schema import Record, read_record
from harness.splits import store
from harness.splits.notes import data_notes
from harness.splits.split_names import name_split, parse_split_name
from harness.splits.splits import Split, _by_size, build_split, select
from harness.splits.verify import verify
from tests.data import made

Counts = Mapping[str, int]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LTBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fill(root: Path, seed: int = 0, /, **parts: Counts) -> Path:
    """PNGs of 32 x 32 noise, numbered through."""
    number = 1000 * seed
    for part, counts in parts.items():
        for name, count in counts.items():
            (root / part / name).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                number += 1
                (root / part / name / f"{i}.png").write_bytes(made.encoded(made.pixels(number, (32, 32, 3)), "PNG"))
    return root


def base(root: Path, seed: int = 0) -> Path:
    """As `cases.md` has it: 12, 8 and 4 training images, 2 test images of each class."""
    return fill(root, seed, train={"a": 12, "b": 8, "c": 4}, test={"a": 2, "b": 2, "c": 2})


def opened(name: object, holdout: float = 0.0) -> Dataset:
    _folder._scan.cache_clear()  # as a new process
    text = str(name)
    return store.get_dataset(text if text.startswith(OWN) else f"folder:{text}", holdout=holdout)


def drawn(dataset: Dataset, factor: float | None = None) -> Split:
    return build_split(str(name_split(dataset, factor)), dataset, store.load(dataset))


def contents(folder: Path) -> list[str]:
    return sorted(sha256_bytes(path.read_bytes()) for path in folder.rglob("*.png"))


def train_pixels(dataset: Dataset) -> set[bytes]:
    images = store.load(dataset)["train"]
    assert isinstance(images, Images)
    return {image.tobytes() for image in images.pixels}


# ---- C: identity -----------------------------------------------------------------------------------------------------


def same_sizes(root: Path, value: int) -> Path:
    """Images of one colour: files of one name have one size, whatever the colour."""
    for part in ("train", "test"):
        for c, name in enumerate(("a", "b")):
            (root / part / name).mkdir(parents=True)
            for i in range(2):
                array = np.full((32, 32, 3), value + 10 * c + 3 * i + (part == "test"), np.uint8)
                (root / part / name / f"{i}.png").write_bytes(made.encoded(array, "PNG").ljust(200, b"."))
    return root


def test_case_c_two_folders_of_one_name_with_equal_file_names_and_sizes(here: Path) -> None:
    one, two = same_sizes(here / "x" / "mine", 0), same_sizes(here / "y" / "mine", 100)
    assert [p.stat().st_size for p in sorted(one.rglob("*.png"))] == [
        p.stat().st_size for p in sorted(two.rglob("*.png"))
    ]
    for root, values in ((one, {0, 3, 10, 13}), (two, {100, 103, 110, 113}), (one, {0, 3, 10, 13})):
        dataset = opened(root)
        assert {pixels[0] for pixels in train_pixels(dataset)} == values
        assert select(drawn(dataset), store.load(dataset))
        assert {pixels[0] for pixels in train_pixels(opened(dataset.name))} == values
    assert opened(one).name != opened(two).name


@pytest.mark.parametrize("rename", ["elsewhere/mine", "other name"])
def test_case_c_a_folder_that_was_moved_or_renamed_keeps_its_name(here: Path, rename: str) -> None:
    root, target = base(here / "mine"), here / rename
    name, split = opened(root).name, drawn(opened(root))
    target.parent.mkdir(exist_ok=True)
    root.rename(target)
    with pytest.raises(UserError, match=rf"'{name}' lay there and does not any more; .*ltbench fetch folder:PATH"):
        opened(name)
    assert opened(target).name == name
    assert drawn(opened(name)) == split


def test_case_c_a_copy_under_another_name_is_the_same_data_set_and_the_path_given_last_counts(here: Path) -> None:
    root = base(here / "mine")
    name = opened(root).name
    shutil.copytree(root, here / "copy")
    assert opened(here / "copy").name == name
    shutil.rmtree(root)
    assert opened(name).listed()["train"].root == here / "copy"  # type: ignore[misc]


def test_case_c_another_image_of_the_same_size_and_time_is_another_data_set(here: Path) -> None:
    root = same_sizes(here / "mine", 0)
    name, path = opened(root).name, root / "train" / "a" / "0.png"
    before = path.stat()
    path.write_bytes((same_sizes(here / "other", 100) / "train" / "a" / "0.png").read_bytes())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert opened(root).name != name
    with pytest.raises(UserError, match=f"not those of '{name}' any more; it is 'folder-mine-"):
        opened(name)


def test_case_c_other_file_names_are_the_same_images_and_another_class_is_not(here: Path) -> None:
    root = base(here / "mine")
    name = opened(root).name
    (root / "train" / "a" / "0.png").rename(root / "train" / "a" / "renamed.png")
    assert opened(root).name == name
    (root / "train" / "a" / "1.png").rename(root / "train" / "b" / "x.png")
    assert opened(root).name != name


def test_case_c_bytes_are_read_once_where_nothing_changed(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, read = base(here / "mine"), list[Path]()

    def counted(path: Path) -> str:
        read.append(path)
        return sha256_file(path)

    monkeypatch.setattr(_folder, "sha256_file", counted)
    monkeypatch.setattr(_folder, "SETTLED", -(10**9))
    name = opened(root).name
    assert len(read) == 30
    assert opened(root).name == name
    assert len(read) == 30
    (root / "train" / "a" / "0.png").write_bytes(made.encoded(made.pixels(99), "PNG"))
    assert opened(root).name != name
    assert read[30:] == [root / "train" / "a" / "0.png"]


def test_case_c_files_that_have_just_changed_are_not_trusted(here: Path) -> None:
    opened(base(here / "mine"))
    (place,) = (here / "data" / ".cache").glob("hashes-*.json")
    assert "0.png" not in place.read_text()


# ---- B: what lies in a folder ----------------------------------------------------------------------------------------


def test_case_b_a_link_that_leads_nowhere_is_an_error(here: Path) -> None:
    root = base(here / "mine")
    (root / "train" / "a" / "x.png").symlink_to(here / "gone.png")
    with pytest.raises(UserError, match=r"train/a/x.png: a link to .*gone.png, which is not there"):
        opened(root)


def test_case_b_links_subfolders_and_other_formats_are_taken(here: Path) -> None:
    root = base(here / "mine")
    fill(here / "more", 7, train={"deep/er": 20})
    shutil.move(here / "more" / "train" / "deep", root / "train" / "a" / "deep")
    fill(here / "linked", 8, train={"x": 3})
    (root / "train" / "b" / "link").symlink_to(here / "linked" / "train" / "x")
    for suffix in (".bmp", ".TIF", ".tiff", ".gif"):
        (root / "train" / "c" / f"x{suffix}").write_bytes(
            made.encoded(made.pixels(50, (32, 32, 3)), "PNG") + suffix.encode()
        )
    dataset = opened(root)
    assert dataset.listed is not None
    assert np.bincount(dataset.listed()["train"].labels).tolist() == [32, 11, 8]
    assert not dataset.passed_over


def test_case_b_what_is_passed_over_is_counted_and_named_and_junk_is_not(here: Path) -> None:
    root = base(here / "mine")
    for name in ("a/1.raw", "a/2.RAW", "b/notes.txt", "b/LICENSE", "b/.hidden.png", "a/Thumbs.db", "a/.DS_Store"):
        (root / "train" / name).write_bytes(b"x")
    os.mkfifo(root / "train" / "c" / "pipe.png")
    (root / "spare").mkdir()
    (root / "train" / "cover.png").write_bytes(b"x")
    assert opened(root).passed_over == (
        "passed over: 2 x .raw (train/a/1.raw, train/a/2.RAW)",
        "passed over: 1 x .txt (train/b/notes.txt)",
        "passed over: 1 x beside train, val and test (spare)",
        "passed over: 1 x no file (train/c/pipe.png)",
        "passed over: 1 x outside of the class folders (train/cover.png)",
        "passed over: 1 x without a suffix (train/b/LICENSE)",
    )


@pytest.mark.parametrize("target", [".", "..", "../../.."])
def test_case_b_a_link_to_a_folder_above_is_an_error(here: Path, target: str) -> None:
    root = base(here / "mine")
    (root / "train" / "a" / "loop").symlink_to(target)
    with pytest.raises(UserError, match="a link to a folder that it lies in"):
        opened(root)


def test_case_b_links_that_lead_in_a_circle_are_an_error(here: Path) -> None:
    root = base(here / "mine")
    for one, two in (("p", "q"), ("q", "p")):
        (here / one).mkdir()
        (here / one / "on").symlink_to(here / two)
    (root / "train" / "a" / "on").symlink_to(here / "p")
    with pytest.raises(UserError, match="a link to a folder that it lies in"):
        opened(root)


def test_case_b_all_faults_are_found_at_once(here: Path) -> None:
    root = base(here / "mine")
    (root / "train" / "empty").mkdir()
    (root / "test" / "other").mkdir()
    for part in ("train", "test"):
        (root / part / "a" / "x.png").symlink_to("gone")
    (root / "train" / "b" / "loop").symlink_to("..")
    with pytest.raises(UserError, match=r"\(and 4 more faults: ltbench doctor\)") as caught:
        opened(root)
    assert isinstance(caught.value, FaultsError)
    found = "\n".join(caught.value.faults)
    for fault in (
        "train/a/x.png: a link to gone", "test/a/x.png: a link to gone", "loop: a link to a folder that it lies in",
        "test/other: a class that train/ has not", "train: no image of class 'empty'; every class needs one",
    ):  # fmt: skip
        assert fault in found


@pytest.mark.parametrize("name", ["x.heic", "x.jpg"])
def test_case_b_photos_as_phones_write_them_are_refused_before_anything_is_read(
    here: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    root = base(here / "mine")
    for folder in ("train/a", "test/b"):
        (root / folder / name).write_bytes(b"\0\0\0\x18ftypheic" + bytes(50))
    monkeypatch.setattr(_folder, "sha256_file", lambda path: pytest.fail("read as a whole"))
    files = f"test/b/{name}, train/a/{name}"
    with pytest.raises(UserError, match=rf"mine: 2 x HEIC \({files}\), which is not supported; save them as JPEG$"):
        opened(root)


@pytest.mark.parametrize(
    ("names", "holdout", "told"),
    [
        (("training", "testing"), 0.2, "'testing' to 'test', 'training' to 'train'"),
        (("training", "testing"), 0.0, "'testing' to 'test', 'training' to 'train'"),
        (("Train", "TEST"), 0.0, "'TEST' to 'test', 'Train' to 'train'"),
        (("train", "test", "valid"), 0.0, "'valid' to 'val'"),
        (("train", "test", "Validation"), 0.0, "'Validation' to 'val'"),
        (("train", "test_set"), 0.2, "'test_set' to 'test'"),
    ],
)
def test_case_q_parts_under_other_names_are_no_classes(
    here: Path, names: tuple[str, ...], holdout: float, told: str
) -> None:
    root = fill(here / "mine", **{name: {"a": 3, "b": 3} for name in names})
    with pytest.raises(UserError, match=f"parts are called train, val and test; rename {told}, or else remove it"):
        opened(root, holdout)
    for name in names:
        listed(root, **{name: "path,label\n"})
    with pytest.raises(UserError, match=f"parts are called train, val and test; rename {told}, or else remove it"):
        opened(f"list:{root}", holdout)


def test_case_q_one_class_may_be_called_like_a_part(here: Path) -> None:
    root = fill(here / "mine", **{".": {"training": 4, "rest": 4}})
    assert opened(root, 0.5).class_names == ("rest", "training")


# ---- E, F: names -----------------------------------------------------------------------------------------------------


def test_case_e_a_class_folder_whose_name_is_not_utf_8(here: Path) -> None:
    root = base(here / "mine")
    for part in ("train", "test"):
        os.rename(os.fsencode(root / part / "b"), os.fsencode(root / part) + b"/caf\xe9")
    dataset = opened(root)
    assert dataset.class_names == ("a", "c", "caf\\xe9")
    split = drawn(dataset)
    assert split.class_counts == [12, 4, 8]
    assert opened(dataset.name).name == dataset.name
    assert len(select(split, store.load(dataset))["train"].labels) == 24


def test_case_e_a_folder_whose_path_is_not_utf_8_is_one_line(here: Path) -> None:
    base(here / "mine").rename(os.fsdecode(os.fsencode(here) + b"/caf\xe9"))
    with pytest.raises(UserError, match=r"caf\\xe9: the path is not UTF-8"):
        opened(os.fsdecode(os.fsencode(here) + b"/caf\xe9"))


@pytest.mark.parametrize("name", ["mine-lt-if100", "mine-cut2", "mine-lt-if10-step-hash1"])
def test_case_f_a_path_is_a_path(here: Path, name: str) -> None:
    root = base(here / name)
    base(here / "mine", 1)
    own = parse_split_name(f"folder:{root}")
    assert (own.dataset, own.imbalance_factor) == (opened(root).name, None)
    cut = parse_split_name(f"folder:{root}-lt-if2")
    assert (cut.dataset, cut.imbalance_factor) == (opened(root).name, 2)
    assert parse_split_name(str(cut)) == cut


def test_case_e_a_class_whose_accents_are_written_in_two_ways(here: Path) -> None:
    composed, apart = "caf\u00e9", "cafe\u0301"
    root = fill(here / "mine", train={composed: 2, "b": 2}, test={apart: 1, "b": 1})
    assert opened(root).class_names == ("b", composed)
    assert drawn(opened(root)).test.class_counts == [1, 1]
    fill(root, 3, train={apart: 1})
    with pytest.raises(UserError, match=f"two class folders are called '{composed}'"):
        opened(root)


def test_case_e_control_characters_in_names_are_shown_not_obeyed(here: Path) -> None:
    root = fill(here / "mine", train={"a\x1b[2J": 2, "b\n": 2}, test={"a\x1b[2J": 1})
    (root / "train" / "b\n" / "x.t\x07").write_bytes(b"x")
    assert opened(root).class_names == ("a\\x1b[2J", "b\\n")
    assert opened(root).passed_over == ("passed over: 1 x .t\\x07 (train/b\\n/x.t\\x07)",)


# ---- G: made long-tailed ---------------------------------------------------------------------------------------------


def test_case_g_unequal_classes_from_the_largest_to_the_smallest(here: Path) -> None:
    root = fill(here / "mine", train={"a": 48, "b": 50, "c": 49}, test={"a": 1, "b": 1, "c": 1})
    split = drawn(opened(root), 10)
    assert split.class_counts == [5, 50, 15]  # 50, 50 / sqrt(10), 50 / 10
    assert data_notes(split, opened(root)) == []


def test_case_g_the_head_is_as_large_as_the_tail_allows(here: Path) -> None:
    root = fill(here / "mine", train={"a": 4, "b": 20, "c": 3}, test={"a": 1, "b": 1, "c": 1})
    for factor, counts, note in (
        (4, [4, 9, 2], "imbalance factor 4.5, where 4 was asked for: 9 to 2 images of a class"),  # 10 would need 5 of a
        (100, [2, 20, 1], "imbalance factor 20, where 100 was asked for: 20 to 1 images of a class"),
    ):
        split = drawn(opened(root), factor)
        assert (split.class_counts, data_notes(split, opened(root))) == (counts, [note])


def test_case_g_data_that_are_more_unbalanced_than_was_asked_for(here: Path) -> None:
    root = fill(here / "mine", train={"a": 30, "b": 1}, test={"a": 1, "b": 1})
    note = "imbalance factor 19, where 10 was asked for: 19 to 1 images of a class"
    split = drawn(opened(root), 10)
    assert (split.class_counts, data_notes(split, opened(root))) == ([19, 1], [note])


@given(st.lists(st.integers(1, 60), min_size=2, max_size=6), st.floats(1, 200))
def test_case_g_no_larger_head_would_fit(sizes: list[int], factor: float) -> None:
    def counts(head: int) -> list[int]:
        return [max(1, int(head * (1 / factor) ** (c / (len(sizes) - 1)))) for c in range(len(sizes))]

    largest_first = sorted(sizes, reverse=True)
    heads = [h for h in range(1, 62) if all(n <= m for n, m in zip(counts(h), largest_first, strict=True))]
    found = _by_size(counts, sizes)
    assert sorted(found, reverse=True) == counts(max(heads))
    assert all(n <= m for n, m in zip(found, sizes, strict=True))


# ---- H: images that parts share --------------------------------------------------------------------------------------


def test_case_h_val_is_a_copy_of_test_and_shares_images_with_train(here: Path) -> None:
    root = base(here / "mine")
    assert data_notes(drawn(opened(root)), opened(root)) == []
    shutil.copytree(root / "test", root / "val")
    shutil.copyfile(root / "train" / "a" / "0.png", root / "val" / "a" / "x.png")
    shutil.copyfile(root / "train" / "a" / "0.png", root / "test" / "a" / "y.png")
    spoilt = "so best_val is no honest choice"
    assert data_notes(drawn(opened(root)), opened(root)) == [
        f"1 different image: training images stand in the validation part, {spoilt}",
        "1 different image: training images stand in the test part, so test scores are too high",
        f"7 different images: test images stand in the validation part, {spoilt}",
    ]


def test_case_h_verify_names_the_files_of_images_that_are_there_twice(here: Path) -> None:
    root = base(here / "mine")
    fill(root, 5, val={"a": 2})
    for one, other in (("train/a/0", "train/b/x"), ("train/a/1", "train/a/y"), ("test/b/0", "val/a/z")):
        shutil.copyfile(root / f"{one}.png", root / f"{other}.png")
    shutil.copyfile(root / "train/c/0.png", root / "val/a/0.png")
    _folder._scan.cache_clear()
    report = verify(opened(root))
    assert not report.sound
    twice = "duplicates: 2 in train, 1 in train and val, 0 in train and test, 1 in val and test"
    assert report.lines() == [
        "in more than one class: train/a/0.png ('a'), train/b/x.png ('b')",
        "in more than one class: train/c/0.png ('c'), val/a/0.png ('a')",
        "in more than one class: val/a/z.png ('a'), test/b/0.png ('b')",
        "copies: train/a/1.png, train/a/y.png",
        f"{report.dataset}: 3 in more than one class in {root}; images: 26 train, 3 val, 6 test; {twice}",
    ]
    split = drawn(opened(root))
    assert "3 different images in more than one class, e.g. in 2 classes ('a', 'b')" in data_notes(split, opened(root))


def test_case_h_only_training_images_that_are_used_count(here: Path) -> None:
    root = fill(here / "mine", train={"a": 8, "b": 8}, test={"a": 1, "b": 1})
    split = drawn(opened(root), 8)
    unused = next(p for p in (root / "train" / "b").iterdir() if sha256_file(p) not in split.train[1])
    shutil.copyfile(unused, root / "test" / "b" / "x.png")
    assert data_notes(drawn(opened(root), 8), opened(root)) == []
    assert len(data_notes(drawn(opened(root)), opened(root))) == 1


# ---- Q: no test images, no test part ---------------------------------------------------------------------------------


def test_case_q_classes_without_test_images_are_named(here: Path) -> None:
    root = fill(here / "mine", train=dict.fromkeys("abcdefgh", 2), test={"a": 1})
    note = "no test images: 7 classes ('b', 'c', 'd', 'e', 'f', ...); left out of every test score"
    assert data_notes(drawn(opened(root)), opened(root)) == [note]


def test_case_q_holdout_cuts_a_plain_folder_of_classes(here: Path) -> None:
    root = fill(here / "mine", **{".": {"a": 20, "b": 10, "c": 3, "d": 1}})
    with pytest.raises(UserError, match=r"train: no such folder; .* --holdout 0.2 sets some images aside"):
        opened(root)
    dataset = opened(root, 0.2)
    split = drawn(dataset)
    assert split.class_counts == [16, 8, 2, 1]
    assert split.test.class_counts == [4, 2, 1, 0]
    assert split.train[0] == contents(root / "a")[4:]  # the lowest hashes are set aside
    assert opened(dataset.name).name == dataset.name
    assert opened(root, 0.5).name != dataset.name
    with pytest.raises(UserError, match="leave out --holdout"):
        opened(base(here / "whole"), 0.2)
    with pytest.raises(UserError, match=r"--holdout 1.5: a share between 0 and 1"):
        opened(root, 1.5)
    with pytest.raises(UserError, match="'mnist5k' has a test part"):
        store.get_dataset("mnist5k", holdout=0.2)


def test_case_q_what_commands_leave_in_the_folder_is_no_class(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Called in the folder of photos itself, they make data/ and runs/ there."""
    root = fill(here / "mine", **{".": {"a": 6, "b": 4}})
    before = opened(root, 0.5)
    monkeypatch.setenv("LTBENCH_DATA", str(root / "data"))
    opened(root, 0.5)
    assert (root / "data" / ".folders").is_dir()
    for name in ("records", "splits"):
        (root / "runs" / name).mkdir(parents=True)
    after = opened(root, 0.5)
    assert (after.name, after.class_names) == (before.name, ("a", "b"))


def test_case_q_a_remembered_holdout_is_not_another(here: Path) -> None:
    name = opened(fill(here / "mine", train={"a": 10, "b": 5}), 0.2).name
    assert opened(name, 0.2).name == name
    with pytest.raises(UserError, match=f"--holdout 0.3: '{name}' was made with 0.2; give folder:PATH instead"):
        opened(name, 0.3)


def test_case_b_a_part_that_is_no_folder_is_an_error(here: Path) -> None:
    root = base(here / "mine")
    (root / "val").symlink_to("gone")
    with pytest.raises(UserError, match="val: is no folder, or a link that leads to none"):
        opened(root)
    (root / "val").unlink()
    (root / "val").write_bytes(b"")
    with pytest.raises(UserError, match="val: is no folder"):
        opened(root)


def test_case_q_holdout_where_only_the_test_part_is_missing(here: Path) -> None:
    root = fill(here / "mine", train={"a": 10, "b": 5}, val={"a": 1, "b": 1})
    split = drawn(opened(root, 0.2))
    assert (split.class_counts, split.test.class_counts, split.val.class_counts) == ([8, 4], [2, 1], [1, 1])


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 15)), min_size=1, max_size=60), st.floats(0.01, 0.99))
def test_case_q_holdout_keeps_copies_together_and_every_class(images: list[tuple[int, int]], share: float) -> None:
    files = [(f"{i}.png", label, f"{image:02}") for i, (label, image) in enumerate(images)]
    parts = hold_out({"train": files}, share)
    assert sorted(parts["train"] + parts["test"]) == sorted(files)
    assert not {sha for *_, sha in parts["train"]} & {sha for *_, sha in parts["test"]}
    for label in {label for label, _ in images}:
        own = {image for some, image in images if some == label}
        kept = {sha for _, some, sha in parts["train"] if some == label}
        assert kept
        shared = {image for some, image in images if some != label}
        if len(own) > 1 and not own & shared:
            assert len(own) - len(kept) == min(max(1, round(share * len(own))), len(own) - 1)


# ---- S: lists --------------------------------------------------------------------------------------------------------


def listed(root: Path, **lists: str) -> Path:
    root.mkdir(exist_ok=True)
    for part, text in lists.items():
        (root / f"{part}.csv").write_bytes(text.encode())
    return root


def pictures(root: Path) -> Path:
    """x0.png to x7.png in `root/my pics`."""
    fill(root, **{"my pics": {".": 8}})
    for i in range(8):
        (root / "my pics" / f"{i}.png").rename(root / "my pics" / f"x {i}.png")
    return root


def test_case_s_lists_with_windows_line_ends_a_byte_order_mark_and_spaces(here: Path) -> None:
    root = pictures(here / "mine")
    rows = [f' my pics\\x {i}.png , "{"cat" if i < 3 else "dog"}",extra' for i in range(6)]
    listed(
        root,
        train="\ufeffPath, Label ,note\r\n" + "\r\n".join(rows) + "\r\n\r\n",
        test=f"label;path\ncat;{root / 'my pics' / 'x 6.png'}\ndog;my pics/x 7.png\n",
    )
    dataset = opened(f"list:{root}")
    assert dataset.name.startswith("list-mine-")
    assert dataset.class_names == ("cat", "dog")
    split = drawn(dataset)
    assert (split.class_counts, split.test.class_counts, split.val.class_counts) == ([3, 3], [1, 1], [0, 0])
    assert split.train[0] == sorted(sha256_file(root / "my pics" / f"x {i}.png") for i in range(3))
    assert opened(dataset.name).name == dataset.name
    assert parse_split_name(f"list:{root}").dataset == dataset.name
    assert parse_split_name(f"list:{root}-lt-if2").imbalance_factor == 2


def test_case_s_lists_with_tabs(here: Path) -> None:
    root = pictures(here / "mine")
    rows = "".join(f"my pics/x {i}.png\t{'ab'[i % 2]}, c\n" for i in range(4))
    listed(root, train=f"path\tlabel\n{rows}", test=f"path\tlabel\n{rows}")
    assert opened(f"list:{root}").class_names == ("a, c", "b, c")


def test_case_s_all_faults_of_lists_are_found_at_once(here: Path) -> None:
    root = pictures(here / "mine")
    rows = "path,label\nmy pics/x 0.png,a\nmy pics/x 1.png,b\n"
    listed(root, train=f"{rows}gone.png,a\n,b\n", test=f"{rows}my pics/x 2.png,c\n")
    with pytest.raises(FaultsError) as caught:
        opened(f"list:{root}")
    told = ("train.csv, line 4: no such file", "train.csv, line 5: path or label", "test.csv, line 4: a class that")
    for fault, words in zip(caught.value.faults, told, strict=True):
        assert words in fault


def test_case_s_labels_that_are_numbers_stand_in_their_order(here: Path) -> None:
    root = pictures(here / "mine")
    train = "path,label\n" + "".join(f"my pics/x {i}.png,{label}\n" for i, label in enumerate((10, 9, 2)))
    listed(root, train=train, test="path,label\nmy pics/x 7.png,9\n")
    assert opened(f"list:{root}").class_names == ("2", "9", "10")


def test_case_s_a_list_without_a_test_part_is_held_out(here: Path) -> None:
    root = pictures(here / "mine")
    rows = "".join(f"my pics/x {i}.png,{'ab'[i % 2]}\n" for i in range(8))
    listed(root, train=f"path,label\n{rows}")
    with pytest.raises(UserError, match=r"test.csv: no such file; .*--holdout 0.2"):
        opened(f"list:{root}")
    assert drawn(opened(f"list:{root}", 0.25)).test.class_counts == [1, 1]


def test_case_s_a_suffix_in_capitals_is_one_too(here: Path) -> None:
    root = pictures(here / "mine")
    rows = [f"path,label\nmy pics/x {i}.png,a\nmy pics/x {i + 1}.png,b\n" for i in (0, 2, 4)]
    listed(root, train=rows[0], test=rows[1], val=rows[2])
    expected = drawn(opened(f"list:{root}"))
    for part in ("val", "test", "train"):
        (root / f"{part}.csv").rename(root / f"{part}.CSV")
        _folder._scan.cache_clear()
        assert drawn(opened(f"list:{root}")) == expected
    with pytest.raises(UserError, match=r"test.CSV: there is a list of test images; leave out --holdout"):
        opened(f"list:{root}", 0.25)
    listed(root, train=rows[0])
    _folder._scan.cache_clear()
    assert opened(f"list:{root}").passed_over == (
        "passed over: 1 x lists beside train.csv, val.csv and test.csv (train.CSV)",
    )


def test_case_s_other_lists_are_named_and_one_that_cannot_be_read_is_an_error(here: Path) -> None:
    root = pictures(here / "mine")
    rows = "path,label\nmy pics/x 0.png,a\nmy pics/x 1.png,b\n"
    listed(root, train=rows, test=rows, all=rows)
    line = "passed over: 1 x lists beside train.csv, val.csv and test.csv (all.csv)"
    assert opened(f"list:{root}").passed_over == (line,)
    (root / "val.csv").symlink_to("gone")
    with pytest.raises(OSError, match=r"No such file .*val.csv"):  # the command line makes one line of it
        opened(f"list:{root}")


@pytest.mark.parametrize(
    ("train", "match"),
    [
        ("file,label\nx,a\n", r"train.csv, line 1: needs one column 'path', has file, label"),
        ("", r"train.csv, line 1: needs one column 'path', has none"),
        ("path,label\n", r"train.csv: lists no images"),
        ("path,label\nmy pics/x 0.png,a\n\nmy pics/y.png,b\n", r"train.csv, line 4: no such file: 'my pics/y.png'"),
        ("path,label\nmy pics/x 0.png,\n", r"train.csv, line 2: path or label is empty"),
        ("path,label\nmy pics/x 0.png,a\nmy pics/x 0.png,b\n", r"line 3: '.*0.png' is 'b' here and 'a' in line 2"),
        ("path,label\nmy pics/x 0.png,a\n", r"train.csv has 1 classes, at least 2"),
        ("path,label\nmy pics/x 0.png,a\nmy pics/x 1.png,c\n", r"test.csv, line 3: a class that .* has not: 'b'"),
        ('path,label\n"my pics/x 0.png,a\n', r"train.csv: not a CSV file"),
    ],
)  # fmt: skip
def test_case_s_what_is_wrong_with_a_list_is_one_line(here: Path, train: str, match: str) -> None:
    root = pictures(here / "mine")
    listed(root, train=train, test="path,label\nmy pics/x 6.png,a\nmy pics/x 7.png,b\n")
    with pytest.raises(UserError, match=match) as caught:
        opened(f"list:{root}")
    assert "\n" not in str(caught.value)


def test_case_s_a_list_that_is_not_utf_8_is_one_line(here: Path) -> None:
    root = pictures(here / "mine")
    (root / "train.csv").write_bytes("path,label\ncafé.png,a\n".encode("latin-1"))
    (root / "test.csv").write_text("path,label\n")
    with pytest.raises(UserError, match=r"train.csv: not UTF-8; save it as 'CSV UTF-8'"):
        opened(f"list:{root}")


# ---- whole runs ------------------------------------------------------------------------------------------------------


def run(here: Path, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> Record:
    """One epoch by the command line; its record."""
    _folder._scan.cache_clear()
    short = ["--set", "recipe.epochs=1", "--set", "recipe.warmup_epochs=0", "--backbone", "resnet8_cifar"]
    words = ["ltbench", "run", "--method", "ce", "--seeds", "0", "--device", "cpu", *short, *map(str, arguments)]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert not caught.value.code
    (path,) = (here / "runs" / "records").rglob("seed0.json")
    return read_record(path)


def test_case_h_q_a_run_says_what_is_wrong_with_its_data_and_the_record_carries_it(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = base(here / "mine")
    shutil.rmtree(root / "test" / "b")
    shutil.copytree(root / "test", root / "val")
    (root / "train" / "a" / "x.raw").write_bytes(b"x")
    record = run(here, monkeypatch, "--dataset", f"folder:{root}")
    out = capsys.readouterr()
    assert record.notes == (
        "4 different images: test images stand in the validation part, so best_val is no honest choice",
        "no test images: 1 class ('b'); left out of every test score",
    )
    for note in record.notes:
        assert f"note: {note}" in out.out.replace("\n", " ") + out.err.replace("\n", " ")
    assert "passed over: 1 x .raw" in out.err
    scores = record.results["last"]
    assert scores is not None
    assert scores.per_class[1] is None
    a, c = scores.per_class[0], scores.per_class[2]
    assert a is not None
    assert c is not None
    assert scores.macro == pytest.approx((a + c) / 2)


def test_evaluate_takes_a_folder_as_split_names_it(here: Path) -> None:
    """So what it says is missing is what the command that it names makes."""
    root = base(here / "mine")
    name = str(parse_split_name(f"folder:{root}"))
    for missing in (f"results/splits/{name}.json: missing .*ltbench split {name}", "x/predictions/seed0.json: missing"):
        with pytest.raises(UserError, match=missing):
            cli.app(["evaluate", f"folder:{root}", "--run", "x", "--out", "y", "--seeds", "0"], standalone_mode=False)
        cli.app(["split", name], standalone_mode=False)


def test_case_q_s_a_run_on_a_list_with_a_part_held_out(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = pictures(here / "mine")
    rows = "".join(f"my pics/x {i}.png,{'ab'[i % 2]}\n" for i in range(8))
    listed(root, train=f"path,label\n{rows}")
    record = run(here, monkeypatch, "--dataset", f"list:{root}", "--holdout", "0.25")
    assert (record.class_counts, record.test_images, record.notes) == ([3, 3], 2, ())


def test_case_d_the_record_says_that_an_image_was_left_over(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = base(here / "mine")
    two_stages = ["--method", "crt", "--set", "finetune.epochs=1", "--set", "finetune.warmup_epochs=0"]
    record = run(here, monkeypatch, "--dataset", f"folder:{root}", "--set", "batch_size=23", *two_stages)
    assert record.notes == (
        "train: the last batch of an epoch has 24 images; one of 24 was left over",
        "finetune: the last batch of an epoch has 24 images; one of 24 was left over",
    )
