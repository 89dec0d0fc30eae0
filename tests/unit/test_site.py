"""What stands around the documents: CITATION.cff, and the site that `make docs` builds."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import harness

ROOT = Path(__file__).parents[2]


def test_the_citation_is_complete_and_of_this_version() -> None:
    """The fields that the Citation File Format 1.2.0 requires, and those that must follow the project."""
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["cff-version"] == "1.2.0"
    assert all(isinstance(cited[key], str) and cited[key] for key in ("message", "title"))
    assert all(set(author) in ({"name"}, {"family-names", "given-names"}) for author in cited["authors"])
    assert cited["version"] == harness.__version__
    licence = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert licence.startswith(cited["license"])
    assert cited["authors"][0]["name"] in licence


def test_the_site_builds_and_no_link_is_broken(tmp_path: Path) -> None:
    """As `make docs` does, with the files as they are in the working tree."""
    pytest.importorskip("mkdocs", reason="the extra 'docs' is not installed")
    documents = tmp_path / ".ltbench/documents"
    listed = re.search(r"git ls-files -z (.*) \|", (ROOT / "Makefile").read_text(encoding="utf-8"))
    assert listed
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *listed[1].replace("'", "").split()]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    for name in names:
        (documents / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, documents / name)
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    build = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    done = subprocess.run(build, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = {path.relative_to(tmp_path / "site").as_posix() for path in (tmp_path / "site").rglob("*.html")}
    assert {"index.html", "docs/library.html", "ARCHITECTURE.html"} <= pages
    page = (tmp_path / "site/docs/use.html").read_text(encoding="utf-8")
    assert not re.search(r"""(src|href)=["'](https?:)?//[^"']*\.(js|css)""", page), "nothing is fetched from elsewhere"
