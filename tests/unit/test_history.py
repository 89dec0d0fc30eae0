"""The file that scoring rests on: complete, reproducible, and refused when damaged."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.base.errors import UserError
from harness.records.history import LOGIT_CLASSES, TOP_K, History, class_dtype, read_history


def make_history(epochs: int = 3, images: int = 20, val: int = 5) -> History:
    rng = np.random.default_rng(0)
    return History(
        loss=[1.5, 0.5, 0.25][:epochs],
        learning_rate=[0.1, 0.05, 0.0][:epochs],
        epochs=list(range(1, epochs + 1)),
        test=[rng.integers(0, 4, images).astype(np.uint8) for _ in range(epochs)],
        val=[rng.integers(0, 4, val).astype(np.uint8) for _ in range(epochs)],
        ece=[0.1, 0.2, 0.3][:epochs],
    )


def make_logits(images: int = 20, classes: int = 4) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((images, classes)).astype(np.float32)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    make_history().save(tmp_path / "h.npz", make_logits(), "key")
    return tmp_path / "h.npz"


def test_round_trip(saved: Path) -> None:
    found, expected = read_history(saved), make_history()
    assert str(found["run_key"]) == "key"
    for name in ("loss", "learning_rate", "epochs", "ece"):
        assert found[name].tolist() == getattr(expected, name)
    np.testing.assert_array_equal(found["test"], np.stack(expected.test))
    np.testing.assert_array_equal(found["val"], np.stack(expected.val))
    assert found["test"].dtype == np.uint8
    assert found["logits"].dtype == np.float16
    np.testing.assert_allclose(found["logits"], make_logits(), rtol=1e-3, atol=1e-4)


def test_the_same_run_is_the_same_bytes(saved: Path, tmp_path: Path) -> None:
    make_history().save(tmp_path / "again.npz", make_logits(), "key")
    assert (tmp_path / "again.npz").read_bytes() == saved.read_bytes()


def test_without_a_validation_part(tmp_path: Path) -> None:
    make_history(val=0).save(tmp_path / "h.npz", make_logits(), "key")
    assert read_history(tmp_path / "h.npz")["val"].shape == (3, 0)


@pytest.mark.parametrize("classes", [LOGIT_CLASSES, LOGIT_CLASSES + 1])
def test_beyond_200_classes_only_the_largest_logits_are_kept(tmp_path: Path, classes: int) -> None:
    logits = make_logits(classes=classes)
    make_history().save(tmp_path / "h.npz", logits, "key")
    found = read_history(tmp_path / "h.npz")
    assert ("logits" in found) == (classes <= LOGIT_CLASSES)
    if classes > LOGIT_CLASSES:
        assert found["top_classes"].shape == found["top_logits"].shape == (20, TOP_K)
        np.testing.assert_array_equal(found["top_classes"][:, 0], logits.argmax(1))
        for i in range(20):
            best = sorted(range(classes), key=lambda c: -logits[i, c])[:TOP_K]
            assert found["top_classes"][i].tolist() == best
            np.testing.assert_allclose(found["top_logits"][i], logits[i, best], rtol=1e-3)


@pytest.mark.parametrize("classes", [2, 256, 257, 8142])
def test_class_dtype_holds_the_last_class(classes: int) -> None:
    assert np.iinfo(class_dtype(classes)).max >= classes - 1


@pytest.mark.parametrize("data", [b"", b"garbage" * 20, b"PK\x03\x04", b"\x93NUMPY", pickle.dumps({"a": 1})])
def test_garbage(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "h.npz").write_bytes(data)
    with pytest.raises(UserError, match=r"h\.npz: damaged") as caught:
        read_history(tmp_path / "h.npz")
    assert "\n" not in str(caught.value)


def test_missing_and_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="missing"):
        read_history(tmp_path / "h.npz")
    with pytest.raises(UserError):
        read_history(tmp_path)


def test_truncated_anywhere(saved: Path) -> None:
    data = saved.read_bytes()
    for length in range(0, len(data), 97):
        saved.write_bytes(data[:length])
        with pytest.raises(UserError):
            read_history(saved)


def test_a_flipped_bit_is_refused_or_harmless(saved: Path) -> None:
    """Whatever bit a bad disk turns: the values are the right ones, or the file is refused."""
    data, expected = saved.read_bytes(), read_history(saved)
    trouble: dict[str, Any] = {}
    directory = data.rindex(b"PK\x01\x02", 0, data.index(b"PK\x01\x02") + 4)  # where the archive lists its arrays
    for position in [*range(0, directory, 7), *range(directory, len(data), 2)]:
        bit = 0 if position % 4 else position // 4 % 8
        damaged = bytearray(data)
        damaged[position] ^= 1 << bit
        saved.write_bytes(damaged)
        try:
            found = read_history(saved)
        except UserError:
            continue
        except Exception as error:
            trouble[type(error).__name__] = str(error)
            continue
        if found.keys() != expected.keys():
            trouble["arrays lost"] = sorted(expected.keys() - found.keys())
        elif any(not np.array_equal(found[name], expected[name]) for name in expected):
            trouble["other values"] = position
    assert not trouble


def test_one_array_instead_of_a_history(tmp_path: Path) -> None:
    with open(tmp_path / "h.npz", "wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(UserError):
        read_history(tmp_path / "h.npz")


def test_an_archive_of_something_else(tmp_path: Path) -> None:
    np.savez(tmp_path / "h.npz", other=np.zeros(3))
    with pytest.raises(UserError):
        read_history(tmp_path / "h.npz")


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "h.npz", test=np.array([{"a": 1}], dtype=object))
    with pytest.raises(UserError, match="damaged"):
        read_history(tmp_path / "h.npz")
