"""Measure now, score later: records from stored predictions. Needs neither torch nor a GPU."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.base.errors import UserError
from harness.base.files import read_json, stamped, unstamped, write_json
from harness.metrics.selection import SELECTION_RULES
from harness.metrics.shots import DEFAULT_POLICY, group_sizes, macro_f1, per_class_accuracy, shot_accuracy
from harness.records.arrays import Arrays, Classes, write_arrays
from harness.records.evidence import evidence_path, gather, gather_first
from harness.records.history import read_history
from harness.records.runs import RunInfo, read_run_info
from harness.records.schema import SCHEMA, Record, Scores, costs_path, write_record
from harness.spec.entries import Entry
from harness.spec.suites import RECORDS, lies_in, recipe_file
from harness.splits.splits import Split, read_split

SUMMED = ("wall_seconds", "train_seconds", "eval_seconds", "peak_memory_mb")


def evaluate(
    split_file: Path, runs: Sequence[Path], seeds: Sequence[int], out: Path, policy: str = DEFAULT_POLICY
) -> list[Path]:
    """Scores the runs of a cell and writes a record for each seed, with its costs beside it.

    Args:
        runs: folders of the cell's stages, first to last; the last one's predictions are scored.
        out: folder for `seed<n>.json`, `seed<n>.run.json` and `seed<n>.npz` (see `harness.records.evidence`).

    Raises:
        UserError: a run is missing, damaged, not of this split, or of other stages than its recipe has.
    """
    split = read_split(split_file)
    paths = []
    for seed in seeds:
        stem = runs[-1] / "predictions" / f"seed{seed}"
        info = read_run_info(stem.with_suffix(".json"))
        _check_stages(info, stem.with_suffix(".json"), in_pipeline=lies_in(out, RECORDS))
        if len(runs) < len(info.stages) and info.status == "ok":
            both = f"--run FIRST --run {runs[-1]}"
            raise UserError(f"{runs[-1]}: holds a second stage; name the folder of the first one before it: {both}")
        first, remarks = _first_stage(split, runs[0], info)
        info = dataclasses.replace(info, notes=(*_notes(runs, info), *remarks))
        record, evidence = _score(split, info, stem, seed, policy)
        costs = _costs(runs, info)
        path = out / f"seed{seed}.json"
        for old in (path, evidence_path(path)):  # of a run that was here before
            old.unlink(missing_ok=True)
        if evidence:
            write_arrays(evidence_path(path), first | evidence)
        write_json(costs_path(path), stamped(costs))
        write_record(path, record)  # last: it says that the others are there
        paths.append(path)
    return paths


def _check_stages(info: RunInfo, path: Path, *, in_pipeline: bool) -> None:
    """Refuses a run of one stage for a method of two, or the other way round.

    The stages that ran are compared with the run's own recipe and, in the pipeline, with the frozen one.
    """
    if not info.recipe:  # it could not be resolved: nothing ran, and the record will say so
        return
    wanted = {"its recipe": info.recipe.get("finetune") is not None}
    if in_pipeline:
        wanted |= _frozen_stages(info)
    for whose, two in wanted.items():
        if two != ("finetune" in info.stages):
            ran, has = " and ".join(info.stages), "two stages" if two else "one stage"
            hint = "score its last stage; in the pipeline: ltbench grid"
            raise UserError(f"{path}: {ran} ran, but {whose} has {has}; {hint}")


def _notes(runs: Sequence[Path], info: RunInfo) -> tuple[str, ...]:
    """The notes of all stages, each once."""
    found = list(info.notes)
    for run in runs[:-1]:
        path = run / "predictions" / f"seed{info.seed}.json"
        first = read_run_info(path) if path.is_file() else info
        found = [*first.notes, *found] if first.run_key == info.stage1_key else found
    return tuple(dict.fromkeys(found))


def _first_stage(split: Split, run: Path, info: RunInfo) -> tuple[Arrays, tuple[str, ...]]:
    """The curves of the stage that a second one started from, with a note where its predictions are damaged.

    No score needs them: nothing where they are not here.
    """
    path = run / "predictions" / f"seed{info.seed}.npz"
    if info.run_key == info.stage1_key or not path.is_file():
        return {}, ()
    try:
        history = read_history(path)
        if str(history["run_key"]) != info.stage1_key:
            return {}, ()
        return gather_first(history, split.test.targets(), split.val.targets()), ()
    except (UserError, ValueError):  # ValueError: of another number of images
        return {}, ("train: its predictions are damaged, so this run goes without the curves of its first stage",)


def _frozen_stages(info: RunInfo) -> dict[str, bool]:
    """Whether the frozen recipe of a run's cell has a second stage; nothing where none is frozen."""
    entry = Entry(info.method, info.variant, info.track)
    first, second = recipe_file(info.split, entry, "train"), recipe_file(info.split, entry, "finetune")
    if second.is_file():  # also of a cell of one stage that takes the first one's results over
        frozen = unstamped(read_json(second, "recipe"), second)
        return {str(second): frozen["recipe"].get("finetune") is not None} if "recipe" in frozen else {}
    return {str(first): False} if first.is_file() else {}


