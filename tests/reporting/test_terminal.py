"""`ltbench show`: the same tables in a terminal, as Markdown and as CSV."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.base.errors import UserError
from harness.records.collect import Collected, collect
from harness.reporting.terminal import show
from tests.factories import collected
from tests.reporting.conftest import HOSTILE


def test_ranks_are_those_of_the_page(measured: Collected, capsys: pytest.CaptureFixture[str]) -> None:
    show(measured, "", "last", "table")
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line[:1] in "│|"]
    assert [(line[1], line[3]) for line in lines] == [("1", "balanced_softmax"), ("1", "crt"), ("3", "ce")]


def test_markdown_and_csv(measured: Collected, capsys: pytest.CaptureFixture[str]) -> None:
    show(measured, "", "last", "md")
    assert "| 3 | ce | lenet |" in capsys.readouterr().out
    show(measured, "", "best_test", "csv")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("split,track,selection,rank,method")
    assert {line.split(",")[2] for line in lines[1:]} == {"best_test"}


def test_hostile_names_are_text(made: Collected, capsys: pytest.CaptureFixture[str]) -> None:
    show(made, "", "last", "table")
    assert HOSTILE[:8] in capsys.readouterr().out


def test_what_is_left_out_is_named(measured: Collected, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "records" / "ce" / "seed0.npz").write_bytes(b"nothing")
    show(collect(tmp_path / "records"), "", "last", "table")
    assert "records/ce/seed0.npz: damaged evidence" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("suite", "selection", "form", "message"),
    [
        ("", "first", "table", "--selection: no selection rule is named 'first'"),
        ("", "last", "html", "--format: no format is named 'html'"),
        ("nothing", "last", "table", "no suite is named 'nothing'"),
        ("default", "last", "table", "no record of suite 'default' to show"),
    ],
)
def test_mistakes(measured: Collected, suite: str, selection: str, form: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        show(collected() if suite == "default" else measured, suite, selection, form)
    assert message in str(caught.value)
