"""The page: one self-contained file with its style, script and data inside."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from harness import __version__
from harness.metrics.selection import SELECTION_RULES
from harness.metrics.shots import POLICIES
from harness.records.schema import HEADLINE
from harness.reporting import drawer, tables
from harness.reporting.boards import TRACKS, Board, display_name, interval, short_mark, split_marks, warns
from harness.reporting.costs import StepTimes
from harness.reporting.costs import cost as training
from harness.reporting.figures import pictures
from harness.reporting.methods import MethodView
from harness.reporting.overview import MEANING, split_title
from harness.reporting.paper_tables import FilledTable, coverage
from harness.reporting.pictures import board
from harness.reporting.significance import ENOUGH
from harness.reporting.studies import (
    SCORES,
    MeasuredContrast,
    Pairs,
    Study,
    StudyResult,
    common_marks,
    number,
    ranked,
    usual_study,
)
from harness.reporting.summary import COSTS, METRICS, REFERENCE, RULES, Cost, Row, Stat

TEMPLATES = Path(__file__).parent / "templates"
SCRIPTS = ("state", "search", "boards", "charts", "pictures", "methods", "compare", "papers", "copying", "start")
PICTURES = ("scales", "picture", "scatter", "frequency", "confusion", "learning", "gallery")
STYLES = ("leaderboard", "pictures")
# Columns that are not shown at first.
OFF = ("top5", "macro_f1", "optimism", "images_per_second", "peak_memory_mb", "trained_parameters", "backbone")
COLUMNS = (*(metric.key for metric in METRICS), "interval", "n", *(cost.key for cost in COSTS), "backbone")
RULE_TITLES = {"last": "Last epoch", "best_val": "Best on validation", "best_test": "Best on test (optimistic)"}
DIGITS = 1
WALL = "from the seconds of its runs, machine load included"
TRACK_WORDS = {
    "Track": "Whose recipe the rows of a board are trained with. It says what they may be compared with.",
    **{track.capitalize(): f"{words[0].upper()}{words[1:]}." for track, words in TRACKS.items()},
}
GLOSSARY = {
    "Imbalance factor": "Training images of the most frequent class over those of the rarest.",
    "Backbone": "The network that makes features of an image, without its last layer.",
    "Head": "The last layer, which makes a score for each class from the features.",
    "Stage 2": "Some methods train twice: the whole network, then the head (or a part) in another way.",
    "Recipe": "All that a run is trained with: network, epochs, learning rates, augmentation, the method's own values.",
    "Variant": "A method with a choice changed, such as another loss. Boards keep it behind the method's row.",
    "Split": "Which images are trained on, which validate and which test; the same file for every row of a table.",
    "Seed": "The random numbers that a run starts from. Runs of one row differ in nothing else.",
    "Macro-F1": "The mean F1 score over classes.",
    "ECE": "Expected calibration error: the mean gap between confidence and accuracy, in 15 bins; smaller is better.",
}


def render(
    boards: list[Board],
    papers: list[FilledTable],
    studies: list[StudyResult],
    methods: list[MethodView],
    **others: object,
) -> str:
    """The whole page as text.

    Args:
        others: what only the template looks at: `overview`, `speed`, `weights`, `left_out` (files with reasons), and
            `across`, the track and test of the methods over all data sets, or None; `step_times`;
            `class_names` of each board by its slug; `site`, what `site.yaml` says, or None; `records`, a hash.
    """
    sections = [board.section for board in boards]
    rows = [row for section in sections for row in section.rows]
    style, script = _style(), _script()
    return (
        _environment()
        .get_template("leaderboard.html.j2")
        .render(
            **others,
            **_naming(methods),
            boards=boards,
            board_of={row.key: board for board in boards for row in board.section.rows},
            heads={(row.first.method, board.section.slug): row for board in boards for row in board.section.heads},
            methods=methods,
            again={entry.row.key: entry.command for one in methods for entry in one.entries},
            papers=papers,
            matrix=coverage(papers),
            studies=studies,
            findings=[_findings(board, studies) for board in boards],
            waiting=[result for result in studies if result.section is None],
            runs=sum(len(row.runs) for row in rows),
            measured={row.first.method for row in rows},
            backbones=sorted({row.first.backbone for row in rows}),
            columns=_columns(boards),
            best={
                (s.slug, m.key, r): s.best(r, m, DIGITS, s.families) for s in sections for m in s.metrics for r in RULES
            },
            style=style,
            script=script,
            hashes=(csp_hash(style), csp_hash(script)),
        )
    )


def templates_in(folder: Path) -> Environment:
    """The templates of a folder; what they print is escaped."""
    loader = FileSystemLoader(folder)
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


@cache
def _environment() -> Environment:
    """Templates, with what does not depend on the records; one for all pages, so that each is compiled once."""
    environment = templates_in(TEMPLATES)
    # What is embedded as JSON cannot end its element or open a comment: `tojson` escapes what could.
    environment.policies["json.dumps_kwargs"] = {"sort_keys": True, "separators": (",", ":"), "allow_nan": False}
    environment.globals |= {
        "off": OFF,
        "tracks": TRACKS,
        "meaning": MEANING,
        "enough": ENOUGH,
        "group_scores": (SCORES[0], *reversed(SCORES[1:])),  # the rare classes first
        "costs": COSTS,
        "rules": {rule: description for rule, (description, _) in SELECTION_RULES.items()},
        "rule_titles": RULE_TITLES,
        "policies": {name: description for name, (description, _) in POLICIES.items()},
        "headline": HEADLINE,
        "glossary": GLOSSARY,
        "words": {**TRACK_WORDS, **GLOSSARY},
        "version": __version__,
        "number_text": _cell,
        "digits_beside": tables.digits_beside,
        "percent": _percent,
        "difference": lambda found: _minus(number(found)),
        "cost": _cost,
        "costs_of": _costs_of,
        "training": training,
    }
    of_rows = (drawer.flat, drawer.facts, drawer.first_facts, tables.header, tables.published, tables.seeds, interval)
    of_marks = (split_marks, short_mark, warns, common_marks)
    others = (pictures, usual_study, record_folders, split_title)
    environment.globals |= {function.__name__: function for function in (*of_rows, *of_marks, *others)}
    environment.filters["minus"] = _minus
    return environment


def _style() -> Markup:
    """Cells hold a value for each selection rule; the page shows the chosen one. Works without the script, too."""
    shown = (
        f':root[data-selection="{rule}"] .r:not([data-rule="{rule}"]){{display:none}}\n' for rule in SELECTION_RULES
    )
    styles = (_template(f"{name}.css") for name in STYLES)
    hidden = (f':root[data-off~="{key}"] [data-col="{key}"]{{display:none}}\n' for key in COLUMNS)
    lacking = (
        f':root[data-selection="{rule}"] [data-lacks~="{rule}"] > :is(.scroll, .copying, .footnotes){{display:none}}\n'
        for rule in SELECTION_RULES
    )
    return Markup("".join([*styles, *shown, *hidden, *lacking]))  # noqa: S704 - a file of this package, names from this package


def _script() -> Markup:
    """The parts share one scope, the pictures have one within it, and nothing of them is visible from outside."""
    own = "\n".join(_template(f"{name}.js") for name in PICTURES)
    parts = (f"{{\n{own}}}\n" if name == "pictures" else _template(f"{name}.js") for name in SCRIPTS)
    return Markup('"use strict";\n(() => {\n' + "\n".join(parts) + "})();\n")  # noqa: S704 - files of this package


def _template(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def csp_hash(text: str) -> str:
    """The page's policy admits this text and no other, so no text from a record can ever run."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _cell(stat: Stat | None, *, signed: bool = False, digits: int = DIGITS) -> tuple[str, str]:
    """Mean and deviation apart, so that the page can set them differently; "" for no deviation."""
    mean, std = tables.mean_and_std(stat, digits, signed) if stat else (tables.NONE, "")
    return _minus(mean), std


