"""What every executor agrees on: a run is a command with a key, and a folder that ends with the file `DONE`.

The folder is `<root>/sweep/<key>`: `spec.json` (what to run), `log.txt` (what its attempts printed), `lock`, `DONE`.
The last is written in one step once the command has ended well and its first output is there; it names the outputs (a
record and its evidence, say) with their size and sha256. Whether a run is done is asked of the disk, not of an engine.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from harness.errors import UserError
from harness.files import read_json, sha256_file, write_json

FOLDER = "sweep"
FAILED = 3  # exit code of a command whose failure is its result: another attempt would end the same way
KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@+-]{0,199}")


@dataclass(frozen=True)
class Spec:
    """A run as an executor sees it.

    Attributes:
        key: names its folder; the same key is the same run.
        argv: the command, never read by a shell. It copes with being killed and started again, and ends when its
            standard input does: its attempt has died.
        outputs: files under the root; the first must be there in the end, the others may.
        after: key of a run that has to end before this one starts, well or not.
        length: the longest go first.
        gpus: a fraction lets several runs share one.
    """

    key: str
    argv: tuple[str, ...]
    outputs: tuple[str, ...]
    after: str = ""
    title: str = ""
    length: float = 0.0
    cpus: int = 1
    gpus: float = 0.0

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
    """Where attempts are run. It repeats nothing by itself: the head decides what is tried again."""

    def submit(self, specs: Sequence[Spec]) -> None:
        """Takes runs on, the longest first."""

    def ended(self, timeout: float) -> list[Ended]:
        """Waits for attempts to end, at most `timeout` seconds."""

    def close(self) -> None:
        """Stops what is under way."""


def folder_of(root: Path, key: str) -> Path:
    """The run's folder."""
    return root / FOLDER / key


def write_spec(root: Path, spec: Spec) -> None:
    """Writes down what an attempt needs."""
    value = {"key": spec.key, "argv": list(spec.argv), "outputs": list(spec.outputs), "cwd": str(Path.cwd())}
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


def write_done(root: Path, key: str, outputs: Sequence[str]) -> str:
    """Ends the run, if its first output is there; else returns what is wrong."""
    if not (root / outputs[0]).is_file():
        return f"it ended well but left no {outputs[0]}"
    files = {name: root / name for name in outputs if (root / name).is_file()}
    listed = {name: {"bytes": path.stat().st_size, "sha256": sha256_file(path)} for name, path in files.items()}
    write_json(folder_of(root, key) / "DONE", {"key": key, "files": listed})
    return ""


def done_files(root: Path, key: str) -> dict[str, dict[str, Any]] | None:
    """The outputs of a finished run: name -> bytes, sha256; None if it has to be run (again).

    A run counts as finished while all its outputs are there in their size; hashing weights at every start would cost
    more than it finds. Who copies them compares the hashes.
    """
    try:
        value = read_json(folder_of(root, key) / "DONE", "end of a run")
        files: dict[str, dict[str, Any]] = value["files"]
        whole = value["key"] == key and all(
            (root / name).stat().st_size == entry["bytes"] for name, entry in files.items()
        )
    except (UserError, OSError, KeyError, TypeError, AttributeError):
        return None
    return files if whole else None


def damaged(root: Path, key: str) -> list[str]:
    """The outputs of a finished run whose bytes are not those that it left."""
    files = done_files(root, key) or {}
    return [name for name, entry in files.items() if sha256_file(root / name) != entry["sha256"]]


def last_line(folder: Path) -> str:
    """The last thing that the run's attempts printed: the error, as a rule."""
    try:
        with open(folder / "log.txt", "rb") as file:
            file.seek(max(0, file.seek(0, 2) - 2000))
            lines = file.read().decode(errors="replace").split("\n")
    except OSError:
        return ""
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")
