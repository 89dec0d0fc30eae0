"""Pins: what a file's bytes must be, in the kinds of hashes that data sets are published with."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import pytest

from harness.base.files import sha256_bytes
from harness.reading import pins

CONTENT = b"some content"
PINS = {
    "sha256": sha256_bytes(CONTENT),
    "md5": "md5:" + hashlib.md5(CONTENT).hexdigest(),
    "git": "git:" + pins.git_blob_id(CONTENT),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "file").write_bytes(CONTENT)
    return tmp_path / "file"


@pytest.mark.parametrize("kind", PINS)
def test_each_kind(file: Path, kind: str) -> None:
    assert pins.wrong(file, PINS[kind]) == ""
    file.write_bytes(CONTENT + b"!")
    fault = pins.wrong(file, PINS[kind])
    assert fault.startswith(f"expected {kind} {PINS[kind].split(':')[-1]}, found ")


def test_one_of_several_is_enough(file: Path) -> None:
    assert pins.wrong(file, f"md5:{'0' * 32} {PINS['sha256']}") == ""
    assert pins.wrong(file, f"md5:{'0' * 32} {'0' * 64}").startswith(
        f"expected md5 {'0' * 32} or sha256 {'0' * 64}, found"
    )


def test_the_content_of_a_gzip_file(file: Path) -> None:
    pin = f"gz:{sha256_bytes(CONTENT)}"
    for level in (1, 9):
        file.write_bytes(gzip.compress(CONTENT, level))
        assert pins.wrong(file, pin) == ""
    for broken in (CONTENT, gzip.compress(CONTENT)[:-9], b""):
        file.write_bytes(broken)
        assert pins.wrong(file, pin)
