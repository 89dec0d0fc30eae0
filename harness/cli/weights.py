"""Commands about published weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.arguments import AsJson, Device

app = typer.Typer(no_args_is_help=True, help="Score networks that others published, without any training.")


@app.command("list")
def list_weights(as_json: AsJson = False) -> None:
    """The published weights that are known, a line each."""
    from harness.plugins.listing import lines
    from harness.weights.command import known

    print(json.dumps(known(), indent=1) if as_json else "\n".join(lines(known())))


@app.command("score")
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
