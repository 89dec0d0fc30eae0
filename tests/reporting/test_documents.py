"""Tables inside hand-written Markdown."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.base.errors import UserError
from harness.base.files import stamped, write_json
from harness.records.collect import Collected, collect
from harness.reporting.claims import Claim
from harness.reporting.comparison import MeasuredRows
from harness.reporting.documents import BLOCK as ANY_BLOCK
from harness.reporting.documents import refresh, refresh_files
from harness.reporting.paper_tables import Column, FilledTable, PaperTable, TableRow, fill
from harness.reporting.report import fill_tables, ranked_sections, sources, study_results
from harness.reporting.studies import Contrast, MeasuredContrast, Study, StudyResult
from harness.reporting.summary import RunResult, summarize
from tests.factories import make_record

ROOT = Path(__file__).parents[2]
BLOCK = "Before.\n\n<!-- table mnist5k-lt-if100-paper last -->\nold\n<!-- /table -->\n\nAfter.\n"


def test_only_the_table_changes(measured: Collected) -> None:
    text = refresh(BLOCK, ranked_sections(measured).sections, [], "doc.md")
    assert text.startswith(
        "Before.\n\n<!-- table mnist5k-lt-if100-paper last -->\n| Rank | Method | All | Many (3 classes) |"
    )
    assert text.endswith("<!-- /table -->\n\nAfter.\n")
    assert "| 1 | `balanced_softmax` | 90.0 ± 0.0 |" in text
    assert "| 3 | `ce` | 63.8 ± 0.0 |" in text
    assert "old" not in text
    assert refresh(text, ranked_sections(measured).sections, [], "doc.md") == text


def test_costs_stand_in_a_table_that_asks_for_them(measured: Collected, tmp_path: Path) -> None:
    costs = {"trained_parameters": 6500, "wall_seconds": 12.4, "peak_memory_mb": 800.0}
    write_json(tmp_path / "records/ce/seed0.run.json", stamped(costs))
    found = ranked_sections(collect(tmp_path / "records")).sections
    text = refresh(BLOCK.replace(" last", " last costs"), found, [], "doc.md")
    assert "Trained parameters | Seconds | Memory, MB | n |" in text
    assert "| 3 | `ce` | 63.8 ± 0.0 |" in text
    assert "| 6,500 | 12 | 800 | 3 |" in text
    assert "| - | - | - | 3 |" in text


def published_table(*seeds: int) -> list[FilledTable]:
    """Of cross-entropy, measured with these seeds, and GCL, never run; both printed as 46.47."""
    facts: dict[str, Any] = {"imbalance_factor": 100.0, "backbone": "ResNet-32", "variant": "", "group": "all"}
    origin: dict[str, Any] = {"selection": "best_test", "source": "A paper", "location": "Table 2"}
    claims = [Claim(dataset="CIFAR-100-LT", method=name, value=46.47, **facts, **origin) for name in ("ce", "gcl")]
    lines = (TableRow("Cross-entropy", method="ce", known="They differ. A lot."), TableRow("GCL", method="gcl"))
    table = PaperTable("a-table", "A paper, Table 2", "A paper", (Column("CIFAR-100, IF 100"),), lines)
    cifar: dict[str, Any] = {"dataset": "cifar100", "split": "cifar100-lt-if100", "backbone": "resnet32"}
    records = [make_record(seed=seed, accuracy=0.44 + 0.01 * seed, optimism=0.005, **cifar) for seed in seeds]
    sections = summarize(RunResult(f"{i}.json", record, {}) for i, record in enumerate(records))
    return fill([table], claims, [], MeasuredRows(sections))


def test_a_column_of_a_published_table_has_both_choices_of_the_epoch() -> None:
    """In the interval of the mean, although half a point away; and one that was never run."""
    papers = published_table(0, 1, 2)
    text = refresh("<!-- paper a-table CIFAR-100, IF 100 -->\n<!-- /paper -->", [], [], "doc.md", papers)
    _, head, _, ours, other, _, epoch, *_ = text.splitlines()
    assert head.startswith("| Method | Paper | Last epoch | Best epoch on the test part | Many | Medium | Few | n |")
    assert ours.startswith("| Cross-entropy | 46.47 | 45.00 (42.52 to 47.48) | **45.50 (43.02 to 47.98)** |")
    assert ours.endswith("| 3 | reproduced (notes 1, 2, 3, 4) |")
    assert epoch == "Note 1: Measured at the epoch best on the test part."
    assert other == "| GCL | 46.47 | - | - | - | - | - | - | not run |"
    with pytest.raises(UserError, match="no column is named 'IF 10'"):
        refresh("<!-- paper a-table IF 10 -->\n<!-- /paper -->", [], [], "doc.md", papers)


@pytest.mark.parametrize(
    ("seeds", "measured_values", "status"),
    [
        ((1,), "45.00 | **45.50**", "differs"),
        ((1, 2), "45.50 (45.00, 46.00) | **46.00 (45.50, 46.50)**", "reproduced"),
        ((2, 3), "46.50 (46.00, 47.00) | **47.00 (46.50, 47.50)**", "differs"),
    ],
)
def test_of_two_seeds_both_values_stand_there(seeds: tuple[int, ...], measured_values: str, status: str) -> None:
    """Their interval would reach six times as far as they lie apart. Notes end with one full stop."""
    text = refresh(
        "<!-- paper a-table CIFAR-100, IF 100 -->\n<!-- /paper -->", [], [], "doc.md", published_table(*seeds)
    )
    assert f"| Cross-entropy | 46.47 | {measured_values} |" in text
    assert f"| {len(seeds)} | {status} (notes 1, " in text
    assert "They differ. A lot.\n" in text
    assert ".." not in text


@pytest.mark.parametrize(
    ("seeds", "sentence"),
    [
        ((), "Reproduced so far: none of the 2 published numbers."),
        ((1, 2), "Reproduced so far: 1 of the 2 published numbers."),
        ((2, 3), "Reproduced so far: none of the 2 published numbers; 1 differs."),
    ],
)
def test_how_many_published_numbers_are_reproduced(seeds: tuple[int, ...], sentence: str) -> None:
    text = refresh("<!-- published -->\nold\n<!-- /published -->", [], [], "doc.md", published_table(*seeds))
    assert text == f"<!-- published -->\n{sentence}\n<!-- /published -->"


def test_what_a_reader_must_know_of_rows_stands_below_a_table_and_once() -> None:
    rows = {"a": ("two_views",), "b": (), "c": ("one <b>", "two_views")}
    lines = tuple(
        MeasuredContrast(Contrast(f"Row {row}", row, "ce"), missing="not run", marks=marks)
        for row, marks in rows.items()
    )
    of = Study("widths", "Widths", "Which?", "mnist5k-lt-if100", "common", tuple(one.contrast for one in lines))
    text = refresh("<!-- study widths -->\n<!-- /study -->", [], [StudyResult(of, lines)], "doc.md")
    assert [line.split(" | ")[0] for line in text.splitlines() if "Row" in line and "against" in line] == [
        "| Row a (note 1)",
        "| Row b",
        "| Row c (notes 1, 2)",
    ]
    assert text.endswith("\nNote 1: Two\\_views.\n\nNote 2: One &lt;b&gt;.\n<!-- /study -->")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BLOCK.replace(" last", " last cost"), "found <!-- table mnist5k-lt-if100-paper last cost -->"),
        (BLOCK.replace("-paper", "-common"), "no table is named 'mnist5k-lt-if100-common'"),
        (BLOCK.replace(" last", " first"), "no selection rule is named 'first'"),
        ("Nothing here.", "doc.md: no block to refresh"),
    ],
)
def test_mistakes_name_the_file(measured: Collected, text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        refresh(text, ranked_sections(measured).sections, [], "doc.md")
    assert message in str(caught.value)
    assert "doc.md" in str(caught.value)


def test_nothing_is_written_if_one_file_has_a_mistake(measured: Collected, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text(BLOCK)
    (tmp_path / "b.md").write_text("Nothing here.")
    with pytest.raises(UserError):
        refresh_files([tmp_path / "a.md", tmp_path / "b.md"], ranked_sections(measured).sections)
    assert (tmp_path / "a.md").read_text() == BLOCK


def test_the_documents_of_this_project_have_the_numbers_of_its_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """If it fails: `ltbench tables README.md`, then read the prose again.

    Another processor may round differently, so records that were measured again here are not held against them.
    """
    git = ["git", "-C", str(ROOT), "status", "--porcelain", "--", "results"]
    if shutil.which("git") is None or (done := subprocess.run(git, capture_output=True, check=False)).returncode:
        pytest.skip("not a checkout")
    if done.stdout:
        pytest.skip("results/ is not as committed")
    monkeypatch.chdir(ROOT)
    found = replace(sources(), current=None)
    ranked = ranked_sections(collect(ROOT / "results/records", ROOT / "results/imported"), found)
    studies, papers = study_results(ranked, found), fill_tables(ranked.sections, found).tables
    documents = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
    for path in (path for path in documents if ANY_BLOCK.search(path.read_text())):
        assert refresh(path.read_text(), ranked.sections, studies, path.name, papers) == path.read_text(), path.name
