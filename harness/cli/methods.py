"""Commands about methods and their recipes."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from harness.cli.arguments import AsJson, CellEntry, CellSplit, Holdout
from harness.cli.groups import METHODS

app = typer.Typer()


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
def check_method(names: Annotated[list[str], typer.Argument(help="methods (ltbench list)")]) -> None:
    """Run the conformance suite on methods: before they may cost anyone a GPU hour."""
    from harness.plugins import scaffold

    raise typer.Exit(scaffold.check(names))
