"""The leaderboard as Markdown, LaTeX (booktabs) and CSV, all from the same sections."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeAlias

from harness.metrics.shots import GROUPS
from harness.records.schema import HEADLINE
from harness.reporting.comparison import Beside, Comparison
from harness.reporting.costs import NO_TIMES, StepTimes, cost
from harness.reporting.paper_tables import FilledTable
from harness.reporting.significance import Effect
from harness.reporting.summary import METRICS, Metric, Row, Section, Stat

DIGITS = 2
SAME = 12  # digits of a share beyond which two sums may differ by the order of their parts
NONE = "-"


class Value(NamedTuple):
    """A cell that every format writes as it is, mostly a number; a plain string is text, which each format escapes."""

    text: str
    best: bool = False


Cell: TypeAlias = str | Value


def percent(value: float, digits: int, *, signed: bool = False) -> str:
    """A fraction in percent (or points, with its sign); a value that rounds to zero has no sign."""
    number = round(value * 100, digits) + 0.0  # + 0.0 turns -0.0 into 0.0
    return f"{number:+.{digits}f}" if signed and number else f"{number:.{digits}f}"


def points(found: Effect) -> tuple[str, str, str]:
    """Mean and bounds in points; a bound of a clear difference gets the digits that tell it from zero.

    Every part of the page rounds here, so that a difference that was added up in another order reads the same.
    """
    digits = (1, 2, 3, 4) if found.verdict in ("better", "worse") else (1,)
    mean, low, high = (round(value, SAME) for value in (found.mean, found.low, found.high))

    def bound(value: float) -> str:
        texts = [percent(value, count, signed=True) for count in digits]
        return next((text for text in texts if text[0] in "+-"), texts[0])

    return percent(mean, 1, signed=True), bound(low), bound(high)


def published(value: float) -> str:
    """A published percentage, with no more digits than it has and at least one."""
    text = f"{value:g}"
    return text if "." in text else f"{text}.0"


def digits_beside(value: float) -> int:
    """Decimals of what was measured beside a published percentage: as it is printed, so that a reader can subtract."""
    return len(published(value).partition(".")[2])


def mean_and_std(stat: Stat, digits: int, signed: bool = False) -> tuple[str, str]:
    """Both as people read them; "" for no deviation."""
    return percent(stat.mean, digits, signed=signed), "" if stat.std is None else percent(stat.std, digits)


def cell(stat: Stat | None, digits: int, signed: bool = False) -> str:
    """Mean and deviation in one text; "-" for what does not exist."""
    return " ± ".join(filter(None, mean_and_std(stat, digits, signed))) if stat else NONE


def header(section: Section, metric: Metric) -> str:
    """Column title, with the number of classes behind a group."""
    if metric.key not in GROUPS:
        return f"{metric.title} (points)" if metric.signed else metric.title
    size = section.protocol.groups.get(metric.key, 0)
    return f"{metric.title} ({size} {'class' if size == 1 else 'classes'})"


def seeds(row: Row) -> str:
    """n as it stands in a table: "3", or "2 of 3" when a seed has no result."""
    return str(row.ok_runs) if row.ok_runs == len(row.runs) else f"{row.ok_runs} of {len(row.runs)}"


def caption(section: Section, rule: str) -> str:
    """One line that says what a table shows."""
    p = section.protocol
    return (
        f"{p.split}, track {p.track}, selection rule {rule}, shot policy {p.shot_policy}, "
        f"split sha256 {p.split_sha256[:12]}; percent, mean ± sample standard deviation over seeds"
    )


def notes(section: Section) -> list[str]:
    """What a reader must know of its rows, a line each."""
    of_all = [f"all rows: {'; '.join(section.shared_marks)}"] if section.shared_marks else []
    return of_all + [f"{row.name}: {'; '.join(own)}" for row in section.rows if (own := section.own_marks(row))]


def lines(section: Section, rule: str) -> list[list[Cell]]:
    """The table's header and rows."""
    best = {metric: section.best(rule, metric, DIGITS) for metric in section.metrics}
    table: list[list[Cell]] = [
        ["Rank", "Method", "Backbone", *(header(section, metric) for metric in section.metrics), "n"]
    ]
    for index, row in enumerate(section.rows):
        texts = [str(row.ranks[rule] or NONE), row.name, row.first.backbone]
        numbers = [Value(cell(row.stats[rule][m.key], DIGITS, m.signed), index in best[m]) for m in section.metrics]
        table.append([*texts, *numbers, Value(seeds(row))])
    return table


