"""Blocks inside hand-written Markdown: the prose is a person's, the numbers are the records'.

    <!-- table mnist5k-lt-if100-common last -->
    (what stands here is replaced)
    <!-- /table -->

The name is that of a table on the page (`#<name>` in its address), then the selection rule; `costs` behind it adds what
training took. Likewise `study ID`, for the picture, the contrasts and the findings of a study, `findings`, for all
contrasts by size, `tiers ID ID`, for two studies of the same contrasts on two tracks, `paper ID COLUMN`, for a
column of a published table (`harness/reporting/papers`), and `published`, for how many of their numbers are reproduced.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

from harness.base.errors import UserError, lookup
from harness.base.files import write_text
from harness.metrics.selection import SELECTION_RULES
from harness.metrics.shots import GROUPS
from harness.records.schema import HEADLINE
from harness.reporting import tables
from harness.reporting.comparison import Comparison, interval_reach
from harness.reporting.figures import pictures
from harness.reporting.paper_tables import FilledTable, count_by_status, published_sentence
from harness.reporting.significance import ENOUGH, Effect
from harness.reporting.studies import SCORES, Contrast, MeasuredContrast, StudyResult, number, ranked
from harness.reporting.summary import Section
from harness.reporting.tables import Cell, Value, percent

BLOCK = re.compile(
    r"(?P<start><!-- (?P<block>(?P<kind>table|study|findings|tiers|paper|published)(?: \S+)*?) -->\n)"
    r".*?(?P<end><!-- /(?P=kind) -->)",
    re.DOTALL,
)
COSTS = {"trained_parameters": "Trained parameters", "wall_seconds": "Seconds", "peak_memory_mb": "Memory, MB"}
CHOICES = {"last": "Last epoch", "best_test": "Best epoch on the test part"}
FIGURES = "reports/figures"
DIGITS = 1


def refresh(
    text: str,
    sections: Sequence[Section],
    studies: Sequence[StudyResult],
    where: str,
    papers: Sequence[FilledTable] = (),
) -> str:
    """The document with its blocks as the records have them now.

    Raises:
        UserError: no such table, selection rule, study or column, or no block at all.
    """

    def study_of(name: str) -> StudyResult:
        return lookup("study", name, {one.study.id: one for one in studies}, where=where)

    def inside(block: str) -> str:
        match block.split():
            case ["table", name, rule, *costs] if costs in ([], ["costs"]):
                lookup("selection rule", rule, SELECTION_RULES, where=where)
                section = lookup("table", name, {one.slug: one for one in sections}, where=where)
                return brief(section, rule, COSTS if costs else {})
            case ["study", name]:
                return study(study_of(name))
            case ["findings"]:
                return findings(studies)
            case ["tiers", predicting, predicted]:
                return tiers(study_of(predicting), study_of(predicted))
            case ["paper", name, *title]:
                filled = lookup("paper table", name, {one.table.id: one for one in papers}, where=where)
                columns = {column.title: at for at, column in enumerate(filled.table.columns)}
                return paper(filled, lookup("column", " ".join(title), columns, where=where))
            case ["published"]:
                return f"{published_sentence(count_by_status(papers))}\n"
        expected = "table NAME RULE [costs], study ID, findings, tiers ID ID, paper ID COLUMN or published"
        raise UserError(f"{where}: expected {expected} in <!-- -->, found <!-- {block} -->")

    found, count = BLOCK.subn(lambda match: f"{match['start']}{inside(match['block'])}{match['end']}", text)
    if not count:
        raise UserError(f"{where}: no block to refresh; one begins with, for example, <!-- table NAME RULE -->")
    return found


def brief(section: Section, rule: str, costs: Mapping[str, str]) -> str:
    """Rank, method, accuracy by group, costs and n, as Markdown."""
    metrics = [metric for metric in section.metrics if metric.key in (*SCORES, "macro", "top5")]
    titles = [tables.header(section, metric) for metric in metrics]
    table: list[list[Cell]] = [["Rank", "Method", *titles, *costs.values(), "n"]]
    for row in section.rows:
        name = Value(f"`{row.name.replace('`', '')}`")
        numbers = [tables.cell(row.stats[rule][metric.key], DIGITS) for metric in metrics]
        spent = [f"{found.mean:,.0f}" if (found := row.cost(key)) else tables.NONE for key in costs]
        table.append([str(row.ranks[rule] or tables.NONE), name, *numbers, *spent, tables.seeds(row)])
    return tables.markdown_table("rl" + "r" * (len(metrics) + len(costs) + 1), table)


def study(result: StudyResult) -> str:
    """Pictures, contrasts and findings of a study, as Markdown."""
    parts = [f"![{title}]({FIGURES}/{name})\n" for name, title, _ in pictures(result)]
    parts.append(_table([("", one) for one in result.measured], cost=result.study.cost))
    if result.findings:
        parts.append("\n".join(f"- {text}" for text in result.findings) + "\n")
    if result.withdrawn:
        reason = "these records do not support them, or say nothing of them yet"
        parts.append(f"{result.withdrawn} of its findings are left out: {reason}.\n")
    return "\n".join(parts)


def findings(results: Sequence[StudyResult]) -> str:
    """Every contrast with enough seeds, the largest difference first; those without a clear one in a second table."""
    resolved, others = ranked(results)
    first, second = ([(of.title, one) for of, one in pairs] for pairs in (resolved, others))
    parts = [_table(first, "Study")] if first else []
    if second:
        parts += ["No clear difference, over all images or in a group:\n", _table(second, "Study")]
    return "\n".join(parts)


def tiers(predicting: StudyResult, predicted: StudyResult) -> str:
    """The contrasts of two studies, a line for each above the other's, and how far the first foretells the second."""
    there = {one.contrast.key: one for one in predicted.measured}
    pairs = [(one, there[one.contrast.key]) for one in predicting.measured if one.contrast.key in there]
    tracks = (predicting.study.track, predicted.study.track)
    lines = [line for pair in pairs for line in zip(tracks, pair, strict=True)]
    return "\n".join(filter(None, [_table(lines, "Track"), _agreement(pairs)]))


