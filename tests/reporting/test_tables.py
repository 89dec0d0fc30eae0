"""Markdown, LaTeX and CSV: golden files, and text that must stay text."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

import pytest
import yaml

from harness.records.collect import Collected
from harness.reporting import tables
from harness.reporting.claims import Claim
from harness.reporting.report import build_report
from harness.reporting.summary import Stat
from tests.factories import collected, make_record, sources

GOLDEN = Path(__file__).parent / "golden"


def test_golden_tables(made: Collected, claims: list[Claim], folders: dict[str, Path], tmp_path: Path) -> None:
    """After a change that is meant: run this with LTBENCH_UPDATE_GOLDEN=1 in the environment, then read the diff."""
    build_report(made, tmp_path, sources(claims, folders=folders))
    built = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "tables").iterdir()}
    if os.environ.get("LTBENCH_UPDATE_GOLDEN"):
        for name, text in built.items():
            (GOLDEN / name).write_text(text, encoding="utf-8")
    golden = {path.name: path.read_text(encoding="utf-8") for path in GOLDEN.iterdir()}
    assert sorted(built) == sorted(golden)
    for name, text in golden.items():
        assert built[name] == text, name


def test_a_rule_that_applies_to_no_row_has_no_table(made: Collected, tmp_path: Path) -> None:
    build_report(made, tmp_path, sources())
    names = {path.name for path in (tmp_path / "tables").glob("cifar10*")}
    assert names == {f"cifar10-lt-if10-paper.{rule}.{end}" for rule in ("last", "best_test") for end in ("md", "tex")}


def test_published_numbers_keep_their_digits() -> None:
    assert [tables.published(value) for value in (40.0, 70.7, 51.83, 100.0)] == ["40.0", "70.7", "51.83", "100.0"]


@pytest.mark.parametrize(
    ("value", "signed", "text"),
    [
        (0.71249, False, "71.2"),
        (0.005, True, "+0.5"),
        (-0.005, True, "-0.5"),
        (-0.0001, True, "0.0"),
        (-0.0001, False, "0.0"),
    ],
)
def test_percent(value: float, signed: bool, text: str) -> None:
    assert tables.percent(value, 1, signed=signed) == text


def test_cells() -> None:
    assert tables.cell(None, 1) == "-"
    assert tables.cell(Stat(0.5, None, 1), 1) == "50.0"
    assert tables.cell(Stat(0.5, 0.012, 3), 2) == "50.00 ± 1.20"


@pytest.mark.parametrize(
    ("text", "safe"),
    [("=1+1", "'=1+1"), ("+a", "'+a"), ("-a", "'-a"), ("@a", "'@a"), ("\t=1", "'=1"), ("\n-1", "'-1"), ("a=b", "a=b")],
)
def test_text_cells_are_no_formulas(text: str, safe: str) -> None:
    assert tables.text_cell(text) == safe


def test_csv_numbers_stay_numbers_and_commas_stay_in_their_cell(tmp_path: Path) -> None:
    record = make_record("=cmd", optimism=-0.004, variant='a,"b"')
    build_report(collected(record), tmp_path, sources())
    rows = list(csv.DictReader(io.StringIO((tmp_path / "tables" / "leaderboard.csv").read_text(encoding="utf-8"))))
    assert {row["method"] for row in rows} == {"'=cmd"}
    assert {row["variant"] for row in rows} == {'a,"b"'}
    assert {row["optimism"] for row in rows} == {"-0.40"}
    assert {row["few_n"] for row in rows} == {"1"}


def test_a_claim_has_one_answer_in_every_file(made: Collected, claims: list[Claim], tmp_path: Path) -> None:
    source = claims[0].source
    entry = {"id": "mine", "title": "Mine", "source": source, "columns": [{"title": "x", "dataset": "CIFAR-10-LT"}]}
    row = {"label": "ours", "method": "balanced_softmax", "known": "its crop", "measured_as": {"CIFAR-10-LT": "other"}}
    for rows, status, reason in (
        ([{**row, "measured_as": {}}], "differs", "its crop"),
        ([row], "not run", ""),
    ):
        (tmp_path / "tables.yaml").write_text(yaml.safe_dump({"tables": [{**entry, "rows": rows}]}))
        build_report(made, tmp_path, sources(claims, folders={"balanced_softmax": tmp_path}))
        for name in ("published.csv", "papers.csv"):
            text = (tmp_path / "tables" / name).read_text(encoding="utf-8")
            first = next(csv.DictReader(io.StringIO(text)))
            assert (first["status"], first["reason"]) == (status, reason), name


def test_markdown_shows_hostile_text_as_it_stands() -> None:
    escaped = tables.escape_markdown("a|b\n<script> *x* [y](z) `c` \\ _d_ &amp;")
    assert escaped == r"a\|b &lt;script&gt; \*x\* \[y\](z) \`c\` \\ \_d\_ &amp;amp;"


def test_latex_shows_hostile_text_as_it_stands() -> None:
    escaped = tables.escape_latex("\\input{x}\n50% & $a_b^c$ #~ <t>|\x07")
    assert escaped == (
        r"\textbackslash{}input\{x\} 50\% \& \$a\_b\textasciicircum{}c\$ \#\textasciitilde{} "
        r"\textless{}t\textgreater{}\textbar{}"
    )


def test_every_markdown_row_has_as_many_cells_as_the_header(made: Collected, tmp_path: Path) -> None:
    build_report(made, tmp_path, sources())
    text = (tmp_path / "tables" / "mnist5k-lt-if100-paper.last.md").read_text(encoding="utf-8")
    rows = [line.replace(r"\|", "") for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 8
    assert {line.count("|") for line in rows} == {12}
