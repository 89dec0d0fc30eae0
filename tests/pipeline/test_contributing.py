"""CONTRIBUTING.md's walk-through, followed to the letter: its code blocks become the method, its commands are run."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from pathlib import Path

import pytest
import yaml

from tests.pipeline.test_pipeline import CELL, ROOT, Project

pytestmark = pytest.mark.pipeline
HEADING = "## Add a method in one folder"
UNUSED = ("balanced_softmax", "tvmf")  # the walk-through's method and its baseline are enough


def walk_through() -> list[str]:
    """The numbered items under the heading, without their numbers."""
    text = (ROOT / "CONTRIBUTING.md").read_text().partition(HEADING)[2].partition("\n## ")[0]
    return re.split(r"^\d+\. ", text, flags=re.MULTILINE)[1:]


def files() -> dict[str, str]:
    """File name -> content: of each item that starts with a file, its first code block, else its first inline code."""
    found = {}
    for item in walk_through():
        named = re.match(r"\*\*`(methods/[\w./]+)`\*\*", item)
        if not named:
            continue
        block = re.search(r"^ *```\w+\n(.*?)^ *```$", item, flags=re.MULTILINE | re.DOTALL)
        inline = re.search(r"`([^`]+)`", item[named.end() :])
        code = block or inline
        assert code, f"{named[1]}: the walk-through does not say what it holds"
        found[named[1]] = textwrap.dedent(code[1]).rstrip() + "\n"
    return found


def commands() -> list[str]:
    """What the last item says to run, in its order."""
    inline = re.findall(r"`([^`]+)`", walk_through()[-1])
    return [" ".join(code.split()) for code in inline if code.startswith("ltbench ")]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Everything up to date before the new folder is added."""
    project = Project(tmp_path_factory.mktemp("contributing"))
    for name in UNUSED:
        shutil.rmtree(project.folder / "methods" / name)
    project.run(sys.executable, "-m", "harness", "grid")
    project.repro()
    return project


def test_the_walk_through_names_what_it_needs() -> None:
    assert [Path(name).name for name in files()] == ["method.py", "recipes.yaml"]
    starts = [command.split()[1] for command in commands()]
    assert starts == ["run", "grid", "check-method"]


def test_a_method_from_the_code_blocks_to_its_row_in_the_leaderboard(project: Project) -> None:
    for name, content in files().items():
        (project.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (project.folder / name).write_text(content)
    (folder,) = {Path(name).parent for name in files()}
    method = folder.name
    output = {command: project.run("sh", "-c", command) for command in commands()}
    alone, pipeline, conformance = output.values()
    assert "many" in alone
    ran = {name.partition("@")[2] for name in re.findall(r"Running stage '(.+?)'", pipeline) if "@" in name}
    assert ran == {f"{CELL}.{method}.common"}, "only its own cells run"
    assert f"method '{method}' conforms" in conformance

    rows = [row for row in project.table() if row["method"] == method]
    assert {(row["status"], row["selection"]) for row in rows} >= {("ok", "last")}
    page = (project.folder / "reports/leaderboard.html").read_text()
    title = yaml.safe_load(files()[f"{folder}/recipes.yaml"])["title"]
    assert f'<th scope="row" data-text="{title}">' in page, "it has a row"
