"""What picking a CUDA device fixes, shown without one: PyTorch's switches are the same with a card and without."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

import pytest
import torch

from harness.engine import device as module
from harness.engine.device import DETERMINISTIC, TF32, arithmetic, pick_device, set_tf32

CUDA = torch.device("cuda:0")


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A machine with one card; what was asked of CUDA is listed, and PyTorch's switches are put back as they were."""
    asked: list[str] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "init", lambda: asked.append("init"))
    monkeypatch.delenv(DETERMINISTIC, raising=False)
    monkeypatch.delenv(TF32, raising=False)
    before = torch.are_deterministic_algorithms_enabled()
    _as_pytorch_starts()
    yield asked
    _as_pytorch_starts()
    torch.use_deterministic_algorithms(before)


def _as_pytorch_starts() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = False, True
    torch.backends.cudnn.benchmark = False


def test_pytorch_itself_lets_convolutions_be_tf32(card: list[str]) -> None:
    """Else there would be nothing to switch off."""
    assert arithmetic(CUDA) == {"tf32": True, "cudnn_benchmark": False}


@pytest.mark.parametrize("name", ["auto", "cuda", "cuda:0"])
def test_cuda_has_begun_and_float32_is_float32(name: str, card: list[str]) -> None:
    """Memory statistics of `cuda:0` could not be reset before: so every run of a campaign failed."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pick_device(name).type == "cuda"
        assert arithmetic(CUDA) == {"tf32": False, "cudnn_benchmark": True}
        with torch.backends.cudnn.flags(enabled=False):  # an error where the generations of switches disagree
            pass
    assert card == ["init"]
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32


def test_tf32_is_allowed_where_it_is_asked_for(card: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """And switched off again for the steps that it is held against."""
    monkeypatch.setenv(TF32, "1")
    pick_device("cuda:0")
    assert arithmetic(CUDA)["tf32"]
    set_tf32(False)
    assert not arithmetic(CUDA)["tf32"]


def test_with_the_switches_of_older_versions_alone(card: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_precision_switches", list)
    assert arithmetic(CUDA)["tf32"]
    pick_device("cuda:0")
    assert not arithmetic(CUDA)["tf32"]


def test_same_bits_each_time_means_no_race_of_algorithms(card: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DETERMINISTIC, "1")
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # as it would be set, and put back here
    torch.backends.cudnn.benchmark = True
    pick_device("cuda:0")
    assert arithmetic(CUDA) == {"tf32": False, "cudnn_benchmark": False}


def test_a_processor_has_neither(card: list[str]) -> None:
    with contextlib.suppress(RuntimeError):  # threads may be fixed already
        pick_device("cpu")
    assert card == []
    assert arithmetic(torch.device("cpu")) == {"tf32": False, "cudnn_benchmark": False}
