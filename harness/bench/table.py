"""The ratios as tables for a terminal."""

from __future__ import annotations

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
    kind = "cpu" if report["machine"]["device"].startswith("CPU") else "cuda"
    if parts["losses"]:
        console.print(loss_table(parts["losses"]))
        console.print(above(parts["losses"]), markup=False, highlight=False)
    if parts["loader"]:
        console.print(loader_table(parts["loader"]))
    if parts["loop"]:
        console.print(loop_table(parts["loop"], kind))
    if parts["report"]:
        console.print(report_table(parts["report"]))


def loss_table(rows: list[Row]) -> Table:
    """A line for each method and stage: its time and memory over plain cross-entropy's, for each number of classes."""
    classes = sorted({row["classes"] for row in rows})
    table = Table(title="head + loss, forward + backward: times plain cross-entropy with a linear head")
    for column in ("method", "stage"):
        table.add_column(column)
    for what in ("time", "memory"):
        for count in classes:
            table.add_column(f"{what} C={count}", justify="right")
    cells = {(row["method"], row["stage"], row["classes"]): row for row in rows}
    for method, stage in dict.fromkeys((row["method"], row["stage"]) for row in rows):
        found = [cells.get((method, stage, count)) for count in classes]
        times = [f"{row['ratio']['median']:.2f}{'!' if _slow(row) else ''}" if row else "-" for row in found]
        memory = [f"{row['memory_bytes'] / row['plain_memory_bytes']:.2f}" if row else "-" for row in found]
        table.add_row(method, stage, *times, *memory)
    return table


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
    table = Table(title="data path alone, images/s")
    for column in ("what", "ours", "plain", "processes", "ours / plain"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for row in rows:
        speed, processes = row["images_per_second"], f"{row['processes']} / {row['plain_processes']}"
        table.add_row(row["case"], _whole(speed["ours"]), _whole(speed["plain"]), processes, _span(row["ratio"]))
    return table


def loop_table(rows: list[Row], kind: str) -> Table:
    """Images per second of our loop, of the plain one and of the kernels alone. `kind`: cpu or cuda."""
    table = Table(title=f"training loop, {rows[0]['backbone']}, batch {rows[0]['batch']}, images/s ({rows[0]['data']})")
    for column in ("what", "precision", "ours", "plain", "floor", "ours / plain", "aim", "ours / floor"):
        table.add_column(column, justify="left" if column in ("what", "precision") else "right")
    for row in rows:
        speed, floor = row["images_per_second"], row["of_floor"]
        aim = LOOP_AIMS[kind, row["precision"]] if row["case"].startswith("stage 1") else None
        table.add_row(
            row["case"],
            row["precision"],
            _whole(speed["ours"]),
            _whole(speed["plain"]),
            _whole(speed["floor"]) if floor else "",
            _span(row["ratio"]),
            f"{aim:g}" if aim else "",
            f"{floor['median']:.2f}" if floor else "",
        )
    return table


def report_table(rows: list[Row]) -> Table:
    """Seconds, memory and size of a report."""
    table = Table(title="ltbench report, from records to a finished page")
    for column in ("records", "seconds", "peak memory (MB)", "page (MB)"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            f"{row['records']:,}", f"{row['seconds']:.1f}", _whole(row["peak_memory_mb"]), f"{row['page_mb']}"
        )
    return table


def _whole(value: float) -> str:
    return f"{value:,.0f}"


def _span(ratio: dict[str, float]) -> str:
    """Median, and the range over the rounds."""
    return f"{ratio['median']:.2f} ({ratio['low']:.2f}-{ratio['high']:.2f})"
