"""Checks a record against its evidence and its split: every number that follows from predictions is computed again.

RELIABILITY.md lists what only a re-run can tell, for example that no network made the predictions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Literal

import numpy as np

from harness.base.errors import UserError
from harness.base.files import sha256_bytes, sha256_json
from harness.datasets._forms import OWN
from harness.metrics.shots import POLICIES, group_sizes
from harness.reading.profiles import PROFILES
from harness.records.arrays import Classes
from harness.records.evaluate import score_epoch, spans, split_facts
from harness.records.evidence import Evidence, evidence_path, read_evidence
from harness.records.schema import HEADLINE, Record, Scores
from harness.splits import store
from harness.splits.split_names import parse_split_name
from harness.splits.splits import Split

VERDICT = "validation.json"  # what `ltbench validate` leaves in a folder of records
Tier = Literal["reported", "recomputed", "re-run"]
"""How far a record was checked: not at all; every score computed from its predictions; its run, or others drawn from
the same submission, measured again."""
ROUNDING = 1e-6  # curves are float32


def check_record(path: Path, record: Record, split: Split) -> None:
    """Holds the record at `path` against its evidence and its split.

    Raises:
        UserError: a finished run without evidence, or the first thing that does not agree.
    """
    evidence = read_evidence(evidence_path(path), record)
    if record.status == "ok" and evidence is None:
        raise UserError(f"{path}: its evidence {evidence_path(path).name} is missing; nothing can be checked")
    for fault in faults(record, evidence, split):
        raise UserError(f"{path}: {fault}")


def faults(record: Record, evidence: Evidence | None, split: Split | None) -> Iterator[str]:
    """What in a record contradicts its own numbers, its evidence, or the split."""
    yield from group_faults(record.groups, record.class_counts, record.shot_policy)
    yield from _recipe_faults(record)
    if split is not None:
        yield from _split_faults(record, evidence, split)
    if evidence is not None:
        yield from _score_faults(record, evidence)
        yield from _curve_faults(record, evidence)


def group_faults(groups: dict[str, int], class_counts: list[int], policy: str) -> Iterator[str]:
    """Whether a record's groups are those of its class counts."""
    if policy not in POLICIES:
        yield f"shot policy '{policy}' is unknown"
    elif groups != group_sizes(class_counts, policy):
        yield f"groups {groups} are not those of its class_counts under {policy}"


def _recipe_faults(record: Record) -> Iterator[str]:
    if not record.recipe:  # it could not be resolved
        return
    two = record.recipe.get("finetune") is not None
    stages = ["train", "finetune"] if two else ["train"]
    facts = {
        "recipe_sha256": sha256_json(record.recipe),
        "backbone": record.recipe.get("backbone"),
        "stages": stages if record.status == "ok" else record.stages,
        "stage1_selection": "last" if "finetune" in record.stages else None,
    }
    for name, value in facts.items():
        if getattr(record, name) != value:
            yield f"{name} is {_short(getattr(record, name))}, its recipe gives {_short(value)}"


def _split_faults(record: Record, evidence: Evidence | None, split: Split) -> Iterator[str]:
    for name, value in split_facts(split).items():
        if getattr(record, name) != value:
            yield f"{name} is {_short(getattr(record, name))}, split {split.id} has {_short(value)}"
    if evidence is not None and not np.array_equal(evidence.targets, split.test.targets()):
        yield f"the targets of its evidence are not those of split {split.id}"
    yield from _name_faults(split)


def _name_faults(split: Split) -> Iterator[str]:
    """Where a split of a data set that is registered here is not what its name says."""
    if split.id.startswith(OWN):  # a user's own data, which may not be here
        return
    try:
        named = parse_split_name(split.id)
    except UserError as error:
        if split.dataset in store.available_datasets():
            yield f"its split's name: {error}"
        return
    dataset, counts, factor = store.get_dataset(named.dataset), split.class_counts, named.imbalance_factor
    facts: dict[str, object] = {"dataset": dataset.name, "num_classes": dataset.num_classes, "split_seed": named.seed}
    if factor is None:
        facts |= {"profile": "given", "subset_rule": "given", "imbalance_factor": max(counts) / max(min(counts), 1)}
    else:
        facts |= {"profile": named.profile, "subset_rule": named.rule, "imbalance_factor": factor}
        facts["class_counts"] = PROFILES[named.profile](dataset.train_class_size, dataset.num_classes, factor)
    for name, value in facts.items():
        if getattr(split, name) != value:
            yield f"its split has {name} {_short(getattr(split, name))}, by its name {split.id} it is {_short(value)}"


