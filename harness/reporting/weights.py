"""Published weights that were scored here: their own board, and marks in the papers' tables where they fit a cell."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from harness.reporting.claims import Claim
from harness.reporting.comparison import backbone_identity, dataset_identity
from harness.reporting.inputs import readable
from harness.weights.record import WeightsRecord, read_weights_record


def read_weights(paths: Iterable[Path]) -> tuple[list[WeightsRecord], list[tuple[Path, str]]]:
    """The records, long-tailed ones first, and the files that are left out, each with the reason."""
    records, left_out = readable(paths, read_weights_record)
    return sorted(records, key=lambda record: (-record.weights.imbalance_factor, record.name)), left_out


def mark(claim: Claim, records: Sequence[WeightsRecord]) -> str:
    """What published weights score where a claim is about such weights. It never changes the status of the claim."""
    marks = []
    for record in records:
        methods = {result.method: result for result in reversed(record.results)}  # the first one of a method counts
        result = methods.get(claim.method) if _fits(claim, record) and not claim.variant else None
        value = getattr(result.scores, claim.group) if result else None
        if value is not None:
            marks.append(f"published weights score {100 * value:.2f} ({record.source.repository or record.name})")
    return "; ".join(marks)


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
