"""What a run was and how it ended: written by the training stages, read by evaluate. No torch here."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from harness import config
from harness.errors import UserError
from harness.files import read_json, stamped, unstamped
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
    sha256: str = field(init=False, default="", compare=False)  # over everything above, as its file carries it

    def __post_init__(self) -> None:
        content = {key: value for key, value in asdict(self).items() if key != "sha256"}
        object.__setattr__(self, "sha256", stamped(content)["sha256"])

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
    info = config.build(RunInfo, {key: item for key, item in value.items() if key != "sha256"}, str(path))
    unstamped(value, path)
    return info
