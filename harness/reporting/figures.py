"""The pictures of studies, as SVG: differences with their intervals, and what methods keep of each class.

One text serves the page and the files: the page sets the colours anew by its style sheet.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

from harness.base.files import write_text
from harness.reporting.pictures import by_frequency
from harness.reporting.significance import Effect
from harness.reporting.studies import SCORES, MeasuredContrast, StudyResult

MOST_LINES = 6  # rows of a picture, the first ones; more cannot be told apart by colour
COLOURS = ("#0067a5", "#c14a00", "#007a5a", "#a23b7e", "#7a6200", "#4b5563")  # the page's, safe for colour-blind eyes
WIDTH, SIDE, TOP, LABEL, LINE, GAP, AXIS = 680, 16, 46, 15, 9, 10, 34  # of the differences, in pixels
HEIGHT, LEFT, RIGHT = 280, 44, 16  # of the picture by class
LEAST = 0.5  # the axis reaches at least so many points to either side of zero
GRID, INK = "#d9dee3", "#1b1f24"


Scale = Callable[[float], float]


def _scale(low: float, high: float, start: float, end: float) -> Scale:
    """Values to pixels, linearly."""
    return lambda value: round(start + (end - start) * (value - low) / ((high - low) or 1), 1)


def round_values(low: float, high: float, most: int = 8) -> list[float]:
    """Values that people would choose for an axis, at most so many steps apart."""
    span = high - low or 1
    unit = 10 ** math.floor(math.log10(span / 4))
    step = next(factor * unit for factor in (1, 2, 5, 10) if span / (factor * unit) <= most)
    return [round(i * step, 10) for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def write_figures(results: Iterable[StudyResult], folder: Path) -> None:
    """Writes `study-<id>.svg` and `study-<id>.quantity.svg`; pictures of studies that are gone are removed."""
    texts = {name: text for result in results for name, _, text in pictures(result)}
    folder.mkdir(parents=True, exist_ok=True)  # an output of the pipeline, with or without pictures
    for path in folder.glob("study-*.svg"):
        if path.name not in texts:
            path.unlink()
    for name, text in texts.items():
        write_text(folder / name, text)


def pictures(result: StudyResult) -> Iterator[tuple[str, str, str]]:
    """Name of the file, title and text of each picture that there is something to draw for."""
    study = result.study
    if result.started:
        yield f"study-{study.id}.svg", study.title, differences(result)
    if result.section and result.quantities:
        title = f"{study.title}: {study.quantity}"
        svg = by_class(result.quantities, result.section.protocol.class_counts, title)
        yield f"study-{study.id}.quantity.svg", title, svg


def differences(result: StudyResult) -> str:
    """Each contrast's differences by group, in points, around zero."""
    shown = [one for one in result.measured if one.over_all]
    scores = [score for score in SCORES if any(one.effects.get(score) for one in shown)]
    points = [100 * bound for one in shown for e in one.effects.values() if e for bound in (e.low, e.high)]
    low, high = min(-LEAST, *points), max(LEAST, *points)
    ticks = round_values(low, high)
    x = _scale(min(low, *ticks), max(high, *ticks), SIDE, WIDTH - SIDE)
    block = LABEL + LINE * len(scores) + GAP
    bottom = TOP + block * len(shown)
    grid = "".join(
        _line(f"M{x(tick)} {TOP}V{bottom}", INK if tick == 0 else GRID)
        + _text(x(tick), bottom + 16, f"{tick:+g}" if tick else "0", "middle")
        for tick in ticks
    )
    lines = "".join(_contrast(one, scores, x, TOP + block * i) for i, one in enumerate(shown))
    legend = "".join(
        _line(f"M{SIDE + 90 * i} 32h16", COLOURS[i], 3) + _text(SIDE + 22 + 90 * i, 36, score.capitalize())
        for i, score in enumerate(scores)
    )
    inferred = any(e.inferred for one in shown for e in one.effects.values() if e)
    seeds = "range over seeds" if any(one.n > 1 for one in shown) else "one seed"
    alone = "; a dot alone: one seed" if inferred and any(one.n == 1 for one in shown) else ""
    what = f"difference in points, {'95 % interval' if inferred else seeds}{alone}"
    axis = _text(WIDTH / 2, bottom + 30, what, "middle")
    return _svg(result.study.title, bottom + AXIS + 4, grid + legend + lines + axis)


