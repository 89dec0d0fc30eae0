"""Commands that run or score one cell."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.base.errors import UserError
from harness.cli import arguments as given
from harness.cli.groups import RUNS

app = typer.Typer()


@app.command(rich_help_panel=RUNS)
def run(
    split: given.CellSplit = "",
    entry: given.CellEntry = "",
    seeds: given.Seeds = "0,1,2",
    dataset: given.DatasetOption = "",
    method: given.Method = "",
    variant: given.Variant = "",
    track: given.Track = "",
    backbone: given.Backbone = None,
    imbalance_factor: given.Factor = None,
    set_: given.Overrides = None,
    out: Annotated[Path, typer.Option(help="folder for everything the run leaves")] = Path("runs"),
    device: given.Device = "auto",
    holdout: given.Holdout = 0.0,
    dry_run: given.DryRun = False,
) -> None:
    """The whole path for one cell without DVC; ends with its many/medium/few table."""
    from harness.running import cells, estimates
    from harness.spec.entries import entry_of
    from harness.spec.recipes import resolve
    from harness.spec.suites import parse_seeds
    from harness.splits.split_names import split_of

    row = entry_of(given.either(entry, method, "ENTRY", "--method"), variant, track)
    data, name = split_of(
        given.either(split, dataset, "SPLIT", "--dataset"),
        imbalance_factor=imbalance_factor,
        holdout=holdout,
        where="--dataset" if dataset else "",
    )
    act = estimates.of_cell if dry_run else cells.run_alone
    act(resolve(row, data.name, set_ or [], backbone), name, data, parse_seeds(seeds), out, device)


@app.command("finetune", help="Second stage of a cell, all seeds; --first names its first one.", rich_help_panel=RUNS)
@app.command("train", help="First stage of a cell, all seeds; resumes what was interrupted.", rich_help_panel=RUNS)
def train_stage(
    context: typer.Context,
    split: given.CellSplit,
    entry: given.CellEntry,
    out: Annotated[Path, typer.Option(help="folder of the cell's stage")],
    first: Annotated[Path | None, typer.Option(help="folder of the first stage, which finetune needs")] = None,
    seeds: given.Seeds = "0,1,2",
    device: given.Device = "auto",
    keep_going: given.KeepGoing = False,
    nproc: given.Processes = 1,
    micro_batch: given.MicroBatch = 0,
    sync_bn: given.SyncBatchNorm = False,
) -> None:
    """One stage of a cell."""
    from harness.running import cells
    from harness.spec.entries import entry_of
    from harness.spec.spread import asked_for
    from harness.splits.split_names import split_of

    if (first is None) == (context.info_name == "finetune"):
        raise UserError("--first: missing" if first is None else "--first: of finetune; the first stage starts anew")
    if first and first.resolve() == out.resolve():
        raise UserError(f"--out {out}: --first lies there, and would be overwritten; name another folder")
    spread, row = asked_for(nproc, micro_batch, sync_bn), str(entry_of(entry))
    cells.run_stage(cells.StageRequest(split_of(split)[1], row, seeds, out, device, keep_going, spread, first))


@app.command(rich_help_panel=RUNS)
def evaluate(
    split: given.SplitName,
    run: Annotated[list[Path], typer.Option(help="folders of the cell's stages, first to last")],
    out: Annotated[Path, typer.Option(help="folder for the records")],
    seeds: given.Seeds = "0,1,2",
    shots: Annotated[str, typer.Option(help="shot policy")] = "strict_100_20",
) -> None:
    """Score stored predictions: one record a run, for every selection rule. Needs no torch and no GPU."""
    from harness.records.evaluate import evaluate as score
    from harness.spec import suites
    from harness.splits.split_names import parse_split_name

    split, runs = str(parse_split_name(split)), list(dict.fromkeys(run))
    for path in score(suites.SPLITS / f"{split}.json", runs, suites.parse_seeds(seeds), out, shots):
        print(path)


@app.command(rich_help_panel=RUNS)
def reproduce(
    record: Annotated[
        Path | None, typer.Argument(help="a record, e.g. results/records/<split>/<track>/<entry>/seed0.json")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="a new folder; default runs/reproduced/<run key>")] = None,
    device: given.Device = "auto",
    restore: Annotated[bool, typer.Option("--restore", help="then put the committed results and reports back")] = False,
    dry_run: given.DryRun = False,
) -> None:
    """Run one record's run again and compare; without a record, compare results/records with the committed ones."""
    from harness.running import cells, committed, estimates

    if record is None:
        for option, value in (("--out", out), ("--device", device != "auto"), ("--dry-run", dry_run)):
            if value:
                raise UserError(f"{option}: needs a RECORD; without one nothing is run")
        print("\n".join(committed.compare_with_committed()))
    else:
        (estimates.of_record if dry_run else cells.reproduce)(record, out, device)
    if restore and not dry_run:
        committed.restore()
        print("the committed results, reports and dvc.lock are back")
