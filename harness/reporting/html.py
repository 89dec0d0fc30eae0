"""The page: one self-contained file with its style, script and data inside."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from harness.errors import UserError
from harness.metrics.selection import SELECTION_RULES
from harness.metrics.shots import POLICIES, group_of_class
from harness.records.schema import HEADLINE
from harness.reporting import provenance, tables
from harness.reporting.claims import NOT_STATED, Comparison
from harness.reporting.speed import SpeedReport
from harness.reporting.summary import METRICS, Metric, Section, Stat

TEMPLATES = Path(__file__).parent / "templates"
DIGITS = 1


def render(
    sections: list[Section],
    comparisons: list[Comparison],
    left_out: list[tuple[str, str]],
    speed: Sequence[SpeedReport] = (),
) -> str:
    """The whole page as text."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        cell=_cell, percent=_percent, header=tables.header, seeds=tables.seeds, facts=provenance.seed_facts,
        recipe=provenance.recipe, chart=_chart, embed=embed,
    )  # fmt: skip
    style, script = _asset("leaderboard.css") + _switch(), _asset("leaderboard.js")
    return environment.get_template("leaderboard.html.j2").render(
        sections=sections,
        comparisons=_by_method(comparisons),
        left_out=left_out,
        speed=speed,
        runs=[run for section in sections for row in section.rows for run in row.runs],
        methods={row.first.method for section in sections for row in section.rows},
        metrics=METRICS,
        rules={rule: description for rule, (description, _) in SELECTION_RULES.items()},
        policies={name: description for name, (description, _) in POLICIES.items()},
        headline=HEADLINE,
        not_stated=NOT_STATED,
        digits=DIGITS,
        style=style,
        script=script,
        hashes=(_csp_hash(style), _csp_hash(script)),
    )


def _asset(name: str) -> Markup:
    """A template's own style or script, which is not untrusted text."""
    return Markup((TEMPLATES / name).read_text(encoding="utf-8"))  # noqa: S704 - a file of this package


def _switch() -> Markup:
    """Cells hold a value for each selection rule; the page shows the chosen one. Works without the script, too."""
    shown = (
        f':root[data-selection="{rule}"] .r:not([data-rule="{rule}"]){{display:none}}\n' for rule in SELECTION_RULES
    )
    return Markup("".join(shown))  # noqa: S704 - names from this package


def _csp_hash(text: str) -> str:
    """The page's policy admits this text and no other, so no text from a record can ever run."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def embed(value: Any) -> Markup:
    """JSON for a script element: nothing in it can end the element or open a comment."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)  # ASCII only
    return Markup(text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e"))  # noqa: S704


def _cell(stat: Stat | None, metric: Metric) -> dict[str, str]:
    """Mean and deviation apart, so that the page can set them differently."""
    if stat is None:
        return {"mean": tables.NONE, "std": ""}
    std = "" if stat.std is None else tables.percent(stat.std, DIGITS)
    return {"mean": _percent(stat.mean, signed=metric.signed), "std": std}


def _percent(value: float, *, signed: bool = False) -> str:
    return tables.percent(value, DIGITS, signed=signed).replace("-", "\N{MINUS SIGN}")


def _chart(section: Section) -> dict[str, Any]:
    """Per-class accuracy in percent, classes from the most to the least frequent."""
    counts = section.protocol.class_counts
    order = sorted(range(len(counts)), key=lambda c: (-counts[c], c))
    try:
        groups = group_of_class(counts, section.protocol.shot_policy)
    except UserError:  # a policy of another version: the chart goes without its bands
        groups = ["" for _ in counts]
    series = [
        {
            "name": name,
            "key": row.key,
            "values": {rule: _points(row.per_class[rule], order) for rule in SELECTION_RULES},
        }
        for name, row in zip(section.labels(), section.rows, strict=True)
        if row.ok_runs
    ]
    return {
        "classes": order,
        "counts": [counts[c] for c in order],
        "groups": [groups[c] for c in order],
        "series": series,
    }


def _points(values: list[float | None] | None, order: list[int]) -> list[float | None] | None:
    if values is None:
        return None
    return [None if (value := values[c]) is None else round(value * 100, 2) for c in order]


def _by_method(comparisons: list[Comparison]) -> dict[str, list[Comparison]]:
    grouped: dict[str, list[Comparison]] = {}
    for comparison in comparisons:
        grouped.setdefault(comparison.claim.method, []).append(comparison)
    return grouped