def markdown(section: Section, rule: str) -> str:
    """The table as Markdown, with its notes below."""
    align = "lll" + "r" * (len(section.metrics) + 1)
    below = "".join(f"- {escape_markdown(note)}\n" for note in notes(section))
    table = f"**{escape_markdown(caption(section, rule))}**\n\n{markdown_table(align, lines(section, rule))}"
    return f"{table}\n{below}" if below else table


def markdown_table(align: str, table: Iterable[Sequence[Cell]]) -> str:
    """Header and rows between pipes; `align` has an l or an r for each column."""
    rule = "|".join("---:" if side == "r" else "---" for side in align)
    head, *rows = (f"| {' | '.join(map(_markdown_cell, line))} |" for line in table)
    return "\n".join([head, f"|{rule}|", *rows]) + "\n"


def _markdown_cell(one: Cell) -> str:
    if isinstance(one, str):
        return escape_markdown(one)
    return f"**{one.text}**" if one.best else one.text


def escape_markdown(text: str) -> str:
    """Text that Markdown (with tables and raw HTML) shows as it stands, on one line."""
    flat = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]|~$#])", r"\\\1", flat)


LATEX = {
    **{char: f"\\{char}" for char in "&%$#_{}"},
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "|": r"\textbar{}", "<": r"\textless{}", ">": r"\textgreater{}", "±": r"$\pm$",
}  # fmt: skip


def escape_latex(text: str) -> str:
    """Text that LaTeX prints as it stands, on one line."""
    flat = " ".join(text.split())
    return "".join(LATEX.get(char, char) for char in flat if char.isprintable())


def latex(section: Section, rule: str) -> str:
    """A booktabs `tabular` for \\input, with its notes below the rule."""
    head, *rows = lines(section, rule)
    table = [[*head[:-1], Value("$n$")], *rows]
    return latex_table("rll" + "r" * (len(section.metrics) + 1), caption(section, rule), table, notes(section))


def latex_table(align: str, title: str, table: Iterable[Sequence[Cell]], below: Iterable[str] = ()) -> str:
    """Header and rows as a booktabs `tabular`, under a comment with the title."""
    head, *rows = (f"{' & '.join(map(_latex_cell, line))} \\\\" for line in table)
    start = [f"% {escape_latex(title)}", rf"\begin{{tabular}}{{{align}}}", r"\toprule", head, r"\midrule"]
    span = rf"\multicolumn{{{len(align)}}}{{p{{\linewidth}}}}"
    texts = [rf"{span}{{\footnotesize {escape_latex(note)}}} \\" for note in below]
    return "\n".join([*start, *rows, r"\bottomrule", *texts, r"\end{tabular}"]) + "\n"


def _latex_cell(one: Cell) -> str:
    if isinstance(one, str):
        return escape_latex(one)
    text = one.text if one.text == NONE else one.text.replace("-", "$-$", 1).replace("±", r"$\pm$")
    return rf"\textbf{{{text}}}" if one.best else text


def leaderboard_csv(sections: list[Section], only_rule: str | None = None, times: StepTimes = NO_TIMES) -> str:
    """Every section and selection rule (or only one rule) as one long table, numbers in percent.

    Args:
        times: of training steps, for what a row would cost alone.
    """
    metrics = [metric for metric in METRICS if any(metric in section.metrics for section in sections)]
    columns = [f"{metric.key}{part}" for metric in metrics for part in ("", "_std", "_n")]
    head = ["split", "track", "selection", "rank", "method", "variant", "backbone", "status", "seeds", *columns]
    head += ["all_low", "all_high", "time_over_ce", "rank_of_methods", "dataset"]
    table: list[list[Cell]] = [[*head, "shot_policy", "split_sha256", "recipe_sha256", "notes"]]
    for section in sections:
        p = section.protocol
        for rule in [only_rule] if only_rule else section.rules():
            for row in section.rows:
                first = row.first
                start = [p.split, p.track, rule, str(row.ranks[rule] or ""), first.method, first.variant]
                numbers = [number for m in metrics for number in _csv_stat(row.stats[rule][m.key])]
                bounds = (row.interval if rule == HEADLINE else None) or (None, None)  # its 95 % interval
                time = cost(row, section.reference, times)["time"]
                numbers += [*map(_csv_number, bounds), "" if time is None else f"{time:.2f}"]
                numbers += [str(row.places.get(rule) or ""), p.dataset]
                ends = [p.shot_policy, p.split_sha256, first.recipe_sha256, "; ".join(row.marks)]
                table.append([*start, first.backbone, row.status, str(len(row.runs)), *numbers, *ends])
    return _csv(table)