def _contrast(one: MeasuredContrast, scores: Sequence[str], x: Scale, top: float) -> str:
    halo = 'class="label" stroke="#fff" stroke-width="3" paint-order="stroke"'  # apart from the grid behind it
    label = f'<text x="{SIDE}" y="{top + 11}" {halo}>{escape(one.contrast.label)}</text>'
    bars = ((one.effects.get(score), top + LABEL + LINE * (i + 0.5), COLOURS[i]) for i, score in enumerate(scores))
    return label + "".join(_bar(found, x, y, colour) for found, y, colour in bars if found)


def _bar(found: Effect, x: Scale, y: float, colour: str) -> str:
    low, mean, high = (x(100 * value) for value in (found.low, found.mean, found.high))
    return _line(f"M{low} {y}H{high}", colour, 1.5) + f'<circle cx="{mean}" cy="{y}" r="3" fill="{colour}"/>'


def by_class(quantities: Mapping[str, Sequence[float]], counts: Sequence[int], title: str) -> str:
    """A quantity of each class against its number of training images, on a logarithmic axis."""
    order = by_frequency(counts)
    rows = list(quantities.items())[:MOST_LINES]
    values = [value for _, of_class in rows for value in of_class]
    ticks = round_values(min(values), max(values))
    x = _scale(math.log(max(*counts, 1)), math.log(max(min(counts), 1)), LEFT, WIDTH - RIGHT)
    y = _scale(min(*values, *ticks), max(*values, *ticks), HEIGHT - AXIS, TOP)
    grid = "".join(
        _line(f"M{LEFT} {y(tick)}H{WIDTH - RIGHT}", GRID) + _text(LEFT - 6, y(tick) + 4, f"{tick:g}", "end")
        for tick in ticks
    )
    marks = "".join(
        _text(x(math.log(max(count, 1))), HEIGHT - AXIS + 16, f"{count:,}", "middle")
        for count in _spaced(sorted(set(counts), reverse=True), x)
    )
    lines, legend = "", ""
    for i, (name, of_class) in enumerate(rows):
        path = "L".join(f"{x(math.log(max(counts[c], 1)))} {y(of_class[c])}" for c in order)
        lines += f'<path d="M{path}" fill="none" stroke="{COLOURS[i]}" stroke-width="1.6"/>'
        left, down = LEFT + 150 * (i % 4), 13 * (i // 4)
        legend += _line(f"M{left} {32 + down}h16", COLOURS[i], 2) + _text(left + 22, 36 + down, name)
    what = "training images of the class, most frequent first"
    axis = _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 4, what, "middle")
    return _svg(title, HEIGHT, grid + marks + legend + lines + axis)


def _spaced(counts: Sequence[int], x: Scale) -> Iterator[int]:
    """Those counts whose labels do not touch."""
    last = -math.inf
    for count in counts:
        place = x(math.log(max(count, 1)))
        if place - last >= 44:
            yield count
            last = place


def _line(path: str, colour: str, width: float = 0) -> str:
    return f'<path d="{path}" stroke="{colour}"' + (f' stroke-width="{width}"/>' if width else "/>")


def _text(x: float, y: float, text: str, anchor: str = "") -> str:
    return f'<text x="{x}" y="{y}"' + (f' text-anchor="{anchor}">' if anchor else ">") + f"{escape(text)}</text>"


def _svg(title: str, height: float, body: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" font-family="sans-serif" '
        f'font-size="11" fill="{INK}" role="img"><title>{escape(title)}</title>'
        f'<rect class="paper" width="{WIDTH}" height="{height:g}" fill="#fff"/>'
        f'<text x="{SIDE}" y="16" font-weight="bold">{escape(title)}</text>{body}</svg>\n'
    )
