"""What the exports of results share: the rows of the tables, and what each of their numbers is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from harness.metrics.shots import GROUPS, POLICIES
from harness.records.schema import HEADLINE
from harness.reporting.summary import Row, Section, Stat


class Measured(NamedTuple):
    """One number of a row, at the last epoch."""

    key: str
    title: str
    description: str
    lower_is_better: bool
    stat: Stat  # fractions


NAMES = {
    "all": ("Top-1 accuracy", "share of test images whose class is predicted"),
    "macro": ("Class-mean accuracy", "mean over classes of the top-1 accuracy"),
    "macro_f1": ("Macro-F1", "mean F1 score over classes"),
    "top5": ("Top-5 accuracy", "share of test images whose class is among the five likeliest"),
    "ece": ("ECE", "expected calibration error, 15 bins"),
}


def finished(sections: list[Section]) -> Iterator[tuple[Section, Row]]:
    """The rows that have a result, table by table."""
    yield from ((section, row) for section in sections for row in section.rows if row.ok_runs)


def numbers(section: Section, row: Row) -> Iterator[Measured]:
    """The numbers of a row; a group without classes has none."""
    policy = section.protocol.shot_policy
    meaning, _ = POLICIES[policy]
    groups = {
        group: (f"{group.capitalize()}-shot accuracy", f"mean over {group}-shot classes ({policy}: {meaning})")
        for group in GROUPS
    }
    for key, (title, description) in {**NAMES, **groups}.items():
        if found := row.stats[HEADLINE].get(key):
            yield Measured(key, title, description, key == "ece", found)
