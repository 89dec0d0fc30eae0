"""A borrowed card, rehearsed on a CPU with a pretended clock: whenever it is taken away, what is home is whole."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.base.errors import UserError
from harness.base.files import write_bytes
from harness.base.progress import Reporter
from harness.engine.loop import StageRun
from harness.records.agreement import Agreement, Verdict
from harness.records.imports import import_campaign
from harness.records.progress import PROGRESS
from harness.running import borrowed, status
from harness.running.borrowed import RECORDS, RESERVE, UNFINISHED, Errand, Phase, Process, pack, phases, unpack
from harness.running.cells import SCRATCH
from harness.running.committed import _sentence
from harness.running.plans import Settings, do, make_plan
from harness.running.stages import Workplace
from harness.spec import suites
from tests.engine.toys import Killed

SUITE = "cards: {splits: [tiny-lt-if10], entries: [toy@common, plain@common], seeds: [0, 1], order: listed}"
RECORDS_IN_ALL = 4
STATE = f"{SCRATCH}/run/resume.pt"
TICK = 12.0  # seconds that a piece of pretended work takes


class Notes(Reporter):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


@dataclass
class Rehearsal:
    """A machine on which time passes as work is done. A run is interrupted in the middle once, and goes on after it."""

    work: Path
    monkeypatch: pytest.MonkeyPatch
    now: float = 0.0
    notes: Notes = field(default_factory=Notes)
    commands: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def start(self, command: Sequence[str], log: Path, _environment: dict[str, str]) -> Pretended:
        self.commands.append(next(word for word in ("pytest", "bench", "fetch", "campaign") if word in command))
        log.write_text("output\n")
        return Pretended(self, self._campaign() if self.commands[-1] == "campaign" else iter([None] * 4))

    def _campaign(self) -> Iterator[None]:
        plan = make_plan("cards", Settings(self.work))
        tracker = status.Tracker(self.work, "cards", plan, 1)
        place = Workplace(torch.device("cpu"), self.notes, self.work / SCRATCH)
        while plan.ready:
            run = plan.take()
            tracker.started(run)
            if run.stage == "train":
                with self.monkeypatch.context() as changed:
                    changed.setattr(StageRun, "train_epoch", _die_in_epoch_2)
                    with pytest.raises(Killed):
                        do(run, self.work, place)
                yield
            outcome = do(run, self.work, place)
            plan.finished(run)
            tracker.finished(run, outcome)
            yield

    def errand(self, home: Path, minutes: float) -> Errand:
        errand = Errand(home, self.work, "cards", minutes)
        for name in ("clock", "sleep", "start"):
            self.monkeypatch.setattr(errand, f"_{name}", getattr(self, name))
        return errand


train_epoch = StageRun.train_epoch


def _die_in_epoch_2(run: StageRun, reporter: Reporter) -> None:
    if run.epoch:
        raise Killed
    train_epoch(run, reporter)


@dataclass
class Pretended:
    """A phase whose every look does a piece of its work."""

    machine: Rehearsal
    pieces: Iterator[None]

    def poll(self) -> int | None:
        self.machine.now += TICK
        try:
            next(self.pieces)
        except StopIteration:
            return 0
        return None

    def end(self) -> None:
        self.machine.ended.append(self.machine.commands[-1])


@pytest.fixture
def machine(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Rehearsal:
    (workspace / "suites.yaml").write_text(SUITE)
    monkeypatch.setattr(suites, "SUITES_FILE", workspace / "suites.yaml")
    monkeypatch.setenv("LTBENCH_CHECKPOINT_SECONDS", "0")
    return Rehearsal(workspace / "borrowed", monkeypatch)


def imported(home: Path, folder: Path) -> int:
    """Records that come home and import, all of them."""
    shutil.rmtree(folder, ignore_errors=True)
    unpack(home, folder / "cards")
    if not (folder / "cards/records").is_dir():
        return 0
    found = import_campaign(folder / "cards", folder / "splits", folder / "imported")
    assert found.refused == []
    assert len(found.taken) == len(list((folder / "cards").glob("records/**/seed?.json")))
    return len(found.taken)


def test_whenever_it_is_taken_away_what_is_home_is_whole_and_imports(machine: Rehearsal, tmp_path: Path) -> None:
    """Looked at whenever an archive has been replaced: what a kill at that instant, or until the next, would leave."""
    home, seen, unfinished = tmp_path / "home", list[int](), list[bool]()
    machine.monkeypatch.setattr(borrowed, "EVERY", TICK)

    def look() -> None:
        assert {path.name for path in home.iterdir() if path.name.startswith(".")} == set(), "nothing half written"
        seen.append(imported(home, tmp_path / "look"))
        unfinished.append(any((tmp_path / "look").rglob("resume.pt")))

    def write(path: Path, data: bytes) -> None:
        write_bytes(path, data)
        if path.name in (RECORDS, UNFINISHED):
            look()

    machine.monkeypatch.setattr(borrowed, "write_bytes", write)
    ended = machine.errand(home, 60.0).run(phases(home, machine.work, "cards", "cpu"))
    assert machine.commands == ["pytest", "bench", "fetch", "campaign"]
    assert {name: one["end"] for name, one in ended.items()} == dict.fromkeys(
        ("tests", "bench", "fetch-tiny", "campaign"), "done"
    )
    assert seen == sorted(seen), "what is home stays home"
    assert {0, 1, 2, 3} <= set(seen)
    assert any(unfinished)
    assert imported(home, tmp_path / "end") == RECORDS_IN_ALL
    assert len(list(home.iterdir())) <= 8
    assert json.loads((home / "summary.json").read_text()) == {"phases": ended, "left_out": []}


def test_another_card_goes_on_from_what_is_home(machine: Rehearsal, tmp_path: Path) -> None:
    """Short loans; each time the machine is lost with all that is on it."""
    home, done = tmp_path / "home", [0]
    for _ in range(9):
        machine.errand(home, (6 * TICK + RESERVE) / 60).run(phases(home, machine.work, "cards", "cpu")[-1:])
        done.append(imported(home, tmp_path / "look"))
        shutil.rmtree(machine.work)
        if done[-1] == RECORDS_IN_ALL:
            break
    assert done == sorted(done)
    assert done[-1] == RECORDS_IN_ALL
    assert len(done) > 2, "more than one loan"
    assert any("resumed at epoch 2" in line for line in machine.notes.lines)


def test_it_is_over_before_the_loan_is(machine: Rehearsal, tmp_path: Path) -> None:
    """Short phases are ended at their limits, a long one before the end; what has no time left is not begun."""
    limits = {"a": 60.0, "b": 60.0, "c": 1e9, "d": 9.0}
    endless = [Phase(name, ["bench"], most) for name, most in limits.items()]
    errand = machine.errand(tmp_path / "home", 4.0)
    machine.monkeypatch.setattr(errand, "_start", lambda *_: Pretended(machine, iter(lambda: None, 1)))
    machine.commands.append("bench")
    ended = errand.run(endless)
    assert [one["end"] for one in ended.values()] == [*["its time was over"] * 3, "no time was left"]
    assert [one["seconds"] for one in ended.values()][:2] == pytest.approx([60, 60], abs=2 * TICK)
    assert machine.ended == ["bench"] * 3
    assert machine.now <= 240
    assert json.loads((tmp_path / "home/summary.json").read_text())["phases"] == ended


def test_what_it_has_started_ends_with_it(machine: Rehearsal, tmp_path: Path) -> None:
    def interrupted(_seconds: float) -> None:
        raise Killed

    errand = machine.errand(tmp_path / "home", 60.0)
    machine.monkeypatch.setattr(errand, "_sleep", interrupted)
    with pytest.raises(Killed):
        errand.run([Phase("bench", ["bench"])])
    assert machine.ended == ["bench"]
    machine.monkeypatch.setattr(borrowed, "EVERY", 0.0)
    machine.monkeypatch.setattr(borrowed, "pack", lambda *_: interrupted(0.0))
    with pytest.raises(Killed):
        machine.errand(tmp_path / "home", 60.0).run([Phase("bench", ["bench"])])
    assert machine.ended == ["bench"] * 2


def test_a_run_that_ends_while_it_is_packed_is_home_as_a_state_or_as_a_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends at each look at the campaign's folder in turn: the state goes, the record is there before it."""
    looks, last = 0, 10**9

    def looked(path: Path, name: str, look: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        nonlocal looks
        result = look(path, *arguments, **options)
        if name == "glob":
            result = list(result)
        if path.is_relative_to(work):
            looks += 1
            if looks == last:
                (work / "records/a/seed0.json").write_text("record")
                (work / STATE).unlink()
        return result

    for ends_at in range(1, 100):
        looks, last, folder = 0, ends_at, tmp_path / str(ends_at)
        work, home = campaign_folder(folder / "card", "epoch 3", at=100.0), folder / "home"
        (work / "records/a/seed0.json").unlink()
        with monkeypatch.context() as changed:
            for name in ("stat", "glob", "read_bytes"):
                look = getattr(Path, name)
                changed.setattr(Path, name, lambda path, *a, _n=name, _l=look, **k: looked(path, _n, _l, *a, **k))
            pack(work, home, "cards")
        unpack(home, folder / "end")
        assert (folder / "end" / STATE).is_file() or (folder / "end/records/a/seed0.json").is_file(), ends_at
        if looks < ends_at:
            break
    assert 5 < ends_at < 99


def test_what_does_not_fit_is_left_out_and_named(
    machine: Rehearsal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    machine.errand(home, (TICK + RESERVE) / 60).run(phases(home, machine.work, "cards", "cpu")[-1:])
    assert any(machine.work.rglob("resume.pt"))
    monkeypatch.setattr(borrowed, "MEGABYTES", 0.001)
    (left_out,) = pack(machine.work, home, "cards")
    assert left_out.endswith("resume.pt")
    assert (home / UNFINISHED).stat().st_size < 20_000


def campaign_folder(folder: Path, state: str, *, at: float) -> Path:
    """A campaign with one run under way and one record; `at` says when its files were written."""
    files = {PROGRESS: '{"suite": "cards"}', STATE: state, "records/a/seed0.json": state}
    for name, text in files.items():
        write_bytes(folder / name, text.encode())
        os.utime(folder / name, (at, at))
    return folder


@pytest.mark.parametrize(("here", "stays"), [(100.0, "epoch 190"), (199.75, "epoch 190"), (200.25, "epoch 3")])
def test_the_newer_of_home_and_a_card_that_was_lent_before_goes_on(tmp_path: Path, here: float, stays: str) -> None:
    home, work = tmp_path / "home", campaign_folder(tmp_path / "again", "epoch 3", at=here)
    pack(campaign_folder(tmp_path / "other", "epoch 190", at=200.0), home, "cards")
    Errand(home, work, "cards", 1.0).run([Phase("none", [], most=0.0)])
    unpack(home, tmp_path / "end")
    for folder in (work, tmp_path / "end"):
        assert {(folder / name).read_text() for name in (STATE, "records/a/seed0.json")} == {stays}


def test_a_second_import_takes_what_came_home_since(tmp_path: Path) -> None:
    for at, state in ((100.0, "epoch 3"), (200.0, "epoch 190")):
        pack(campaign_folder(tmp_path / "card", state, at=at), tmp_path / "home", "cards")
        unpack(tmp_path / "home", tmp_path / "imported")
        assert (tmp_path / "imported" / STATE).read_text() == state
        assert (tmp_path / "imported" / PROGRESS).stat().st_mtime == at


PRETENDED_PYTHON = """#!/bin/sh
case "$*" in
  "-m dvc repro") exit {dvc} ;;
  "-m harness reproduce") echo "{sentence}"; exit {reproduce} ;;
esac
"""


@pytest.mark.parametrize(
    ("dvc", "reproduce", "outside", "code"),
    [(0, 0, 0, 0), (0, 0, 1, 0), (1, 0, 0, 2), (124, 0, 0, 2), (0, 2, 0, 2), (0, 0, 20, 2)],
)
def test_gpu_repro_fails_with_what_it_runs(tmp_path: Path, dvc: int, reproduce: int, outside: int, code: int) -> None:
    """124 is what `timeout` says. A few records outside of the seed spread are chance, many are not."""
    shutil.copyfile(Path(__file__).parents[2] / "Makefile", tmp_path / "Makefile")
    verdicts: list[Verdict] = ["outside" if number < outside else "same bits" for number in range(20)]
    sentence = _sentence({Path(str(number)): Agreement(one) for number, one in enumerate(verdicts)}, "A", "B")
    python = tmp_path / "python"
    python.write_text(PRETENDED_PYTHON.format(dvc=dvc, reproduce=reproduce, sentence=sentence))
    python.chmod(0o755)
    environment = {key: value for key, value in os.environ.items() if key not in {"MAKELEVEL", "MAKEFLAGS", "MFLAGS"}}
    command = ["make", "gpu-repro", f"GPU_PYTHON={python}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == code, done.stderr
    assert (tmp_path / "gpu/repro.log").read_text() == ("" if dvc else f"{sentence}\n")


@pytest.mark.parametrize("damage", ["another file", "cut", "changed"])
@pytest.mark.parametrize("place", [0.0, 0.01, 0.5, 0.9])
def test_a_damaged_archive_is_named(tmp_path: Path, damage: str, place: float) -> None:
    work = campaign_folder(tmp_path / "card", random.Random(0).randbytes(10_000).hex(), at=100.0)
    pack(work, home := tmp_path / "home", "cards")
    whole = (home / RECORDS).read_bytes()
    cut = int(place * len(whole))
    damaged = {
        "another file": b"no archive",
        "cut": whole[:cut],
        "changed": whole[:cut] + bytes([whole[cut] ^ 255]) + whole[cut + 1 :],
    }
    (home / RECORDS).write_bytes(damaged[damage])
    with pytest.raises(UserError, match=r"records\.tar\.xz: damaged .*; remove it to begin without it"):
        unpack(home, tmp_path / "work")


def test_a_home_that_cannot_be_is_one_line(
    machine: Rehearsal, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    machine.monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(SystemExit) as ended:
        borrowed.main(["--minutes", "1", "--home", str(tmp_path / "file/gpu"), "--suite", "cards"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"error: {tmp_path}/file/gpu: Not a directory\n"


def test_a_real_process_ends_and_its_output_is_kept(tmp_path: Path) -> None:
    program, log = "print('begun', flush=True); import time; time.sleep(60)", tmp_path / "x.log"
    process = Process([sys.executable, "-c", program], log, {})
    while not log.read_text():
        assert process.poll() is None
    process.end()
    assert process.poll() not in (None, 0)
    assert log.read_text() == "begun\n"
