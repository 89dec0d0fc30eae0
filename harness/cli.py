"""The command line: one subcommand for each stage and chore.

Each command imports what it needs itself, so that help and completion are quick and need no torch.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness import __version__
from harness.base.errors import RunFailed, UserError, complaint
from harness.datasets._forms import ANY

if TYPE_CHECKING:
    from harness.records.collect import Collected

DATA, RUNS, SUITES, RESULTS = "Data", "One cell", "Whole suites", "Results"
METHODS, PROJECT = "Methods and recipes", "The project itself"

app = typer.Typer(
    name="ltbench",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Benchmark and reproduce long-tailed visual recognition methods under identical conditions.",
)

weights_app = typer.Typer(no_args_is_help=True, help="Score networks that others published, without any training.")
app.add_typer(weights_app, name="weights", rich_help_panel=RESULTS)


def _named(what: str, metavar: str, text: str) -> Any:
    """An argument that the shell completes by the names of `harness.plugins.completion`."""
    return typer.Argument(metavar=metavar, help=text, autocompletion=_names(what))


def _long(text: str, what: str = "") -> Any:
    """A long option that names a part of a cell."""
    panel = "The cell in long options"
    return typer.Option(help=text, rich_help_panel=panel, autocompletion=_names(what) if what else None)


def _names(what: str) -> Callable[[typer.Context, str], list[str]]:
    def offered(ctx: typer.Context, incomplete: str) -> list[str]:
        from harness.plugins.completion import names

        return names(what, ctx.params, incomplete)

    return offered


Backbone = Annotated[str | None, typer.Option(help="timm name; default the recipe's")]
Seeds = Annotated[str, typer.Option(help="run seeds, e.g. 0,1,2")]
Device = Annotated[str, typer.Option(help="auto (CUDA where there is one), cpu, cuda, cuda:<number>")]
Suite = Annotated[str, typer.Option(help="suite in harness/suites.yaml", autocompletion=_names("suites"))]
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
SplitName = Annotated[str, _named("splits", "SPLIT", "<data set>-lt-if<imbalance factor>, e.g. mnist5k-lt-if100")]
CellSplit = Annotated[
    str, _named("cells", "SPLIT", f"a split, or a data set for its usual one: cifar10-lt-if50, cifar10, {ANY}")
]
CellEntry = Annotated[
    str, _named("entries", "ENTRY", "method[-variant][@track], e.g. tvmf-k64@short; the track common if none is given")
]
DatasetOption = Annotated[str, _long("instead of SPLIT: a data set", "datasets")]
Factor = Annotated[float | None, _long("of a data set's split, instead of its usual one")]
Method = Annotated[str, _long("instead of ENTRY: a method", "methods")]
Variant = Annotated[str, _long("variant of the method")]
Track = Annotated[str, _long("paper, common or short; default common")]
SuiteName = Annotated[str, _named("suites", "SUITE", "suite in harness/suites.yaml (ltbench list suites)")]
Roots = Annotated[list[Path] | None, typer.Argument(help="folders with records")]
DatasetNames = Annotated[
    list[str], _named("datasets", "DATASET...", f"data sets (ltbench list datasets), or your own: {ANY}")
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


def main() -> None:
    """Entry point: a user's mistake is one line and exit code 2, a failed run 1, an interrupt 130."""
    signal.signal(signal.SIGINT, _interrupted)
    try:
        sys.exit(app(standalone_mode=False))
    except (UserError, RunFailed, OSError) as error:
        text, code = complaint(error)
    except CLICK_ERROR as error:
        text, code = error.format_message(), error.exit_code
        if text:  # without a subcommand there is none: the help has been shown
            text = f"error: {' '.join(text.split())}{_hint(error)}"
    print(text, file=sys.stderr, end="\n" if text else "")
    sys.exit(code)


CLICK_ERROR: Any = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")