def _agreement(pairs: Sequence[tuple[MeasuredContrast, MeasuredContrast]]) -> str:
    """By score: how often two means have one sign, how often two contrasts one order, and how far the means differ."""
    table: list[list[Cell]] = [["Over", "Methods", "Same sign", "Pairs in the same order", "Apart by, points"]]
    for score in SCORES:
        both = [(one.effects.get(score), other.effects.get(score)) for one, other in pairs]
        if means := [(one.mean, other.mean) for one, other in both if one and other]:
            signs = [(one > 0) == (other > 0) for one, other in means]
            order = [(one[0] < two[0]) == (one[1] < two[1]) for one, two in combinations(means, 2)]
            apart = sum(abs(one - other) for one, other in means) / len(means)
            counts = [f"{sum(agreed)} of {len(agreed)}" if agreed else tables.NONE for agreed in (signs, order)]
            table.append([score.capitalize(), str(len(means)), *counts, percent(apart, DIGITS)])
    return tables.markdown_table("lrrrr", table) if len(table) > 1 else ""


def paper(filled: FilledTable, column: int) -> str:
    """A column of a published table: what was measured at two choices of the epoch, by group, and how they compare.

    The value that the status compares is bold; what is not comparable stands in no cell. Reasons and what else a reader
    must know stand below, numbered.
    """
    groups = [group for group in GROUPS if filled.table.columns[column].group == "all"]
    table: list[list[Cell]] = [["Method", "Paper", *CHOICES.values(), *map(str.capitalize, groups), "n", "Status"]]
    cells = [(line.row.label, found) for line in filled.rows if (found := line.cells[column])]
    known = [[*filter(None, (found.reason, *found.marks, found.weights))] for _, found in cells]
    references, below = _numbered(known)
    for (label, found), reference in zip(cells, references, strict=True):
        table.append(
            [
                label,
                tables.published(found.claim.value),
                *(_at(found, rule, found.claim.group) for rule in CHOICES),
                *(_at(found, HEADLINE, group) for group in groups),
                tables.seeds(found.best.row) if found.best else tables.NONE,
                f"{found.status}{reference}",
            ]
        )
    return tables.markdown_table("l" + "r" * (len(table[0]) - 2) + "l", table) + below


