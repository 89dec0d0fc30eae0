"""`ltbench show`: the same tables in a terminal, as Markdown and as CSV."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from harness.base.errors import UserError
from harness.base.screen import console, table
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


def test_json_has_the_same_rows_as_fractions(measured: Collected, capsys: pytest.CaptureFixture[str]) -> None:
    show(measured, "", "last", "json")
    (table,) = json.loads(capsys.readouterr().out)
    show(measured, "", "last", "csv")
    lines = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [(row["entry"].split("@")[0], str(row["rank"])) for row in table["rows"]] == [
        (line["method"], line["rank"]) for line in lines
    ]
    for row, line in zip(table["rows"], lines, strict=True):
        assert 100 * row["scores"]["all"]["mean"] == pytest.approx(float(line["all"]), abs=0.01)
        assert row["scores"]["all"]["n"] == int(line["all_n"]) == len(row["seeds"])
    assert (table["split"], table["selection"]) == (lines[0]["split"], "last")
    assert set(table["groups"]) == {"many", "medium", "few"}


def test_nothing_is_cut_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    name = "a_method_with_a_long_name-and-a-long-variant"
    console().print(
        table("title", ["Method", *map(str, range(40))], [[name, *["12.34 ± 1.00"] * 40]], words=("Method",))
    )
    out = capsys.readouterr().out
    assert sum(name in line and line.count("12.34 ± 1.00") == 40 for line in out.splitlines()) == 1


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
