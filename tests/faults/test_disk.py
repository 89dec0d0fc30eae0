"""Disks that are full or read-only, clocks that jump, two commands at once: one clear line, and nothing lost."""

from __future__ import annotations

import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from harness import cli
from harness.base.files import locked
from harness.base.progress import Reporter
from harness.records.collect import collect
from harness.records.evaluate import evaluate
from harness.records.schema import write_record
from harness.records.table import rows, write_table
from harness.running import stages
from harness.spec.entries import parse_entry
from harness.spec.recipes import resolve
from harness.splits import store
from tests.factories import make_record

ROOT = Path(__file__).parents[2]
COMMAND = [
    sys.executable, "-m", "harness", "run", "--dataset", "mnist5k", "--method", "ce", "--seeds", "0", "--device", "cpu",
    "--set", "recipe.epochs=1", "--out", "runs",
]  # fmt: skip
KIB = 2**10


def start(folder: Path) -> subprocess.Popen[str]:
    """`ltbench run` of one seed and one epoch."""
    folder.mkdir(exist_ok=True)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "LTBENCH_DATA": str(folder.parent / "data")}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(COMMAND, cwd=folder, env=environment, text=True, **pipes)  # type: ignore[call-overload, no-any-return]


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code, what it printed, what it complained of."""
    output, errors = process.communicate(timeout=300)
    return process.returncode, output, errors


def record(folder: Path) -> bytes:
    (path,) = (folder / "runs/records").rglob("seed0.json")
    return path.read_bytes()


def complaint(errors: str) -> str:
    """The line that is none of the loop's reports."""
    (line,) = (line for line in errors.splitlines() if not line.startswith("ce seed 0 train: "))
    return line


# ---- two commands at once, a full disk: on real processes ----------------------------------------------------------

Twice = tuple[list[tuple[int, str, str]], bytes]


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> Twice:
    """Two commands started at the same moment in one folder, and the record there."""
    pytest.importorskip("mlxtend", reason="the extra 'pipeline' (mlxtend) is not installed")
    folder = tmp_path_factory.mktemp("twice") / "work"
    ends = [finish(process) for process in [start(folder), start(folder)]]
    return sorted(ends), record(folder)


@pytest.mark.pipeline
def test_of_two_commands_in_one_folder_one_is_refused_and_the_other_ends(twice: Twice) -> None:
    ((code, _, _), (other_code, _, errors)), _ = twice
    assert code == 0
    # Under a load that starts the second one only after the first has ended, there is nothing to refuse.
    assert other_code == 2 or "already done" in errors
    if other_code:
        assert complaint(errors) == "error: runs: another command is at work there; wait for it, or take another folder"


def mounted(place: Path, options: str, *, again: bool = False) -> Path:
    """Mounts a small disk, or mounts it again with other options; skips the test where that is not allowed."""
    place.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"remount,{options}" if again else options, "none", str(place)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here")
    return place


def unmount(place: Path) -> None:
    subprocess.run(["umount", str(place)], check=False, capture_output=True)


@dataclass(frozen=True)
class Refilled:
    """A run on a full disk, and again when it has room."""

    full: tuple[int, str, str]
    results: list[Path]  # the records after the first
    again: tuple[int, str, str]
    record: bytes


@pytest.fixture(scope="module")
def refilled(twice: Twice, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Refilled]:
    """The disk has room for the split, but not for weights (300 KiB)."""
    place = tmp_path_factory.mktemp("full") / "disk"
    try:
        mounted(place, "size=350k")
        full = finish(start(place))
        results = list(place.glob("runs/records/**/seed*"))
        mounted(place, "size=20m", again=True)
        yield Refilled(full, results, finish(start(place)), record(place))
    finally:
        unmount(place)


@pytest.mark.pipeline
def test_a_run_goes_on_when_the_disk_has_room_again(refilled: Refilled, twice: Twice) -> None:
    assert refilled.full[0] == 2
    assert refilled.results == []
    assert refilled.again[0] == 0
    assert refilled.record == twice[1]


@pytest.mark.pipeline
def test_a_disk_that_fills_up_is_one_line(refilled: Refilled) -> None:
    """The state is the first to be saved where the run is slow."""
    named = r"error: .*/(resume\.pt|weights\.safetensors): No space left on device"
    assert re.fullmatch(named, complaint(refilled.full[2]))


# ---- folders that cannot be written: every command that writes, in this process ------------------------------------

WRITERS = {
    "collect": ["collect", "{records}", "--out", "{out}/table.csv"],
    "report": ["report", "{records}", "--out", "{out}/report"],
    "fetch": ["fetch", "mnist5k", "--to", "{out}/data"],
    "run": ["run", "--dataset", "mnist5k", "--method", "ce", "--seeds", "0,1", "--out", "{out}/runs"],
    "campaign": ["campaign", "default", "--budget", "9", "--out", "{out}/night", "--device", "cpu"],
}


