"""The command line: one subcommand for each stage and chore. torch and pandas are imported only where needed."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from harness import __version__
from harness.base.errors import RunFailed, UserError, complaint
from harness.base.files import shown, write_json
from harness.plugins import listing, scaffold
from harness.records.check import VERDICT
from harness.records.collect import ROOTS, Collected
from harness.records.collect import collect as read_records
from harness.records.evaluate import evaluate as score
from harness.records.imports import IMPORTED, import_campaign
from harness.records.same_code import SAME_CODE
from harness.running import cells
from harness.running import status as progress_file
from harness.running.campaign import campaign as run_campaign
from harness.running.doctor import examine
from harness.running.plans import Settings
from harness.running.same_bits import compare_with
from harness.running.sweep.executors import Options
from harness.running.sweep.head import Rules
from harness.running.sweep.suite import sweep as run_sweep
from harness.spec import suites
from harness.spec.entries import parse_entry
from harness.spec.spread import asked_for
from harness.splits import split_names, splits, store
from harness.splits.verify import verify as look_for_faults
from harness.weights import command as weights

app = typer.Typer(
    name="ltbench",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Benchmark and reproduce long-tailed visual recognition methods under identical conditions.",
)

weights_app = typer.Typer(no_args_is_help=True, help="Score networks that others published, without any training.")
app.add_typer(weights_app, name="weights")

Seeds = Annotated[str, typer.Option(help="run seeds, e.g. 0,1,2")]
Device = Annotated[str, typer.Option(help="auto (CUDA where there is one), cpu, cuda, cuda:<number>")]
Suite = Annotated[str, typer.Option(help="suite in harness/suites.yaml")]
Processes = Annotated[int, typer.Option("--nproc", help="processes that train each run together, a device each")]
MicroBatch = Annotated[int, typer.Option(help="images at once in a process; gradients are added up (0: no limit)")]
SyncBatchNorm = Annotated[bool, typer.Option("--sync-bn", help="BatchNorm over all processes (CUDA)")]
KeepGoing = Annotated[
    bool, typer.Option("--keep-going", help="record a failed run and exit with 0 (the pipeline's way)")
]
Holdout = Annotated[
    float,
    typer.Option(help="of folder:PATH or list:DIR without a test part: share of each class to set aside, e.g. 0.2"),
]
SplitName = Annotated[str, typer.Argument(help="<data set>-lt-if<imbalance factor>, e.g. mnist5k-lt-if100")]
SuiteName = Annotated[str, typer.Argument(help="suite in harness/suites.yaml (ltbench list suites)")]
Roots = Annotated[list[Path] | None, typer.Argument(help="folders with records")]
DatasetNames = Annotated[
    list[str], typer.Argument(help="names of data sets (ltbench list datasets), folder:PATH or list:DIR")
]
AsJson = Annotated[bool, typer.Option("--json", help="for machines")]
Mirror = Annotated[Path | None, typer.Option(help="folder with <data set>/<file> or <file>; default LTBENCH_MIRROR")]
PerDevice = Annotated[int, typer.Option(min=0, help="runs at once on each device; default one a core, four a GPU")]
Only = Annotated[list[str] | None, typer.Option(metavar="PATTERN", help="entries, e.g. 'ce@*'")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="in every recipe, e.g. recipe.epochs=2")
]
CAMPAIGNS = Path("runs/campaigns")
OWN_RECORDS = "runs/records"  # where `ltbench run` leaves them
EntryName = Annotated[str, typer.Argument(help="method[-variant]@track, e.g. tvmf-k64@common")]


def main() -> None:
    """Entry point: a user's mistake is one line and exit code 2, a failed run 1, an interrupt 130."""
    signal.signal(signal.SIGINT, _interrupted)
    try:
        sys.exit(app(standalone_mode=False))
    except (UserError, RunFailed, OSError) as error:
        text, code = complaint(error)
    except CLICK_ERROR as error:
        text, code = error.format_message(), error.exit_code
        if not text.startswith("Usage"):  # without a subcommand the "message" is the whole help text
            text = f"error: {' '.join(text.split())}{_hint(error)}"
    print(text, file=sys.stderr)
    sys.exit(code)


