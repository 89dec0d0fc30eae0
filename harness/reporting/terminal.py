"""`ltbench show`: the leaderboard's tables in a terminal, as Markdown, CSV or JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from rich.table import Table
from rich.text import Text

from harness.base.errors import UserError, lookup, unknown
from harness.base.screen import console, table
from harness.metrics.selection import SELECTION_RULES
from harness.records.collect import Collected
from harness.reporting import tables
from harness.reporting.report import ranked_sections, sources
from harness.reporting.summary import Section
from harness.reporting.tables import Value
from harness.spec.suites import members

FORMATS = ("table", "md", "csv", "json")


def show(collected: Collected, suite: str, selection: str, form: str) -> None:
    """Prints every table.

    Raises:
        UserError: no such suite, selection rule or format, or no record to show.
    """
    lookup("selection rule", selection, SELECTION_RULES, where="--selection")
    if form not in FORMATS:
        raise unknown("format", form, FORMATS, where="--format")
    inside = members(suite) if suite else lambda *_: True
    chosen = [(path, r) for path, r in collected.records if inside(r.split, r.dataset, r.entry)]
    found = sources()
    sections = ranked_sections(replace(collected, records=chosen), found).sections
    if not sections:
        how = (
            f"`ltbench campaign {suite} --budget SECONDS` makes some"
            if suite not in ("", "default")
            else "`make repro` makes some"
        )
        raise UserError(f"no record{f' of suite {suite!r}' if suite else ''} to show; {how}")
    if form == "csv":
        print(tables.leaderboard_csv(sections, selection, found.step_times), end="")
        return
    if form == "json":
        print(json.dumps([_data(section, selection) for section in sections], indent=1))
        return
    screen = console()
    for section in sections:
        if form == "md":
            print(tables.markdown(section, selection))
        else:
            screen.print(_table(section, selection))
            for note in tables.notes(section):
                screen.print(note, markup=False, highlight=False)


def _data(section: Section, rule: str) -> dict[str, Any]:
    """A table for machines: means and deviations are fractions, None is what does not exist."""
    rows = [
        {
            "rank": row.ranks[rule],
            "entry": row.first.entry,
            "name": row.name,
            "backbone": row.first.backbone,
            "status": row.status,
            "seeds": [run.record.seed for run in row.runs],
            "scores": {m.key: stat and stat._asdict() for m in section.metrics for stat in [row.stats[rule][m.key]]},
            "notes": row.marks,
        }
        for row in section.rows
    ]
    keys = ("dataset", "split", "split_sha256", "imbalance_factor", "track", "shot_policy", "groups")
    return {**{key: getattr(section.protocol, key) for key in keys}, "selection": rule, "rows": rows}


def _table(section: Section, rule: str) -> Table:
    head, *rows = (line[:2] + line[3:] for line in tables.lines(section, rule))  # no room for the backbone
    values = [[Value(" ".join(one.split())) if isinstance(one, str) else one for one in row] for row in rows]
    texts = ([Text(text, style="bold" if best else "") for text, best in row] for row in values)
    return table(tables.caption(section, rule), map(str, head), texts, words=("Method",))
