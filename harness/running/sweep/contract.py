"""What every executor agrees on: a run is a call with a key, and a folder that ends with the file `DONE`.

The folder is `<root>/sweep/<key>`: `spec.json` (what to run), `log.txt` (what its attempts printed), `lock`, `DONE`.
The last is written in one step once the call has ended well and its first output is there; it names the outputs (a
record and its evidence, say) with their size and sha256. Whether a run is done is asked of the disk, not of an engine.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from harness.base.errors import UserError
from harness.base.files import locked, read_json, sha256_file, write_json

FOLDER, DONE = "sweep", "DONE"
MISSING, DAMAGED = "missing", "damaged since its run ended"
ATTEMPT = "--- attempt ---"  # in the log, at the start of each
UNUSABLE = 2  # exit code: the run cannot use its files or data, perhaps those of its first stage
OTHER_RUN = 5  # exit code: with the code or data of this machine it would be another run than planned
FAILED = 3  # exit code: the failure is the result; another attempt would end the same way
KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@+-]{0,199}")


@dataclass(frozen=True)
class Spec:
    """A run as an executor sees it.

    Attributes:
        key: names its folder; the same key is the same run.
        call: `module:function` and its arguments; what it returns is the exit code. It copes with being killed and
            started again.
        outputs: files under the root; the first must be there in the end, the others may.
        after: key of a run that has to end before this one starts, well or not.
        length: the longest go first.
        gpus: a fraction lets several runs share one.
        byproducts: what else it may leave. A finished run can do without; a copy of it needs them whole.
    """

    key: str
    call: tuple[str, ...]
    outputs: tuple[str, ...]
    after: str = ""
    title: str = ""
    length: float = 0.0
    gpus: float = 0.0
    byproducts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not KEY.fullmatch(self.key):
            raise ValueError(f"{self.key!r} cannot name a run's folder")


@dataclass(frozen=True)
class Ended:
    """An attempt that is over, as its engine tells it."""

    key: str
    code: int | None  # None: the engine lost it (a dead worker or node)
    reason: str = ""


class Executor(Protocol):
    """Where attempts are run. It neither queues nor repeats anything: the head decides what is tried, and when."""

    def room(self) -> int:
        """How many more runs it takes now."""

    def submit(self, specs: Sequence[Spec]) -> bool:
        """Starts runs, no more than there is room for; False: it takes none of them yet."""

    def ended(self, timeout: float) -> list[Ended]:
        """Waits for attempts to end, at most `timeout` seconds."""

    def close(self) -> None:
        """Stops what is under way."""


def folder_of(root: Path, key: str) -> Path:
    """The run's folder."""
    return root / FOLDER / key


def only_one(root: Path, key: str) -> AbstractContextManager[None]:
    """Holds the run's lock; waits while somebody else has it, on this machine or another."""
    return locked(folder_of(root, key), "lock", wait=True)


def write_spec(root: Path, spec: Spec) -> None:
    """Writes down what an attempt needs."""
    # A worker of a cluster has the environment of whoever started it, with other threads or other data perhaps.
    settings = {name: value for name, value in os.environ.items() if name.startswith("LTBENCH_")}
    value = {name: getattr(spec, name) for name in ("key", "call", "outputs", "byproducts")}
    value |= {"cwd": str(Path.cwd()), "environment": settings}
    write_json(folder_of(root, spec.key) / "spec.json", value)


def read_spec(folder: Path) -> dict[str, Any]:
    """What `write_spec` wrote.

    Raises:
        UserError: missing, damaged, or of another run.
    """
    value = read_json(folder / "spec.json", "run of a sweep")
    if not isinstance(value, dict) or value.get("key") != folder.name:
        raise UserError(f"{folder / 'spec.json'}: not the run {folder.name}")
    return value


def write_done(root: Path, key: str, outputs: Sequence[str], byproducts: Sequence[str] = ()) -> str:
    """Ends the run, if its first output is there; else returns what is wrong."""
    if not (root / outputs[0]).is_file():
        return f"it ended well but left no {outputs[0]}"
    files, others = _listed(root, outputs), _listed(root, byproducts)
    write_json(folder_of(root, key) / DONE, {"key": key, "first": outputs[0], "files": files, "others": others})
    return ""


def _listed(root: Path, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    paths = {name: root / name for name in names if (root / name).is_file()}
    return {name: {"bytes": path.stat().st_size, "sha256": sha256_file(path)} for name, path in paths.items()}


def withdraw(root: Path, key: str) -> bool:
    """Removes `DONE`, so that the run is made again; returns whether it was there."""
    done = folder_of(root, key) / DONE
    was_there = done.is_file()
    done.unlink(missing_ok=True)
    return was_there


def is_done(root: Path, key: str) -> bool:
    """Whether a run is finished: its first output still has its hash, and the others their size.

    The first one is small and names the run; hashing weights at every start would cost more than it finds. `damaged`
    compares all hashes.
    """
    try:
        value = read_json(folder_of(root, key) / DONE, "end of a run")
        files, first = value["files"], value["first"]
        sizes_fit = all((root / name).stat().st_size == entry["bytes"] for name, entry in files.items())
        return value["key"] == key and sizes_fit and sha256_file(root / first) == files[first]["sha256"]
    except (UserError, OSError, KeyError, TypeError, AttributeError):
        return False


def damaged(root: Path, key: str) -> dict[str, str]:
    """Files of a finished run that changed since -> what is wrong; `DONE` itself if it is missing or unreadable."""
    done = folder_of(root, key) / DONE
    if not done.is_file():
        return {done.relative_to(root).as_posix(): MISSING}
    try:
        value = read_json(done, "end of a run")
        files: dict[str, dict[str, Any]] = value["files"] | value["others"]
        wrong = {name: _wrong(root / name, entry["bytes"], entry["sha256"]) for name, entry in files.items()}
    except (UserError, KeyError, TypeError, AttributeError):
        return {done.relative_to(root).as_posix(): "not readable"}
    return {name: what for name, what in wrong.items() if what}


def _wrong(path: Path, size: int, sha256: str) -> str:
    if not path.is_file():
        return MISSING
    found = path.stat().st_size
    if found != size:
        return f"it has {found} bytes, its run left {size}"
    return "" if sha256_file(path) == sha256 else DAMAGED


def last_line(folder: Path) -> str:
    """The last thing that the run's last attempt printed: the error, as a rule."""
    try:
        with open(folder / "log.txt", "rb") as file:
            file.seek(max(0, file.seek(0, 2) - 2000))
            lines = file.read().decode(errors="replace").split("\n")
    except OSError:
        return ""
    said = next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")
    return "" if said == ATTEMPT else said
