"""Small things that people type (cases J to M and P): one line that says what to type, or it works."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.base.errors import UserError
from harness.engine.backbones import create_backbone
from harness.spec.entries import parse_entry
from harness.spec.recipes import _say_once, resolve
from harness.spec.suites import parse_seeds
from harness.splits.split_names import parse_split_name

ROOT = Path(__file__).parents[2]


def test_case_j_a_tag_in_the_backbones_name_is_refused() -> None:
    """It would train from scratch under the name of ImageNet weights."""
    with pytest.raises(
        UserError, match=r"'a1_in1k' names pretrained weights; say backbone resnet18, pretrained a1_in1k$"
    ):
        create_backbone("resnet18.a1_in1k", (32, 32, 3))
    with pytest.raises(UserError, match="no backbone is named"):
        create_backbone("resnet18000.a1_in1k", (32, 32, 3))


def test_case_k_without_git_it_is_said_before_anything_is_installed(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    # Run by "make test" this is a make within a make, which announces itself unless its variables are taken away.
    outer = {"MAKELEVEL", "MAKEFLAGS", "MFLAGS"}
    environment = {key: value for key, value in os.environ.items() if key not in outer}
    environment["GIT_CEILING_DIRECTORIES"] = str(tmp_path.parent)
    command = ["make", "install"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 2
    assert done.stdout.startswith("Not a git repository, which DVC needs. In an unpacked archive: git init")
    assert not (tmp_path / ".venv").exists()


def test_case_k_text_has_the_same_bytes_everywhere() -> None:
    assert "* text=auto eol=lf" in (ROOT / ".gitattributes").read_text().splitlines()


@pytest.mark.parametrize(
    ("text", "seeds"), [("0-2", [0, 1, 2]), ("3", [3]), ("0,4-5", [0, 4, 5]), (" 1 , 2-2", [1, 2]), ("7,0", [7, 0])]
)
def test_case_l_seeds_as_ranges(text: str, seeds: list[int]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "0-1-2", "2-1", "0,9-5", "-1", "0,0-1", "0-", "a-b", "0-99999999", "1.5", "٣"])
def test_case_l_other_seeds_are_one_line(text: str) -> None:
    with pytest.raises(UserError, match=r"expected different whole numbers, e\.g\. 0,1,2 or 0-2"):
        parse_seeds(text)


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        ("balanced-softmax@common", "balanced_softmax@common"),
        ("balanced-softmax-decoupled@paper", "balanced_softmax-decoupled@paper"),
        ("class-balanced-loss@common", "class_balanced_loss@common"),
        ("tvmf-k64@common", "tvmf-k64@common"),
        ("crt-bn-train@common", "crt-bn-train@common"),
    ],
)
def test_case_l_hyphens_for_underscores(text: str, entry: str) -> None:
    assert str(parse_entry(text)) == entry


def test_case_l_numbers_that_are_none() -> None:
    with pytest.raises(UserError, match=r"^--set lr=nan: lr: expected float, found 'nan'$"):
        resolve(parse_entry("ce@common"), "mnist5k", ["lr=nan"])
    with pytest.raises(UserError, match="the imbalance factor must be a number of at least 1"):
        parse_split_name("mnist5k-lt-if0.01")


def test_case_l_standard_output_in_ascii() -> None:
    command = [sys.executable, "-m", "harness", "list", "datasets"]
    environment = {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PATH": ""}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "mnist5k" in done.stdout


@pytest.mark.parametrize(
    ("typed", "warmup", "said"),
    [
        (["epochs=1"], 0, True),
        (["epochs=4"], 0, True),
        (["recipe.epochs=100"], 5, False),
        (["epochs=1", "warmup_epochs=1"], 1, False),
    ],
)
def test_case_m_a_warmup_is_shortened_with_the_epochs(
    typed: list[str], warmup: int, said: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """ce@paper on CIFAR-10 warms up for 5 of its 200 epochs."""
    _say_once.cache_clear()
    assert resolve(parse_entry("ce@paper"), "cifar10", typed).recipe.train.warmup_epochs == warmup
    assert ("warm-up of 5 epochs becomes 0" in capsys.readouterr().err) == said


def test_case_p_a_list_imports_no_method(tmp_path: Path) -> None:
    folder = tmp_path / "methods" / "endless"
    folder.mkdir(parents=True)
    (folder / "method.py").write_text("while True:\n    pass\n")
    (folder / "recipes.yaml").write_text("title: Endless\nsummary: none\nparams: {}\ntracks: {common: {}}\n")
    code = f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(tmp_path)!r}]; from harness.cli import main; main()"
    command = [sys.executable, "-c", code, "list"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60, check=False)
    assert "endless" in done.stdout, done.stderr
    assert "Endless" in done.stdout
