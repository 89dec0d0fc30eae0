"""The ratios as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

LOSS_AIM = 3.0  # times plain cross-entropy, at most
LOOP_AIMS = {("cpu", "float32"): 1.4, ("cpu", "bfloat16"): 2.3, ("cuda", "float32"): 8.0, ("cuda", "bfloat16"): 8.0}

Row = dict[str, Any]


def show(report: dict[str, Any]) -> None:
    """Prints what was measured, a table for each part that has figures."""
    console, parts = Console(), report["parts"]
    if not console.is_terminal:  # a file or a pipe has no width; rich would take 80 columns
        console = Console(width=120)
    if parts["losses"]:
        console.print(loss_table(parts["losses"]))
        console.print(above(parts["losses"]), markup=False, highlight=False)
    if parts["loader"]:
        console.print(loader_table(parts["loader"]))
    if parts["loop"]:
        kind = "cpu" if report["machine"]["device"].startswith("CPU") else "cuda"
        console.print(loop_table(parts["loop"], kind))
    if parts["report"]:
        console.print(report_table(parts["report"]))


def _table(title: str, words: Sequence[str], figures: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table whose first columns are words, and whose others are figures."""
    table = Table(title=title)
    for column in words:
        table.add_column(column)
    for column in figures:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*row)
    return table


def loss_table(rows: list[Row]) -> Table:
    """A line for each method and stage: its time and memory over plain cross-entropy's, for each number of classes."""
    classes = sorted({row["classes"] for row in rows})
    cells = {(row["method"], row["stage"], row["classes"]): row for row in rows}
    lines = []
    for method, stage in dict.fromkeys((row["method"], row["stage"]) for row in rows):
        found = [cells.get((method, stage, count)) for count in classes]
        times = [f"{row['ratio']['median']:.2f}{'!' if _slow(row) else ''}" if row else "-" for row in found]
        memory = [f"{row['memory_bytes'] / row['plain_memory_bytes']:.2f}" if row else "-" for row in found]
        lines.append((method, stage, *times, *memory))
    title = "head + loss, forward + backward: times plain cross-entropy with a linear head"
    return _table(title, ("method", "stage"), [f"{w} C={c}" for w in ("time", "memory") for c in classes], lines)


def _slow(row: Row) -> bool:
    return bool(row["ratio"]["median"] > LOSS_AIM)


def above(rows: list[Row]) -> str:
    """Which losses miss the aim, the slowest first."""
    slow = sorted((row for row in rows if _slow(row)), key=lambda row: -row["ratio"]["median"])
    names = [f"{row['method']} {row['stage']} C={row['classes']}" for row in slow]
    figures = [f"{row['ratio']['median']:.2f}x, {row['milliseconds']:.2f} ms" for row in slow]
    lines = [f"  {name}: {figure}" for name, figure in zip(names, figures, strict=True)]
    return "\n".join([f"above the aim of {LOSS_AIM:g}x: {len(lines) or 'none'}", *lines])


def loader_table(rows: list[Row]) -> Table:
    """Images per second of the data path alone, and the processes that either side has for it."""
    lines = [
        (row["case"], *_speeds(row, "ours", "plain"), f"{row['processes']} / {row['plain_processes']}", _span(row))
        for row in rows
    ]
    return _table("data path alone, images/s", ["what"], ("ours", "plain", "processes", "ours / plain"), lines)


def loop_table(rows: list[Row], kind: str) -> Table:
    """Images per second of our loop, of the plain one and of the kernels alone. `kind`: cpu or cuda."""
    title = f"training loop, {rows[0]['backbone']}, batch {rows[0]['batch']}, images/s ({rows[0]['data']})"
    lines = []
    for row in rows:
        floor = f"{row['of_floor']['median']:.2f}" if row["of_floor"] else ""
        aim = f"{LOOP_AIMS[kind, row['precision']]:g}" if row["case"].startswith("stage 1") else ""
        lines.append((row["case"], row["precision"], *_speeds(row, "ours", "plain", "floor"), _span(row), aim, floor))
    figures = ("ours", "plain", "floor", "ours / plain", "aim", "ours / floor")
    return _table(title, ("what", "precision"), figures, lines)


def report_table(rows: list[Row]) -> Table:
    """Seconds, memory and size of a report."""
    lines = [
        (f"{row['records']:,}", f"{row['seconds']:.1f}", f"{row['peak_memory_mb']:,.0f}", f"{row['page_mb']}")
        for row in rows
    ]
    figures = ("records", "seconds", "peak memory (MB)", "page (MB)")
    return _table("ltbench report, from records to a finished page", (), figures, lines)


def _speeds(row: Row, *names: str) -> list[str]:
    speeds = row["images_per_second"]
    return [f"{speeds[name]:,.0f}" if name in speeds else "" for name in names]


def _span(row: Row) -> str:
    """Median of the ratios, and the range over the rounds."""
    return "{median:.2f} ({low:.2f}-{high:.2f})".format_map(row["ratio"])
