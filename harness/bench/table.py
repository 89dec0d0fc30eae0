"""The ratios as tables for a terminal."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from harness.base.screen import console, table

LOSS_AIM = 3.0  # times plain cross-entropy, at most
LOOP_AIMS = {("cpu", "float32"): 1.4, ("cpu", "bfloat16"): 2.3, ("cuda", "float32"): 8.0, ("cuda", "bfloat16"): 8.0}

Row = dict[str, Any]


def show(report: dict[str, Any]) -> None:
    """Prints what was measured, a table for each part that has figures."""
    screen, parts = console(), report["parts"]
    if parts["losses"]:
        screen.print(loss_table(parts["losses"]))
        screen.print(above(parts["losses"]), markup=False, highlight=False)
    if parts["loader"]:
        screen.print(loader_table(parts["loader"]))
    if parts["loop"]:
        kind = "cpu" if report["machine"]["device"].startswith("CPU") else "cuda"
        screen.print(loop_table(parts["loop"], kind))
    if parts["steps"]:
        screen.print(step_table(parts["steps"]))
    if parts["report"]:
        screen.print(report_table(parts["report"]))


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
    head = ("method", "stage", *(f"{what} C={count}" for what in ("time", "memory") for count in classes))
    return table(title, head, lines, words=("method", "stage"))


def _slow(row: Row) -> bool:
    return bool(row["ratio"]["median"] > LOSS_AIM)


def above(rows: list[Row]) -> str:
    """Which losses miss the aim, the slowest first."""
    slow = sorted((row for row in rows if _slow(row)), key=lambda row: -row["ratio"]["median"])
    lines = [f"above the aim of {LOSS_AIM:g}x: {len(slow) or 'none'}"]
    for row in slow:
        figures = f"{row['ratio']['median']:.2f}x, {row['milliseconds']:.2f} ms"
        lines.append(f"  {row['method']} {row['stage']} C={row['classes']}: {figures}")
    return "\n".join(lines)


def loader_table(rows: list[Row]) -> Table:
    """Images per second of the data path alone, and the processes that either side has for it."""
    lines = [
        (row["case"], *_speeds(row, "ours", "plain"), f"{row['processes']} / {row['plain_processes']}", _span(row))
        for row in rows
    ]
    head = ("what", "ours", "plain", "processes", "ours / plain")
    return table("data path alone, images/s", head, lines, words=("what",))


def loop_table(rows: list[Row], kind: str) -> Table:
    """Images per second of our loop, of the plain one and of the kernels alone. `kind`: cpu or cuda."""
    title = f"training loop, {rows[0]['backbone']}, batch {rows[0]['batch']}, images/s ({rows[0]['data']})"
    lines = []
    for row in rows:
        floor = f"{row['of_floor']['median']:.2f}" if row["of_floor"] else ""
        aim = f"{LOOP_AIMS[kind, row['precision']]:g}" if row["case"].startswith("stage 1") else ""
        lines.append((row["case"], row["precision"], *_speeds(row, "ours", "plain", "floor"), _span(row), aim, floor))
    head = ("what", "precision", "ours", "plain", "floor", "ours / plain", "aim", "ours / floor")
    return table(title, head, lines, words=("what", "precision"))


def step_table(rows: list[Row]) -> Table:
    """Time of each method's stages for a training image."""
    lines = [(row["method"], row["stage"], _span(row)) for row in rows]
    title = f"training, {rows[0]['backbone']}, batch {rows[0]['batch']}: time for an image, times cross-entropy's"
    return table(title, ("method", "stage", "times ce"), lines, words=("method", "stage"))


def report_table(rows: list[Row]) -> Table:
    """Seconds, memory and size of a report."""
    lines = [
        (f"{row['records']:,}", f"{row['seconds']:.1f}", f"{row['peak_memory_mb']:,.0f}", f"{row['page_mb']}")
        for row in rows
    ]
    head = ("records", "seconds", "peak memory (MB)", "page (MB)")
    return table("ltbench report, from records to a finished page", head, lines)


def _speeds(row: Row, *names: str) -> list[str]:
    speeds = row["images_per_second"]
    return [f"{speeds[name]:,.0f}" if name in speeds else "" for name in names]


def _span(row: Row) -> str:
    """Median of the ratios, and the range over the rounds."""
    return "{median:.2f} ({low:.2f}-{high:.2f})".format_map(row["ratio"])
