"""What a run was and how it ended: written by the training stages, read by evaluate. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness import config
from harness.errors import UserError
from harness.files import read_json
from harness.records.schema import Failure, entry_name


@dataclass(frozen=True)
class RunInfo:
    """Identity and outcome of one run: the same bytes for the same run."""

    method: str
    variant: str
    track: str
    seed: int
    split: str
    split_sha256: str
    stages: list[str]
    recipe: dict[str, Any]
    recipe_sha256: str
    stage1_key: str
    run_key: str
    code_version: str
    status: Literal["ok", "failed", "skipped"] = "ok"
    failure: Failure | None = None

    @property
    def title(self) -> str:
        """For messages."""
        return f"{entry_name(self.method, self.variant, self.track)} on {self.split}, seed {self.seed}"


def read_run_info(path: Path) -> RunInfo:
    """A run's identity and outcome.

    Raises:
        UserError: missing or damaged.
    """
    value = read_json(path, "run")
    if not isinstance(value, dict):
        raise UserError(f"{path}: not a run")
    return config.build(RunInfo, value, str(path))
