"""Weights and resume states: bound to their run, and never trusted when damaged."""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from harness.base.errors import UserError
from harness.engine.checkpoint import load_state, load_weights, save_state, save_weights, sealed

DAMAGE = [b"", b"\x00", b"garbage" * 50, b"\xff" * 8 + b"{}", b"\x02\x00\x00\x00\x00\x00\x00\x00{}"]


def make_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        OrderedDict(backbone=nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)), head=nn.Linear(2, 3))
    )


def test_weights_round_trip(tmp_path: Path) -> None:
    model, path = make_model(), tmp_path / "w.safetensors"
    save_weights(path, model, "key", {"psi": torch.ones(3)})
    loaded = load_weights(path, "key")
    expected = model.state_dict()
    assert loaded.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(loaded[name], value)
        assert loaded[name].dtype == value.dtype
    make_model().load_state_dict(loaded)


def test_weights_are_the_same_bytes_for_the_same_run(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_weights(tmp_path / name, make_model(), "key", {"b": torch.ones(1), "a": torch.zeros(2)})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_channels_last_weights_keep_their_values(tmp_path: Path) -> None:
    model = make_model().to(memory_format=torch.channels_last)
    save_weights(tmp_path / "w", model, "key", {})
    loaded = load_weights(tmp_path / "w", "key")
    assert all(torch.equal(loaded[name], value) for name, value in model.state_dict().items())


def test_tied_weights_can_be_saved(tmp_path: Path) -> None:
    model = make_model()
    model.twin = model.head
    save_weights(tmp_path / "w", model, "key", {})
    assert torch.equal(load_weights(tmp_path / "w", "key")["twin.weight"], model.get_parameter("head.weight"))


def test_weights_of_another_run(tmp_path: Path) -> None:
    save_weights(tmp_path / "w", make_model(), "one", {})
    with pytest.raises(UserError, match="made by run one, expected other"):
        load_weights(tmp_path / "w", "other")


@pytest.mark.parametrize("data", DAMAGE)
def test_damaged_weights(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "w").write_bytes(data)
    with pytest.raises(UserError, match="ltbench train") as caught:
        load_weights(tmp_path / "w", "key")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.05, 0.5, 0.99])
def test_truncated_weights(tmp_path: Path, share: float) -> None:
    save_weights(tmp_path / "w", make_model(), "key", {})
    data = (tmp_path / "w").read_bytes()
    (tmp_path / "w").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UserError, match="damaged"):
        load_weights(tmp_path / "w", "key")


def test_missing_weights(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="missing"):
        load_weights(tmp_path / "w", "key")


def test_a_failed_save_keeps_the_old_weights(tmp_path: Path) -> None:
    save_weights(tmp_path / "w", make_model(), "key", {})
    before = (tmp_path / "w").read_bytes()
    with pytest.raises(Exception, match=r"str"):
        save_weights(tmp_path / "w", make_model(), 3, {})  # type: ignore[arg-type]
    assert (tmp_path / "w").read_bytes() == before
    assert list(tmp_path.iterdir()) == [tmp_path / "w"]


# ---- resume states -------------------------------------------------------------------------------------------------


def test_state_round_trip(tmp_path: Path) -> None:
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    model.get_submodule("head")(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    generator = torch.Generator().manual_seed(5)
    state: dict[str, Any] = {
        "model": model.state_dict(), "optimizer": optimizer.state_dict(), "rng": generator.get_state(),
        "epoch": 3, "loss": [0.5], "method": {"text": "x", "none": None, "nested": {"1": torch.ones(2)}},
    }  # fmt: skip
    save_state(tmp_path / "s", state, "key")
    loaded = load_state(tmp_path / "s", "key")
    assert loaded is not None
    assert loaded["epoch"] == 3
    assert loaded["method"]["text"] == "x"
    assert torch.equal(loaded["rng"], state["rng"])
    other = torch.optim.SGD(make_model().parameters(), 0.1, momentum=0.9)
    other.load_state_dict(loaded["optimizer"])
    assert list(tmp_path.iterdir()) == [tmp_path / "s"]


def test_no_state_is_none(tmp_path: Path) -> None:
    assert load_state(tmp_path / "s", "key") is None


def test_state_of_another_run(tmp_path: Path) -> None:
    save_state(tmp_path / "s", {}, "one")
    with pytest.raises(UserError, match="resume state of run one, expected other"):
        load_state(tmp_path / "s", "other")


@pytest.mark.parametrize("data", DAMAGE)
def test_damaged_state(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "s").write_bytes(data)
    with pytest.raises(UserError, match="delete it") as caught:
        load_state(tmp_path / "s", "key")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.1, 0.6, 0.99])
def test_truncated_state(tmp_path: Path, share: float) -> None:
    save_state(tmp_path / "s", {"x": torch.randn(1000)}, "key")
    data = (tmp_path / "s").read_bytes()
    (tmp_path / "s").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UserError, match="delete it"):
        load_state(tmp_path / "s", "key")


def torch_file(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("value", [torch.ones(2), [1, 2], "text", None])
def test_a_torch_file_of_something_else(tmp_path: Path, value: Any) -> None:
    (tmp_path / "s").write_bytes(sealed(torch_file(value)))
    with pytest.raises(UserError):
        load_state(tmp_path / "s", "key")


class Malicious:
    """Unpickling it would create the file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("wrapped", [True, False], ids=["torch file", "bare pickle"])
def test_code_in_a_state_is_not_run(tmp_path: Path, wrapped: bool) -> None:
    state = {"run_key": "key", "x": Malicious(tmp_path / "pwned")}
    (tmp_path / "s").write_bytes(sealed(torch_file(state) if wrapped else pickle.dumps(state)))
    with pytest.raises(UserError, match="damaged resume state"):
        load_state(tmp_path / "s", "key")
    assert not (tmp_path / "pwned").exists()
    pickle.loads(pickle.dumps(state))  # the attack itself works
    assert (tmp_path / "pwned").exists()
