"""The pictures of studies, as SVG: differences with their intervals, and what methods keep of each class.

One text serves the page and the files: the page sets the colours anew by its style sheet.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from harness.base.files import write_text
from harness.reporting.effects import Effect
from harness.reporting.studies import SCORES, Measured, Result

MOST_LINES = 6  # rows of a picture, the first ones; more cannot be told apart by colour
COLOURS = ("#0067a5", "#c14a00", "#007a5a", "#a23b7e", "#7a6200", "#4b5563")  # the page's, safe for colour-blind eyes
WIDTH, SIDE, TOP, LABEL, LINE, GAP, AXIS = 680, 16, 46, 15, 9, 10, 34  # of the differences, in pixels
HEIGHT, LEFT, RIGHT = 280, 44, 16  # of the picture by class
TITLES = {"all": "All", "many": "Many", "medium": "Medium", "few": "Few"}
LEAST = 0.5  # points that the axis reaches to either side of zero
GRID, INK = "#d9dee3", "#1b1f24"


@dataclass(frozen=True)
class _Scale:
    """Values to pixels, linearly."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return round(self.start + (self.end - self.start) * (value - self.low) / ((self.high - self.low) or 1), 1)


def round_values(low: float, high: float) -> list[float]:
    """Four to ten values that people would choose for an axis."""
    span = high - low or 1
    unit = 10 ** math.floor(math.log10(span / 4))
    step = next(factor * unit for factor in (1, 2, 5, 10) if span / (factor * unit) <= 8)
    return [round(i * step, 10) for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def write_figures(results: Iterable[Result], folder: Path) -> None:
    """Writes `study-<id>.svg` and `study-<id>.quantity.svg`; pictures of studies that are gone are removed."""
    texts = {name: text for result in results for name, _, text in pictures(result)}
    for path in folder.glob("study-*.svg"):
        if path.name not in texts:
            path.unlink()
    for name, text in texts.items():
        write_text(folder / name, text)


def pictures(result: Result) -> Iterator[tuple[str, str, str]]:
    """Name of the file, title and text of each picture that there is something to draw for."""
    study = result.study
    if result.started:
        yield f"study-{study.id}.svg", study.title, differences(result)
    if result.section and result.quantities:
        title = f"{study.title}: {study.quantity}"
        yield (
            f"study-{study.id}.quantity.svg",
            title,
            by_class(result.quantities, result.section.protocol.class_counts, title),
        )


def differences(result: Result) -> str:
    """Each contrast's differences by group, in points, around zero."""
    shown = [one for one in result.measured if one.over_all]
    scores = [score for score in SCORES if any(one.effects.get(score) for one in shown)]
    points = [100 * bound for one in shown for e in one.effects.values() if e for bound in (e.low, e.high)]
    low, high = min(-LEAST, *points), max(LEAST, *points)
    ticks = round_values(low, high)
    x = _Scale(min(low, *ticks), max(high, *ticks), SIDE, WIDTH - SIDE)
    block = LABEL + LINE * len(scores) + GAP
    bottom = TOP + block * len(shown)
    grid = "".join(
        f'<path d="M{x(tick)} {TOP}V{bottom}" stroke="{INK if tick == 0 else GRID}"/>'
        f'<text x="{x(tick)}" y="{bottom + 16}" text-anchor="middle">{tick:+g}</text>'
        for tick in ticks
    ).replace("+0<", "0<")
    lines = "".join(_contrast(one, scores, x, TOP + block * i) for i, one in enumerate(shown))
    legend = "".join(
        f'<path d="M{SIDE + 90 * i} 32h16" stroke="{COLOURS[i]}" stroke-width="3"/>'
        f'<text x="{SIDE + 22 + 90 * i}" y="36">{TITLES[score]}</text>'
        for i, score in enumerate(scores)
    )
    what = (
        "95 % interval" if any(e.inferred for one in shown for e in one.effects.values() if e) else "range over seeds"
    )
    axis = f'<text x="{WIDTH / 2}" y="{bottom + 30}" text-anchor="middle">difference in points, {what}</text>'
    return _svg(result.study.title, WIDTH, bottom + AXIS + 4, grid + legend + lines + axis)


def _contrast(one: Measured, scores: Sequence[str], x: _Scale, top: float) -> str:
    halo = 'class="label" stroke="#fff" stroke-width="3" paint-order="stroke"'  # apart from the grid behind it
    label = f'<text x="{SIDE}" y="{top + 11}" {halo}>{escape(one.contrast.label)}</text>'
    bars = ((one.effects.get(score), top + LABEL + LINE * (i + 0.5), COLOURS[i]) for i, score in enumerate(scores))
    return label + "".join(_bar(found, x, y, colour) for found, y, colour in bars if found)


def _bar(found: Effect, x: _Scale, y: float, colour: str) -> str:
    low, mean, high = (x(100 * value) for value in (found.low, found.mean, found.high))
    return (
        f'<path d="M{low} {y}H{high}" stroke="{colour}" stroke-width="1.5"/>'
        f'<circle cx="{mean}" cy="{y}" r="3" fill="{colour}"/>'
    )


def by_class(quantities: Mapping[str, Sequence[float]], counts: Sequence[int], title: str) -> str:
    """A quantity of each class against its number of training images, on a logarithmic axis."""
    order = sorted(range(len(counts)), key=lambda c: (-counts[c], c))
    rows = list(quantities.items())[:MOST_LINES]
    values = [value for _, of_class in rows for value in of_class]
    ticks = round_values(min(values), max(values))
    x = _Scale(math.log(max(*counts, 1)), math.log(max(min(counts), 1)), LEFT, WIDTH - RIGHT)
    y = _Scale(min(*values, *ticks), max(*values, *ticks), HEIGHT - AXIS, TOP)
    grid = "".join(
        f'<path d="M{LEFT} {y(tick)}H{WIDTH - RIGHT}" stroke="{GRID}"/>'
        f'<text x="{LEFT - 6}" y="{y(tick) + 4}" text-anchor="end">{tick:g}</text>'
        for tick in ticks
    )
    marks = "".join(
        f'<text x="{x(math.log(max(count, 1)))}" y="{HEIGHT - AXIS + 16}" text-anchor="middle">{count:,}</text>'
        for count in _spaced(sorted(set(counts), reverse=True), x)
    )
    lines, legend = "", ""
    for i, (name, of_class) in enumerate(rows):
        path = "L".join(f"{x(math.log(max(counts[c], 1)))} {y(of_class[c])}" for c in order)
        lines += f'<path d="M{path}" fill="none" stroke="{COLOURS[i]}" stroke-width="1.6"/>'
        legend += f'<path d="M{LEFT + 150 * (i % 4)} {32 + 13 * (i // 4)}h16" stroke="{COLOURS[i]}" stroke-width="2"/>'
        legend += f'<text x="{LEFT + 22 + 150 * (i % 4)}" y="{36 + 13 * (i // 4)}">{escape(name)}</text>'
    axis = (
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 4}" text-anchor="middle">'
        "training images of the class, most frequent first</text>"
    )
    return _svg(title, WIDTH, HEIGHT, grid + marks + legend + lines + axis)


def _spaced(counts: Sequence[int], x: _Scale) -> Iterator[int]:
    """Those counts whose labels do not touch."""
    last = -math.inf
    for count in counts:
        place = x(math.log(max(count, 1)))
        if place - last >= 44:
            yield count
            last = place


def _svg(title: str, width: int, height: float, body: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:g}" font-family="sans-serif" '
        f'font-size="11" fill="{INK}" role="img"><title>{escape(title)}</title>'
        f'<rect class="paper" width="{width}" height="{height:g}" fill="#fff"/>'
        f'<text x="{SIDE}" y="16" font-weight="bold">{escape(title)}</text>{body}</svg>\n'
    )
