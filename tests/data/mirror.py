"""The real data sets, where a mirror of them is at hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


def mirror_with(*files: str) -> Path:
    """The folder that holds these files (`LTBENCH_MIRROR`, else a folder beside the checkout); skips without it."""
    folder = Path(os.environ.get("LTBENCH_MIRROR") or REPOSITORY.parent / "shared" / "data").resolve()
    for file in files:
        if not (folder / file).is_file():
            pytest.skip(f"{file} is not here; LTBENCH_MIRROR can name a folder that holds it")
    return folder
