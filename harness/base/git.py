"""Git, where a command needs an earlier state of the files."""

from __future__ import annotations

import subprocess
from pathlib import Path

from harness.base.errors import UserError


def git(*arguments: str, where: Path | None = None) -> bytes:
    """What a git command prints, run in `where` (default: here).

    Raises:
        UserError: git is not installed, or refuses.
    """
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, check=False, cwd=where)  # noqa: S603, S607
    except OSError:
        raise UserError("git is not installed") from None
    if done.returncode:
        raise UserError(f"git {' '.join(arguments)}: {' '.join(done.stderr.decode(errors='replace').split())}")
    return done.stdout


def unpack(revision: str, folder: Path, *paths: str, where: Path | None = None) -> None:
    """Writes these paths of a revision below `folder`, which is made; a revision never passes for an option.

    Raises:
        UserError: as `git`, or it cannot be written.
    """
    name = git("rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}", where=where).decode().strip()
    archive = git("archive", "--format=tar", name, "--", *paths, where=where)
    folder.mkdir(exist_ok=True)
    done = subprocess.run(["tar", "-x", "-C", str(folder)], input=archive, capture_output=True, check=False)  # noqa: S603, S607
    if done.returncode:
        raise UserError(f"{folder}: tar: {' '.join(done.stderr.decode(errors='replace').split())[-300:]}")