def called(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["ltbench", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    try:
        mounted(place, "size=20m")
        yield mounted(place, "ro", again=True)
    finally:
        unmount(place)


@pytest.mark.parametrize("command", WRITERS)
def test_a_read_only_disk_is_one_line(
    command: str, tmp_path: Path, read_only: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("mlxtend", reason="the extra 'pipeline' (mlxtend) is not installed")
    monkeypatch.chdir(tmp_path)
    write_record(Path("records/seed0.json"), make_record())
    arguments = [text.format(records="records", out=read_only) for text in WRITERS[command]]
    code, errors = called(arguments, monkeypatch), capsys.readouterr().err
    assert "Read-only file system" in errors
    assert code == 2
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1


def test_permission_denied_is_one_line() -> None:
    """As somebody else than root, for whom permissions mean nothing: in a fork that gives its rights up."""

    def give_up_rights() -> None:
        if os.geteuid() == 0:
            os.setgid(65534)
            os.setuid(65534)

    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to others
        folder = Path(name)
        folder.chmod(0o755)
        write_record(folder / "records" / "seed0.json", make_record())
        (folder / "closed").mkdir()
        (folder / "closed").chmod(0o555)
        code, errors = forked(folder, ["collect", "records", "--out", "closed/table.csv"], give_up_rights)
        assert not list((folder / "closed").iterdir())
    assert code == 2
    assert errors == "error: closed/table.csv: Permission denied\n"


def test_a_quota_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("mlxtend", reason="the extra 'pipeline' (mlxtend) is not installed")

    def limit() -> None:  # the split takes 66 KiB
        resource.setrlimit(resource.RLIMIT_FSIZE, (40 * KIB, 40 * KIB))

    folder = tmp_path / "work"
    store.fetch(store.get_dataset("mnist5k"), folder / "data")
    code, errors = forked(folder, COMMAND[3:], limit)
    assert code == 2
    assert errors.startswith("error: ")
    assert "File too large" in errors
    assert errors.count("\n") == 1
    assert not list((folder / "runs").rglob("*.json"))


def forked(folder: Path, arguments: list[str], prepare: Callable[[], None]) -> tuple[int, str]:
    """A command that ends before it trains, in a fork that `prepare` changes; its exit code and complaint."""
    with tempfile.TemporaryFile("w+") as errors:
        pid = os.fork()
        if not pid:
            _end(folder, arguments, prepare, errors.fileno())
        _, status = os.waitpid(pid, 0)
        errors.seek(0)
        return os.waitstatus_to_exitcode(status), errors.read()


def _end(folder: Path, arguments: list[str], prepare: Callable[[], None], errors: int) -> None:
    code = 70
    try:
        os.chdir(folder)
        os.environ.pop("LTBENCH_DATA", None)
        sys.stdout = sys.stderr = os.fdopen(errors, "w", closefd=False)
        sys.argv = ["ltbench", *arguments]
        prepare()
        cli.main()
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        sys.stderr.flush()
        os._exit(code)


# ---- locks and clocks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["run", "campaign"])
def test_a_folder_in_use_is_one_line(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("mlxtend", reason="the extra 'pipeline' (mlxtend) is not installed")
    monkeypatch.chdir(tmp_path)
    arguments = [text.format(records="records", out=".") for text in WRITERS[command]]
    with locked(Path(arguments[arguments.index("--out") + 1])):
        code, errors = called(arguments, monkeypatch), capsys.readouterr().err
    assert code == 2
    assert "another command is at work there" in errors
    assert errors.count("\n") == 1


def test_clocks_may_jump(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the time of day nor the times of files decide anything: the same bytes, and nothing is run again."""
    cell, place = resolve(parse_entry("toy@common"), "tiny"), stages.Workplace(torch.device("cpu"), Reporter())
    split = workspace / "results/splits/tiny-lt-if10.json"
    rng, jumps = random.Random(0), 0

    def jumping() -> float:
        nonlocal jumps
        jumps += 1
        return rng.uniform(-1e9, 4e9)

    def measure(name: str) -> dict[str, bytes]:
        folder = workspace / name
        stages.train(cell, split, [0], folder / "first", place)
        for path in folder.rglob("*"):
            os.utime(path, (rng.uniform(0, 4e9),) * 2)
        stages.finetune(cell, split, [0], folder / "first", folder / "second", place)
        paths = evaluate(split, [folder / "first", folder / "second"], [0], folder / "records")
        monkeypatch.chdir(folder)
        write_table(rows(collect(Path("records"))), Path("table.csv"))
        return {path.name: path.read_bytes() for path in (*paths, paths[0].with_suffix(".npz"), Path("table.csv"))}

    steady = measure("steady")
    monkeypatch.setattr(time, "time", jumping)
    assert time.time() != time.time()
    assert measure("jumping") == steady
    notes: list[str] = []
    monkeypatch.setattr(Reporter, "note", lambda _, text: notes.append(text))
    stages.train(cell, split, [0], workspace / "jumping" / "first", place)
    assert "already done" in notes[0]
