"""Commands that show, check and publish results."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from harness.base.errors import RunFailed, UserError
from harness.cli.arguments import Device, Roots, records_in
from harness.cli.groups import RESULTS

app = typer.Typer()


@app.command(rich_help_panel=RESULTS)
def show(
    roots: Roots = None,
    suite: Annotated[str, typer.Option(help="only the splits and entries of a suite (ltbench list suites)")] = "",
    selection: Annotated[str, typer.Option(help="selection rule: last, best_val or best_test")] = "last",
    format_: Annotated[str, typer.Option("--format", help="table, md, csv (percent) or json (fractions)")] = "table",
) -> None:
    """The leaderboard's tables in the terminal."""
    from harness.reporting.terminal import show as print_tables

    print_tables(records_in(roots), suite, selection, format_)


@app.command(rich_help_panel=RESULTS)
def report(
    roots: Roots = None,
    out: Annotated[Path, typer.Option(help="folder that can be served as static pages as it is")] = Path("reports"),
    open_: Annotated[bool, typer.Option("--open", help="show it in the browser")] = False,
) -> None:
    """The leaderboard as one self-contained HTML file, its tables as Markdown, LaTeX and CSV, its figures as SVG."""
    from harness.reporting.report import build_report, sources

    page = build_report(records_in(roots), out, sources())
    print(f"report: {page}")
    if open_ and not typer.launch(page.resolve().as_uri()) == 0:
        raise RunFailed(f"no browser could be started; open {page} yourself")


@app.command(rich_help_panel=RESULTS)
def collect(
    roots: Roots = None,
    out: Annotated[Path, typer.Option()] = Path("results/table.csv"),
    import_: Annotated[
        list[Path] | None, typer.Option("--import", metavar="DIR", help="first take over the records of a campaign")
    ] = None,
) -> None:
    """All records as one tidy table."""
    from harness.records.table import rows, write_table
    from harness.splits.notes import counted

    refused = [reason for folder in import_ or [] for reason in _imported(folder)]
    table = rows(records_in(roots))
    write_table(table, out)
    print(f"{out}: {len(table)} rows")
    if refused:
        raise UserError(f"{counted(len(refused), 'record')} refused: {refused[0]}" + (" ..." if refused[1:] else ""))


def _imported(folder: Path) -> list[str]:
    """Takes a campaign's records over; the reasons why some were refused."""
    from harness.records.imports import IMPORTED, import_campaign
    from harness.spec.suites import SPLITS

    found = import_campaign(folder, SPLITS)
    there = f"{len(found.known)} were there already"
    print(f"{IMPORTED / folder.resolve().name}: {len(found.taken)} records imported, {there}")
    for reason in found.refused:
        print(f"refused: {reason}", file=sys.stderr)
    return found.refused


@app.command(rich_help_panel=RESULTS)
def validate(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="records that somebody sent, as a campaign wrote them")],
    rerun: Annotated[int, typer.Option(metavar="K", min=0, help="measure K of the runs again, chosen at random")] = 0,
    device: Device = "auto",
) -> None:
    """Check a submission: recompute every score; with --rerun, measure some runs again. Writes DIR/validation.json."""
    from harness.records.check import VERDICT
    from harness.running.validate import validate as check
    from harness.splits.notes import counted

    found = check(folder, rerun, device, Path("runs/validation") / folder.resolve().name)
    for line in (*(f"refused: {reason}" for reason in found.refused), *(f"look at: {line}" for line in found.named)):
        print(line, file=sys.stderr)
    for one in found.records:
        if one.remark:
            print(f"{one.tier}: {one.record}: {one.remark}")
    print(f"{folder / VERDICT}: {found.tier}; {len(found.records)} records sound, {len(found.refused)} refused")
    if found.refused:
        raise UserError(f"{counted(len(found.refused), 'record')} refused")


@app.command("publish", rich_help_panel=RESULTS)
def publish_command(
    out: Annotated[Path, typer.Option(metavar="DIR", help="folder to serve; what it held before moves to archive/")],
    roots: Roots = None,
    site: Annotated[Path, typer.Option(metavar="FILE", help="title, boards, links")] = Path("reports/site.yaml"),
) -> None:
    """Make a static site: boards, a page for each method and run, downloads, a feed, earlier versions."""
    from harness.reporting.report import sources
    from harness.reporting.site.config import read_site
    from harness.reporting.site.publish import publish_site

    done = publish_site(records_in(roots), sources(), read_site(site), out, site.parent)
    print(f"{out / 'index.html'}: version {done.manifest.name}, {len(done.manifest.records)} runs")
    if done.unplaced:
        lost = ", ".join(f"{count} of {dataset}" for dataset, count in done.unplaced.items())
        print(f"{site}: on none of its boards: {lost} (runs, by data set)", file=sys.stderr)
    if done.archived:
        print(f"{out / 'archive' / done.archived}: the version before")


@app.command("preview", rich_help_panel=RESULTS)
def preview_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="a campaign's folder, or another checkout")],
) -> None:
    """What a submission would change here: its rows, their places, and published cells, as Markdown."""
    from harness.reporting.preview import preview
    from harness.reporting.report import sources

    print(preview(folder, records_in(None), sources()), end="")


@app.command("export", rich_help_panel=RESULTS)
def export_command(
    format_: Annotated[str, typer.Option("--format", help="every-eval-ever, hub or croissant (of each split)")],
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="default runs/exports/FORMAT")] = None,
    roots: Roots = None,
    site: Annotated[Path, typer.Option(metavar="FILE", help="who publishes them")] = Path("reports/site.yaml"),
) -> None:
    """Results and splits in the formats of others: every_eval_ever, model cards of the hub, Croissant."""
    from harness.reporting.exports.command import export
    from harness.reporting.site.config import read_site

    folder = Path("runs/exports") / format_ if out is None else out
    print(f"{folder}: {len(export(format_, folder, lambda: records_in(roots), read_site(site)))} files")
