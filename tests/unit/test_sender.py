"""Who measured a record is found from where it lies."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.records.sender import Sender, sender_of


@pytest.mark.parametrize("folder", ["results/imported/lab", "runs/campaigns/lab", "runs/campaigns/lab/records"])
def test_the_sender_of_a_record(tmp_path: Path, folder: str) -> None:
    """As imported, as a campaign leaves it, and with the file beside its records."""
    records = tmp_path / folder / ("records" if folder == "runs/campaigns/lab" else "")
    record = records / "mnist5k-lt-if100/common/ce/seed0.json"
    assert sender_of(record) is None
    record.parent.mkdir(parents=True)
    (tmp_path / folder / "submission.yaml").write_text("who: A lab")
    assert sender_of(record) == Sender("A lab")
