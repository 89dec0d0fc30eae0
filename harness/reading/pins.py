"""Pins: what a file's bytes must be. One or more hashes with a space between them; the file must have one of them.

A hash is written `<kind>:<hex>`, a sha256 without its kind:

- `md5`: what the data set's own site or torchvision publishes, where no sha256 is published;
- `git`: the git blob id, by which files of a public repository are known (sha1 of "blob <size>", a zero byte, content);
- `gz`: sha256 of what a gzip file holds, where packages compress the same file differently.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from pathlib import Path


def wrong(path: Path, pin: str) -> str:
    """Empty if the file is right, else "expected sha256 ..., found ..."."""
    wanted = [_parsed(item) for item in pin.split()]
    found = {kind: _digest(path, kind) for kind in dict.fromkeys(kind for kind, _ in wanted)}
    if any(found[kind] == hex_ for kind, hex_ in wanted):
        return ""
    return f"{expected(pin)}, found {found[wanted[0][0]]}"


def expected(pin: str) -> str:
    """The pin in words, for messages."""
    return "expected " + " or ".join(f"{kind} {hex_}" for kind, hex_ in map(_parsed, pin.split()))


def git_blob_id(data: bytes) -> str:
    """The id that git gives a file with this content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _parsed(item: str) -> tuple[str, str]:
    kind, _, hex_ = item.rpartition(":")
    return kind or "sha256", hex_


def _digest(path: Path, kind: str) -> str:
    if kind == "git":
        return git_blob_id(path.read_bytes())
    if kind == "gz":
        try:
            with gzip.open(path) as content:
                return hashlib.file_digest(content, "sha256").hexdigest()
        except (OSError, EOFError, zlib.error):
            return "no readable gzip file"
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()