def _score(split: Split, info: RunInfo, stem: Path, seed: int, policy: str) -> tuple[Record, Arrays]:
    if info.seed != seed:
        raise UserError(f"{stem}.json: this is a run of seed {info.seed}; run its stages again")
    if info.split_sha256 != split.sha256:
        raise UserError(
            f"{stem}.json: measured on split {info.split_sha256}, "
            f"but {split.id} is now {split.sha256}; run its stages again"
        )
    results, evidence = _results(split, info, stem.with_suffix(".npz"), policy) if info.status == "ok" else ({}, {})
    epochs = [int(epoch) for epoch in evidence["epochs"]] if evidence else []
    record = Record(
        **(vars(info) | split_facts(split)),
        schema=SCHEMA,
        backbone=info.recipe.get("backbone", ""),
        stage1_selection="last" if "finetune" in info.stages else None,
        shot_policy=policy,
        groups=group_sizes(split.class_counts, policy),
        results=results,
        evaluated_epochs=spans(epochs),
    )
    return record, evidence


def split_facts(split: Split) -> dict[str, Any]:
    """What a record says of its split."""
    return {
        "split": split.id,
        "split_sha256": split.sha256,
        "dataset": split.dataset,
        "profile": split.profile,
        "imbalance_factor": split.imbalance_factor,
        "subset_rule": split.subset_rule,
        "class_counts": split.class_counts,
        "test_images": sum(split.test.class_counts),
        "val_images": sum(split.val.class_counts),
    }


def spans(epochs: Sequence[int]) -> str:
    """Rising epochs as one writes them by hand: `10-160 by 10, 161-200`."""
    found, left = [], list(epochs)
    while left:
        step = left[1] - left[0] if len(left) > 1 else 1
        end = 1
        while end < len(left) and left[end] - left[end - 1] == step:
            end += 1
        if end == 2:  # two epochs are no pattern: the second may begin the next one
            end = 1
        by = f" by {step}" if step > 1 else ""
        found.append(f"{left[0]}-{left[end - 1]}{by}" if end > 1 else str(left[0]))
        left = left[end:]
    return ", ".join(found)


def _results(split: Split, info: RunInfo, path: Path, policy: str) -> tuple[dict[str, Scores | None], Arrays]:
    history = read_history(path)
    if str(history["run_key"]) != info.run_key:
        raise UserError(
            f"{path}: predictions of run {history['run_key']}, expected {info.run_key}; run its stage again"
        )
    test, val = split.test.targets(), split.val.targets()
    if history["test"].shape[1] != len(test) or history["val"].shape[1] != len(val):
        raise UserError(f"{path}: predictions do not fit split {split.id}; run its stage again")
    if max(part.max(initial=0) for part in (history["test"], history["val"])) >= split.num_classes:
        raise UserError(f"{path}: predictions of classes that split {split.id} does not have; run its stage again")
    results: dict[str, Scores | None] = dict.fromkeys(SELECTION_RULES)
    rows = {}
    for rule, (_, choose) in SELECTION_RULES.items():
        if (row := choose(history["test"], test, history["val"], val)) is not None:
            measured: dict[str, Any] = {name: history[name][row].item() for name in ("ece", "top5") if name in history}
            measured["epoch"] = int(history["epochs"][row])
            results[rule] = score_epoch(history["test"][row], test, split.class_counts, policy, **measured)
            rows[rule] = row
    return results, gather(history, rows, test, val)


def score_epoch(
    predictions: Classes, targets: Classes, class_counts: Sequence[int], policy: str = DEFAULT_POLICY, **measured: Any
) -> Scores:
    """The scores of an epoch's predictions on the test part; `class_counts` are those of the training images.

    Args:
        measured: what predicted classes do not tell: `epoch`, `ece`, and `top5` where it is known.
    """
    groups: dict[str, Any] = shot_accuracy(predictions, targets, class_counts, policy)
    f1 = macro_f1(predictions, targets, len(class_counts))
    return Scores(
        **groups, **measured, macro_f1=f1, per_class=per_class_accuracy(predictions, targets, len(class_counts))
    )


def _costs(runs: Sequence[Path], info: RunInfo) -> dict[str, Any]:
    """The costs of each stage, and their sum; a shared first stage is counted in full."""
    stages: dict[str, Any] = {}
    for stage, run in zip([*("train" for _ in runs[1:]), info.stages[-1]], runs, strict=True):
        path = run / "costs" / f"seed{info.seed}.json"
        if path.is_file():
            costs = read_json(path, "costs")
            if not isinstance(costs, dict) or not all(isinstance(costs.get(key), (int, float)) for key in SUMMED):
                raise UserError(f"{path}: not a cost file; run its stage again")
            stages[stage] = unstamped(costs, path)
    if not stages:
        return {"schema": SCHEMA, "stages": {}}
    last = list(stages.values())[-1]
    total = {key: round(sum(costs[key] for costs in stages.values()), 3) for key in SUMMED[:-1]}
    peak = max(costs["peak_memory_mb"] for costs in stages.values())
    return {"schema": SCHEMA, **last, **total, "peak_memory_mb": peak, "stages": stages}