def _hint(error: Any) -> str:
    """What to type where an option is none, but a key of recipes."""
    from harness.spec.stage_recipe import LAYER_KEYS

    option = getattr(error, "option_name", None) or ""
    key = option.lstrip("-").replace("-", "_")
    if key not in LAYER_KEYS or all(parameter.name != "set_" for parameter in error.ctx.command.params):
        return ""
    value = re.search(rf" {option}[ =](\S+)", " ".join(sys.argv))
    return f" '{key}' is a key of recipes: --set {key}={value[1] if value else '...'}"


def _interrupted(*_: object) -> None:
    if os.environ.get("RANK", "0") == "0":  # of several processes of one run, one speaks
        print("\ninterrupted; nothing is lost: the same command resumes", file=sys.stderr)
    sys.exit(130)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"ltbench {__version__}")
        raise typer.Exit


@app.callback()
def _options(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False) -> None:
    pass


@app.command("list", rich_help_panel=METHODS)
def list_(
    what: Annotated[str, typer.Argument(help="methods, datasets, backbones or suites")] = "methods",
    as_json: AsJson = False,
    check: Annotated[bool, typer.Option("--check", help="import each method, and say which ones are broken")] = False,
) -> None:
    """What is registered, a line each."""
    from harness.plugins import listing

    found = listing.items(what, check=check)
    if what == "backbones" and not as_json:
        print(
            f"{len(found)} networks, this project's first; random weights unless a recipe says `pretrained`",
            file=sys.stderr,
        )
    print(json.dumps(found, indent=1) if as_json else "\n".join(listing.lines(found)))


@app.command(rich_help_panel=METHODS)
def diff(split: CellSplit, entry: CellEntry, other: CellEntry, holdout: Holdout = 0.0, as_json: AsJson = False) -> None:
    """The keys in which two entries' recipes for a split differ, with their values and where they stand."""
    from harness.spec.differences import describe, differences, values
    from harness.spec.entries import entry_of
    from harness.splits.split_names import split_of

    dataset, name = split_of(split, holdout=holdout)
    first, second = entry_of(entry), entry_of(other)
    found = differences(values(first, dataset.name), values(second, dataset.name))
    content = {"split": name, "entries": [str(first), str(second)], "differences": [one.as_json() for one in found]}
    print(json.dumps(content, indent=1) if as_json else "\n".join(describe(name, (first, second), found)))


@app.command("new-method", rich_help_panel=METHODS)
def new_method(name: Annotated[str, typer.Argument(help="lower-case letters, digits and _")]) -> None:
    """Write methods/NAME/, a method that already runs, with comments that lead on; then update the grid."""
    from harness.plugins import scaffold
    from harness.spec.suites import write_grid

    for path in scaffold.scaffold(name):
        print(path)
    write_grid()
    print(f"next: edit methods/{name}/method.py, then ltbench check-method {name}, then dvc repro")


@app.command("check-method", rich_help_panel=METHODS)
def check_method(name: Annotated[str, typer.Argument(help="a method (ltbench list)")]) -> None:
    """Run the conformance suite on a method: before it may cost anyone a GPU hour."""
    from harness.plugins import scaffold

    raise typer.Exit(scaffold.check(name))


@app.command(rich_help_panel=DATA)
def fetch(
    datasets: DatasetNames,
    mirror: Mirror = None,
    to: Annotated[Path | None, typer.Option(help="default LTBENCH_DATA, else data/")] = None,
    repair: Annotated[bool, typer.Option("--repair", help="replace files whose hash is wrong")] = False,
    holdout: Holdout = 0.0,
) -> None:
    """Bring raw data here, verified against the pinned hashes."""
    from harness.splits import store

    for dataset in [store.get_dataset(name, holdout=holdout) for name in datasets]:
        folder = store.fetch(dataset, to or store.data_root(), mirror, repair=repair)
        print(f"{dataset.name}: verified in {folder}" if dataset.files else f"{dataset.name}: {dataset.title}")
        print("".join(f"{line}\n" for line in dataset.passed_over), end="")


