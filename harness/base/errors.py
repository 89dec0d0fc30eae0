"""Errors for users: one line that says what was wrong, where, and what to do."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable, Mapping
from typing import Literal, TypeVar

T = TypeVar("T")
DISK_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}


def printable(text: str) -> str:
    """The text with line ends, control characters and what is no character as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class UserError(Exception):
    """A mistake that the user can fix (bad name, missing data, wrong hash); the command exits with 2.

    What it quotes may come from anywhere; line ends and control characters in it are shown as escapes, not obeyed.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class DiskError(UserError):
    """A disk is full, fails or cannot be written: no result of what was done there, which can go on later."""


class RunFailed(Exception):  # noqa: N818 - it is an outcome as much as an error
    """A run that cannot give a result (NaN loss, say). A DVC stage records it; interactive commands exit with 1.

    `agreed`: every process that trains the run raises it at the same place, so they can go on together. Any other
    failure ends them all.
    """

    status: Literal["failed", "skipped"] = "failed"

    def __init__(self, reason: str, *, epoch: int | None = None, step: int | None = None, agreed: bool = False) -> None:
        self.reason, self.epoch, self.step, self.agreed = reason, epoch, step, agreed
        super().__init__(reason)


class RunSkipped(RunFailed):
    """A run that its method declines, with the method's reason."""

    status = "skipped"


def complaint(error: UserError | RunFailed | OSError) -> tuple[str, int]:
    """The line that a command ends with, and its exit code: a user's mistake 2, a failed run 1."""
    if isinstance(error, UserError):
        return f"error: {error}", 2
    if isinstance(error, RunFailed):
        return f"failed: {error}", 1
    return complaint(of_file(error))


def of_file(error: OSError) -> UserError:
    """What the user is told of a full disk, a folder that cannot be written, a file in a folder's place."""
    kind = DiskError if error.errno in DISK_FAULTS else UserError
    return kind(f"{error.filename or 'input/output'}: {error.strerror or error}")


def reason(error: BaseException) -> str:
    """An exception's message on one line, for a message of ours; its type where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def lookup(kind: str, name: str, known: Mapping[str, T], *, where: str = "") -> T:
    """What is registered under a name; arguments as `unknown` takes them.

    Raises:
        UserError: nothing is.
    """
    if name not in known:
        raise unknown(kind, name, known, where=where)
    return known[name]


def unknown(kind: str, name: str, known: Iterable[str], *, where: str = "") -> UserError:
    """A UserError for a name that is not registered, with its nearest known names.

    `kind` is a noun with its article left out ("method"); `where` is the file or option the name came from.
    """
    names = sorted(known)
    folded = {item.lower(): item for item in names}
    near = [folded[item] for item in difflib.get_close_matches(name.lower(), folded, n=3, cutoff=0.5)]
    hint = f"closest: {', '.join(near)}; " if near else ""
    listed = ", ".join(names) or "none"
    listed = f"known: {listed}" if len(names) <= 30 else f"{len(names)} are known"
    origin = f"{where}: " if where else ""
    return UserError(f"{origin}no {kind} is named {name!r} ({hint}{listed})")
