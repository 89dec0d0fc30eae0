"""Commands about data sets and splits."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from harness.base.errors import UserError
from harness.cli import arguments as given
from harness.cli.groups import DATA

app = typer.Typer()


@app.command(rich_help_panel=DATA)
def fetch(
    datasets: given.DatasetNames,
    mirror: given.Mirror = None,
    to: Annotated[Path | None, typer.Option(help="default LTBENCH_DATA, else data/")] = None,
    repair: Annotated[bool, typer.Option("--repair", help="replace files whose hash is wrong")] = False,
    holdout: given.Holdout = 0.0,
) -> None:
    """Bring raw data here, verified against the pinned hashes."""
    from harness.splits import store

    for dataset in [store.get_dataset(name, holdout=holdout) for name in datasets]:
        folder = store.fetch(dataset, to or store.data_root(), mirror, repair=repair)
        print(f"{dataset.name}: verified in {folder}" if dataset.files else f"{dataset.name}: {dataset.title}")
        print("".join(f"{line}\n" for line in dataset.passed_over), end="")


@app.command(rich_help_panel=DATA)
def verify(
    datasets: given.DatasetNames,
    quick: Annotated[bool, typer.Option("--quick", help="of large sets: whether the files are there, no more")] = False,
    manifest: Annotated[Path | None, typer.Option(help="write what was found there, as JSON")] = None,
    holdout: given.Holdout = 0.0,
) -> None:
    """List missing, damaged and duplicate images before any training; exits with 0 only if all is sound."""
    from harness.base.files import write_json
    from harness.splits import store
    from harness.splits.verify import verify as look_for_faults

    named = [store.get_dataset(name, holdout=holdout) for name in datasets]
    reports = [look_for_faults(dataset, quick=quick) for dataset in named]
    for dataset, report in zip(named, reports, strict=True):
        print("\n".join([*report.lines(), *dataset.passed_over]))
    if manifest:
        write_json(manifest, [report.as_dict() for report in reports])
    raise typer.Exit(0 if all(report.sound for report in reports) else 1)


@app.command(rich_help_panel=DATA)
def doctor(
    split: given.CellSplit = "",
    entry: given.CellEntry = "",
    method: given.Method = "",
    dataset: given.DatasetOption = "",
    variant: given.Variant = "",
    track: given.Track = "",
    backbone: given.Backbone = None,
    imbalance_factor: given.Factor = None,
    holdout: given.Holdout = 0.0,
    device: given.Device = "auto",
    quick: Annotated[bool, typer.Option("--quick", help="of large images: whether they are there, no more")] = False,
    set_: given.Overrides = None,
) -> None:
    """What is wrong with a data set, what to do, and how it would be trained; exits with 2 if a run would refuse it."""
    from harness.running.doctor import examine
    from harness.spec.entries import entry_of

    row = entry_of(given.either(entry, method, "ENTRY", "--method", "ce"), variant, track)
    found = examine(
        given.either(split, dataset, "SPLIT", "--dataset"),
        row,
        holdout=holdout,
        factor=imbalance_factor,
        backbone=backbone,
        overrides=set_ or [],
        device=device,
        quick=quick,
    )
    print("\n".join(found.lines()))
    if found.stops:
        raise UserError(f"{found.name}: a run would refuse it ({len(found.stops)} times STOP above)")
    options = [("backbone", backbone), *(("set", item) for item in set_ or [])]
    more = "".join(f" --{name} {shlex.quote(value)}" for name, value in options if value)
    print(f"{'next':<10}ltbench run {found.name} {row}{more}")


@app.command(rich_help_panel=DATA)
def split(
    names: Annotated[list[str], typer.Argument(metavar="SPLIT...", help="e.g. mnist5k-lt-if100")],
    out: Annotated[Path, typer.Option(help="folder for the split files")] = Path("results/splits"),
) -> None:
    """Write long-tailed splits: which images are used, once for every stage of every method."""
    from harness.splits import split_names, splits, store

    for name in map(split_names.parse_split_name, names):
        dataset = store.get_dataset(name.dataset)
        made = splits.build_split(str(name), store.find(dataset), store.load(dataset))
        splits.write_split(made, out / f"{name}.json")
        counts = made.class_counts
        print(
            f"{out / f'{name}.json'}: {sum(counts)} training images in {len(counts)} classes "
            f"({max(counts)} ... {min(counts)})"
        )
