"""How people name cells, and what the shell offers them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.base.errors import UserError
from harness.plugins.completion import names
from harness.running import cells
from harness.spec.entries import Entry, entry_of, parse_entry
from harness.spec.recipe_layers import has_recipe
from harness.spec.registry import available_methods
from harness.splits.split_names import split_of
from tests.data.test_cases_own_data import base

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("text", "factor", "dataset", "split"),
    [
        ("mnist5k", None, "mnist5k", "mnist5k-lt-if100"),
        ("mnist5k", 20.0, "mnist5k", "mnist5k-lt-if20"),
        ("mnist5k-lt-if50", None, "mnist5k", "mnist5k-lt-if50"),
        ("cifar10-lt-if100-step-hash3", None, "cifar10", "cifar10-lt-if100-step-hash3"),
        ("tiny-imagenet-lt", None, "tiny-imagenet-lt", "tiny-imagenet-lt"),
        ("tiny-imagenet-lt-cut10", None, "tiny-imagenet-lt", "tiny-imagenet-lt-cut10"),
    ],
)
def test_a_split_by_its_name_or_its_data_set(text: str, factor: float | None, dataset: str, split: str) -> None:
    found, name = split_of(text, imbalance_factor=factor)
    assert (found.name, name) == (dataset, split)


def test_a_split_of_ones_own_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LTBENCH_DATA", str(tmp_path / "data"))
    own_folder = base(tmp_path / "photos")
    found, name = split_of(f"folder:{own_folder}")
    assert name == found.name
    assert name.startswith("folder-photos-")
    assert split_of(f"folder:{own_folder}-lt-if2")[1] == f"{name}-lt-if2"
    assert split_of(f"folder:{own_folder}", imbalance_factor=2)[1] == f"{name}-lt-if2"


@pytest.mark.parametrize(
    ("words", "entry"),
    [
        (("ce",), Entry("ce", "", "common")),
        (("tvmf-k64@short",), Entry("tvmf", "k64", "short")),
        (("tvmf", "k64", "short"), Entry("tvmf", "k64", "short")),
        (("tvmf@short", "k64"), Entry("tvmf", "k64", "short")),
    ],
)
def test_an_entry_in_either_grammar(words: tuple[str, ...], entry: Entry) -> None:
    assert entry_of(*words) == entry


def test_an_entry_has_one_track() -> None:
    with pytest.raises(UserError, match="--track short: 'ce@common' names its track already"):
        entry_of("ce@common", track="short")
    with pytest.raises(UserError, match="'ce@' is not an entry"):
        entry_of("ce@")


def test_both_grammars_run_the_same_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.cli import app

    called = list[tuple[Any, ...]]()
    monkeypatch.setattr(cells, "run_alone", lambda *given: called.append(given))
    for words in (
        ["mnist5k-lt-if50", "tvmf-k64@common"],
        ["mnist5k", "tvmf-k64", "--imbalance-factor", "50"],
        ["--dataset", "mnist5k", "--method", "tvmf", "--variant", "k64", "--imbalance-factor", "50"],
        ["--dataset", "mnist5k", "--imbalance-factor", "50", "--method", "tvmf-k64", "--track", "common"],
    ):
        app(["run", *words], standalone_mode=False)
    assert len(set(map(str, called))) == 1
    cell, split, *_ = called[0]
    assert (split, cell.entry) == ("mnist5k-lt-if50", Entry("tvmf", "k64", "common"))


# ---- in the shell ----------------------------------------------------------------------------------------------------


def test_offered_names() -> None:
    assert names("splits", {}, "mnist5k-lt-if1") == ["mnist5k-lt-if100"]
    assert "cifar100" in names("cells", {}, "cifar1")
    assert "folder:" in names("datasets", {}, "f")
    assert "full-length" in names("suites", {}, "full")
    assert names("methods", {}, "ce_") == ["ce_mixup"]


@pytest.mark.parametrize("split", ["mnist5k-lt-if100", "mnist5k", "cifar10-lt-if100", "inat2018"])
def test_offered_entries_have_a_recipe_there(split: str) -> None:
    assert names("entries", {"split": split}, "") == available_methods()
    for typed in ("tvmf", "crt", "ce", "wcdas@"):
        offered = names("entries", {"split": split}, typed)
        for name in offered:
            if "@" in name:
                assert has_recipe(parse_entry(name), split.partition("-lt-if")[0]), name
    assert ("ce@short" in names("entries", {"split": split}, "ce@")) == split.startswith("cifar10")


def test_without_a_split_every_entry_is_offered() -> None:
    assert {"tvmf@common", "tvmf@short", "tvmf-k64@common"} <= set(names("entries", {}, "tvmf"))


def test_a_broken_file_offers_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise UserError("not valid YAML")

    monkeypatch.setattr("harness.plugins.completion.read_suites", broken)
    assert names("suites", {}, "") == []


def test_the_shell_is_answered_without_torch_or_numpy() -> None:
    code = (
        "import sys, atexit; sys.argv = ['ltbench']\n"
        "atexit.register(lambda: print('torch' in sys.modules, 'numpy' in sys.modules, file=sys.stderr))\n"
        "from harness.cli import main; main()"
    )
    asked = {"_LTBENCH_COMPLETE": "complete_bash", "COMP_WORDS": "ltbench train mnist5k crt", "COMP_CWORD": "3"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=os.environ | asked, check=False
    )
    assert "crt@common" in done.stdout.split()
    assert done.stderr == "False False\n"
