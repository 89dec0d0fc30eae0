"""One command for a GPU that is lent for minutes: tests, a benchmark, then a suite; results are home before it is over.

    python -m harness.running.borrowed --minutes 9 --home gpu

Home is one folder of a few small files. Each is replaced as a whole, every half minute and after each phase, so what
ends the loan costs half a minute of work. The next call, on this card or another one, goes on from what is home.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import lzma
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.base.errors import UserError, complaint
from harness.base.files import atomic_path, read_json, write_bytes, write_json
from harness.records.progress import PROGRESS, read_progress
from harness.running.status import STATES
from harness.spec.suites import get_suite
from harness.splits.split_names import parse_split_name

RESERVE = 20.0  # seconds at the end, to bring home what is there
EVERY = 30.0  # seconds between two times that it is brought home
WORTHWHILE = 5.0  # seconds: a phase with less is left out
RECORDS, UNFINISHED = "records.tar.xz", "unfinished.tar"
MEGABYTES = 15  # of unfinished work that is brought home
LOG_BYTES = 100_000  # of the end of a phase's output


@dataclass(frozen=True)
class Phase:
    """What is done with a part of the time.

    Attributes:
        most: seconds that it may take.
        budget: the command's option for the seconds that it has; it ends by itself then.
    """

    name: str
    command: Sequence[str]
    most: float = float("inf")
    environment: dict[str, str] = field(default_factory=dict)
    budget: str = ""


class Process:
    """A command whose output goes to a file."""

    def __init__(self, command: Sequence[str], log: Path, environment: dict[str, str]) -> None:
        with log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603
                command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, env=os.environ | environment
            )

    def poll(self) -> int | None:
        """Its exit code, once it is over."""
        return self._process.poll()

    def end(self) -> None:
        """Asks it to end, and makes it."""
        self._process.terminate()
        try:
            self._process.wait(5.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Errand:
    """Does phases one after the other until the loan is nearly over.

    Args:
        home: the folder that outlives the loan.
        work: the campaign's folder, on the borrowed machine.
        suite: the campaign's.
        minutes: of the loan, from the start of `run`.
    """

    def __init__(self, home: Path, work: Path, suite: str, minutes: float) -> None:
        self._home, self._work, self._suite, self._minutes = home, work, suite, minutes
        self._clock, self._sleep, self._start = time.monotonic, time.sleep, Process  # which a rehearsal pretends
        self._ended: dict[str, Any] = {}

    def run(self, phases: Iterable[Phase]) -> dict[str, Any]:
        """Goes on from what is home, and brings home what comes of it; says how each phase ended."""
        self._packed = self._clock()
        self._until = self._packed + 60 * self._minutes - RESERVE
        self._home.mkdir(parents=True, exist_ok=True)
        unpack(self._home, self._work)
        for phase in phases:
            self._do(phase)
        return self._ended

    def _do(self, phase: Phase) -> None:
        began = self._clock()
        seconds = min(phase.most, self._until - began)
        if seconds < WORTHWHILE:
            self._ended[phase.name] = {"seconds": 0.0, "end": "no time was left"}
            self._bring_home()
            return
        log = self._work / f"{phase.name}.log"
        told = [phase.budget, str(int(seconds - WORTHWHILE))] if phase.budget else []
        process, code = self._start([*phase.command, *told], log, phase.environment), None
        try:
            while (code := process.poll()) is None and self._clock() - began < seconds:
                self._sleep(0.5)
                if self._clock() - self._packed >= EVERY:
                    self._bring_home()
        finally:
            if code is None:
                process.end()
        end = "its time was over" if code is None else "done" if code == 0 else f"exit code {code}"
        self._ended[phase.name] = {"seconds": round(self._clock() - began, 1), "end": end}
        print(f"{phase.name}: {end} after {self._ended[phase.name]['seconds']} s", flush=True)
        self._bring_home()

    def _bring_home(self) -> None:
        left_out = pack(self._work, self._home, self._suite)
        write_json(self._home / "summary.json", {"phases": self._ended, "left_out": left_out})
        self._packed = self._clock()


def pack(work: Path, home: Path, suite: str) -> list[str]:
    """Brings home records, unfinished work as far as it fits, and the ends of logs; returns what did not fit."""
    if (work / PROGRESS).is_file():
        needed = [work / name for name in read_progress(suite, work).needed]
        states = sorted(work.glob(STATES))
        # Finished first stages that others wait for cost more to make again than what has just begun.
        wanted = dict.fromkeys([*(path for path in needed if path not in states), *states])
        # Read before records are listed: what ends between is in one of them.
        unfinished, left_out = _archive(work, wanted, "", MEGABYTES * 1_000_000)
        done = [path for pattern in ("splits/*.json", "records/**/seed*") for path in sorted(work.glob(pattern))]
        write_bytes(home / RECORDS, _archive(work, [work / PROGRESS, *done], "xz")[0])
        write_bytes(home / UNFINISHED, unfinished)
    else:
        left_out = []
    for log in work.glob("*.log"):
        write_bytes(home / log.name, log.read_bytes()[-LOG_BYTES:])
    return [path.relative_to(work).as_posix() for path in left_out]


def _archive(
    root: Path, paths: Iterable[Path], compression: str, most: float = float("inf")
) -> tuple[bytes, list[Path]]:
    """The files that are still there, as far as so many bytes go, and those that did not fit.

    Each is replaced as a whole by whoever writes it.
    """
    buffer, left_out = io.BytesIO(), list[Path]()
    with tarfile.open(fileobj=buffer, mode=f"w:{compression}") as archive:  # type: ignore[call-overload]
        for path in paths:
            try:
                facts = path.stat()
                data = path.read_bytes() if facts.st_size <= most else None
            except FileNotFoundError:  # a run has just ended
                continue
            if data is None:
                left_out.append(path)
                continue
            most -= len(data)
            entry = tarfile.TarInfo(path.relative_to(root).as_posix())
            entry.size, entry.mtime = len(data), facts.st_mtime  # `unpack` goes by it
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue(), left_out


def unpack(home: Path, work: Path) -> None:
    """Lays what is home into a campaign's folder; of a file that is there already, the newer one stays.

    Raises:
        UserError: an archive is damaged.
    """
    work.mkdir(parents=True, exist_ok=True)
    for name in (RECORDS, UNFINISHED):
        if not (home / name).is_file():
            continue
        with tempfile.TemporaryDirectory(dir=work) as folder:
            try:
                with tarfile.open(home / name) as archive:
                    archive.extractall(folder, filter="data")
            except (tarfile.TarError, lzma.LZMAError, OSError, EOFError) as error:
                raise UserError(f"{home / name}: damaged ({error}); remove it to begin without it") from None
            for path in sorted(Path(folder).rglob("*")):
                target = work / path.relative_to(folder)
                if path.is_file() and not (target.exists() and target.stat().st_mtime >= path.stat().st_mtime):
                    with atomic_path(target) as temporary:
                        shutil.copy2(path, temporary)


def phases(home: Path, work: Path, suite: str, device: str) -> list[Phase]:
    """Tests of the card and a benchmark, a minute each; then the suite's data, and the suite with all that is left."""
    python = [sys.executable, "-m"]
    side_by_side = ["-n", "6"] if importlib.util.find_spec("xdist") else []
    options = ["-v", "--tb=short", "-o", "addopts=", "-p", "no:cacheprovider", *side_by_side]
    tests = [*python, "pytest", *options, "-m", "gpu", "tests/engine/test_cuda.py"]
    bench = [*python, "harness", "bench", "loop", "--device", device, "--json", str(home / "bench.json")]
    campaign = [*python, "harness", "campaign", suite, "--device", device, "--out", str(work)]
    data = dict.fromkeys(parse_split_name(name).dataset for name in get_suite(suite).splits)
    return [
        Phase("tests", tests, 60.0),
        Phase("bench", bench, 60.0, {"PYTEST_ADDOPTS": "-k 'not compiled'"}),  # compiling takes as long
        *(Phase(f"fetch-{name}", [*python, "harness", "fetch", name], 60.0) for name in data),
        # With a budget its workers' last states are whole; states are saved less often than on a CPU.
        Phase("campaign", campaign, environment={"LTBENCH_CHECKPOINT_SECONDS": "15"}, budget="--budget"),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m harness.running.borrowed", description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, required=True, help="of the loan that are left")
    parser.add_argument("--home", type=Path, default=Path("gpu"), help="folder that outlives the loan")
    parser.add_argument("--work", type=Path, default=Path("runs/borrowed"), help="the campaign's folder")
    parser.add_argument("--suite", default="full-length")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--unpack", action="store_true", help="only lay what is home into the campaign's folder")
    given = parser.parse_args(arguments)
    work = given.work / given.suite
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what it has started ends with it
    try:
        if given.unpack:
            unpack(given.home, work)
            return
        Errand(given.home, work, given.suite, given.minutes).run(phases(given.home, work, given.suite, given.device))
    except (UserError, OSError) as error:
        text, code = complaint(error)
        print(text, file=sys.stderr)
        raise SystemExit(code) from None
    print(read_json(given.home / "summary.json", "summary"))


if __name__ == "__main__":
    main()
