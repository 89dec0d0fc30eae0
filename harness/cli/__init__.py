"""The command line: one subcommand for each stage and chore, a module for each group of the help.

Each command imports what it needs itself, so that help and completion are quick and need no torch.
"""

from __future__ import annotations

import io
import os
import re
import signal
import sys
from typing import Annotated, Any

import typer

from harness import __version__
from harness.base.errors import RunFailed, UserError, complaint
from harness.cli import cells, data, methods, project, results, suites, weights
from harness.cli.groups import RESULTS

__all__ = ["app", "main"]

app = typer.Typer(
    name="ltbench",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Benchmark and reproduce long-tailed visual recognition methods under identical conditions.",
)
for group in (methods, data, cells, suites, results, project):
    app.add_typer(group.app)
app.add_typer(weights.app, name="weights", rich_help_panel=RESULTS)


def main() -> None:
    """Entry point: a user's mistake is one line and exit code 2, a failed run 1, an interrupt 130, SIGTERM 143."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what it cannot show it writes as escapes
            stream.reconfigure(errors="backslashreplace")
    for number in ENDED:
        signal.signal(number, _ended)
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


ENDED: dict[int, str] = {signal.SIGINT: "\ninterrupted", signal.SIGTERM: "ended"}
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


def _ended(number: int, _frame: object) -> None:
    if os.environ.get("RANK", "0") == "0":  # of several processes of one run, one speaks
        print(f"{ENDED[number]}; nothing is lost: the same command resumes", file=sys.stderr)
    sys.exit(128 + number)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"ltbench {__version__}")
        raise typer.Exit


@app.callback()
def _options(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False) -> None:
    pass
