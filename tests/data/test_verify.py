"""`ltbench verify`: whatever is wrong with a data set is listed, and nothing of it is trusted or extracted."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from harness import cli
from harness.base.files import sha256_file
from harness.reading.dataset import Dataset
from harness.splits import store
from harness.splits.verify import SHOWN, Report, archive_faults, verify
from tests.data import made, official


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LTBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data" / "small"


@pytest.fixture
def dataset(data: Path) -> Dataset:
    return made.make_dataset(made.write_archive(data / made.ARCHIVE, made.contents()))


def test_a_sound_data_set(dataset: Dataset, data: Path) -> None:
    report = verify(dataset)
    assert report == Report(
        "small", str(data), images={"train": 6, "test": 2}, sha256=report.sha256, duplicates_in_train=0,
        in_train_and_test=0,
    )  # fmt: skip
    assert report.lines() == [
        f"small: sound in {data}; images: 6 train, 2 test; duplicates: 0 in train, 0 in train and test"
    ]


def test_a_missing_file(dataset: Dataset, data: Path) -> None:
    (data / made.ARCHIVE).unlink()
    report = verify(dataset)
    assert not report.sound
    assert len(report.missing) == 1
    assert report.missing[0].endswith("to bring it here: ltbench fetch small")


def test_a_damaged_archive_tells_what_is_damaged_in_it(dataset: Dataset, data: Path) -> None:
    bad = {
        "small/train/cat/broken.webp": made.contents()["small/train/cat/0.webp"][:-20],
        "small/train/dog/none.webp": b"no image",
    }
    made.write_archive(data / made.ARCHIVE, made.contents() | bad)
    report = verify(dataset)
    text = "\n".join(report.damaged)
    assert len(report.damaged) == 3
    for part in ("wrong content: expected sha256", "broken.webp' cannot be read", "none.webp' cannot be read"):
        assert part in text
    assert sorted(path.name for path in data.rglob("*")) == [made.ARCHIVE]


def test_a_truncated_archive_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    members = {"small/train/cat/bad.webp": b"no image"} | made.contents()
    path = made.write_archive(tmp_path / "a.tar", members)
    path.write_bytes(path.read_bytes()[:3000])
    faults = archive_faults(path)
    assert "bad.webp' cannot be read" in faults[0]
    assert "damaged or truncated archive" in faults[1]


def test_damaged_members_of_a_zip_are_all_listed(tmp_path: Path) -> None:
    path = official.write_zip(tmp_path / "a.zip", {f"a/{i}.JPEG": official.jpeg(i) for i in range(4)})
    data = bytearray(path.read_bytes())
    for i in (1, 2):
        at = data.index(f"a/{i}.JPEG".encode()) + 60  # within the member's data
        data[at] ^= 0xFF
    path.write_bytes(bytes(data))
    faults = archive_faults(path)
    assert len(faults) == 2
    assert all(f"a/{i}.JPEG" in faults[i - 1] for i in (1, 2))


def test_what_is_no_archive_has_no_members(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("x")
    (tmp_path / "idx.gz").write_bytes(b"x")
    assert archive_faults(tmp_path / "list.txt") == archive_faults(tmp_path / "idx.gz") == []


def test_an_archive_that_is_as_pinned_but_cannot_be_decoded(data: Path) -> None:
    path = made.write_archive(data / made.ARCHIVE, made.contents() | {"small/train/cat/x.webp": b"no image"})
    report = verify(made.make_dataset(path))
    assert not report.sound
    assert "x.webp' cannot be read" in report.damaged[0]


def test_duplicates_are_counted_across_classes(data: Path) -> None:
    again = made.contents()["small/train/cat/0.webp"]
    members = made.contents() | {
        "small/train/cat/a.webp": again, "small/train/dog/b.webp": again, "small/test/dog/c.webp": again,
    }  # fmt: skip
    report = verify(made.make_dataset(made.write_archive(data / made.ARCHIVE, members)))
    assert report.sound
    assert (report.duplicates_in_train, report.in_train_and_test) == (2, 1)


def test_the_digest_is_that_of_the_split(dataset: Dataset) -> None:
    from harness.splits.splits import ordered

    parts = store.load(dataset)
    assert verify(dataset).sha256["test"] == ordered(parts["test"], 2)[0].sha256


def test_long_lists_are_cut_in_print_alone() -> None:
    report = Report("x", "y", missing=[f"file {i}" for i in range(SHOWN + 5)])
    assert len(report.lines()) == SHOWN + 2
    assert report.lines()[SHOWN] == "missing: 5 more"
    assert len(report.as_dict()["missing"]) == SHOWN + 5


# ---- the command -----------------------------------------------------------------------------------------------------

Command = Callable[..., int]


@pytest.fixture
def ltbench(monkeypatch: pytest.MonkeyPatch) -> Command:
    def call(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["ltbench", *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return int(caught.value.code or 0)

    return call


def test_exit_codes(
    dataset: Dataset, data: Path, ltbench: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(store, "get_dataset", lambda name, **_: dataset)
    assert ltbench("verify", "small", "--manifest", "found.json") == 0
    manifest = json.loads(Path("found.json").read_text())
    assert manifest[0]["sound"]
    assert manifest[0]["images"] == {"train": 6, "test": 2}
    (data / made.ARCHIVE).write_bytes(b"broken")
    assert ltbench("verify", "small", "--manifest", "found.json") == 1
    assert not json.loads(Path("found.json").read_text())[0]["sound"]
    assert "damaged: " in capsys.readouterr().out


def test_an_unknown_name_is_a_users_mistake(ltbench: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert ltbench("verify", "cifar11") == 2
    assert "closest: cifar1" in capsys.readouterr().err
    assert ltbench("verify", "folder:nowhere") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1


def test_a_pinned_archive_is_not_read_twice(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.splits.verify.archive_faults", lambda path: pytest.fail("it is as pinned"))
    assert verify(dataclasses.replace(dataset)).sound
    assert sha256_file(store.locate(dataset) / made.ARCHIVE)
    assert np.array_equal(store.load(dataset)["test"].labels, [0, 1])
