"""What a submission would change: its rows among those that are here, and the published cells that it decides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.base.errors import UserError
from harness.records.collect import ROOTS, Collected, collect
from harness.records.schema import HEADLINE, Record
from harness.reporting.comparison import Comparison
from harness.reporting.drawer import BADGES
from harness.reporting.report import Sources, fill_tables, ranked_sections
from harness.reporting.site.versions import moved, row_facts
from harness.reporting.studies import SCORES
from harness.reporting.summary import Row, Section
from harness.reporting.tables import NONE, Cell, Value, cell, escape_markdown, markdown_table, published

MOST = 50  # lines of a list


@dataclass(frozen=True)
class Submission:
    """The records that somebody sends, held against those that are here.

    Attributes:
        new: of runs that are not here.
        again: other measurements of runs that are here.
        known: the same as here.
        gone: records that are here and not in a submission that is a whole checkout.
        after: all records, once it is accepted.
    """

    new: list[Record]
    again: list[Record]
    known: list[Record]
    gone: list[Record]
    after: Collected


def read_submission(folder: Path, present: Collected) -> Submission:
    """Reads a campaign's folder, a folder of records, or another checkout.

    Raises:
        UserError: there are no records in it.
    """
    roots = [folder / root for root in ROOTS if (folder / root).is_dir()]
    theirs = collect(*(roots or [folder / "records" if (folder / "records").is_dir() else folder]))
    if not theirs.records and not theirs.left_out:
        raise UserError(f"{folder}: no records; preview takes a folder that a campaign wrote, or another checkout")
    here = [record for _, record in present.records]
    runs, given = ({_run(record) for record in some} for some in (here, (record for _, record in theirs.records)))
    others = [(path, record) for path, record in theirs.records if record not in here]
    merged = replace(theirs, records=[*present.records, *others], unchecked=[*present.unchecked, *theirs.unchecked])
    return Submission(
        new=[record for _, record in others if _run(record) not in runs],
        again=[record for _, record in others if _run(record) in runs],
        known=[record for _, record in theirs.records if record in here],
        gone=[record for record in here if _run(record) not in given] if roots else [],
        after=theirs if roots else merged,
    )


def _run(record: Record) -> tuple[str, str, int, str]:
    return record.split, record.entry, record.seed, record.recipe_sha256


def preview(folder: Path, present: Collected, sources: Sources) -> str:
    """What the submission would change, as Markdown."""
    found = read_submission(folder, present)
    before, after = (ranked_sections(one, sources).sections for one in (present, found.after))
    sent = {id(record) for record in (*found.new, *found.again)}
    rows = [(section, row) for section in after for row in section.rows if sent & {id(run.record) for run in row.runs}]
    lines = ["## What this submission changes", "", *_counts(found), "", "### Its rows", "", *_rows(rows)]
    lines += [
        *_moves(before, after, {(section.slug, row.label) for section, row in rows}),
        *_cells(before, after, sources),
    ]
    return "\n".join(lines) + "\n"


def _counts(found: Submission) -> Iterator[str]:
    left_out = found.after.left_out
    counts = {"new": found.new, "measured again": found.again, "as they are here": found.known, "gone": found.gone}
    yield f"Records: {', '.join(f'{len(some)} {name}' for name, some in counts.items())}, {len(left_out)} left out."
    yield ""
    yield from _listed([f"left out: {reason}" for _, reason in left_out])
    if found.again:
        yield "\nThese runs are here with other numbers. An import refuses them.\n"
        runs = Counter(f"{one.entry} on {one.split}" for one in found.again)
        yield from _listed([f"{name}: {count} of its seeds" for name, count in sorted(runs.items())])


def _listed(texts: Sequence[str]) -> Iterator[str]:
    yield from (f"- {escape_markdown(text)}" for text in texts[:MOST])
    if texts[MOST:]:
        yield f"- ... and {len(texts) - MOST} more"


def _rows(rows: Sequence[tuple[Section, Row]]) -> Iterator[str]:
    if not rows:
        yield "No row is new or changed.\n"
        return
    table: list[list[Cell]] = [["Table", "Row", "Rank", "All", "Many", "Medium", "Few", "n", "Checked"]]
    for section, row in rows:
        names = [f"{section.protocol.split}, {section.protocol.track}", row.label]
        rank = Value(f"{row.ranks[HEADLINE] or NONE} of {len(section.rows)}")
        numbers = [Value(cell(row.stats[HEADLINE][group], 1)) for group in SCORES]
        table.append([*names, rank, *numbers, Value(str(row.ok_runs)), BADGES[row.tier]])
    yield markdown_table("llrrrrrrl", table)
    yield from _listed([f"{row.label}: {'; '.join(row.marks)}" for _, row in rows if row.marks])
    yield ""


def _moves(before: list[Section], after: list[Section], sent: set[tuple[str, str]]) -> Iterator[str]:
    """Rows that were here and get another rank, but for those that only make room."""
    moves, made_room = moved(row_facts("", before), row_facts("", after))
    lines = [
        f"{now.table}, {now.row}: {was.rank or NONE} to {now.rank or NONE}"
        for was, now in ((one.before, one.after) for one in moves)
        if was and now and (now.table, now.row) not in sent
    ]
    if made_room:
        lines.append(f"{made_room} {'row only makes' if made_room == 1 else 'rows only make'} room for new ones above")
    if lines:
        yield "### Other rows\n"
        yield from _listed(lines)
        yield ""


def _cells(before: list[Section], after: list[Section], sources: Sources) -> Iterator[str]:
    """Published cells whose status is another one."""

    def filled(sections: list[Section]) -> list[tuple[str, Comparison]]:
        return [(one.table.title, found) for one in fill_tables(sections, sources).tables for found in one.cells]

    lines = []
    for (title, old), (_, new) in zip(filled(before), filled(after), strict=True):
        if old.status != new.status:
            measured = f", measured {cell(new.best.stat, 1)}" if new.best else ""
            what = f"{title}, {new.claim.method}, {new.claim.group}: published {published(new.claim.value)}{measured}"
            lines.append(f"{what}: {old.status} to {new.status}")
    if lines:
        yield "### Published cells\n"
        yield from _listed(lines)
        yield ""