@app.command(rich_help_panel=DATA)
def verify(
    datasets: DatasetNames,
    quick: Annotated[bool, typer.Option("--quick", help="of large sets: whether the files are there, no more")] = False,
    manifest: Annotated[Path | None, typer.Option(help="write what was found there, as JSON")] = None,
    holdout: Holdout = 0.0,
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
    split: CellSplit = "",
    entry: CellEntry = "",
    method: Method = "",
    dataset: DatasetOption = "",
    variant: Variant = "",
    track: Track = "",
    backbone: Backbone = None,
    imbalance_factor: Factor = None,
    holdout: Holdout = 0.0,
    device: Device = "auto",
    quick: Annotated[bool, typer.Option("--quick", help="of large images: whether they are there, no more")] = False,
    set_: Overrides = None,
) -> None:
    """What is wrong with a data set, what to do, and how it would be trained; exits with 2 if a run would refuse it."""
    from harness.running.doctor import examine
    from harness.spec.entries import entry_of

    row = entry_of(_one(entry, method, "ENTRY", "--method", "ce"), variant, track)
    found = examine(
        _one(split, dataset, "SPLIT", "--dataset"),
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
    given = [("backbone", backbone), *(("set", item) for item in set_ or [])]
    more = "".join(f" --{name} {shlex.quote(value)}" for name, value in given if value)
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


@app.command(rich_help_panel=RUNS)
def run(
    split: CellSplit = "",
    entry: CellEntry = "",
    seeds: Seeds = "0,1,2",
    dataset: DatasetOption = "",
    method: Method = "",
    variant: Variant = "",
    track: Track = "",
    backbone: Backbone = None,
    imbalance_factor: Factor = None,
    set_: Overrides = None,
    out: Annotated[Path, typer.Option(help="folder for everything the run leaves")] = Path("runs"),
    device: Device = "auto",
    holdout: Holdout = 0.0,
    dry_run: DryRun = False,
) -> None:
    """The whole path for one cell without DVC; ends with its many/medium/few table."""
    from harness.running import cells, estimates
    from harness.spec.entries import entry_of
    from harness.splits.split_names import split_of

    row = entry_of(_one(entry, method, "ENTRY", "--method"), variant, track)
    data, name = split_of(
        _one(split, dataset, "SPLIT", "--dataset"),
        imbalance_factor=imbalance_factor,
        holdout=holdout,
        where="--dataset" if dataset else "",
    )
    act = estimates.of_entry if dry_run else cells.run_alone
    act(data, name, row, seeds, out, set_ or [], backbone, device)


def _one(argument: str, option: str, name: str, flag: str, default: str = "") -> str:
    """What names a part of a cell: an argument, or the long option in its place."""
    if argument and option:
        raise UserError(f"{name} {argument} and {flag} {option}: give one of them")
    if found := argument or option or default:
        return found
    raise UserError(f"{name} (or {flag}) is missing, e.g. ltbench run mnist5k ce@common")


@app.command("finetune", help="Second stage of a cell, all seeds; --first names its first one.", rich_help_panel=RUNS)
@app.command("train", help="First stage of a cell, all seeds; resumes what was interrupted.", rich_help_panel=RUNS)
def train_stage(
    context: typer.Context,
    split: CellSplit,
    entry: CellEntry,
    out: Annotated[Path, typer.Option(help="folder of the cell's stage")],
    first: Annotated[Path | None, typer.Option(help="folder of the first stage, which finetune needs")] = None,
    seeds: Seeds = "0,1,2",
    device: Device = "auto",
    keep_going: KeepGoing = False,
    nproc: Processes = 1,
    micro_batch: MicroBatch = 0,
    sync_bn: SyncBatchNorm = False,
) -> None:
    """One stage of a cell."""
    from harness.running import cells
    from harness.spec.entries import entry_of
    from harness.spec.spread import asked_for
    from harness.splits.split_names import split_of

    if (first is None) == (context.info_name == "finetune"):
        raise UserError("--first: missing" if first is None else "--first: of finetune; the first stage starts anew")
    spread, row = asked_for(nproc, micro_batch, sync_bn), str(entry_of(entry))
    cells.run_stage(cells.StageRequest(split_of(split)[1], row, seeds, out, device, keep_going, spread, first))


@app.command(rich_help_panel=RUNS)
def evaluate(
    split: SplitName,
    run: Annotated[list[Path], typer.Option(help="folders of the cell's stages, first to last")],
    out: Annotated[Path, typer.Option(help="folder for the records")],
    seeds: Seeds = "0,1,2",
    shots: Annotated[str, typer.Option(help="shot policy")] = "strict_100_20",
) -> None:
    """Score stored predictions: one record a run, for every selection rule. Needs no torch and no GPU."""
    from harness.records.evaluate import evaluate as score
    from harness.spec import suites
    from harness.splits.split_names import parse_split_name

    parse_split_name(split)
    runs = list(dict.fromkeys(run))
    for path in score(suites.SPLITS / f"{split}.json", runs, suites.parse_seeds(seeds), out, shots):
        print(path)


@app.command(rich_help_panel=RUNS)
def reproduce(
    record: Annotated[
        Path | None, typer.Argument(help="a record, e.g. results/records/<split>/<track>/<entry>/seed0.json")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="a new folder; default runs/reproduced/<run key>")] = None,
    device: Device = "auto",
    restore: Annotated[bool, typer.Option("--restore", help="then put the committed results and reports back")] = False,
    dry_run: DryRun = False,
) -> None:
    """Run one record's run again and compare; without a record, compare results/records with the committed ones."""
    from harness.running import cells, committed, estimates

    if record is None:
        print("\n".join(committed.compare_with_committed()))
    else:
        (estimates.of_record if dry_run else cells.reproduce)(record, out, device)
    if restore and not dry_run:
        committed.restore()
        print("the committed results, reports and dvc.lock are back")


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
    if dry_run:
        return estimates.of_suite(suite, settings, here=executor == "local")
    options = Options(executor, ray_address, tuple(slurm or ()))
    published = publish.concerns(suite, settings)
    done = run_sweep(suite, settings, Rules(attempts), options, published=published)
    print(f"{settings.out / 'records'}: {done.made} records made, {done.failed} runs failed")
    if published and not done.left and not done.left_out:
        print(f"results/: {publish.publish(settings.out)} records as the pipeline makes them; next: dvc commit --force")
    return done.check()


