"""Published weights that were scored here: their own board, and marks in the papers' tables where they fit a cell."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from harness.base.errors import UserError
from harness.reporting.claims import Claim
from harness.reporting.comparison import backbone_identity, dataset_identity
from harness.reporting.paper_tables import FilledRow, FilledTable, PaperCell
from harness.weights.record import Result, WeightsRecord, read_weights_record


def read_weights(paths: Iterable[Path]) -> tuple[list[WeightsRecord], list[tuple[Path, str]]]:
    """The records, long-tailed ones first, and the files that are left out, each with the reason."""
    records, left_out = [], []
    for path in paths:
        try:
            records.append(read_weights_record(path))
        except UserError as error:
            left_out.append((path, str(error)))
    return sorted(records, key=lambda record: (-record.weights.imbalance_factor, record.name)), left_out


def mark_weights(tables: Iterable[FilledTable], records: Sequence[WeightsRecord]) -> list[FilledTable]:
    """The tables with what published weights score, in the cells that they fit. A cell's status never changes by it."""

    def marked(cell: PaperCell | None) -> PaperCell | None:
        texts = [text for record in records if cell and (text := _mark(cell.claim, record))]
        return replace(cell, weights="; ".join(texts)) if cell and texts else cell

    return [
        replace(table, rows=tuple(FilledRow(row, tuple(map(marked, cells))) for row, cells in table.rows))
        for table in tables
    ]


def _mark(claim: Claim, record: WeightsRecord) -> str:
    for result in record.results if _fits(claim, record) else ():
        value = getattr(result.scores, claim.group)
        if value is not None and _same_method(claim, result):
            return f"published weights score {100 * value:.2f} ({record.source.repository or record.name})"
    return ""


def _fits(claim: Claim, record: WeightsRecord) -> bool:
    """Whether a claim is about such weights: data, tail, network, length of training and choice of the epoch."""
    one = record.weights
    return (
        dataset_identity(claim.dataset) == dataset_identity(one.dataset)
        and claim.imbalance_factor == one.imbalance_factor
        and backbone_identity(claim.backbone) == backbone_identity(one.backbone)
        and claim.epochs == (one.epochs or None)
        and claim.selection == one.selection
        and (claim.group == "all" or claim.shot_policy == record.shot_policy)
    )


def _same_method(claim: Claim, result: Result) -> bool:
    return (claim.method, claim.variant) == (result.method, "")
