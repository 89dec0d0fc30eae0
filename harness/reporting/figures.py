"""The pictures of each table as SVG files, for papers and slides; the page draws its own.

Plain SVG text, since a plotting library takes a hundred times as long as all the rest of a table's report.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from harness.base.files import write_text
from harness.records.schema import HEADLINE
from harness.reporting.summary import Row, Section
from harness.reporting.views import SectionView

MOST_LINES = 6  # rows of a picture, the best ones; more cannot be told apart by colour
COLOURS = ("#0067a5", "#c14a00", "#007a5a", "#a23b7e", "#7a6200", "#4b5563")  # the page's, safe for colour-blind eyes
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 320, 48, 172, 28, 44
LINE, SWATCH = 14, 18  # of the legend
KINDS = ("classes", "curves")


@dataclass(frozen=True)
class _Line:
    name: str
    colour: str
    x: Sequence[float]
    y: Sequence[float | None]
    spread: Sequence[float] = ()


@dataclass(frozen=True)
class _Frame:
    """The plot's area, with its scales."""

    first: float
    last: float
    low: float
    high: float

    def x(self, value: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * (value - self.first) / ((self.last - self.first) or 1), 1)

    def y(self, value: float) -> float:
        return round(TOP + (HEIGHT - TOP - BOTTOM) * (1 - (value - self.low) / ((self.high - self.low) or 1)), 1)


def write_figures(sections: list[Section], views: list[SectionView], folder: Path) -> list[Path]:
    """Writes `<table>.classes.svg` (accuracy of each class) and, where curves are stored, `<table>.curves.svg`.

    Pictures of tables that are no longer there are removed.
    """
    written = []
    for section, seen in zip(sections, views, strict=True):
        rows = [i for i, row in enumerate(section.rows) if row.per_class[HEADLINE]][:MOST_LINES]
        for name, text in _figures(section, seen, rows):
            written.append(folder / f"{section.slug}.{name}.svg")
            write_text(written[-1], text)
    for kind in KINDS:
        for path in sorted(folder.glob(f"*.{kind}.svg")):
            if path not in written:
                path.unlink()
    return written


def _figures(section: Section, seen: SectionView, rows: list[int]) -> Iterator[tuple[str, str]]:
    if rows:
        yield "classes", _classes(section, rows)
    if any("test" in seen.rows[i].curves for i in rows):
        yield "curves", _curves(section, seen, rows)


def _classes(section: Section, rows: list[int]) -> str:
    counts = section.protocol.class_counts
    order = sorted(range(len(counts)), key=lambda c: (-counts[c], c))
    frame = _Frame(-0.5, len(order) - 0.5, 0, 100)
    most = max(counts)
    bars = "".join(
        f'<rect x="{frame.x(i - 0.4)}" y="{frame.y(100 * counts[c] / most)}" width="{frame.x(0.8) - frame.x(0):.1f}" '
        f'height="{frame.y(0) - frame.y(100 * counts[c] / most):.1f}" fill="#e6eaee"/>'
        for i, c in enumerate(order)
    )
    lines = [
        _Line(label, colour, range(len(order)), [_percent((row.per_class[HEADLINE] or [])[c]) for c in order])
        for row, label, colour in _labelled(section, rows)
    ]
    every = max(1, len(order) // 10)
    ticks = [(float(i), f"{counts[c]:,}") for i, c in enumerate(order) if i % every == 0]
    title = f"{section.protocol.split}, {section.protocol.track} track: accuracy of each class (%) at {HEADLINE}"
    return _picture(title, f"training images of the class (bars: {most:,} at most)", frame, ticks, lines, bars)


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _curves(section: Section, seen: SectionView, rows: list[int]) -> str:
    lines = []
    for (_, label, colour), i in zip(_labelled(section, rows), rows, strict=True):
        if curve := seen.rows[i].curves.get("test"):
            mean, std = ([100 * value for value in values] for values in (curve.mean, curve.std))
            lines.append(_Line(label, colour, curve.epochs, mean, std))
    bounds = [m + sign * s for line in lines for m, s in zip(line.y, line.spread, strict=True) for sign in (-1, 1) if m]
    epochs = [epoch for line in lines for epoch in line.x]
    frame = _Frame(min(epochs), max(epochs), math.floor(min(bounds)), math.ceil(max(bounds)))
    ticks = [(value, f"{value:g}") for value in round_values(frame.first, frame.last)]
    title = (
        f"{section.protocol.split}, {section.protocol.track} track: test accuracy (%), mean and deviation over seeds"
    )
    return _picture(title, "epoch of the last stage", frame, ticks, lines)


def _labelled(section: Section, rows: list[int]) -> list[tuple[Row, str, str]]:
    labels = section.labels()
    return [(section.rows[i], labels[i], COLOURS[place]) for place, i in enumerate(rows)]


def round_values(low: float, high: float) -> list[float]:
    """Four to ten values that people would choose for an axis."""
    span = high - low or 1
    unit = 10 ** math.floor(math.log10(span / 4))
    step = next(factor * unit for factor in (1, 2, 5, 10) if span / (factor * unit) <= 8)
    return [round(i * step, 10) for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _picture(
    title: str, x_title: str, frame: _Frame, ticks: list[tuple[float, str]], lines: list[_Line], background: str = ""
) -> str:
    middle, bottom = (LEFT + WIDTH - RIGHT) / 2, HEIGHT - BOTTOM
    grid = "".join(
        f'<path d="M{LEFT} {frame.y(v)}H{WIDTH - RIGHT}" stroke="#d9dee3"/>'
        f'<text x="{LEFT - 6}" y="{frame.y(v) + 4:.1f}" text-anchor="end">{v:g}</text>'
        for v in round_values(frame.low, frame.high)
    )
    marks = "".join(f'<text x="{frame.x(v)}" y="{bottom + 16}" text-anchor="middle">{text}</text>' for v, text in ticks)
    legend = "".join(
        f'<path d="M{WIDTH - RIGHT + 16} {TOP + 8 + LINE * i}h{SWATCH}" stroke="{line.colour}" stroke-width="2"/>'
        f'<text x="{WIDTH - RIGHT + 20 + SWATCH}" y="{TOP + 12 + LINE * i}">{escape(line.name)}</text>'
        for i, line in enumerate(lines)
    )
    body = "".join(_path(line, frame) for line in lines)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="11" fill="#1b1f24"><title>{escape(title)}</title><rect width="{WIDTH}" height="{HEIGHT}" '
        f'fill="#fff"/>{background}{grid}<text x="{LEFT}" y="16" font-weight="bold">{escape(title)}</text>{marks}'
        f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x_title)}</text>{body}{legend}</svg>\n'
    )


def _path(line: _Line, frame: _Frame) -> str:
    """The line, lifted over what does not exist, on the band of its deviation."""
    band = ""
    if any(line.spread):
        pairs = [(x, y or 0.0, s) for x, y, s in zip(line.x, line.y, line.spread, strict=True)]
        around = [f"{frame.x(x)} {frame.y(y + s)}" for x, y, s in pairs]
        around += [f"{frame.x(x)} {frame.y(y - s)}" for x, y, s in reversed(pairs)]
        band = f'<path d="M{"L".join(around)}Z" fill="{line.colour}" opacity="0.15"/>'
    pen, drawn = "M", ""
    for x, y in zip(line.x, line.y, strict=True):
        if y is None:
            pen = "M"
            continue
        drawn += f"{pen}{frame.x(x)} {frame.y(y)}"
        pen = "L"
    return f'{band}<path d="{drawn or "M0 0"}" fill="none" stroke="{line.colour}" stroke-width="1.6"/>'