@app.command(rich_help_panel=SUITES)
def status(
    suite: Annotated[str, _named("suites", "[SUITE]", "suite of a campaign; without one: what is in results")] = "",
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
    from harness.running import status as progress_file

    out = out or CAMPAIGNS / suite
    progress = progress_file.read_progress(suite, out)
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


@app.command(rich_help_panel=RESULTS)
def show(
    roots: Roots = None,
    suite: Annotated[str, typer.Option(help="only the splits and entries of a suite (ltbench list suites)")] = "",
    selection: Annotated[str, typer.Option(help="selection rule: last, best_val or best_test")] = "last",
    format_: Annotated[str, typer.Option("--format", help="table, md, csv (percent) or json (fractions)")] = "table",
) -> None:
    """The leaderboard's tables in the terminal."""
    from harness.reporting.terminal import show as print_tables

    print_tables(_records(roots), suite, selection, format_)


@app.command(rich_help_panel=RESULTS)
def report(
    roots: Roots = None,
    out: Annotated[Path, typer.Option(help="folder that can be served as static pages as it is")] = Path("reports"),
    open_: Annotated[bool, typer.Option("--open", help="show it in the browser")] = False,
) -> None:
    """The leaderboard as one self-contained HTML file, its tables as Markdown, LaTeX and CSV, its figures as SVG."""
    from harness.reporting.report import build_report, sources

    page = build_report(_records(roots), out, sources())
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

    refused = [reason for folder in import_ or [] for reason in _imported(folder)]
    table = rows(_records(roots))
    write_table(table, out)
    print(f"{out}: {len(table)} rows")
    if refused:
        raise UserError(f"{len(refused)} records were refused: {refused[0]}" + (" ..." if refused[1:] else ""))


def _imported(folder: Path) -> list[str]:
    """Takes a campaign's records over; the reasons why some were refused."""
    from harness.records.imports import IMPORTED, import_campaign
    from harness.spec.suites import SPLITS

    found = import_campaign(folder, SPLITS)
    print(f"{IMPORTED / folder.resolve().name}: {len(found.taken)} records imported, {len(found.known)} were there")
    for reason in found.refused:
        print(f"refused: {reason}", file=sys.stderr)
    return found.refused


def _records(named: list[Path] | None) -> Collected:
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


@app.command(rich_help_panel=RESULTS)
def validate(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="records that somebody sent, as a campaign wrote them")],
    rerun: Annotated[int, typer.Option(metavar="K", min=0, help="measure K of the runs again, chosen at random")] = 0,
    device: Device = "auto",
) -> None:
    """Check a submission: recompute every score; with --rerun, measure some runs again. Writes DIR/validation.json."""
    from harness.records.check import VERDICT
    from harness.running.validate import validate as check

    found = check(folder, rerun, device, Path("runs/validation") / folder.resolve().name)
    for line in (*(f"refused: {reason}" for reason in found.refused), *(f"look at: {line}" for line in found.named)):
        print(line, file=sys.stderr)
    for one in found.records:
        if one.remark:
            print(f"{one.tier}: {one.record}: {one.remark}")
    print(f"{folder / VERDICT}: {found.tier}; {len(found.records)} records sound, {len(found.refused)} refused")
    if found.refused:
        raise UserError(f"{len(found.refused)} records were refused")