CLICK_ERROR: Any = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")


def _hint(error: Any) -> str:
    """What to type where an option is none, but a key of recipes."""
    from harness.spec.stage_recipe import LAYER_KEYS

    option = getattr(error, "option_name", None) or ""
    key = option.lstrip("-").replace("-", "_")
    takes_recipes = error.ctx and any(parameter.name == "set_" for parameter in error.ctx.command.params)
    if key not in LAYER_KEYS or not takes_recipes:
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


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(help="methods, datasets, backbones or suites")] = "methods",
    as_json: AsJson = False,
    check: Annotated[bool, typer.Option("--check", help="import each method, and say which ones are broken")] = False,
) -> None:
    """What is registered, a line each."""
    found = listing.items(what, check=check)
    if what == "backbones" and not as_json:
        print(
            f"{len(found)} networks, this project's first; random weights unless a recipe says `pretrained`",
            file=sys.stderr,
        )
    _print_items(found, as_json)


def _print_items(items: list[dict[str, str]], as_json: bool) -> None:
    if as_json:
        print(json.dumps(items, indent=1))
    else:
        width = max((len(item["name"]) for item in items), default=0)
        for item in items:
            print(f"{item['name']:<{width}}  {item['description']}".rstrip())


@app.command()
def fetch(
    datasets: DatasetNames,
    mirror: Mirror = None,
    to: Annotated[Path | None, typer.Option(help="default LTBENCH_DATA, else data/")] = None,
    repair: Annotated[bool, typer.Option("--repair", help="replace files whose hash is wrong")] = False,
    holdout: Holdout = 0.0,
) -> None:
    """Bring raw data here, verified against the pinned hashes."""
    for dataset in [store.get_dataset(name, holdout=holdout) for name in datasets]:
        folder = store.fetch(dataset, to or store.data_root(), mirror, repair=repair)
        print(f"{dataset.name}: verified in {folder}" if dataset.files else f"{dataset.name}: {dataset.title}")
        print("".join(f"{line}\n" for line in dataset.passed_over), end="")


@app.command()
def verify(
    datasets: DatasetNames,
    quick: Annotated[bool, typer.Option("--quick", help="of large sets: whether the files are there, no more")] = False,
    manifest: Annotated[Path | None, typer.Option(help="write what was found there, as JSON")] = None,
    holdout: Holdout = 0.0,
) -> None:
    """List missing, damaged and duplicate images before any training; exits with 0 only if all is sound."""
    named = [store.get_dataset(name, holdout=holdout) for name in datasets]
    reports = [look_for_faults(dataset, quick=quick) for dataset in named]
    for dataset, report in zip(named, reports, strict=True):
        print("\n".join([*report.lines(), *dataset.passed_over]))
    if manifest:
        write_json(manifest, [report.as_dict() for report in reports])
    raise typer.Exit(0 if all(report.sound for report in reports) else 1)