def _percent(value: float, *, signed: bool = False, digits: int = DIGITS) -> str:
    return _minus(tables.percent(value, digits, signed=signed))


def _minus(text: str) -> str:
    """A text whose negative numbers have the sign that all others on the page have."""
    return re.sub(r"(?<![\w.-])-(?=\d)", "\N{MINUS SIGN}", text)


class Shown(NamedTuple):
    """A cost: its text, the value to sort it by, and why it cannot be compared, if so."""

    text: str = tables.NONE
    value: float | None = None
    apart: str = ""


def _costs_of(board: Board, times: StepTimes) -> list[Cost]:
    """The costs that any row of a board has."""
    rows = board.section.rows
    return [cost for cost in COSTS if any(_cost(board, row, cost, times).value is not None for row in rows)]


def _cost(board: Board, row: Row, cost: Cost, times: StepTimes) -> Shown:
    """Time as a multiple of cross-entropy's; other costs as measured."""
    found = training(row, board.section.reference, times)
    if cost.key == "wall_seconds":
        ratio = found["time"]
        return Shown(f"{ratio:.2f}\N{MULTIPLICATION SIGN}", ratio, "" if found["steps"] else WALL) if ratio else Shown()
    stat = row.cost(cost.key)
    if stat is None:
        return Shown()
    apart = cost.key == "images_per_second" and found["times"] is None
    return Shown(f"{stat.mean:,.0f}", stat.mean, "on another machine or under another load than cross-entropy" * apart)


