"""One run in two processes (gloo): the steps of one process with the whole batch, each test image once, resumable."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.layers.norm_act import BatchNormAct2d
from torch import nn

from harness.api import Classifier
from harness.base.errors import UserError
from harness.engine import device
from harness.engine.parallel import with_synchronised_batchnorm
from harness.engine.ranks import Ranks, local_device, saved_buffers
from harness.reading.dataset import Images
from harness.spec.spread import Spread
from harness.splits.splits import Split
from tests.engine.together import (
    CASES,
    alone,
    exit_codes,
    together,
    train_and_stop,
    train_cases,
    train_in_parts,
    train_on_bad_news,
)
from tests.engine.toys import Everything, job, start

ImagesByPart = dict[str, Images]


@given(st.integers(0, 50), st.integers(1, 40), st.integers(1, 9))
def test_shares_of_a_batch_are_all_of_it(start: int, size: int, world: int) -> None:
    where = slice(start, start + size)
    every = [Ranks(rank, world) for rank in range(world)]
    shares = [range(100)[ranks.share(where)] for ranks in every]
    weights = [ranks.weight(where) for ranks in every]
    counted = [position for share, weight in zip(shares, weights, strict=True) if weight for position in share]
    assert sorted(counted) == list(range(start, start + size))
    assert sum(weights) == pytest.approx(1)
    assert all(len(share) > 0 for share in shares)  # a rank without an image could not take part in the step


@given(st.integers(0, 50), st.integers(1, 9))
def test_every_image_of_a_part_is_in_one_chunk(count: int, world: int) -> None:
    chunks = [Ranks(rank, world).chunk(count) for rank in range(world)]
    assert [i for chunk in chunks for i in chunk] == list(range(count))


@pytest.fixture(scope="module")
def in_two(tiny_split: Split, tiny_images: ImagesByPart, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return together(train_cases, tiny_split, tiny_images, tmp_path_factory.mktemp("two"))


@pytest.fixture(scope="module")
def in_one(tiny_split: Split, tiny_images: ImagesByPart, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return alone(train_cases, tiny_split, tiny_images, tmp_path_factory.mktemp("one"))


@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_as_one(case: str, in_two: list[Any], in_one: Any) -> None:
    """Weights after three epochs, in float64: every gradient on the way was that of the whole batch."""
    for rank in (0, 1):
        torch.testing.assert_close(in_two[rank][case]["model"], in_one[case]["model"], rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(in_two[rank][case]["method"], in_one[case]["method"], rtol=1e-9, atol=1e-12)
        assert in_two[rank][case]["loss"] == pytest.approx(in_one[case]["loss"])


@pytest.mark.parametrize("case", CASES)
def test_every_test_image_is_evaluated_once_and_in_its_place(case: str, in_two: list[Any], in_one: Any) -> None:
    torch.testing.assert_close(in_two[0][case]["logits"], in_one[case]["logits"])
    assert in_two[1][case]["logits"] is None  # rank 0 has them, and writes
    assert in_two[0][case]["epochs"] == in_one[case]["epochs"] == [1, 2, 3]


def test_gradients_of_parts_add_up(in_one: Any, tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path) -> None:
    """With at most five images at once, alone: the same steps."""
    found = alone(train_in_parts, tiny_split, tiny_images, tmp_path)
    assert len(found) > 5
    for case in found:
        torch.testing.assert_close(found[case]["model"], in_one[case]["model"], rtol=1e-9, atol=1e-12)


def test_parts_and_ranks_together(in_one: Any, tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path) -> None:
    for found in together(train_in_parts, tiny_split, tiny_images, tmp_path):
        for case in found:
            torch.testing.assert_close(found[case]["model"], in_one[case]["model"], rtol=1e-9, atol=1e-12)


def test_a_stopped_run_goes_on_to_the_same_bits(tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path) -> None:
    """Each rank has noise of its own, and takes it up where it was."""
    first, second = together(train_and_stop, tiny_split, tiny_images, tmp_path)
    for found in (first, second):
        assert found["said"] == ["noisy seed 0 train: resumed at epoch 2, step 11"]  # saved every tenth step
        torch.testing.assert_close(found["again"]["model"], found["whole"]["model"], rtol=0, atol=0)
    torch.testing.assert_close(first["again"]["model"], second["again"]["model"], rtol=0, atol=0)  # buffers too
    assert (tmp_path / "whole/weights.safetensors").read_bytes() == (
        tmp_path / "stopped/weights.safetensors"
    ).read_bytes()
    assert (tmp_path / "whole/predictions.npz").read_bytes() == (tmp_path / "stopped/predictions.npz").read_bytes()


# ---- what goes wrong on one rank -----------------------------------------------------------------------------------


def test_a_loss_that_is_nan_on_one_rank_is_nan_on_all(
    tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path
) -> None:
    found = together(functools.partial(train_on_bad_news, "nan"), tiny_split, tiny_images, tmp_path)
    assert found == ["loss is nan in epoch 2, step 3"] * 2


@pytest.mark.parametrize("kind", ["failure", "bug"])
def test_a_failure_of_one_rank_ends_both(
    kind: str, tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path
) -> None:
    assert exit_codes(functools.partial(train_on_bad_news, kind), tiny_split, tiny_images, tmp_path) == [1, 1]


# ---- one process is enough for these -------------------------------------------------------------------------------


def test_synchronised_batchnorm_keeps_its_activation() -> None:
    """Some models have it inside BatchNorm, where torch's own conversion would lose it."""
    model = Classifier(timm.create_model("mobilenetv3_small_050", num_classes=0), nn.Identity())
    before = {name: str(m.act) for name, m in model.named_modules() if isinstance(m, BatchNormAct2d)}
    with_synchronised_batchnorm(model, torch.device("cuda"))
    after = {name: str(m.act) for name, m in model.named_modules() if isinstance(m, nn.SyncBatchNorm)}
    assert after == before
    assert any("Identity" not in act for act in after.values())


class WithTable(nn.Module):
    """As some transformers have it: a buffer that no state holds."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.ones(2), persistent=False)
        self.norm = nn.BatchNorm1d(2)


def test_only_buffers_of_the_state_are_saved() -> None:
    model = WithTable()
    assert set(saved_buffers(model)) == {"norm.running_mean", "norm.running_var", "norm.num_batches_tracked"}
    model.load_state_dict(model.state_dict() | saved_buffers(model))


def test_each_process_needs_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    device.check_one_each("auto", 2)
    device.check_one_each("cpu", 3)
    for name in ("auto", "cuda"):
        with pytest.raises(UserError, match="3 processes on this machine take a GPU each, and it has 2"):
            device.check_one_each(name, 3)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert local_device("auto") == "cuda:1"
    with pytest.raises(UserError, match="--device cuda:0: 2 processes take a GPU each"):
        local_device("cuda:0")


def test_shares_are_not_compiled(
    tiny_split: Split, tiny_images: ImagesByPart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only whole batches would be, and the costs would say that all was."""
    monkeypatch.setenv("LTBENCH_COMPILE", "1")
    spread = dataclasses.replace(job(Everything), spread=Spread(micro_batch=8))
    with pytest.raises(UserError, match=r"LTBENCH_COMPILE=1: .* not with --micro-batch 8"):
        start(spread, tiny_split, tiny_images, tmp_path)
