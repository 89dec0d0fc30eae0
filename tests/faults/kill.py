"""Kill anywhere: the pipeline killed at random instants and started again must end as if nothing had happened.

`python -m tests.faults.kill --kills 200 --json FILE` draws for each kill an instant uniformly over the time that an
undisturbed pipeline takes, and what is killed: all processes, the command alone, or one of its workers. What was killed
is started again in the same folder, to be killed again, until it ends before its instant; then every file it left is
compared with those of the undisturbed one.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults import pipeline
from tests.faults.pipeline import TARGETS, End


@dataclass
class Figures:
    """What a campaign came to."""

    kills: int = 0
    kills_of: Counter[str] = field(default_factory=Counter)
    kills_in: Counter[str] = field(default_factory=Counter)
    pipelines: int = 0  # ended and compared
    files: int = 0  # of an undisturbed pipeline
    leftovers: int = 0  # hidden temporary files, in all
    longest_orphan_seconds: float = 0.0
    undisturbed_seconds: float = 0.0
    seconds: float = 0.0
    tracebacks: int = 0
    faults: list[str] = field(default_factory=list)


def campaign(kills: int, seed: int, minutes: float, root: Path, names: Sequence[str]) -> Figures:
    """Kills until there were enough of them, or the time is over; the last pipeline is let end."""
    random.seed(seed)
    began, figures = time.monotonic(), Figures()
    expected = _undisturbed(root / "undisturbed", figures, names)
    number, folder = 0, root / "0"
    while (figures.kills < kills and time.monotonic() - began < 60 * minutes) or folder.exists():
        enough = figures.kills >= kills or time.monotonic() - began >= 60 * minutes
        instant = None if enough else random.uniform(0, figures.undisturbed_seconds)
        end = pipeline.run(folder, instant, random.choice(TARGETS), names)
        if end.killed:
            _count(figures, end)
            continue
        _compare(folder, end, expected, figures)
        shutil.rmtree(folder)
        number += 1
        folder = root / str(number)
    figures.seconds = round(time.monotonic() - began, 1)
    return figures


def _undisturbed(folder: Path, figures: Figures, names: Sequence[str]) -> dict[str, str]:
    began = time.monotonic()
    end = pipeline.run(folder, names=names)
    figures.undisturbed_seconds = round(time.monotonic() - began, 2)
    if end.code:
        raise SystemExit(f"the undisturbed pipeline failed in '{end.command}': see {folder / 'log.txt'}")
    expected = pipeline.fingerprint(folder)
    figures.files = len(expected)
    return expected


def _count(figures: Figures, end: End) -> None:
    figures.kills += 1
    figures.kills_of[str(end.killed)] += 1
    figures.kills_in[f"{end.command}: {end.place}"] += 1
    figures.longest_orphan_seconds = max(figures.longest_orphan_seconds, round(end.orphans_seconds, 3))


def _compare(folder: Path, end: End, expected: dict[str, str], figures: Figures) -> None:
    figures.pipelines += 1
    figures.leftovers += len(pipeline.leftovers(folder))
    log = (folder / "log.txt").read_text(errors="replace")
    figures.tracebacks += log.count("Traceback")
    if end.code:
        figures.faults.append(f"pipeline {folder.name}: '{end.command}' ended with {end.code}: {log[-500:]}")
        return
    found = pipeline.fingerprint(folder)
    for name in sorted(expected.keys() | found.keys()):
        if found.get(name) != expected.get(name):
            what = "is missing" if name not in found else "is stray" if name not in expected else "differs"
            figures.faults.append(f"pipeline {folder.name}: {name} {what}")


def main() -> int:
    """The command line; 1 where anything differed."""
    parser = argparse.ArgumentParser(description="Kill the pipeline at random instants and compare.")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=60, help="no new kill after so long")
    parser.add_argument("--only", nargs="+", choices=pipeline.COMMANDS, default=list(pipeline.COMMANDS))
    parser.add_argument("--json", type=Path, help="write the figures there")
    arguments = parser.parse_args()
    pipeline.import_everything()
    with tempfile.TemporaryDirectory(prefix="ltbench-kill-") as root:
        figures = vars(campaign(arguments.kills, arguments.seed, arguments.minutes, Path(root), arguments.only))
    text = json.dumps({"seed": arguments.seed, **figures}, indent=1, sort_keys=True)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n", encoding="utf-8")
    return 1 if figures["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
