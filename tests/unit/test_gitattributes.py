"""A clone has the same bytes everywhere: DVC compares hashes of files, so a changed line end would be an edit."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILES = {"code.py": b"a = 1\nb = 2\n", "page.html": b"<p>\n", "numbers.npz": b"PK\x03\x04\r\n\n", "none": b""}


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=n", "-c", "user.email=e@e")
    command = ["git", *identity, "-c", "core.autocrlf=true", "-c", "core.safecrlf=false", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


def test_line_ends_stay_as_they_are_under_autocrlf(tmp_path: Path) -> None:
    origin, clone = tmp_path / "origin", tmp_path / "clone"
    origin.mkdir()
    shutil.copyfile(ROOT / ".gitattributes", origin / ".gitattributes")
    for name, content in FILES.items():
        (origin / name).write_bytes(content)
    git(origin, "init", "-q")
    git(origin, "add", "--all")
    git(origin, "commit", "-qm", "all")
    git(tmp_path, "clone", "-q", str(origin), str(clone))
    assert {name: (clone / name).read_bytes() for name in FILES} == FILES
    assert git(clone, "status", "--porcelain") == ""
