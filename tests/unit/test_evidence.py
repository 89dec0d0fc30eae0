"""The evidence beside a record: what is stored, what comes back, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.base.errors import UserError
from harness.records.arrays import write_arrays
from harness.records.evidence import evidence_path, gather, gather_first, read_evidence
from harness.records.schema import Record
from tests.factories import make_record, make_scores

TARGETS = np.array([0, 0, 1, 1])
HISTORY: dict[str, Any] = {
    "run_key": np.array("key"),
    "loss": np.array([1.0, 0.5, 0.25]),
    "learning_rate": np.array([0.1, 0.05, 0.0]),
    "epochs": np.array([1, 2, 3]),
    "test": np.array([[0, 0, 0, 0], [0, 0, 1, 1], [0, 1, 1, 1]], np.uint8),
    "val": np.array([[0], [1], [1]], np.uint8),
    "ece": np.array([0.1, 0.1, 0.1]),
    "logits": np.zeros((4, 2), np.float16),
    "class/weight norm": np.array([1.0, 0.5], np.float32),
}


RECORD = make_record(
    run_key="key",
    test_images=4,
    class_counts=[5, 5],
    results={"last": make_scores(0.75, class_counts=[5, 5]), "best_test": make_scores(1.0, class_counts=[5, 5])},
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = evidence_path(tmp_path / "seed0.json")
    write_arrays(path, gather(HISTORY, {"last": 2, "best_test": 1}, TARGETS, np.array([1])))
    return path


def test_what_is_stored_comes_back(path: Path) -> None:
    evidence = read_evidence(path, RECORD)
    assert evidence is not None
    assert path.name == "seed0.npz"
    np.testing.assert_array_equal(evidence.targets, TARGETS)
    np.testing.assert_array_equal(evidence.predictions["last"], HISTORY["test"][2])
    np.testing.assert_array_equal(evidence.predictions["best_test"], HISTORY["test"][1])
    np.testing.assert_array_equal(evidence.correct("last"), [True, False, True, True])
    assert evidence.correct("best_val") is None
    np.testing.assert_allclose(evidence.curves["test"], [0.5, 1.0, 0.75])
    np.testing.assert_allclose(evidence.curves["val"], [0, 1, 1])
    np.testing.assert_allclose(evidence.curves["loss"], HISTORY["loss"])
    np.testing.assert_allclose(evidence.quantities["weight norm"], [1, 0.5])


def test_a_second_stage_keeps_the_curves_of_the_first(path: Path) -> None:
    assert read_evidence(path, RECORD).first == {}
    first = HISTORY | {"test": HISTORY["test"][:2], "val": HISTORY["val"][:2], "epochs": np.array([5, 9])}
    arrays = gather(HISTORY, {"last": 2, "best_test": 1}, TARGETS, np.array([1]))
    write_arrays(path, arrays | gather_first(first, TARGETS, np.array([1])))
    evidence = read_evidence(path, RECORD)
    assert evidence is not None
    assert list(evidence.first) == ["loss", "epochs", "test", "val"]
    np.testing.assert_allclose(evidence.first["test"], [0.5, 1.0])
    assert evidence.first["epochs"].tolist() == [5, 9]
    write_arrays(path, arrays | {"first/test": np.array([np.nan])})
    with pytest.raises(UserError, match="test is not a list of numbers"):
        read_evidence(path, RECORD)


def test_one_epoch_chosen_by_every_rule_is_stored_once(path: Path) -> None:
    arrays = gather(HISTORY, {"last": 2, "best_val": 2, "best_test": 2}, TARGETS, np.array([1]))
    assert arrays["predictions"].shape == (1, 4)
    assert arrays["row"].tolist() == [0, 0, 0]


def test_no_validation_part_has_no_curve() -> None:
    history = HISTORY | {"val": np.empty((3, 0), np.uint8)}
    assert gather(history, {"last": 2}, TARGETS, np.empty(0, np.int64))["val"].shape == (0,)


def test_equal_arrays_are_equal_bytes(path: Path, tmp_path: Path) -> None:
    write_arrays(tmp_path / "again.npz", gather(HISTORY, {"last": 2, "best_test": 1}, TARGETS, np.array([1])))
    assert path.read_bytes() == (tmp_path / "again.npz").read_bytes()


def test_none_is_no_error(tmp_path: Path) -> None:
    assert read_evidence(tmp_path / "seed0.npz", RECORD) is None


def test_that_of_another_run_is_refused(path: Path) -> None:
    with pytest.raises(UserError, match="evidence of run key, its record is of run other"):
        read_evidence(path, replace(RECORD, run_key="other"))


@pytest.mark.parametrize("damage", ["cut", "text", "missing array"])
def test_damage_is_named(path: Path, damage: str) -> None:
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "text":
        path.write_text("nothing")
    else:
        np.savez_compressed(path, run_key=np.array("key"))
    with pytest.raises(UserError, match=r"seed0.npz: damaged evidence"):
        read_evidence(path, RECORD)


@pytest.mark.parametrize(
    "record",
    [replace(RECORD, test_images=5), replace(RECORD, results={"last": make_scores(0.5, class_counts=[5, 5])})],
    ids=["another number of images", "another accuracy"],
)
def test_predictions_that_are_not_the_record_s_are_refused(path: Path, record: Record) -> None:
    with pytest.raises(UserError, match="do not give the accuracy at last that its record states"):
        read_evidence(path, record)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("loss", np.array([1.0, np.nan, 0.5])),
        ("class/weight norm", np.array(["a", "b"])),
        ("class/weight norm", np.ones((2, 2))),
        ("loss", np.array([1.0, 0.5, 0.25], complex)),
        ("class/weight norm", np.array([True, False])),
    ],
)
def test_arrays_that_nothing_can_be_drawn_from_are_refused(path: Path, name: str, values: np.ndarray) -> None:
    write_arrays(path, gather(HISTORY, {"last": 2, "best_test": 1}, TARGETS, np.array([1])) | {name: values})
    with pytest.raises(UserError, match="is not a list of numbers"):
        read_evidence(path, RECORD)


@pytest.mark.parametrize("name", ["targets", "predictions"])
@pytest.mark.parametrize("kind", ["negative", "NaN", "fractions", "complex", "yes and no", "beyond int64", "words"])
def test_classes_that_are_none_are_refused_in_one_line(path: Path, name: str, kind: str) -> None:
    arrays = gather(HISTORY, {"last": 2, "best_test": 1}, TARGETS, np.array([1]))
    odd: dict[str, Any] = {
        "negative": np.where(arrays[name] == 0, -1, arrays[name].astype(np.int64)),
        "NaN": np.where(arrays[name] == 0, np.nan, arrays[name]),
        "fractions": arrays[name].astype(float),
        "complex": arrays[name].astype(complex),
        "yes and no": arrays[name].astype(bool),
        "beyond int64": arrays[name].astype(np.uint64),
        "words": arrays[name].astype(str),
    }
    write_arrays(path, arrays | {name: odd[kind]})
    with pytest.raises(UserError, match=r"seed0.npz: damaged evidence \([a-z_]+: not a list of classes\)") as refused:
        read_evidence(path, RECORD)
    assert "\n" not in str(refused.value)
