"""What a campaign's progress file holds: written as it goes, read by this or any later version."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from harness.base import config
from harness.base.errors import UserError
from harness.base.files import read_json, shown
from harness.spec.suites import get_suite

PROGRESS = "progress.json"
KEPT = Path("results/running")  # what `ltbench status --save` keeps of campaigns, a folder each


@dataclass(frozen=True)
class Running:
    """A run under way, and the epochs that it has done; `epochs` is 0 until it has said how many there are."""

    run: str  # such as `cifar100-lt-if100 gcl@paper seed 0 train`
    epoch: int = 0
    epochs: int = 0

    @property
    def state(self) -> str:
        """How far it is, in words."""
        return f"epoch {self.epoch} of {self.epochs}" if self.epochs else "has just begun"


@dataclass(frozen=True)
class Progress:
    """The file's content.

    Attributes:
        made, failed, left: records. Those that failed are among those made.
        seconds_per_pass: of one worker, for an image's forward pass (a training step counts as three); 0: not measured.
        hours_left: at that speed with these workers; None: not measured.
        needed: files, relative to the campaign's folder, without which work would be lost.
    """

    suite: str
    updated: str = ""  # UTC
    commit: str | None = None
    workers: int = 1
    made: int = 0
    failed: int = 0
    left: int = 0
    running: list[Running] = field(default_factory=list)
    seconds_per_pass: float = 0.0
    hours_left: float | None = None
    needed: list[str] = field(default_factory=list)


def read_progress(suite: str, out: Path) -> Progress:
    """What a campaign last wrote; of any suite if none is named.

    Raises:
        UserError: no such suite, nothing there, damaged, or of another suite.
    """
    path = out / PROGRESS
    if not path.is_file():
        if suite:
            get_suite(suite)
        makes = f"ltbench campaign {suite or 'SUITE'} --budget SECONDS --out {shown(out)}"
        raise UserError(f"{shown(path)}: missing; `{makes}` writes it")
    value = read_json(path, "progress file")
    if isinstance(value, dict):  # a later version may say more
        value = {key: item for key, item in value.items() if key in Progress.__dataclass_fields__}
    found = config.build(Progress, value, str(path))
    if suite and found.suite != suite:
        raise UserError(f"{shown(path)}: of suite '{found.suite}', not of '{suite}'")
    return found