def _score_faults(record: Record, evidence: Evidence) -> Iterator[str]:
    scored = {rule: scores for rule, scores in record.results.items() if scores is not None}
    if set(scored) != set(evidence.predictions):
        yield f"it has scores for {sorted(scored)}, its evidence predictions for {sorted(evidence.predictions)}"
        return
    counts, classes = record.class_counts, len(record.class_counts)
    if max(part.max(initial=0) for part in (evidence.targets, *evidence.predictions.values())) >= classes:
        yield f"its evidence names a class beyond its {classes}"
        return
    for rule, scores in scored.items():
        yield from score_faults(rule, scores, evidence.predictions[rule], evidence.targets, counts, record.shot_policy)


def score_faults(
    name: str, scores: Scores, predictions: Classes, targets: Classes, class_counts: list[int], policy: str
) -> Iterator[str]:
    """Which scores, of those that follow from predicted classes, are not theirs."""
    measured = {"epoch": scores.epoch, "ece": scores.ece, "top5": scores.top5}  # do not follow: taken over
    anew = score_epoch(predictions, targets, class_counts, policy, **measured)
    for field in fields(Scores):
        stated, found = getattr(scores, field.name), getattr(anew, field.name)
        if not _same(stated, found):
            yield f"{field.name} at {name} is {_short(stated)}, its predictions give {_short(found)}"


def _curve_faults(record: Record, evidence: Evidence) -> Iterator[str]:
    """Whether the scored epochs are those that the rules choose, as far as the curves of the run tell."""
    epochs, test, val = (evidence.curves[name] for name in ("epochs", "test", "val"))
    if len(test) != len(epochs) or len(val) not in (0, len(epochs)) or not (np.diff(epochs) > 0).all():
        yield "the curves of its evidence do not fit each other"
        return
    if (len(val) > 0) != (record.val_images > 0):
        yield f"it has {record.val_images} validation images, its evidence {len(val)} evaluations of them"
    if record.evaluated_epochs not in ("", spans([int(epoch) for epoch in epochs])):  # earlier records have none
        yield f"evaluated_epochs {record.evaluated_epochs} are not those of its evidence"
    balanced = len(set(np.bincount(evidence.targets).tolist())) == 1  # then class-mean accuracy is that over all images
    for rule, scores in record.results.items():
        if scores is None:
            continue
        row = np.flatnonzero(epochs == scores.epoch)
        if len(row) != 1:
            yield f"{rule} is of epoch {scores.epoch}, which its evidence does not have"
        elif abs(test[row[0]] - scores.all) > ROUNDING:
            yield f"{rule}: its curve has {test[row[0]]:.4f} at epoch {scores.epoch}, its scores {scores.all:.4f}"
        elif rule == HEADLINE and row[0] != len(epochs) - 1:
            yield f"{rule} is of epoch {scores.epoch}, the last one is {int(epochs[-1])}"
        elif rule == "best_test" and balanced and test[row[0]] < test.max() - ROUNDING:
            yield f"{rule} is of epoch {scores.epoch}, which is not its best one"


def repeated(records: Iterable[tuple[Path, Record]]) -> list[str]:
    """Runs whose predictions are those of another run, or are the labels: a line each.

    Runs that share their first stage may well predict the same; they are not named.
    """
    found, seen = [], defaultdict[tuple[str, str], list[tuple[Path, Record]]](list)
    for path, record in records:
        scores = record.results.get(HEADLINE)
        evidence = read_evidence(evidence_path(path), record) if scores else None
        if evidence is None:
            continue
        if scores is not None and scores.all == 1:
            found.append(f"{path}: its predictions are the labels")
        digest = sha256_bytes(evidence.predictions[HEADLINE].astype(np.int64).tobytes())
        for other, earlier in seen[record.split, digest]:
            if earlier.stage1_key != record.stage1_key:
                found.append(f"{path}: its predictions are those of {other}, another run")
        seen[record.split, digest].append((path, record))
    return found


def _same(stated: object, found: object) -> bool:
    if isinstance(stated, list) and isinstance(found, list):
        return len(stated) == len(found) and all(map(_same, stated, found))
    if isinstance(stated, float) and isinstance(found, float):
        return abs(stated - found) <= ROUNDING
    return stated == found


def _short(value: object) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
