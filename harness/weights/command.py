"""`ltbench weights`: what is known, and scoring it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.base import config
from harness.base.errors import UserError, unknown
from harness.base.files import sha256_file
from harness.metrics.shots import GROUPS
from harness.weights.catalogue import Printed, Weights, catalogue, check_file, fetch, get_weights
from harness.weights.record import WeightsRecord, write_weights_record


@dataclass(frozen=True)
class Request:
    """What `ltbench weights score` was asked for: a name, perhaps with a file of one's own, or a file and its facts."""

    name: str = ""
    file: Path | None = None
    dataset: str = ""
    imbalance_factor: float | None = None
    backbone: str = ""
    normalisation: str = ""
    mirror: Path | None = None

    def resolved(self) -> tuple[str, Weights, Path]:
        """Name, facts and file of the weights; what may be fetched is.

        Raises:
            UserError: options that say too little or too much, an unknown name, or not the file that is meant.
        """
        facts: dict[str, object] = {
            "dataset": self.dataset,
            "imbalance_factor": self.imbalance_factor,
            "backbone": self.backbone,
        }
        facts["normalisation"] = self.normalisation
        given = {key: value for key, value in facts.items() if value not in ("", None)}
        if self.name:
            weights = get_weights(self.name)
            if given:
                option = next(iter(given)).replace("_", "-")
                raise UserError(f"--{option}: of '{self.name}' it is known; leave it out")
            if self.file:
                check_file(self.file, self.name)
            return self.name, weights, self.file or fetch(self.name, self.mirror)
        if not self.file:
            raise UserError("name published weights (ltbench weights list), or give --file, --dataset and --backbone")
        for option in ("dataset", "backbone"):
            if option not in given:
                raise UserError(f"--{option}: missing; a file does not say it")
        if self.normalisation and self.normalisation not in (known := catalogue().normalisations):
            raise unknown("normalisation", self.normalisation, known, where="--normalisation")
        if not self.file.is_file():
            raise UserError(f"{self.file}: no such file")
        stem = re.sub(r"[^a-z0-9]+", "-", self.file.name.split(".")[0].lower()).strip("-") or "weights"
        weights = config.build(Weights, given | {"title": self.file.name}, "ltbench weights score")
        return f"{stem}-{sha256_file(self.file)[:8]}", weights, self.file


def known() -> list[dict[str, str]]:
    """Name and description of all weights in the catalogue."""
    return [{"name": name, "description": _description(one)} for name, one in sorted(catalogue().weights.items())]


def _description(one: Weights) -> str:
    where = f"fetched ({one.bytes / 1e6:.1f} MB)" if one.pinned else "scored from a file that you have (--file)"
    return f"{one.title}; {_data(one)}; {one.backbone}; published {printed(one.published)}; {one.source}, {where}"


def _data(one: Weights) -> str:
    return one.dataset if one.imbalance_factor == 1 else f"{one.dataset}, imbalance factor {one.imbalance_factor:g}"


def score(request: Request, device: str, out: Path) -> Path:
    """Scores published weights, prints them beside the published number, and writes the record.

    Raises:
        UserError: bad options, a file that is refused, or data that is missing.
    """
    from harness.engine.device import pick_device
    from harness.weights.scoring import score as scored

    name, weights, file = request.resolved()
    record, targets, predictions = scored(name, weights, file, pick_device(device))
    path = write_weights_record(out, record, targets, predictions)
    console = Console()
    if not console.is_terminal:  # a file or a pipe has no width; rich would take 80 columns
        console = Console(width=160)
    console.print(_table(record))
    print(path)
    return path


def printed(numbers: list[Printed]) -> str:
    """Published numbers in percent, with where they stand."""
    texts = [f"{one.value:.2f} ({'; '.join(filter(None, (one.where, one.original)))})" for one in numbers]
    return ", ".join(texts) or "-"


def _table(record: WeightsRecord) -> Table:
    one = record.weights
    title = f"{record.name} on {_data(one)} (top-1, %; epoch chosen by: {one.selection})"
    table = Table(title=Text(title), title_justify="left")
    groups = GROUPS if record.grouped else ()
    table.add_column("Method")
    for column in ("all", *(f"{group} ({record.groups[group]})" for group in groups), "ECE"):
        table.add_column(column, justify="right")
    table.add_column("published")
    for at, result in enumerate(record.results):
        scores = result.scores
        values = [scores.all, *(getattr(scores, group) for group in groups), scores.ece]
        cells = ["-" if value is None else f"{100 * value:.2f}" for value in values]
        table.add_row(record.label(at), *cells, Text("" if at else printed(one.published)))
    return table
