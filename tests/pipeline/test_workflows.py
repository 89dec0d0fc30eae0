"""The workflows that come with the project, step by step as GitHub and GitLab run them, but for the installation."""

from __future__ import annotations

import functools
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.base.files import read_json, stamped, write_json
from harness.records.collect import collect
from harness.reporting.report import Sources
from harness.reporting.site.config import read_site
from harness.reporting.site.publish import publish_site

ROOT = Path(__file__).parents[2]
CELL = "mnist5k-lt-if100/common"


def git(*arguments: str, where: Path) -> str:
    identity = ("-c", "user.name=n", "-c", "user.email=e@e", "-c", "init.defaultBranch=main")
    command = ["git", *identity, *arguments]
    return subprocess.run(command, cwd=where, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    """A bare repository of a small project: the records of one cell, its split, and the workflows."""
    work = tmp_path / "work"
    shutil.copytree(ROOT / "results/records" / CELL / "ce", work / "results/records" / CELL / "ce")
    (work / "results/splits").mkdir()
    shutil.copy(ROOT / "results/splits/mnist5k-lt-if100.json", work / "results/splits")
    shutil.copy(ROOT / "results/same_code.json", work / "results")  # the records may be older than the code
    for name in (".github", ".ci"):
        shutil.copytree(ROOT / name, work / name)
    shutil.copy(ROOT / ".gitlab-ci.yml", work)
    (work / "reports").mkdir()
    (work / "reports/site.yaml").write_text("title: A small project\n")
    git("init", "-q", where=work)
    git("add", "--all", where=work)
    git("commit", "-q", "-m", "all", where=work)
    git("clone", "-q", "--bare", str(work), str(tmp_path / "origin.git"), where=tmp_path)
    return tmp_path / "origin.git"


def clone(origin: Path, name: str = "checkout") -> Path:
    git("clone", "-q", str(origin), name, where=origin.parent)
    return origin.parent / name


def run(script: str, where: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs a step's script in a shell like that of the hosts, with this checkout's `ltbench`."""
    tools = where.parent / "tools"
    tools.mkdir(exist_ok=True)
    shim = tools / "ltbench"
    shim.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -P -m harness "$@"\n')
    shim.chmod(0o755)
    path = f"{tools}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
    environment = {**os.environ, "PATH": path, **variables}
    return subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True, check=False)


def steps(name: str, job: str) -> dict[str, str]:
    """The scripts of a GitHub workflow, by name; none of them takes a value from the event, which could be anything."""
    workflow: dict[str, Any] = yaml.safe_load((ROOT / ".github/workflows" / name).read_text())
    found = {step["name"]: step["run"] for step in workflow["jobs"][job]["steps"] if "run" in step}
    assert not any("${{" in script for script in found.values())
    assert found.pop("Install").startswith("python -m pip install")
    return found


def script(job: str) -> str:
    """The script of a GitLab job without its installation."""
    lines: list[str] = yaml.safe_load((ROOT / ".gitlab-ci.yml").read_text())[job]["script"]
    assert sum(line.startswith("python -m pip install") for line in lines) == 1
    return "\n".join(line for line in lines if not line.startswith("python -m pip install"))


def earlier_site(where: Path, out: Path) -> str:
    """Publishes the checkout's records without seed 2, as an earlier version would have; its name."""
    found = collect(where / "results/records")
    fewer = [one for one in found.records if one[1].seed < 2]
    found.records[:] = fewer
    return publish_site(found, Sources(), read_site(where / "reports/site.yaml"), out).manifest.name


def test_github_pages_keeps_the_site_on_a_branch(origin: Path) -> None:
    work = steps("pages.yml", "publish")
    first = clone(origin, "first")
    assert run(work["Bring the site as it is"], first).returncode == 0, "there is no such branch yet"
    assert [path.name for path in (first / "site").iterdir()] == [".git"]
    earlier = earlier_site(first, first / "site")
    kept = run(work["Keep this version"], first)
    assert kept.returncode == 0, kept.stderr
    again = clone(origin)
    for name, text in work.items():
        done = run(text, again)
        assert done.returncode == 0, f"{name}: {done.stdout}{done.stderr}"
    manifest = json.loads(git("show", "site:site.json", where=origin))
    assert len(manifest["records"]) == 3
    assert manifest["name"].startswith("20"), "the records are committed, so they have a date"
    assert f"archive/{earlier}/index.html" in git("ls-tree", "-r", "--name-only", "site", where=origin).splitlines()
    assert git("rev-list", "--count", "site", where=origin) == "2"
    assert run(work["Keep this version"], again).returncode == 0, "nothing is new"
    assert git("rev-list", "--count", "site", where=origin) == "2"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and its address, where the artifacts of earlier jobs lie."""
    (tmp_path / "api").mkdir()
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    serving = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(quiet, directory=tmp_path / "api"))
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    yield tmp_path / "api", f"http://127.0.0.1:{serving.server_port}"
    serving.shutdown()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_gitlab_pages_go_on_from_the_last_artifact(origin: Path, server: tuple[Path, str]) -> None:
    folder, address = server
    checkout = clone(origin)
    variables = {"CI_API_V4_URL": address, "CI_PROJECT_ID": "1", "CI_DEFAULT_BRANCH": "main", "CI_JOB_TOKEN": "secret"}
    fetch = script("pages").replace("ltbench publish --out public", "")
    assert "no earlier site" in run(fetch, checkout, **variables).stdout
    earlier = earlier_site(checkout, folder / "public")
    artifact = folder / "projects/1/jobs/artifacts/main/download"
    artifact.parent.mkdir(parents=True)
    with zipfile.ZipFile(artifact, "w") as file:
        for path in (folder / "public").rglob("*"):
            file.write(path, path.relative_to(folder))
    done = run(script("pages"), checkout, **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (checkout / "public/archive" / earlier / "index.html").is_file()
    assert len(json.loads((checkout / "public/site.json").read_text())["records"]) == 3


def test_a_submission_is_checked_with_the_code_of_the_branch_it_is_for(origin: Path) -> None:
    """Of two campaigns one is sound and one is forged; the check that comes along with them is not run."""
    base = clone(origin)
    submission = clone(origin, "checkout/submission")
    for name, method in (("sound", "tvmf"), ("forged", "crt")):
        shutil.copytree(
            ROOT / "results/records" / CELL / method, submission / "results/imported" / name / CELL / method
        )
    path = submission / "results/imported/forged" / CELL / "crt/seed0.json"
    record = read_json(path, "record")
    record["results"]["last"]["macro_f1"] = 0.99
    write_json(path, stamped({key: value for key, value in record.items() if key != "sha256"}))
    (submission / ".ci/check-submission").write_text("#!/bin/sh\necho all is well\n")
    (work,) = steps("submission.yml", "check").values()
    done = run(work, base, GITHUB_STEP_SUMMARY=str(base / "summary.md"))
    assert done.returncode == 1, done.stdout + done.stderr
    summary = (base / "summary.md").read_text()
    assert summary == done.stdout
    assert "imported/sound/validation.json: recomputed; 3 records sound, 0 refused" in summary
    assert "macro_f1 at last is 0.99" in summary
    assert "records/mnist5k" not in summary.partition("## What")[0], "what did not change is not looked at"
    rows = [line.split(" | ")[1:3] for line in summary.splitlines() if line.startswith("| mnist5k-lt-if100, common")]
    assert sorted(name for name, _ in rows) == ["crt", "tvmf"]
    assert {place.partition(" of ")[2] for _, place in rows} == {"3"}, "beside cross-entropy"
    assert "results/imported/sound: 3 records imported, 0 were there" in summary
    assert "results/imported/forged: 2 records imported, 0 were there" in summary
    assert "all is well" not in summary
    assert script("submission").endswith("cd base && .ci/check-submission ..")