def record_folders(row: Row) -> list[tuple[str, str]]:
    """The record files of a row, as a fact with its name; a folder is named once."""
    files: dict[str, list[str]] = {}
    for run in row.runs:
        folder, slash, name = run.path.rpartition("/")
        files.setdefault(folder + slash, []).append(name)
    return [("Records", "; ".join(f"{folder}{', '.join(names)}" for folder, names in files.items()))]


def _naming(methods: list[MethodView]) -> dict[str, object]:
    """What methods and rows are called, and what a search finds them by."""
    titles = {one.name: one.about.title for one in methods}
    words = {one.name: f"{one.name} {one.about.title} {one.about.paper}" for one in methods}
    return {
        "titles": titles,
        "named": lambda label: display_name(label, titles),
        "data": lambda *of: _data(titles, *of),
        "words_of": lambda name: words.get(name, name),
    }


def _data(titles: Mapping[str, str], of: Board, names: Sequence[str], times: StepTimes) -> dict[str, Any]:
    """What a board's pictures are drawn from, rows by their methods' titles; its name, and its numbers as a file."""
    made = board(of.section, names, times)
    made |= {"board": of.name, "csv": tables.leaderboard_csv([of.section], times=times)}
    for one in made["series"]:
        one |= {"name": display_name(one["name"], titles), "code": one["name"]}
    return made


def _columns(boards: list[Board]) -> dict[str, str]:
    """Key and title of each column that a reader may show or hide."""
    there = {metric.key: metric.title for board in boards for metric in board.metrics}
    interval = {"interval": "95 % interval"} if any(board.axis for board in boards) else {}
    costs = {cost.key: cost.title for cost in COSTS}
    return there | interval | {"n": "n"} | costs | {"backbone": "Backbone"}


class Findings(NamedTuple):
    """What the studies of one table found."""

    board: Board
    studies: list[StudyResult]
    effects: Pairs  # resolved, against cross-entropy
    others: Pairs  # resolved, between other rows
    unresolved: Pairs
    elsewhere: list[StudyResult]  # of another table, with rows of this one

    @property
    def intervals(self) -> int:
        """How many intervals they show."""
        pairs = [*self.effects, *self.others, *self.unresolved]
        return sum(found is not None for _, one in pairs for found in one.effects.values())

    @property
    def partial(self) -> str:
        """How many of the table's methods are held against cross-entropy, where that is not all of them."""
        others = {row.first.method for row in self.board.section.heads} - {REFERENCE}
        pairs = [one.contrast for study in self.studies for one in study.measured if one.n >= ENOUGH]
        held = {one.row.partition("-")[0] for one in pairs if one.against == REFERENCE} & others
        return f"{len(held)} of {len(others)} methods; the others in Compare" if held < others else ""


def _by_gain(pair: tuple[Study, MeasuredContrast]) -> float:
    return -pair[1].over_all.mean if pair[1].over_all else 0.0


def _findings(board: Board, studies: list[StudyResult]) -> Findings:
    own = [result for result in studies if result.section and result.section.slug == board.section.slug]
    resolved, unresolved = ranked(own)
    effects = sorted((pair for pair in resolved if pair[1].contrast.against == REFERENCE), key=_by_gain)
    elsewhere = [result for result in studies if board.section.slug in result.also]
    return Findings(board, own, effects, [pair for pair in resolved if pair not in effects], unresolved, elsewhere)