@app.command()
def doctor(
    dataset: Annotated[str, typer.Argument(help="folder:PATH, list:DIR, or the name of a data set")],
    method: Annotated[str, typer.Option(help="method[-variant]@track that would be trained")] = "ce@common",
    backbone: Annotated[str | None, typer.Option(help="timm name; default the recipe's")] = None,
    imbalance_factor: Annotated[float | None, typer.Option(help="default the data set's")] = None,
    holdout: Holdout = 0.0,
    device: Device = "auto",
    quick: Annotated[bool, typer.Option("--quick", help="of large images: whether they are there, no more")] = False,
    set_: Overrides = None,
) -> None:
    """What is wrong with a data set, what to do, and how it would be trained; exits with 2 if a run would refuse it."""

    entry = parse_entry(method if "@" in method else f"{method}@common")
    found = examine(
        dataset,
        entry,
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
    options = {"variant": entry.variant, "track": entry.track if entry.track != "common" else "", "backbone": backbone}
    options |= {"imbalance-factor": f"{imbalance_factor:g}" if imbalance_factor else ""}
    given = [*options.items(), *(("set", item) for item in set_ or [])]
    more = "".join(f" --{name} {shlex.quote(value)}" for name, value in given if value)
    print(f"{'next':<10}ltbench run --dataset {found.name} --method {entry.method}{more}")


@app.command()
def split(
    names: Annotated[list[str], typer.Argument(metavar="SPLIT...", help="e.g. mnist5k-lt-if100")],
    out: Annotated[Path, typer.Option(help="folder for the split files")] = Path("results/splits"),
) -> None:
    """Write long-tailed splits: which images are used, once for every stage of every method."""
    for name in map(split_names.parse_split_name, names):
        dataset = store.get_dataset(name.dataset)
        made = splits.build_split(str(name), store.find(dataset), store.load(dataset))
        splits.write_split(made, out / f"{name}.json")
        counts = made.class_counts
        print(
            f"{out / f'{name}.json'}: {sum(counts)} training images in {len(counts)} classes "
            f"({max(counts)} ... {min(counts)})"
        )


@app.command()
def grid() -> None:
    """Regenerate harness/grid.yaml, which dvc.yaml expands, from the default suite and the methods found."""
    changed = suites.write_grid()
    print(f"{shown(suites.GRID_FILE)}: {'changed' if changed else 'up to date'}")


@app.command()
def recipes(suite: Suite = "default", out: Annotated[Path, typer.Option()] = Path("results/recipes")) -> None:
    """Freeze the recipe and code version of each stage of a suite: what its runs depend on."""
    print(f"{out}: {len(suites.write_recipes(suite, out))} recipes frozen")


@app.command("finetune", help="Second stage of a cell, all seeds, from the last weights of the first one (--first).")
@app.command("train", help="First stage of a cell, all seeds; resumes what was interrupted.")
def train_stage(
    context: typer.Context,
    split: SplitName,
    entry: EntryName,
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
    if (first is None) == (context.info_name == "finetune"):
        raise UserError("--first: missing" if first is None else "--first: of finetune; the first stage starts anew")
    spread = asked_for(nproc, micro_batch, sync_bn)
    cells.run_stage(cells.StageRequest(split, entry, seeds, out, device, keep_going, spread, first))


@app.command()
def evaluate(
    split: SplitName,
    run: Annotated[list[Path], typer.Option(help="folders of the cell's stages, first to last")],
    out: Annotated[Path, typer.Option(help="folder for the records")],
    seeds: Seeds = "0,1,2",
    shots: Annotated[str, typer.Option(help="shot policy")] = "strict_100_20",
) -> None:
    """Score stored predictions: one record a run, for every selection rule. Needs no torch and no GPU."""
    split_names.parse_split_name(split)
    runs = list(dict.fromkeys(run))
    for path in score(suites.SPLITS / f"{split}.json", runs, suites.parse_seeds(seeds), out, shots):
        print(path)


@app.command()
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
    found = import_campaign(folder, suites.SPLITS)
    print(f"{IMPORTED / folder.resolve().name}: {len(found.taken)} records imported, {len(found.known)} were there")
    for reason in found.refused:
        print(f"refused: {reason}", file=sys.stderr)
    return found.refused


@app.command("same-bits")
def same_bits(
    revision: Annotated[str, typer.Argument(help="git commit whose code is compared with this checkout's")],
    suite: Annotated[str, typer.Option(help="only this part: default, cifar10-short or full-length")] = "",
) -> None:
    """After an edit of the engine: run a small suite with both versions; exits with 0 only if every bit is the same."""
    found = compare_with(revision, suite)
    print(f"{SAME_CODE}: the same bits as with the code of {revision}: {', '.join(found.same) or 'none'}")
    for method, difference in found.other.items():
        print(f"{method}: other bits ({difference})")
    if found.other:
        raise RunFailed(f"{len(found.other)} methods measure other numbers than with the code of {revision}")


@app.command()
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


@app.command()
def tables(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="Markdown files with <!-- table NAME RULE -->, <!-- study ID --> or <!-- findings --> blocks"
        ),
    ],
    records: Annotated[list[Path] | None, typer.Option(help="folders with records")] = None,
) -> None:
    """Put the current numbers into the tables of hand-written Markdown files."""
    from harness.reporting.documents import refresh_files
    from harness.reporting.report import ranked_sections, sources, study_results

    ranked = ranked_sections(_records(records))
    changed = refresh_files(files, ranked.sections, study_results(ranked, sources().folders))
    for path in files:
        print(f"{path}: {'changed' if path in changed else 'as it was'}")


