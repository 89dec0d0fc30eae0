"""The committed campaigns, which earlier code measured, go through today's import."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from harness.records import imports, same_code
from harness.records.schema import read_record, record_paths

ROOT = Path(__file__).parents[2]
CAMPAIGNS = sorted(path.name for path in (ROOT / "results/imported").iterdir() if path.is_dir())


@pytest.mark.parametrize("name", CAMPAIGNS)
def test_records_of_a_real_campaign_are_imported(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With their recipes brought to today's names, their own hashes checked as stored, and their evidence.

    All code that was ever linked counts as measuring the same here: whether today's does is what `same-bits` shows.
    """
    known = same_code.read_same_code(ROOT / "results/same_code.json")
    linked = {version: to["method"] for version, to in known.items()} | {
        to["now"]: to["method"] for to in known.values()
    }

    def versions_of(method: str, links: Any) -> list[str]:
        return [*same_code.versions_of(method, links), *(version for version, of in linked.items() if of == method)]

    monkeypatch.setattr(imports, "versions_of", versions_of)
    campaign, splits = tmp_path / name, tmp_path / "splits"
    shutil.copytree(ROOT / "results/imported" / name, campaign / "records")
    shutil.copytree(ROOT / "results/splits", splits)
    found = imports.import_campaign(campaign, splits, tmp_path / "imported")
    assert found.refused == []
    there = [read_record(path) for path in record_paths(campaign / "records")]
    assert [read_record(path) for path in sorted(found.taken)] == there
    assert there
