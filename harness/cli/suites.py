"""Commands that run whole suites, and say how far they are."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from harness.base.errors import UserError
from harness.cli.arguments import CAMPAIGNS, AsJson, Device, DryRun, Only, Overrides, PerDevice, Suite, SuiteName, named
from harness.cli.groups import SUITES

app = typer.Typer()


@app.command(rich_help_panel=SUITES)
def campaign(
    suite: SuiteName,
    budget: Annotated[
        float | None, typer.Option(min=0, help="seconds of wall time; the same command goes on with what is left")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="folder for everything the campaign leaves; default runs/campaigns/SUITE")
    ] = None,
    device: Device = "auto",
    per_device: PerDevice = 0,
    only: Only = None,
    set_: Overrides = None,
    dry_run: DryRun = False,
) -> None:
    """Run as much of a suite as a time budget allows, several runs at once, without DVC."""
    from harness.running import estimates
    from harness.running.campaign import campaign as run_campaign
    from harness.running.plans import Settings

    settings = Settings(out or CAMPAIGNS / suite, device, per_device, tuple(only or ()), tuple(set_ or ()))
    if dry_run:
        return estimates.of_suite(suite, settings)
    if budget is None:
        raise UserError(
            f"--budget: missing, in seconds; `ltbench campaign {suite} --dry-run` says how long it will take"
        )
    done = run_campaign(suite, budget, settings)
    more = "; the same command goes on" if done.left else ""
    more += " (the budget ended before the first run did)" if done.left and not done.made else ""
    print(f"{settings.out / 'records'}: {done.made} records made, {done.left} left{more}")
    return done.check()


@app.command(rich_help_panel=SUITES)
def sweep(
    suite: SuiteName,
    executor: Annotated[str, typer.Option(help="local, ray or slurm")] = "local",
    out: Annotated[Path | None, typer.Option(help="folder that every machine sees; default runs/sweeps/SUITE")] = None,
    device: Device = "auto",
    per_device: PerDevice = 0,
    only: Only = None,
    set_: Overrides = None,
    attempts: Annotated[int, typer.Option(min=1, help="how often a run that is lost is tried")] = 3,
    ray_address: Annotated[
        str, typer.Option(help="HOST:PORT of a Ray cluster's head; default a Ray of this machine alone")
    ] = "",
    slurm: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="partition, account, time (minutes), ...")
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Run a whole suite on this machine or a cluster; the default one also becomes what DVC would have made."""
    from harness.running import estimates
    from harness.running.plans import Settings
    from harness.running.sweep import publish
    from harness.running.sweep.executors import Options
    from harness.running.sweep.head import Rules
    from harness.running.sweep.suite import sweep as run_sweep

    settings = Settings(out or Path("runs/sweeps") / suite, device, per_device, tuple(only or ()), tuple(set_ or ()))
    options = Options(executor, ray_address, tuple(slurm or ()))
    if dry_run:
        return estimates.of_suite(suite, settings, here=executor == "local")
    published = publish.concerns(suite, settings)
    done = run_sweep(suite, settings, Rules(attempts), options, published=published)
    print(f"{settings.out / 'records'}: {done.made} records made, {done.failed} runs failed")
    if published and not done.left and not done.left_out:
        print(f"results/: {publish.publish(settings.out)} records as the pipeline makes them; next: dvc commit --force")
    return done.check()


@app.command(rich_help_panel=SUITES)
def status(
    suite: Annotated[str, named("suites", "[SUITE]", "suite of a campaign; without one: what is in results")] = "",
    out: Annotated[Path | None, typer.Option(help="the campaign's folder; default runs/campaigns/SUITE")] = None,
    save: Annotated[
        Path | None, typer.Option(metavar="DIR", help="copy what a lost machine would cost; cp -r brings it back")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Cells done, failed and stale, and the campaigns; of one campaign: records made, runs under way, hours left."""
    if not suite and not out:
        from harness.running import overview

        if save:
            raise UserError("--save: of a campaign; name its suite")
        found = overview.look(CAMPAIGNS)
        return print(json.dumps(found.as_json(), indent=1)) if as_json else overview.show(found)
    from harness.records.progress import read_progress
    from harness.running import status as progress_file

    out = out or CAMPAIGNS / suite
    progress = read_progress(suite, out)
    lines = progress_file.describe(progress, out)
    print(json.dumps(progress_file.as_json(progress, out), indent=1) if as_json else "\n".join(lines))
    if save:
        files = progress_file.save(progress, out, save)
        size = sum(path.stat().st_size for path in files) / 1e6
        print(f"{save}: {len(files)} files, {size:.1f} MB", file=sys.stderr)
    return None


@app.command(rich_help_panel=SUITES)
def retry(suite: Suite = "default") -> None:
    """Run the failed cells of a suite again (with DVC), then what depends on them."""
    from harness.running import cells

    raise typer.Exit(cells.retry(suite))