@app.command()
def show(
    roots: Roots = None,
    suite: Annotated[str, typer.Option(help="only the splits and entries of a suite (ltbench list suites)")] = "",
    selection: Annotated[str, typer.Option(help="selection rule: last, best_val or best_test")] = "last",
    format_: Annotated[str, typer.Option("--format", help="table, md or csv")] = "table",
) -> None:
    """The leaderboard's tables in the terminal."""
    from harness.reporting.terminal import show as print_tables

    print_tables(_records(roots), suite, selection, format_)


def _records(named: list[Path] | None) -> Collected:
    """All records under the named folders, or under this checkout's."""
    for root in named or []:
        if not root.is_dir():
            raise UserError(f"{root}: no such folder; name folders with records")
    if not named and not any(root.is_dir() for root in ROOTS):
        raise UserError(f"{ROOTS[0]}: no such folder; call this in a checkout, or name folders: {OWN_RECORDS}")
    if not named and Path(OWN_RECORDS).is_dir():
        print(
            f"from {' and '.join(map(str, ROOTS))}; for your own runs name their folder: {OWN_RECORDS}", file=sys.stderr
        )
    return read_records(*(named or ROOTS))


@app.command()
def run(
    dataset: Annotated[str, typer.Option(help="data set (ltbench list datasets), folder:PATH or list:DIR")],
    method: Annotated[str, typer.Option(help="method (ltbench list methods)")],
    seeds: Seeds = "0,1,2",
    variant: Annotated[str, typer.Option(help="variant of the method")] = "",
    track: Annotated[str, typer.Option(help="paper, common or short")] = "common",
    backbone: Annotated[str | None, typer.Option(help="timm name; default the recipe's")] = None,
    imbalance_factor: Annotated[float | None, typer.Option(help="default the data set's")] = None,
    set_: Overrides = None,
    out: Annotated[Path, typer.Option(help="folder for everything the run leaves")] = Path("runs"),
    device: Device = "auto",
    holdout: Holdout = 0.0,
) -> None:
    """The whole path for one cell without DVC; ends with its many/medium/few table."""
    entry = parse_entry(f"{method}{'-' + variant if variant else ''}@{track}")
    cells.run_alone(dataset, entry, seeds, out, imbalance_factor, set_ or [], backbone, device, holdout)


@weights_app.command("list")
def list_weights(as_json: AsJson = False) -> None:
    """The published weights that are known, a line each."""
    _print_items(weights.known(), as_json)


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
    facts = {"dataset": dataset, "imbalance_factor": imbalance_factor, "backbone": backbone}
    given = {key: value for key, value in (facts | {"normalisation": normalisation}).items() if value not in ("", None)}
    weights.score(name, file, given, mirror, device, out)


@app.command()
def reproduce(
    record: Annotated[
        Path | None, typer.Argument(help="a record, e.g. results/records/<split>/<track>/<entry>/seed0.json")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="a new folder; default runs/reproduced/<run key>")] = None,
    device: Device = "auto",
    restore: Annotated[bool, typer.Option("--restore", help="then put the committed results and reports back")] = False,
) -> None:
    """Run one record's run again and compare; without a record, compare results/records with the committed ones."""
    from harness.running import committed  # imports scipy

    if record is None:
        print("\n".join(committed.compare_with_committed()))
    else:
        cells.reproduce(record, out, device)
    if restore:
        committed.restore()
        print("the committed results, reports and dvc.lock are back")


@app.command()
def validate(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="records that somebody sent, as a campaign wrote them")],
    rerun: Annotated[int, typer.Option(metavar="K", min=0, help="measure K of the runs again, chosen at random")] = 0,
    device: Device = "auto",
) -> None:
    """Check a submission: recompute every score; with --rerun, measure some runs again. Writes DIR/validation.json."""
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


