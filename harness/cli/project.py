"""Commands for those who work on the project itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from harness.base.errors import RunFailed
from harness.cli.arguments import Device, Suite, records_in
from harness.cli.groups import PROJECT

app = typer.Typer()


@app.command(rich_help_panel=PROJECT)
def bench(
    part: Annotated[str, typer.Argument(help="losses, loader, loop, steps, report or all")] = "all",
    device: Device = "auto",
    threads: Annotated[int | None, typer.Option(help="of torch on the CPU; default one for each core")] = None,
    json_: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="write the figures there")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="tiny sizes: whether it works, not how fast it is")] = False,
) -> None:
    """Measure how fast losses, data path and loop are, as ratios to plain PyTorch in the same run."""
    from harness.bench import command

    command.bench(part, device, threads, json_, quick)


@app.command(rich_help_panel=PROJECT)
def grid() -> None:
    """Regenerate harness/grid.yaml, which dvc.yaml expands, from the default suite and the methods found."""
    from harness.base.files import shown
    from harness.spec import suites

    changed = suites.write_grid()
    print(f"{shown(suites.GRID_FILE)}: {'changed' if changed else 'up to date'}")


@app.command(rich_help_panel=PROJECT)
def recipes(suite: Suite = "default", out: Annotated[Path, typer.Option()] = Path("results/recipes")) -> None:
    """Freeze the recipe and code version of each stage of a suite: what its runs depend on."""
    from harness.spec.suites import write_recipes

    print(f"{out}: {len(write_recipes(suite, out))} recipes frozen")


@app.command(rich_help_panel=PROJECT)
def tables(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="Markdown files with blocks <!-- table NAME RULE -->, <!-- study ID -->, <!-- findings -->, "
            "<!-- tiers ID ID -->, <!-- paper ID COLUMN --> or <!-- published -->"
        ),
    ],
    records: Annotated[list[Path] | None, typer.Option(help="folders with records")] = None,
) -> None:
    """Put the current numbers into the tables of hand-written Markdown files."""
    from harness.reporting.documents import refresh_files
    from harness.reporting.report import fill_tables, ranked_sections, sources, study_results

    found = replace(sources(), current=None)  # which code measured a row stands on the page, not in prose
    ranked = ranked_sections(records_in(records), found)
    papers = fill_tables(ranked.sections, found).tables
    changed = refresh_files(files, ranked.sections, study_results(ranked, found), papers)
    for path in files:
        print(f"{path}: {'changed' if path in changed else 'as it was'}")


@app.command("same-bits", rich_help_panel=PROJECT)
def same_bits(
    revision: Annotated[str, typer.Argument(help="git commit whose code is compared with this checkout's")],
    suite: Annotated[str, typer.Option(help="only this part, a suite's name; another name lists them")] = "",
) -> None:
    """After an edit of the engine: run a small suite with both versions; exits with 0 only if every bit is the same."""
    from harness.records.same_code import SAME_CODE
    from harness.running.same_bits import compare_with

    found = compare_with(revision, suite)
    print(f"{SAME_CODE}: the same bits as with the code of {revision}: {', '.join(found.same) or 'none'}")
    for method, difference in found.other.items():
        print(f"{method}: other bits ({difference})")
    if found.other:
        raise RunFailed(f"{len(found.other)} methods measure other numbers than with the code of {revision}")
