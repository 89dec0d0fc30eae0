"""Arguments and options that several commands share, and what they mean."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.base.errors import UserError
from harness.datasets._forms import ANY

if TYPE_CHECKING:
    from harness.records.collect import Collected


def named(what: str, metavar: str, text: str) -> Any:
    """An argument that the shell completes by the names of `harness.plugins.completion`."""
    return typer.Argument(metavar=metavar, help=text, autocompletion=completed_by(what))


def long(text: str, what: str = "") -> Any:
    """A long option that names a part of a cell."""
    panel = "The cell in long options"
    return typer.Option(help=text, rich_help_panel=panel, autocompletion=completed_by(what) if what else None)


def completed_by(what: str) -> Callable[[typer.Context, str], list[str]]:
    """What the shell offers: the names that `harness.plugins.completion` knows."""

    def offered(ctx: typer.Context, incomplete: str) -> list[str]:
        from harness.plugins.completion import names

        return names(what, ctx.params, incomplete)

    return offered


Backbone = Annotated[str | None, typer.Option(help="timm name; default the recipe's")]
Seeds = Annotated[str, typer.Option(help="run seeds, e.g. 0,1,2")]
Device = Annotated[str, typer.Option(help="auto (CUDA where there is one), cpu, cuda, cuda:<number>")]
Suite = Annotated[str, typer.Option(help="suite in harness/suites.yaml", autocompletion=completed_by("suites"))]
Processes = Annotated[int, typer.Option("--nproc", help="processes that train each run together, a device each")]
MicroBatch = Annotated[int, typer.Option(help="images at once in a process; gradients are added up (0: no limit)")]
SyncBatchNorm = Annotated[bool, typer.Option("--sync-bn", help="BatchNorm over all processes (CUDA)")]
KeepGoing = Annotated[
    bool, typer.Option("--keep-going", help="record a failed run and exit with 0 (the pipeline's way)")
]
Holdout = Annotated[
    float,
    typer.Option(help="of your own data without a test part: share of each class to set aside, e.g. 0.2"),
]
SplitName = Annotated[str, named("splits", "SPLIT", "<data set>-lt-if<imbalance factor>, e.g. mnist5k-lt-if100")]
CellSplit = Annotated[
    str, named("cells", "SPLIT", f"a split, or a data set for its usual one: cifar10-lt-if50, cifar10, {ANY}")
]
CellEntry = Annotated[
    str, named("entries", "ENTRY", "method[-variant]@track, e.g. tvmf-k64@short; the track common if none is given")
]
DatasetOption = Annotated[str, long("instead of SPLIT: a data set", "datasets")]
Factor = Annotated[float | None, long("of a data set's split, instead of its usual one")]
Method = Annotated[str, long("instead of ENTRY: a method", "methods")]
Variant = Annotated[str, long("variant of the method")]
Track = Annotated[str, long("paper, common or short; default common")]
SuiteName = Annotated[str, named("suites", "SUITE", "suite in harness/suites.yaml (ltbench list suites)")]
Roots = Annotated[list[Path] | None, typer.Argument(help="folders with records")]
DatasetNames = Annotated[
    list[str], named("datasets", "DATASET...", f"data sets (ltbench list datasets), or your own: {ANY}")
]
AsJson = Annotated[bool, typer.Option("--json", help="for machines")]
Mirror = Annotated[Path | None, typer.Option(help="folder with <data set>/<file> or <file>; default LTBENCH_MIRROR")]
PerDevice = Annotated[
    int,
    typer.Option(
        min=0, help="runs at once on each device; default one a core; on a GPU four, or what a campaign measures"
    ),
]
Only = Annotated[list[str] | None, typer.Option(metavar="PATTERN", help="entries, e.g. 'ce@*'")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="in every recipe, e.g. recipe.epochs=2")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="only what would be run, and the time by measured costs")]
CAMPAIGNS = Path("runs/campaigns")
OWN_RECORDS = "runs/records"  # where `ltbench run` leaves them


def either(argument: str, option: str, name: str, flag: str, default: str = "") -> str:
    """What names a part of a cell: an argument, or the long option in its place."""
    if argument and option:
        raise UserError(f"{name} {argument} and {flag} {option}: give one of them")
    if found := argument or option or default:
        return found
    raise UserError(f"{name} (or {flag}) is missing, e.g. ltbench run mnist5k ce@common")


def records_in(named: list[Path] | None) -> Collected:
    """All records under the named folders, or under this checkout's."""
    from harness.records.collect import ROOTS, collect

    for root in named or []:
        if not root.is_dir():
            raise UserError(f"{root}: no such folder; name folders with records")
    if not named and not any(root.is_dir() for root in ROOTS):
        raise UserError(f"{ROOTS[0]}: no such folder; call this in a checkout, or name folders: {OWN_RECORDS}")
    if not named and Path(OWN_RECORDS).is_dir():
        print(
            f"from {' and '.join(map(str, ROOTS))}; for your own runs name their folder: {OWN_RECORDS}", file=sys.stderr
        )
    return collect(*(named or ROOTS))
