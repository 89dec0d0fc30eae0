"""`ltbench weights`: what is known, and scoring it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from harness.base import config
from harness.base.errors import UserError, lookup
from harness.base.files import sha256_file
from harness.base.screen import console, table
from harness.metrics.shots import GROUPS
from harness.weights.catalogue import Printed, Weights, catalogue, check_file, fetch, get_weights
from harness.weights.record import WeightsRecord, write_weights_record


def requested(name: str, file: Path | None, facts: Mapping[str, Any], mirror: Path | None) -> tuple[str, Weights, Path]:
    """Name, facts and file of the weights that `ltbench weights score` was asked for; what may be fetched is.

    Args:
        name: of published weights; "" for the user's own file.
        file: one's own file, of that name or described by `facts`.
        facts: the options among dataset, imbalance_factor, backbone and normalisation that were given.

    Raises:
        UserError: options that say too little or too much, an unknown name, or another file than expected.
    """
    if file and not file.is_file():
        raise UserError(f"{file}: no such file")
    if name:
        weights = get_weights(name)
        if facts:
            raise UserError(f"--{next(iter(facts)).replace('_', '-')}: known for '{name}'; leave it out")
        if file:
            check_file(file, name)
        return name, weights, file or fetch(name, mirror)
    if not file:
        raise UserError("name published weights (ltbench weights list), or give --file, --dataset and --backbone")
    for option in ("dataset", "backbone"):
        if option not in facts:
            raise UserError(f"--{option}: missing; a file does not say it")
    if "normalisation" in facts:
        lookup("normalisation", facts["normalisation"], catalogue().normalisations, where="--normalisation")
    stem = re.sub(r"[^a-z0-9]+", "-", file.name.split(".")[0].lower()).strip("-") or "weights"
    weights = config.build(Weights, {**facts, "title": file.name}, "ltbench weights score")
    return f"{stem}-{sha256_file(file)[:8]}", weights, file


def known() -> list[dict[str, str]]:
    """Name and description of all weights in the catalogue."""
    return [{"name": name, "description": _description(one)} for name, one in sorted(catalogue().weights.items())]


def _description(one: Weights) -> str:
    where = f"fetched ({one.bytes / 1e6:.1f} MB)" if one.pinned else "scored from a file that you have (--file)"
    return f"{one.title}; {_data(one)}; {one.backbone}; published {printed(one.published)}; {one.source}, {where}"


def _data(one: Weights) -> str:
    return one.dataset if one.imbalance_factor == 1 else f"{one.dataset}, imbalance factor {one.imbalance_factor:g}"


def score(name: str, file: Path | None, facts: Mapping[str, Any], mirror: Path | None, device: str, out: Path) -> None:
    """Scores published weights, prints them beside the published number, and writes the record.

    Args: the first four as `requested` takes them.

    Raises:
        UserError: bad options, a file that is refused, or data that is missing.
    """
    from harness.engine.device import pick_device
    from harness.weights.scoring import score as scored

    record, targets, predictions = scored(*requested(name, file, facts, mirror), pick_device(device))
    path = write_weights_record(out, record, targets, predictions)
    console().print(_table(record))
    print(path)


def printed(numbers: list[Printed]) -> str:
    """Published numbers in percent, with where they stand."""
    texts = [f"{one.value:.2f} ({'; '.join(filter(None, (one.where, one.original)))})" for one in numbers]
    return ", ".join(texts) or "-"


def _table(record: WeightsRecord) -> Table:
    one = record.weights
    title = f"{record.name} on {_data(one)} (top-1, %; epoch chosen by: {one.selection})"
    groups = GROUPS if record.grouped else ()
    rows: list[list[str | Text]] = []
    head = ("Method", "all", *(f"{group} ({record.groups[group]})" for group in groups), "ECE", "published")
    for at, result in enumerate(record.results):
        scores = result.scores
        values = [scores.all, *(getattr(scores, group) for group in groups), scores.ece]
        cells = ["-" if value is None else f"{100 * value:.2f}" for value in values]
        rows.append([record.label(at), *cells, Text("" if at else printed(one.published))])
    return table(title, head, rows, words=("Method", "published"))
