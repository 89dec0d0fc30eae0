"""Tables inside hand-written Markdown: the prose is a person's, the numbers are the records'.

    <!-- table mnist5k-lt-if100-common last -->
    (what stands here is replaced)
    <!-- /table -->

The name is that of a table on the page (`#<name>` in its address), then the selection rule.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from harness.errors import UserError, unknown
from harness.files import write_text
from harness.metrics.selection import SELECTION_RULES
from harness.metrics.shots import GROUPS
from harness.reporting import tables
from harness.reporting.summary import METRICS, Section

BLOCK = re.compile(r"(?P<start><!-- table (?P<name>\S+) (?P<rule>\S+) -->\n).*?(?P<end><!-- /table -->)", re.DOTALL)
SHOWN = ("all", *GROUPS)
DIGITS = 1


def refresh(text: str, sections: Sequence[Section], where: str) -> str:
    """The document with its tables as the records have them now.

    Raises:
        UserError: no such table or selection rule, or no table at all.
    """
    by_name = {section.slug: section for section in sections}

    def block(match: re.Match[str]) -> str:
        name, rule = match["name"], match["rule"]
        if name not in by_name:
            raise unknown("table", name, by_name, where=where)
        if rule not in SELECTION_RULES:
            raise unknown("selection rule", rule, SELECTION_RULES, where=where)
        return f"{match['start']}{brief(by_name[name], rule)}{match['end']}"

    found, count = BLOCK.subn(block, text)
    if not count:
        raise UserError(f"{where}: no table to refresh; a block begins with <!-- table NAME RULE -->")
    return found


def brief(section: Section, rule: str) -> str:
    """Rank, method, accuracy by group and n, as Markdown."""
    metrics = [metric for metric in METRICS if metric.key in SHOWN]
    titles = ["Rank", "Method", *(tables.header(section, metric) for metric in metrics), "n"]
    lines = [f"| {' | '.join(titles)} |", f"| ---: | --- |{' ---: |' * (len(metrics) + 1)}"]
    for rank, row in zip(section.ranks(rule), section.rows, strict=True):
        numbers = [tables.cell(row.stats[rule][metric.key], DIGITS, "±") for metric in metrics]
        place = tables.NONE if rank is None else str(rank)
        name = f"`{row.name.replace('`', '')}`"
        lines.append(f"| {' | '.join([place, name, *numbers, tables.seeds(row)])} |")
    return "\n".join(lines) + "\n"


def refresh_files(paths: Sequence[Path], sections: Sequence[Section]) -> list[Path]:
    """Refreshes each file; returns those that changed. Nothing is written if one of them has a mistake."""
    texts = {}
    for path in paths:
        try:
            texts[path] = path.read_text(encoding="utf-8")
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    fresh = {path: refresh(text, sections, str(path)) for path, text in texts.items()}
    changed = [path for path in paths if fresh[path] != texts[path]]
    for path in changed:
        write_text(path, fresh[path])
    return changed