def all_files(
    sections: list[Section],
    comparisons: list[Comparison],
    papers: Sequence[FilledTable],
    times: StepTimes = NO_TIMES,
) -> dict[str, str]:
    """Every table as a file, by name."""
    files = {"leaderboard.csv": leaderboard_csv(sections, times=times), "published.csv": claims_csv(comparisons)}
    for section in sections:
        for rule in section.rules():
            files[f"{section.slug}.{rule}.md"] = markdown(section, rule)
            files[f"{section.slug}.{rule}.tex"] = latex(section, rule)
    for filled in papers:
        table, title = _paper_lines(filled), filled.table.title
        heading = f"**{escape_markdown(title)}**: published / measured (n) / difference / status\n\n"
        align = "l" * len(table[0])
        files[f"paper-{filled.table.id}.md"] = heading + markdown_table(align, table)
        files[f"paper-{filled.table.id}.tex"] = latex_table(align, title, table)
    files["papers.csv"] = papers_csv(papers)
    return files


def _paper_lines(filled: FilledTable) -> list[list[str]]:
    """Header and rows; a cell is "published / measured ± deviation (n) / difference / status"."""
    head = ["Method", *(column.title for column in filled.table.columns)]
    return [head, *([line.row.label, *map(_paper_cell, line.cells)] for line in filled.rows)]


def _paper_cell(found: Comparison | None) -> str:
    if found is None:
        return NONE
    value, status = published(found.claim.value), " / ".join(filter(None, (found.status, found.weights)))
    if found.best is None:
        return f"{value} / {status}"
    _, stat, delta = found.best
    return f"{value} / {cell(stat, DIGITS)} ({stat.n}) / {percent(delta, DIGITS, signed=True)} / {status}"


def papers_csv(papers: Sequence[FilledTable]) -> str:
    """Every cell of every paper table as a line, numbers in percent."""
    head = ["table", "row", "method", "variant", "column", "published", "measured", "measured_std", "measured_n"]
    table: list[list[Cell]] = [[*head, "delta", "status", "reason", "marks"]]
    for filled in papers:
        for row, cells in filled.rows:
            for column, found in zip(filled.table.columns, cells, strict=True):
                if found:
                    names = [filled.table.id, row.label, row.method or "", row.variant or "", column.title]
                    numbers = _csv_measured(found.best)
                    marks = "; ".join(filter(None, (*found.marks, found.weights)))
                    table.append([*names, published(found.claim.value), *numbers, found.status, found.reason, marks])
    return _csv(table)


def claims_csv(comparisons: list[Comparison]) -> str:
    """Published numbers beside measured ones: one line for each comparable row, or one that says there is none."""
    head = ["method", "variant", "dataset", "imbalance_factor", "backbone", "group", "selection", "published"]
    head += ["status", "measured", "measured_std", "measured_n", "delta", "row", "source", "location", "reason"]
    table: list[list[Cell]] = [[*head]]
    for comparison in comparisons:
        c = comparison.claim
        start = [c.method, c.variant, c.dataset, f"{c.imbalance_factor:g}", c.backbone, c.group, c.selection]
        start += [published(c.value), comparison.status]
        for one in comparison.measured or [None]:
            row = one.row.name if one else ""
            table.append([*start, *_csv_measured(one), row, c.source, c.location, comparison.reason])
    return _csv(table)


def _csv_number(value: float | None) -> Value:
    return Value("" if value is None else percent(value, DIGITS))


def _csv_measured(found: Beside | None) -> list[Cell]:
    """Mean, deviation, n and difference."""
    return [*_csv_stat(found.stat), _csv_number(found.delta)] if found else ["", "", "0", ""]


def _csv_stat(stat: Stat | None) -> tuple[Cell, Cell, Cell]:
    return (_csv_number(stat.mean), _csv_number(stat.std), str(stat.n)) if stat else ("", "", "0")


def text_cell(text: str) -> str:
    """Text that a spreadsheet does not take for a formula. Numbers never pass here, so they stay numbers."""
    flat = " ".join(text.split())
    return f"'{flat}" if flat.startswith(("=", "+", "-", "@")) else flat


def _csv(table: Iterable[Sequence[Cell]]) -> str:
    text = io.StringIO()
    rows = ([text_cell(one) if isinstance(one, str) else one.text for one in line] for line in table)
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