@weights_app.command("list")
def list_weights(as_json: AsJson = False) -> None:
    """The published weights that are known, a line each."""
    from harness.plugins.listing import lines
    from harness.weights.command import known

    print(json.dumps(known(), indent=1) if as_json else "\n".join(lines(known())))


@weights_app.command("score")
def score_weights(
    name: Annotated[str, typer.Argument(help="published weights (ltbench weights list)")] = "",
    file: Annotated[
        Path | None, typer.Option(help="a file that you have: of NAME, or with --dataset, --backbone")
    ] = None,
    dataset: Annotated[str, typer.Option(help="whose test images are scored")] = "",
    imbalance_factor: Annotated[float | None, typer.Option(help="of what it was trained on; default balanced")] = None,
    backbone: Annotated[str, typer.Option(help="timm name, e.g. resnet32_cifar")] = "",
    normalisation: Annotated[str, typer.Option(help="cifar or imagenet; default the data set's own")] = "",
    mirror: Annotated[Path | None, typer.Option(help="folder with the files; default LTBENCH_MIRROR")] = None,
    out: Annotated[Path, typer.Option(help="folder for the record")] = Path("results/weights"),
    device: Device = "auto",
) -> None:
    """Score published weights as they are and with post-hoc methods on top, beside the published number."""
    from harness.weights import command

    facts = {"dataset": dataset, "imbalance_factor": imbalance_factor, "backbone": backbone}
    given = {key: value for key, value in (facts | {"normalisation": normalisation}).items() if value not in ("", None)}
    command.score(name, file, given, mirror, device, out)


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
            help="Markdown files with blocks <!-- table NAME RULE -->, <!-- study ID -->, <!-- findings --> or "
            "<!-- paper ID COLUMN -->"
        ),
    ],
    records: Annotated[list[Path] | None, typer.Option(help="folders with records")] = None,
) -> None:
    """Put the current numbers into the tables of hand-written Markdown files."""
    from harness.reporting.documents import refresh_files
    from harness.reporting.report import fill_tables, ranked_sections, sources, study_results

    ranked, found = ranked_sections(_records(records)), sources()
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

    done = publish_site(_records(roots), sources(), read_site(site), out, site.parent)
    print(f"{out / 'index.html'}: version {done.manifest.name}, {len(done.manifest.records)} runs")
    if done.archived:
        print(f"{out / 'archive' / done.archived}: the version before")


@app.command("preview", rich_help_panel=RESULTS)
def preview_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="a campaign's folder, or another checkout")],
) -> None:
    """What a submission would change here: its rows, their places, and published cells, as Markdown."""
    from harness.reporting.preview import preview
    from harness.reporting.report import sources

    print(preview(folder, _records(None), sources()), end="")


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
    print(f"{folder}: {len(export(format_, folder, lambda: _records(roots), read_site(site)))} files")
