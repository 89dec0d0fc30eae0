"""How many runs share a GPU, decided with made speeds and a made clock."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from pathlib import Path

import pytest

from harness.running import packing
from harness.running.packing import FULL, MOST, SECONDS, Load, Memory, Packing, shared_cards

GB = 10**9


class Card:
    """A card on which n runs together do `speeds[n]` image passes a second, in epochs of 100, and take `each` bytes.

    A worker begins another run after so many `epochs`, not all at the same time.
    """

    def __init__(self, speeds: dict[int, float], each: float = GB, fixed: int = 0, epochs: int = 10**6) -> None:
        self.speeds, self.each, self.now, self.notes = speeds, each, 0.0, list[str]()
        self.epochs, self.done = epochs, Counter[int]()
        self.packing = Packing("cuda:0", fixed, self.notes.append)
        self.packing._clock = lambda: self.now
        self.tried = [self.packing.count]

    def work(self, seconds: float) -> Packing:
        until = self.now + seconds
        while self.now < until:
            count = self.packing.count
            self.now += 100 * count / self.speeds[count]  # all finish an epoch at the same time
            self.packing.memory = Memory(int(80 * GB - count * self.each), 80 * GB)
            for worker in range(count):
                self.packing.epoch(worker, 100.0)
                self.done[worker] += 1
                if (self.done[worker] + 4 * worker) % self.epochs == 0:
                    self.packing.gone(worker)
                if self.packing.count != count:
                    break
            if self.tried[-1] != self.packing.count:
                self.tried.append(self.packing.count)
        return self.packing


def test_workers_are_added_while_all_together_get_faster() -> None:
    card = Card({1: 1000, 2: 1900, 4: 3000, 8: 3100, 16: 3100})
    assert card.work(8 * SECONDS).count == 8
    assert card.tried == [1, 2, 4, 8]
    (line,) = card.notes
    assert line.startswith("cuda:0: 8 runs at once, 3.")
    assert "1: " in line


def test_where_more_are_slower_the_best_number_stands() -> None:
    card = Card({1: 1000, 2: 1900, 4: 1200})
    assert card.work(8 * SECONDS).count == 2
    assert card.tried == [1, 2, 4, 2]
    card.work(20 * SECONDS)
    assert card.tried[-1] == 2
    assert len(card.notes) == 1


def test_memory_sets_the_limit() -> None:
    card = Card({n: 1000.0 * n for n in range(1, MOST + 1)}, each=20 * GB)
    assert card.work(12 * SECONDS).count == int(FULL * 80 / 20) == 3
    assert "memory for 3" in card.notes[0]


def test_a_given_number_is_kept() -> None:
    card = Card({3: 100.0}, fixed=3)
    assert card.work(20 * SECONDS).count == 3
    assert card.notes == []


def test_a_run_that_ends_is_not_held_against_the_card() -> None:
    """Until the next one is under way nothing is decided."""
    card = Card({1: 1000, 2: 2000})
    card.work(SECONDS / 2)
    card.packing.gone(0)
    card.now += 100 * SECONDS
    card.packing.epoch(0, 100.0)
    assert card.packing.count == 1
    assert card.work(1.2 * SECONDS).count == 2


def test_short_runs_are_timed_together() -> None:
    """200 of 15 epochs, each of 0.35 s, and none of them is at work as long as a worker is timed."""
    speed = 100 / 0.35
    card = Card({1: speed, 2: 2 * speed, 4: 3 * speed, 8: 3 * speed}, epochs=15)
    assert card.work(200 * 15 * 0.35 / 3).count == 4
    assert card.tried == [1, 2, 4, 8, 4]
    assert "4 runs at once, 3.00 times as fast" in card.notes[0]


def test_a_neighbour_that_comes_during_an_epoch_does_not_make_it_shorter() -> None:
    card = Card({1: 100})
    for seconds, worker in ((10, 0), (10, 0), (10, 1), (1, 0), (10, 1), (1, 0)):
        card.now += seconds
        card.packing.epoch(worker, 100.0)
    assert card.packing.count == 4
    assert card.packing._rates == {1: 100 / 10, 2: 200 / 11}


def test_a_run_has_had_as_many_beside_it_as_there_were_on_average() -> None:
    now = [0.0]
    load = Load()
    load._clock = lambda: now[0]
    load.begins("long")
    now[0] = 10.0
    load.begins("short")
    assert load.mean("short") == 2
    now[0] = 15.0
    assert load.mean("short") == 2
    load.ends("short")
    now[0] = 20.0
    assert load.mean("long") == (10 * 1 + 5 * 2 + 5 * 1) / 20


# ---- MPS -------------------------------------------------------------------------------------------------------------


def daemon(folder: Path, monkeypatch: pytest.MonkeyPatch, probe: str) -> Path:
    """A made one that writes down what it is told."""
    calls, program = folder / "calls", folder / "nvidia-cuda-mps-control"
    program.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n[ -n "$1" ] || cat >> {calls}\nsleep 60 > /dev/null 2>&1 &\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_MPS_PIPE_DIRECTORY", raising=False)
    monkeypatch.setattr(packing, "PROBE", probe)
    return calls


def test_mps_is_started_for_the_workers_and_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, notes = daemon(tmp_path, monkeypatch, "import os; os.environ['CUDA_MPS_PIPE_DIRECTORY']"), list[str]()
    with shared_cards(True, notes.append):
        assert Path(os.environ["CUDA_MPS_PIPE_DIRECTORY"]).is_dir()
        assert calls.read_text() == "-d\n"
    assert "CUDA_MPS_PIPE_DIRECTORY" not in os.environ
    assert calls.read_text() == "-d\n\nquit\n"
    assert notes == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_command_that_is_ended_ends_its_processes_and_mps(
    number: signal.Signals, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`pkill` reaches its processes first: that is no failure of what they do."""
    calls = daemon(tmp_path, monkeypatch, "")
    script = """
        import os, sys, time
        from harness import cli
        from harness.base.processes import Pool
        from harness.running import packing

        def work(connection):
            connection.send(os.getpid())
            time.sleep(60)

        @cli.app.command()
        def hold():
            packing.PROBE = ""
            with packing.shared_cards(True, print), Pool("fork") as pool:
                pool.start(work)
                ((_, pid),) = pool.heard()
                print(pid, flush=True)
                list(pool.heard())

        sys.argv[1:] = ["hold"]
        cli.main()
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        worker = int(process.stdout.readline())
        os.kill(worker, number)
        time.sleep(0.2)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert process.returncode == code
    assert len(said.split("\n")) <= 3
    assert said.endswith("ed; nothing is lost: the same command resumes\n")
    assert not Path(f"/proc/{worker}").exists()
    assert calls.read_text() == "-d\n\nquit\n"


def test_mps_that_does_not_work_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, notes = daemon(tmp_path, monkeypatch, "raise SystemExit(1)"), list[str]()
    with shared_cards(True, notes.append):
        assert "CUDA_MPS_PIPE_DIRECTORY" not in os.environ
    assert calls.read_text() == "-d\n\nquit\n"
    assert notes == ["MPS does not work here: runs on a card take turns"]


def test_without_mps_it_says_so_and_on_a_processor_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    notes = list[str]()
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    for wanted in (True, False):
        with shared_cards(wanted, notes.append):
            pass
    assert notes == ["no MPS here: runs on a card take turns"]
