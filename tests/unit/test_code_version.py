"""The code version: what decides numbers changes it, what a reader alone sees does not."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.base.files import PACKAGE
from harness.spec import provenance
from harness.spec.provenance import CODE, code_version

METHOD = '"""What it is."""\n\n\ndef loss(x):\n    """Of x."""\n    return 2 * x  # twice\n'


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the code that decides numbers, and a method."""
    for name in CODE:
        source, target = PACKAGE / name, tmp_path / "harness" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, target)
    (tmp_path / "method").mkdir()
    (tmp_path / "method/method.py").write_text(METHOD)
    monkeypatch.setattr(provenance, "PACKAGE", tmp_path / "harness")
    yield tmp_path
    forget()


def forget() -> None:
    for function in (provenance._harness_code, code_version):
        function.cache_clear()


def version(copy: Path) -> str:
    forget()
    return code_version(copy / "method")


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("What it is", "What it was", True),
        ("Of x.", "Of another x.", True),
        ("# twice", "# two times", True),
        ("2 * x  #", "(2 * x)  #", True),
        ("\n", "\r\n", True),
        ("2 * x", "3 * x", False),
        ("2 * x", "2.0 * x", False),
        ("def loss", "def losses", False),
        ("return 2", "return 2 +", False),
    ],
)
def test_what_a_reader_sees_does_not_count_and_what_runs_does(old: str, new: str, same: bool, tmp_path: Path) -> None:
    versions = []
    for name, text in (("before", METHOD), ("after", METHOD.replace(old, new))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "method.py").write_bytes(text.encode())
        versions.append(code_version(tmp_path / name))
    assert (versions[0] == versions[1]) == same


@pytest.mark.parametrize("name", [name for name in CODE if (PACKAGE / name).is_dir()])
def test_every_folder_counts(name: str, copy: Path) -> None:
    before = version(copy)
    (copy / "harness" / name / "another.py").write_text("ANOTHER = 1\n")
    assert version(copy) != before


def test_decoders_count(copy: Path) -> None:
    before = version(copy)
    file = copy / "harness/reading/decoding.py"
    file.write_text(file.read_text() + "\nANOTHER = 1\n")
    assert version(copy) != before


def test_what_is_no_python_has_a_version_too(copy: Path) -> None:
    (copy / "method/method.py").write_text("def (")
    before = version(copy)
    (copy / "method/method.py").write_text("def ((")
    assert version(copy) != before
