"""Records and published numbers -> `leaderboard.html` and `tables/`. The same records give the same bytes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.errors import UserError
from harness.files import write_text
from harness.records.collect import Collected
from harness.records.schema import Record
from harness.reporting import html, tables
from harness.reporting.claims import Claim, compare
from harness.reporting.speed import read_speed
from harness.reporting.summary import Run, summarize


def build_report(
    collected: Collected,
    claims: list[Claim],
    out: Path,
    current: Mapping[str, str] | None = None,
    benches: Sequence[Path] = (),
) -> Path:
    """Writes the page and its tables under `out`, and returns the page's path.

    Args:
        current: code version of each method as it is now; a record measured with another one is marked.
        benches: files that `ltbench bench --json` wrote.
    """
    label = _Labels(collected)
    left_out = [(label(path), label.within(reason)) for path, reason in collected.left_out]
    speed = []
    for path in benches:
        try:
            speed.append(read_speed(path))
        except UserError as error:
            left_out.append((label(path), label.within(str(error))))
    runs = [Run(label(path), r, collected.costs(path), _note(r, current)) for path, r in collected.records]
    sections = summarize(runs)
    comparisons = compare(claims, sections)
    for section in sections:
        for rule in section.rules():
            _write(out / "tables" / f"{section.slug}.{rule}.md", tables.markdown(section, rule))
            _write(out / "tables" / f"{section.slug}.{rule}.tex", tables.latex(section, rule))
    _write(out / "tables" / "leaderboard.csv", tables.leaderboard_csv(sections))
    _write(out / "tables" / "published.csv", tables.claims_csv(comparisons))
    page = out / "leaderboard.html"
    _write(page, html.render(sections, comparisons, sorted(left_out), speed))
    return page


def _note(record: Record, current: Mapping[str, str] | None) -> str:
    if current is None or not record.code_version:
        return ""
    if record.method not in current:
        return "its method is no longer here"
    if record.code_version == current[record.method]:
        return ""
    return f"measured with code {record.code_version}, which is now {current[record.method]}"


def _write(path: Path, text: str) -> None:
    """Records may hold half a character (a lone surrogate in JSON), which no file can: it becomes a question mark."""
    write_text(path, text.encode(errors="replace").decode())


class _Labels:
    """Names of record files that say nothing of the machine: absolute paths lose the part that all share."""

    def __init__(self, collected: Collected) -> None:
        paths = [path for path, _ in [*collected.records, *collected.left_out] if path.is_absolute()]
        self.root = Path(os.path.commonpath([path.parent for path in paths])) if paths else None

    def __call__(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix() if self.root and path.is_absolute() else path.as_posix()

    def within(self, text: str) -> str:
        """A message without the shared part of the paths in it."""
        return text.replace(f"{self.root}{os.sep}", "") if self.root else text
