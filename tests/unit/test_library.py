"""docs/library.md: its blocks run, its table names every column, and the notebook is the same page."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import harness
from harness.base.errors import UserError
from harness.records.schema import costs_path, write_record
from harness.records.table import COLUMNS, COSTS, load_results
from tests.factories import make_record

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/library.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    """What the blocks left, run one after the other, as a reader or a notebook would."""
    found: dict[str, Any] = {"__name__": "__main__"}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT / "docs")
        for number, block in enumerate(BLOCKS):
            exec(compile(block, f"docs/library.md, block {number + 1}", "exec"), found)
    return found


def test_every_block_runs(names: dict[str, Any]) -> None:
    assert len(BLOCKS) > 8
    assert isinstance(names["results"], pd.DataFrame)
    assert len(names["by_method"]) > 10


def test_the_page_shows_every_public_name() -> None:
    shown = set(re.findall(r"\w+", " ".join(BLOCKS)))
    assert set(harness.PUBLIC) <= shown
    assert all(callable(getattr(harness, name)) for name in harness.PUBLIC)


def test_the_page_names_every_column() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert named == {*COLUMNS, *COSTS}


def test_the_notebook_is_the_page() -> None:
    """Its code cells are the blocks that `test_every_block_runs` executes; `make notebook` writes it."""
    cells = json.loads((ROOT / "docs/library.ipynb").read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert [block.strip() for block in BLOCKS] == [cell.strip() for cell in code]
    prose = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    words = re.sub(r"^```python\n.*?^```$", "", PAGE, flags=re.MULTILINE | re.DOTALL).split()
    assert " ".join(prose).split() == words


# ---- load_results ----------------------------------------------------------------------------------------------------


def test_a_record_in_two_folders_counts_once_and_costs_stand_beside(tmp_path: Path) -> None:
    for folder in ("here", "imported"):
        for seed in (0, 1):
            path = tmp_path / folder / "ce" / f"seed{seed}.json"
            write_record(path, make_record(seed=seed))
            costs_path(path).write_text(json.dumps({"wall_seconds": 60 + seed, "device": "CPU, 1 thread"}))
    write_record(tmp_path / "here/tvmf/seed0.json", make_record("tvmf", failure="loss is NaN"))
    results = load_results(tmp_path)
    assert list(results.columns) == [*COLUMNS, *COSTS]
    assert len(results) == 2 * 3 + 1
    assert not results.duplicated(["method", "seed", "selection"]).any()
    good = results[results["status"] == "ok"]
    assert list(good["wall_seconds"].unique()) == [60.0, 61.0]
    assert good[["all", "few", "top5", "peak_memory_mb"]].dtypes.eq("float64").all()
    (failed,) = results[results["status"] == "failed"].to_dict("records")
    assert failed["reason"] == "loss is NaN"
    assert pd.isna(failed["all"])
    assert pd.isna(failed["selection"])


@pytest.mark.parametrize("value", ["12 s", [12], {"s": 12}, None, 10**400])
def test_a_cost_that_is_no_number_is_missing(value: object, tmp_path: Path) -> None:
    for seed in (0, 1):
        write_record(path := tmp_path / f"seed{seed}.json", make_record(seed=seed))
        costs_path(path).write_text(json.dumps({"wall_seconds": value if seed else 60, "runs_at_once": 1.5}))
    results = load_results(tmp_path).drop_duplicates("seed")
    assert results["wall_seconds"].isna().tolist() == [False, True]
    assert results["runs_at_once"].tolist() == [1.5, 1.5]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        load_results(tmp_path / "gone")