def _numbered(known: Sequence[Sequence[str]]) -> tuple[list[str], str]:
    """What a reader must know of each line -> its ` (notes 1, 2)`, and the notes, each once."""
    known = [[text.rstrip(".") for text in texts] for texts in known]
    notes = list(dict.fromkeys(text for texts in known for text in texts))
    references = []
    for texts in known:
        numbers = ", ".join(map(str, sorted(1 + notes.index(text) for text in texts)))
        references.append(f" (note{'s' * (len(texts) > 1)} {numbers})" if texts else "")
    sentences = [tables.escape_markdown(f"{note[:1].upper()}{note[1:]}") for note in notes]
    return references, "".join(f"\nNote {number}: {sentence}.\n" for number, sentence in enumerate(sentences, 1))


def _at(found: Comparison, rule: str, group: str) -> Value:
    """Mean over seeds and its 95 % interval; of two seeds, whose interval says nothing, both values."""
    stat = found.best.row.stats[rule][group] if found.best else None
    if stat is None:
        return Value(tables.NONE)
    digits = tables.digits_beside(found.claim.value) if group == found.claim.group else DIGITS
    both = (stat.std or 0.0) / math.sqrt(2)  # how far each of two seeds is from their mean
    reach, between = (interval_reach(stat), " to ") if stat.n >= ENOUGH else (both, ", ")
    ends = (max(stat.mean - reach, 0.0), min(stat.mean + reach, 1.0))
    spread = f" ({between.join(percent(end, digits) for end in ends)})" if reach else ""
    return Value(f"{percent(stat.mean, digits)}{spread}", (rule, group) == (found.claim.rule, found.claim.group))


def _table(pairs: Sequence[tuple[str, MeasuredContrast]], place: str = "", *, cost: bool = False) -> str:
    """A line for each contrast, after its place where that column has a title; only the scores that one of them has.

    What a reader must know of rows stands below, numbered.
    """
    scores = [score for score in SCORES if any(one.effects.get(score) for _, one in pairs)] or ["all"]
    titles = [*filter(None, [place]), "Contrast", "Rows"]
    costs = ["Cost", "All / cost"] if cost else []
    references, below = _numbered([one.marks for _, one in pairs])
    table: list[list[Cell]] = [[*titles, *(score.capitalize() for score in scores), *costs, "n"]]
    for (of, one), reference in zip(pairs, references, strict=True):
        effects: list[Cell] = [_effect(one.effects.get(score), one.n) for score in scores]
        if one.missing:
            effects = [one.missing, *("-" for _ in scores[1:])]
        few = f"{one.n} (too few)" if 0 < one.n < ENOUGH else str(one.n or "-")
        label = f"{one.contrast.label}{reference}"
        table.append(
            [*([of] if place else []), label, _rows(one.contrast), *effects, *(_costs(one) if cost else ()), few]
        )
    return tables.markdown_table("l" * len(titles) + "r" * (len(scores) + len(costs) + 1), table) + below


def _costs(one: MeasuredContrast) -> tuple[str, str]:
    """Training time over the other row's, and points gained for each such time, where any are."""
    if one.cost is None or one.over_all is None:
        return "-", "-"
    gain = one.over_all.mean
    return f"{one.cost:.2f}x", percent(gain / one.cost, DIGITS, signed=True) if gain > 0 else "-"


def _rows(contrast: Contrast) -> str:
    """Which row against which, and at which selection rule where that is not the headline's."""
    at = "" if contrast.at == HEADLINE else f" at {contrast.at}"
    return f"{contrast.row}{at} against {contrast.against}"


def _effect(found: Effect | None, seeds: int) -> Value:
    resolved = found is not None and found.verdict in ("better", "worse")
    return Value(number(found), resolved and seeds >= ENOUGH)


def refresh_files(
    paths: Sequence[Path],
    sections: Sequence[Section],
    studies: Sequence[StudyResult] = (),
    papers: Sequence[FilledTable] = (),
) -> list[Path]:
    """Refreshes each file; returns those that changed. Nothing is written if one of them has a mistake."""
    try:
        texts = {path: path.read_text(encoding="utf-8") for path in paths}
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be read: {error.strerror}") from None
    fresh = {path: refresh(text, sections, studies, str(path), papers) for path, text in texts.items()}
    changed = [path for path in paths if fresh[path] != texts[path]]
    for path in changed:
        write_text(path, fresh[path])
    return changed
