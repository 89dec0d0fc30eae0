"""The leaderboard as Markdown, LaTeX (booktabs) and CSV, all from the same sections."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence

from harness.metrics.shots import GROUPS
from harness.reporting.comparison import Comparison
from harness.reporting.paper_tables import Cell, FilledTable
from harness.reporting.summary import METRICS, Metric, Row, Section, Stat

DIGITS = 2
NONE = "-"


def percent(value: float, digits: int, *, signed: bool = False) -> str:
    """A fraction in percent (or points, with its sign); a value that rounds to zero has no sign."""
    number = round(value * 100, digits) + 0.0  # + 0.0 turns -0.0 into 0.0
    return f"{number:+.{digits}f}" if signed and number else f"{number:.{digits}f}"


def published(value: float) -> str:
    """A published percentage, with no more digits than it has and at least one."""
    text = f"{value:g}"
    return text if "." in text else f"{text}.0"


def cell(stat: Stat | None, digits: int, plus_minus: str, *, signed: bool = False) -> str:
    """Mean and deviation as people read them; "-" for what does not exist."""
    if stat is None:
        return NONE
    mean = percent(stat.mean, digits, signed=signed)
    return mean if stat.std is None else f"{mean} {plus_minus} {percent(stat.std, digits)}"


def header(section: Section, metric: Metric) -> str:
    """Column title, with the number of classes behind a group."""
    if metric.key not in GROUPS:
        return f"{metric.title} (points)" if metric.signed else metric.title
    size = section.protocol.group_sizes[GROUPS.index(metric.key)]
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


def body(section: Section, rule: str, plus_minus: str) -> Iterable[tuple[list[str], list[str], list[bool]]]:
    """For each row: its text cells (untrusted), its number cells, and which of the numbers are best."""
    best = [section.best(rule, metric, DIGITS) for metric in METRICS]
    for index, row in enumerate(section.rows):
        texts = [str(row.ranks[rule] or NONE), row.name, row.first.backbone]
        numbers = [cell(row.stats[rule][m.key], DIGITS, plus_minus, signed=m.signed) for m in METRICS]
        yield texts, [*numbers, seeds(row)], [*(index in column for column in best), False]


def markdown(section: Section, rule: str) -> str:
    """The table as Markdown, with its notes below."""
    titles = ["Rank", "Method", "Backbone", *(header(section, metric) for metric in METRICS), "n"]
    lines = [f"**{escape_markdown(caption(section, rule))}**", ""]
    lines += [f"| {' | '.join(titles)} |", "|" + "---|" * 3 + "---:|" * (len(titles) - 3)]
    for texts, numbers, best in body(section, rule, "±"):
        marked = [f"**{number}**" if top else number for number, top in zip(numbers, best, strict=True)]
        lines.append(f"| {' | '.join([*map(escape_markdown, texts), *marked])} |")
    below = [f"- {escape_markdown(note)}" for note in notes(section)]
    return "\n".join([*lines, *(["", *below] if below else [])]) + "\n"


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
    titles = ["Rank", "Method", "Backbone", *(header(section, metric) for metric in METRICS), "$n$"]
    lines = [f"% {escape_latex(caption(section, rule))}", rf"\begin{{tabular}}{{rll{'r' * (len(titles) - 3)}}}"]
    lines += [r"\toprule", f"{' & '.join(titles)} \\\\", r"\midrule"]
    for texts, numbers, best in body(section, rule, r"$\pm$"):
        signs = [n if n == NONE else n.replace("-", "$-$", 1) for n in numbers]
        marked = [rf"\textbf{{{n}}}" if top else n for n, top in zip(signs, best, strict=True)]
        lines.append(f"{' & '.join([*map(escape_latex, texts), *marked])} \\\\")
    lines.append(r"\bottomrule")
    for note in notes(section):
        lines.append(rf"\multicolumn{{{len(titles)}}}{{p{{\linewidth}}}}{{\footnotesize {escape_latex(note)}}} \\")
    return "\n".join([*lines, r"\end{tabular}"]) + "\n"


def leaderboard_csv(sections: list[Section], only_rule: str | None = None) -> str:
    """Every section and selection rule (or only one rule) as one long table, numbers in percent."""
    columns = [f"{metric.key}{part}" for metric in METRICS for part in ("", "_std", "_n")]
    head = ["split", "track", "selection", "rank", "method", "variant", "backbone", "status", "seeds", *columns]
    head += ["shot_policy", "split_sha256", "recipe_sha256", "notes"]
    table: list[list[str | int]] = []
    for section in sections:
        p = section.protocol
        for rule in [only_rule] if only_rule else section.rules():
            for row in section.rows:
                first, place = row.first, row.ranks[rule] or ""
                numbers = [text for m in METRICS for text in _csv_stat(row.stats[rule][m.key])]
                names = [text_cell(text) for text in (first.method, first.variant, first.backbone)]
                line = [
                    text_cell(p.split),
                    text_cell(p.track),
                    rule,
                    place,
                    *names,
                    row.status,
                    len(row.runs),
                    *numbers,
                ]
                ends = (p.shot_policy, p.split_sha256, first.recipe_sha256, "; ".join(row.marks))
                table.append([*line, *map(text_cell, ends)])
    return _csv(head, table)


def all_files(sections: list[Section], comparisons: list[Comparison], papers: Sequence[FilledTable]) -> dict[str, str]:
    """Every table as a file, by name."""
    files = {"leaderboard.csv": leaderboard_csv(sections), "published.csv": claims_csv(comparisons)}
    for section in sections:
        for rule in section.rules():
            files[f"{section.slug}.{rule}.md"] = markdown(section, rule)
            files[f"{section.slug}.{rule}.tex"] = latex(section, rule)
    for filled in papers:
        lines = _paper_lines(filled)
        files[f"paper-{filled.table.id}.md"] = _paper_markdown(filled, lines)
        files[f"paper-{filled.table.id}.tex"] = _paper_latex(filled, lines)
    files["papers.csv"] = papers_csv(papers)
    return files


def _paper_lines(filled: FilledTable) -> list[list[str]]:
    """Header and rows; a cell is "published / measured ± deviation (n) / difference / status"."""
    head = ["Method", *(column.title for column in filled.table.columns)]
    return [head, *([line.row.label, *map(_paper_cell, line.cells)] for line in filled.rows)]


def _paper_cell(found: Cell | None) -> str:
    if found is None:
        return NONE
    value, status = published(found.claim.value), " / ".join(filter(None, (found.status, found.weights)))
    if found.stat is None or found.delta is None:
        return f"{value} / {status}"
    measured = f"{cell(found.stat, DIGITS, '±')} ({found.n})"
    return f"{value} / {measured} / {percent(found.delta, DIGITS, signed=True)} / {status}"


def _paper_markdown(filled: FilledTable, lines: list[list[str]]) -> str:
    head, *rows = ([escape_markdown(text) for text in line] for line in lines)
    title = f"**{escape_markdown(filled.table.title)}**: published / measured (n) / difference / status"
    body = [f"| {' | '.join(line)} |" for line in rows]
    return "\n".join([title, "", f"| {' | '.join(head)} |", "|" + "---|" * len(head), *body]) + "\n"


def _paper_latex(filled: FilledTable, lines: list[list[str]]) -> str:
    head, *rows = (f"{' & '.join(map(escape_latex, line))} \\\\" for line in lines)
    start = [f"% {escape_latex(filled.table.title)}", rf"\begin{{tabular}}{{{'l' * len(lines[0])}}}", r"\toprule"]
    return "\n".join([*start, head, r"\midrule", *rows, r"\bottomrule", r"\end{tabular}"]) + "\n"


def papers_csv(papers: Sequence[FilledTable]) -> str:
    """Every cell of every paper table as a line, numbers in percent."""
    head = ["table", "row", "method", "variant", "column", "published", "measured", "measured_std", "measured_n"]
    head += ["delta", "status", "reason", "marks"]
    table: list[list[str | int]] = []
    for filled in papers:
        for line in filled.rows:
            for column, found in zip(filled.table.columns, line.cells, strict=True):
                if found is None:
                    continue
                row = line.row
                names = [filled.table.id, row.label, row.method or "", row.variant or "", column.title]
                delta = "" if found.delta is None else percent(found.delta, DIGITS)
                numbers = [published(found.claim.value), *_csv_stat(found.stat), delta, found.status]
                marks = "; ".join(filter(None, (*found.marks, found.weights)))
                table.append([*map(text_cell, names), *numbers, text_cell(found.reason), text_cell(marks)])
    return _csv(head, table)


def _csv_stat(stat: Stat | None) -> tuple[str, str, str]:
    if stat is None:
        return "", "", "0"
    return percent(stat.mean, DIGITS), "" if stat.std is None else percent(stat.std, DIGITS), str(stat.n)


def claims_csv(comparisons: list[Comparison]) -> str:
    """Published numbers beside measured ones: one line for each comparable row, or one that says there is none."""
    head = ["method", "variant", "dataset", "imbalance_factor", "backbone", "group", "selection", "published"]
    head += ["status", "measured", "measured_std", "measured_n", "delta", "row", "source", "location"]
    table: list[list[str | int]] = []
    for comparison in comparisons:
        c = comparison.claim
        names = [text_cell(text) for text in (c.method, c.variant, c.dataset)]
        start = [
            *names,
            f"{c.imbalance_factor:g}",
            text_cell(c.backbone),
            c.group,
            c.selection,
            published(c.value),
        ]
        ends = [text_cell(c.source), text_cell(c.location)]
        for measured in comparison.measured:
            numbers = [*_csv_stat(measured.stat), percent(measured.delta, DIGITS)]
            table.append([*start, comparison.status, *numbers, text_cell(measured.place.row.name), *ends])
        if not comparison.measured:
            table.append([*start, comparison.status, "", "", "", "", "", *ends])
    return _csv(head, table)


def text_cell(text: str) -> str:
    """Text that a spreadsheet does not take for a formula. Numbers never pass here, so they stay numbers."""
    flat = " ".join(text.split())
    return f"'{flat}" if flat.startswith(("=", "+", "-", "@")) else flat


def _csv(head: list[str], table: list[list[str | int]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([head, *table])
    return text.getvalue()
