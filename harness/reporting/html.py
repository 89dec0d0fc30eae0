"""The page: one self-contained file with its style, script and data inside."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from harness.base.errors import UserError
from harness.metrics.selection import SELECTION_RULES
from harness.metrics.shots import POLICIES, group_of_class
from harness.records.schema import HEADLINE
from harness.reporting import drawer, tables
from harness.reporting.figures import pictures
from harness.reporting.methods import MethodView, commands
from harness.reporting.paper_tables import FilledTable
from harness.reporting.significance import CriticalDifference
from harness.reporting.speed import SpeedReport
from harness.reporting.studies import ENOUGH, SCORES, StudyResult, common_marks, number, ranked
from harness.reporting.summary import COSTS, METRICS, Cost, Curve, Row, Section, Stat
from harness.weights.record import WeightsRecord

TEMPLATES = Path(__file__).parent / "templates"
SCRIPTS = ("state", "boards", "charts", "methods", "compare", "copying", "start")
COMPARED = tuple(metric.key for metric in METRICS if metric.best)
DIGITS = 1


class Across(NamedTuple):
    """Methods over several data sets, with their average ranks, best first."""

    track: str
    test: CriticalDifference
    ranks: list[tuple[str, float]]


class Page(NamedTuple):
    """Everything on the page."""

    sections: list[Section]
    papers: list[FilledTable]
    methods: list[MethodView]
    studies: list[StudyResult]
    speed: list[SpeedReport]
    left_out: list[tuple[str, str]]  # file, reason
    across: Across | str  # methods over all data sets, or why that is not shown
    weights: list[WeightsRecord]


def render(page: Page) -> str:
    """The whole page as text."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # What is embedded as JSON cannot end its element or open a comment: `tojson` escapes what could.
    environment.policies["json.dumps_kwargs"] = {"sort_keys": True, "separators": (",", ":"), "allow_nan": False}
    style, script, findings = _style(), _script(), ranked(page.studies)
    return environment.get_template("leaderboard.html.j2").render(
        page=page,
        runs=sum(len(row.runs) for section in page.sections for row in section.rows),
        methods={row.first.method for section in page.sections for row in section.rows},
        filters=_filters(page.sections),
        findings=findings,
        intervals=sum(found is not None for pairs in findings for _, one in pairs for found in one.effects.values()),
        nothing_measured=not any(one.counts["reproduced"] or one.counts["differs"] for one in page.papers),
        enough=ENOUGH,
        group_scores=SCORES,
        costs=COSTS,
        rules={rule: description for rule, (description, _) in SELECTION_RULES.items()},
        policies={name: description for name, (description, _) in POLICIES.items()},
        headline=HEADLINE,
        digits=DIGITS,
        style=style,
        script=script,
        hashes=(_csp_hash(style), _csp_hash(script)),
        number_text=_cell, percent=_percent, cost=_cost, data=_data, pictures=pictures, flat=drawer.flat,
        facts=drawer.facts, header=tables.header, published=tables.published, seeds=tables.seeds, difference=number,
        common_marks=common_marks, commands=commands,
    )  # fmt: skip


def _style() -> Markup:
    """Cells hold a value for each selection rule; the page shows the chosen one. Works without the script, too."""
    shown = (
        f':root[data-selection="{rule}"] .r:not([data-rule="{rule}"]){{display:none}}\n' for rule in SELECTION_RULES
    )
    style = (TEMPLATES / "leaderboard.css").read_text(encoding="utf-8")
    return Markup(style + "".join(shown))  # noqa: S704 - a file of this package, names from this package


def _script() -> Markup:
    """The parts share one scope, and nothing of it is visible from outside."""
    parts = ((TEMPLATES / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS)
    return Markup('"use strict";\n(() => {\n' + "\n".join(parts) + "})();\n")  # noqa: S704 - files of this package


def _csp_hash(text: str) -> str:
    """The page's policy admits this text and no other, so no text from a record can ever run."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _cell(stat: Stat | None, *, signed: bool = False) -> tuple[str, str]:
    """Mean and deviation apart, so that the page can set them differently; "" for no deviation."""
    if stat is None:
        return tables.NONE, ""
    return _percent(stat.mean, signed=signed), "" if stat.std is None else _percent(stat.std)


def _percent(value: float, *, signed: bool = False) -> str:
    return tables.percent(value, DIGITS, signed=signed).replace("-", "\N{MINUS SIGN}")


def _cost(row: Row, cost: Cost) -> tuple[str, float | None]:
    """What a cost prints as, and the value that sorts."""
    stat = row.cost(cost.key)
    return (tables.NONE, None) if stat is None else (f"{stat.mean:,.0f}", stat.mean)


def _filters(sections: list[Section]) -> list[tuple[str, str, list[str]]]:
    """Name, title and choices of each filter that has something to choose from."""
    protocols = [section.protocol for section in sections]
    choices = [
        ("dataset", "Data set", {p.dataset for p in protocols}),
        ("factor", "Imbalance factor", {f"{p.imbalance_factor:g}" for p in protocols}),
        ("track", "Track", {p.track for p in protocols}),
        ("policy", "Shot policy", {p.shot_policy for p in protocols}),
        ("backbone", "Backbone", {row.first.backbone for section in sections for row in section.rows}),
    ]
    return [(name, title, sorted(values)) for name, title, values in choices if len(values) > 1]


def _data(section: Section) -> dict[str, Any]:
    """What the charts and the comparison draw from; classes from the most to the least frequent."""
    counts = section.protocol.class_counts
    order = sorted(range(len(counts)), key=lambda c: (-counts[c], c))
    try:
        groups = group_of_class(counts, section.protocol.shot_policy)
    except UserError:  # a policy of another version: the chart goes without its bands
        groups = ["" for _ in counts]
    return {
        "title": f"{section.protocol.split}, {section.protocol.track} track",
        "classes": order,
        "counts": [counts[c] for c in order],
        "groups": [groups[c] for c in order],
        "series": [_series(row, order, index) for index, row in enumerate(section.rows) if row.ok_runs],
        "pairs": section.pairs,
    }


def _series(row: Row, order: list[int], index: int) -> dict[str, Any]:
    return {
        "name": row.label,
        "key": row.key,
        "row": index,
        "method": row.first.method,
        "values": {rule: _points(row.per_class[rule], order) for rule in SELECTION_RULES},
        "scores": {
            rule: {key: _cell(stats[key]) if stats[key] else None for key in COMPARED}
            for rule, stats in row.stats.items()
        },
        "curves": {name: _curve(curve, 1 if name == "loss" else 100) for name, curve in row.curves.items()},
        "quantities": {name: [values[c] for c in order] for name, values in row.quantities.items()},
        "confusions": row.confusions,
    }


def _curve(curve: Curve, factor: int) -> list[list[float]]:
    mean, std = ([round(value * factor, 3) for value in values] for values in (curve.mean, curve.std))
    return [[*curve.epochs], mean, std]


def _points(values: list[float | None] | None, order: list[int]) -> list[float | None] | None:
    return values and [None if (value := values[c]) is None else round(value * 100, 2) for c in order]
