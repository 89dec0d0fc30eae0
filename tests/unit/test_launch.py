"""Several processes of one run: how they end, what is said then, and once."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.base import launch
from harness.base.errors import RunFailed, UserError
from harness.spec.spread import ONE_PROCESS, Spread, asked_for, spread_of
from tests.unit import launched


def test_every_process_knows_its_place(tmp_path: Path) -> None:
    launch.launch(2, functools.partial(launched.write, tmp_path))
    assert [(tmp_path / str(rank)).read_text() for rank in (0, 1)] == ["2 0 2", "2 1 2"]


@pytest.mark.parametrize(
    ("work", "code", "line"),
    [
        (launched.all_mistaken, 2, "error: no such thing"),
        (launched.second_fails, 1, "failed: out of luck"),
        (launched.first_waits_for_ever, 2, "error: weights: No space left on device"),
        (launched.second_says_nothing, 7, "failed: a process ended with exit code 7"),
    ],
)
def test_an_error_is_said_once_and_ends_all(
    work: Callable[[], None], code: int, line: str, capfd: pytest.CaptureFixture[str]
) -> None:
    begun = time.monotonic()
    with pytest.raises(SystemExit) as ended:
        launch.launch(2, work)
    assert time.monotonic() - begun < 300  # not the 600 seconds that one would wait
    assert ended.value.code == code
    assert capfd.readouterr().err == line + "\n"


def test_a_killed_process_is_the_reason_and_not_what_it_did_to_the_others(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(RunFailed, match=r"process 1 of 2: .* killed \(SIGKILL\).*; the same command goes on"):
        launch.launch(2, launched.second_is_killed)
    assert not capfd.readouterr().err


def test_torchrun_decides_how_many_processes_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked_for(2, 8, False) == Spread(2, 8)
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert asked_for(1, 0, True) == asked_for(4, 0, True) == Spread(4, 0, True)
    with pytest.raises(UserError, match="--nproc 2: 4 processes were started already"):
        asked_for(2, 0, False)
    monkeypatch.setenv("WORLD_SIZE", "abc")
    with pytest.raises(UserError, match="WORLD_SIZE=abc: expected a whole number above 0"):
        asked_for(1, 0, False)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ((0, 0, False), "at least 1 process"),
        ((1, -1, False), "at least 0 images"),
        ((2, 8, True), "leave out --micro-batch"),
        ((1, 0, True), "one process has nothing to synchronise"),
    ],
)
def test_what_cannot_be_asked_for(wrong: tuple[int, int, bool], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        Spread(*wrong)


def test_a_record_says_how_its_run_was_spread() -> None:
    spread = Spread(2, 8)
    assert spread_of({"train": {}, **spread.in_recipe}, "a.json") == spread
    assert spread_of({"train": {}, **ONE_PROCESS.in_recipe}, "a.json") == ONE_PROCESS
    assert spread.options == "--nproc 2 --micro-batch 8"
    for damaged in (3, {"ranks": "many"}, {"ranks": 0}):
        with pytest.raises(UserError):
            spread_of({"parallel": damaged}, "a.json")
