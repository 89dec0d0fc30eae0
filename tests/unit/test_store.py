"""Bringing data here: nothing but the pinned bytes, and never over what is already there."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.base.errors import UserError
from harness.base.files import sha256_bytes
from harness.reading.dataset import Dataset
from harness.splits import store
from tests.unit import toys

WRONG = b"other bytes"
EXPECTED, FOUND = sha256_bytes(toys.CONTENT), sha256_bytes(WRONG)


@pytest.fixture(autouse=True)
def no_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LTBENCH_DATA", "LTBENCH_MIRROR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def put(folder: Path, content: bytes = toys.CONTENT) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / toys.FILE).write_bytes(content)
    return folder


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Its own source holds nothing until a test puts the file there."""
    return toys.make_dataset(tmp_path / "own")


def fetched(folder: Path) -> bytes:
    return (folder / toys.FILE).read_bytes()


def test_from_its_own_source(dataset: Dataset, tmp_path: Path) -> None:
    put(tmp_path / "own")
    folder = store.fetch(dataset, tmp_path / "data")
    assert folder == tmp_path / "data" / "toy"
    assert fetched(folder) == toys.CONTENT


def test_a_mirror_argument_wins_over_the_environment_and_that_over_the_source(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "own", WRONG)
    put(tmp_path / "environment" / "toy")
    monkeypatch.setenv("LTBENCH_MIRROR", str(tmp_path / "environment"))
    assert fetched(store.fetch(dataset, tmp_path / "a")) == toys.CONTENT
    put(tmp_path / "environment" / "toy", WRONG)
    put(tmp_path / "argument" / "toy")
    assert fetched(store.fetch(dataset, tmp_path / "b", tmp_path / "argument")) == toys.CONTENT


def test_an_empty_variable_is_no_mirror(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "own")
    monkeypatch.setenv("LTBENCH_MIRROR", "")
    assert fetched(store.fetch(dataset, tmp_path / "data")) == toys.CONTENT


def test_a_source_with_other_bytes_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    put(tmp_path / "own", WRONG)
    with pytest.raises(UserError) as caught:
        store.fetch(dataset, tmp_path / "data")
    message = str(caught.value)
    assert all(part in message for part in (EXPECTED, FOUND, str(tmp_path / "own" / toys.FILE)))
    assert [path for path in (tmp_path / "data").rglob("*") if path.is_file()] == []


def test_a_missing_source(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"{toys.FILE}: missing.*'toy'"):
        store.fetch(dataset, tmp_path / "data")
    with pytest.raises(UserError, match="mirror"):
        store.fetch(dataset, tmp_path / "data", tmp_path / "mirror")


def test_right_files_are_left_alone(dataset: Dataset, tmp_path: Path) -> None:
    path = put(tmp_path / "data" / "toy") / toys.FILE
    before = path.stat()
    store.fetch(dataset, tmp_path / "data", repair=True)  # needs no source
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert path.stat().st_ino == before.st_ino


def test_wrong_files_are_refused_with_the_command_that_repairs(dataset: Dataset, tmp_path: Path) -> None:
    put(tmp_path / "own")
    folder = put(tmp_path / "data" / "toy", WRONG)
    with pytest.raises(UserError) as caught:
        store.fetch(dataset, tmp_path / "data")
    message = str(caught.value)
    assert all(part in message for part in (str(folder / toys.FILE), EXPECTED, FOUND))
    assert f"ltbench fetch toy --to {tmp_path / 'data'} --repair" in message
    assert fetched(folder) == WRONG


def test_repair_replaces_what_is_wrong(dataset: Dataset, tmp_path: Path) -> None:
    put(tmp_path / "own")
    folder = put(tmp_path / "data" / "toy", WRONG)
    assert fetched(store.fetch(dataset, tmp_path / "data", repair=True)) == toys.CONTENT
    assert [path.name for path in folder.iterdir()] == [toys.FILE]


@pytest.mark.parametrize("source", [None, b"neither"])
def test_repair_without_a_good_source_changes_nothing(dataset: Dataset, tmp_path: Path, source: bytes | None) -> None:
    if source is not None:
        put(tmp_path / "own", source)
    folder = put(tmp_path / "data" / "toy", WRONG)
    with pytest.raises(UserError):
        store.fetch(dataset, tmp_path / "data", repair=True)
    assert [(path.name, path.read_bytes()) for path in folder.iterdir()] == [(toys.FILE, WRONG)]


def test_files_in_subfolders(tmp_path: Path) -> None:
    dataset = toys.make_dataset(tmp_path / "own", files={"a/b.bin": EXPECTED})
    (tmp_path / "own" / "a").mkdir(parents=True)
    (tmp_path / "own" / "a" / "b.bin").write_bytes(toys.CONTENT)
    assert (store.fetch(dataset, tmp_path / "data") / "a" / "b.bin").read_bytes() == toys.CONTENT