@app.command("check-method")
def check_method(name: Annotated[str, typer.Argument(help="a method (ltbench list)")]) -> None:
    """Run the conformance suite on a method: before it may cost anyone a GPU hour."""
    raise typer.Exit(scaffold.check(name))


@app.command("new-method")
def new_method(name: Annotated[str, typer.Argument(help="lower-case letters, digits and _")]) -> None:
    """Write methods/NAME/, a method that already runs, with comments that lead on; then update the grid."""
    for path in scaffold.scaffold(name):
        print(path)
    suites.write_grid()
    print(f"next: edit methods/{name}/method.py, then ltbench check-method {name}, then dvc repro")


@app.command()
def bench(
    part: Annotated[str, typer.Argument(help="losses, loader, loop or all")] = "all",
    device: Device = "auto",
    threads: Annotated[int | None, typer.Option(help="of torch on the CPU; default one for each core")] = None,
    json_: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="write the figures there")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="tiny sizes: whether it works, not how fast it is")] = False,
) -> None:
    """Measure how fast losses, data path and loop are, as ratios to plain PyTorch in the same run."""
    from harness.bench import command

    command.bench(part, device, threads, json_, quick)


@app.command()
def campaign(
    suite: SuiteName,
    budget: Annotated[
        float, typer.Option(min=0, help="seconds of wall time; the same command goes on with what is left")
    ],
    out: Annotated[
        Path | None, typer.Option(help="folder for everything the campaign leaves; default runs/campaigns/SUITE")
    ] = None,
    device: Device = "auto",
    per_device: PerDevice = 0,
    only: Only = None,
    set_: Overrides = None,
) -> None:
    """Run as much of a suite as a time budget allows, several runs at once, without DVC."""
    settings = Settings(out or CAMPAIGNS / suite, device, per_device, tuple(only or ()), tuple(set_ or ()))
    done = run_campaign(suite, budget, settings)
    more = "; the same command goes on" if done.left else ""
    more += " (the budget ended before the first run did)" if done.left and not done.made else ""
    print(f"{settings.out / 'records'}: {done.made} records made, {done.left} left{more}")
    done.check()


@app.command()
def status(
    suite: Annotated[str, typer.Argument(help="suite of a campaign")],
    out: Annotated[Path | None, typer.Option(help="the campaign's folder; default runs/campaigns/SUITE")] = None,
    save: Annotated[
        Path | None, typer.Option(metavar="DIR", help="copy what a lost machine would cost; cp -r brings it back")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """How far a campaign is: records made, runs under way with their epoch, hours left."""
    out = out or CAMPAIGNS / suite
    progress = progress_file.read_progress(suite, out)
    lines = progress_file.describe(progress, out)
    print(json.dumps(progress_file.as_json(progress, out), indent=1) if as_json else "\n".join(lines))
    if save:
        files = progress_file.save(progress, out, save)
        size = sum(path.stat().st_size for path in files) / 1e6
        print(f"{save}: {len(files)} files, {size:.1f} MB", file=sys.stderr)


@app.command()
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
) -> None:
    """Run a whole suite on this machine or a cluster; the default one also becomes what DVC would have made."""
    from harness.running.sweep import publish

    settings = Settings(out or Path("runs/sweeps") / suite, device, per_device, tuple(only or ()), tuple(set_ or ()))
    options = Options(executor, ray_address, tuple(slurm or ()))
    published = publish.concerns(suite, settings)
    done = run_sweep(suite, settings, Rules(attempts), options, published=published)
    print(f"{settings.out / 'records'}: {done.made} records made, {done.failed} runs failed")
    if published and not done.left and not done.left_out:
        print(f"results/: {publish.publish(settings.out)} records as the pipeline makes them; next: dvc commit --force")
    done.check()


@app.command()
def retry(suite: Suite = "default") -> None:
    """Run the failed cells of a suite again (with DVC), then what depends on them."""
    raise typer.Exit(cells.retry(suite))