# ---- finding it again ----------------------------------------------------------------------------------------------


def test_the_tracked_folder_goes_before_the_data_root(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LTBENCH_DATA", str(tmp_path / "elsewhere"))
    put(tmp_path / "elsewhere" / "toy")
    assert store.locate(dataset) == tmp_path / "elsewhere" / "toy"
    put(tmp_path / "datasets" / "toy")
    assert store.locate(dataset).resolve() == tmp_path / "datasets" / "toy"


def test_the_default_data_root(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "data" / "toy")
    assert store.locate(dataset).resolve() == tmp_path / "data" / "toy"
    monkeypatch.setenv("LTBENCH_DATA", "")
    assert store.data_root() == Path("data")


@pytest.mark.parametrize(("folder", "command"), [("data", "ltbench fetch toy"), ("datasets", "dvc repro datasets.dvc")])
def test_missing_and_wrong_data_say_what_repairs_them(
    dataset: Dataset, tmp_path: Path, folder: str, command: str
) -> None:
    (tmp_path / folder / "toy").mkdir(parents=True)
    with pytest.raises(UserError, match=rf"missing \(expected sha256 {EXPECTED}\).*{command}"):
        store.locate(dataset)
    put(tmp_path / folder / "toy", WRONG)
    with pytest.raises(UserError, match=rf"expected sha256 {EXPECTED}, found {FOUND}.*{command}"):
        store.load(dataset)


def test_decoded_images_must_have_the_registered_shape(tmp_path: Path) -> None:
    dataset = toys.make_dataset(image_shape=(8, 8, 1))
    put(tmp_path / "data" / "toy")
    with pytest.raises(UserError, match=r"images are \(4, 4, 1\), expected \(8, 8, 1\)"):
        store.load(dataset)


def test_registry(toy: Dataset) -> None:
    assert {"mnist5k", "toy"} <= set(store.available_datasets())
    assert store.get_dataset("toy").name == "toy"
    with pytest.raises(UserError, match=r"--dataset: no data set is named 'mnist5' \(closest: mnist5k"):
        store.get_dataset("mnist5", where="--dataset")


def test_modules_that_data_sets_share_are_no_data_sets(
    toy: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "registered" / "_shared.py").write_text("")
    assert "_shared" not in store.available_datasets()


# ---- the two layouts of a mirror -----------------------------------------------------------------------------------


def test_a_mirror_may_hold_the_file_itself(dataset: Dataset, tmp_path: Path) -> None:
    put(tmp_path / "mirror")
    assert fetched(store.fetch(dataset, tmp_path / "data", tmp_path / "mirror")) == toys.CONTENT


def test_the_data_sets_own_folder_in_a_mirror_goes_first(dataset: Dataset, tmp_path: Path) -> None:
    put(tmp_path / "mirror", WRONG)
    put(tmp_path / "mirror" / "toy")
    assert fetched(store.fetch(dataset, tmp_path / "data", tmp_path / "mirror")) == toys.CONTENT


def test_a_mirror_goes_before_a_source_on_this_machine_and_does_not_hide_it(dataset: Dataset, tmp_path: Path) -> None:
    put(tmp_path / "own")
    (tmp_path / "mirror").mkdir()
    assert fetched(store.fetch(dataset, tmp_path / "data", tmp_path / "mirror")) == toys.CONTENT
    put(tmp_path / "mirror", WRONG)
    with pytest.raises(UserError, match="wrong content"):
        store.fetch(dataset, tmp_path / "other", tmp_path / "mirror")


def test_a_mirror_is_never_passed_over_for_a_download(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "mirror").mkdir()
    with pytest.raises(UserError, match=rf"mirror/toy/{toys.FILE}: missing, and not in .*mirror either; .*'toy'"):
        store.fetch(dataset, tmp_path / "data", tmp_path / "mirror")


# ---- pools -----------------------------------------------------------------------------------------------------------


def test_a_pool_serves_its_own_splits_alone() -> None:
    pool = toys.make_dataset(pool_min_imbalance_factor=10)
    for factor in (10.0, 50.0, 1e6):
        store.check_pool(pool, "toy-lt-if10", factor, "hash:0")
    for factor, rule in ((9.99, "hash:0"), (1, "hash:0"), (100, "hash:1"), (100, "numpy0"), (100, "first_n")):
        with pytest.raises(UserError, match=rf"'toy-lt-x'.*{rule}.*pool archive of 'toy' serves only hash:0 .* 10$"):
            store.check_pool(pool, "toy-lt-x", factor, rule)


def test_a_data_set_that_is_no_pool_serves_every_split() -> None:
    store.check_pool(toys.make_dataset(), "toy-lt-if1-first_n", 1, "first_n")
