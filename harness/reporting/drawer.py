"""The drawer of a row: where each number came from and what it cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from harness.metrics.selection import SELECTION_RULES
from harness.records.check import Tier
from harness.reporting.summary import Row, RunResult

RecipeValues = Mapping[str, Any]
ResolveRecipe = Callable[[str, str], RecipeValues | None]  # entry, data set -> this checkout's recipe, if there is one
COSTS = {
    "device": "Device",
    "processor": "Processor",
    "precision": "Precision",
    "wall_seconds": "Wall time (s)",
    "shared_seconds": "Of these, spent by other runs on the same features (s)",
    "images_per_second": "Images/s",
    "peak_memory_mb": "Peak memory (MB)",
    "trained_parameters": "Trained parameters",
    "threads": "Threads",
    "runs_at_once": "Runs at once",
    "compiled": "Compiled",
    "deterministic": "Same bits each time",
    "tf32": "TF32",
    "cudnn_benchmark": "cuDNN picks the fastest",
    "graph_steps": "Steps from a graph",
    "fell_back": "Not trusted",
    "commit": "Commit",
}
LONGEST = 200
IN_TURN = "Processors, in turn"
MACHINES = ("Device", "Processor", *(f"{stage}{IN_TURN}" for stage in ("", "train: ", "finetune: ")))
FIRST = (*MACHINES, "Commit", "Code version")  # what a reader looks for at once
TIERS: dict[Tier, str] = {
    "reported": "reported: its evidence or its split is not here, so the check is not complete",
    "recomputed": "recomputed: every score from its predictions",
    "re-run": "re-run: a maintainer measured this run again",
}
BADGES: dict[Tier, str] = {"reported": "reported", "recomputed": "self-measured", "re-run": "re-run by us"}
"""A word for each tier, as a badge shows it."""


def flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested keys as dotted ones, values as people read them."""
    for key, item in sorted(value.items(), key=lambda pair: str(pair[0])):
        name = f"{prefix}{key}"
        if isinstance(item, Mapping) and item:
            yield from flat(item, f"{name}.")
        else:
            yield name, _text(item)


def differing(*recipes: RecipeValues) -> list[list[str]]:
    """Each key in which the recipes differ, with the value it has in every one; "-" where it has none."""
    flats = [dict(flat(one)) for one in recipes]
    lines = ([key, *(one.get(key, "-") for one in flats)] for key in sorted({key for one in flats for key in one}))
    return [line for line in lines if len(set(line[1:])) > 1]


def _text(value: Any) -> str:
    if value is None or isinstance(value, Mapping):
        return "none"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return ", ".join(map(_text, value)) or "none"
    return str(value)


def facts(row: Row) -> tuple[list[tuple[str, str]], list[str], list[list[str]]]:
    """What all runs of a row have in common besides the first facts; the names of those that differ; a line a run."""
    of_runs = [dict(run_facts(run)) for run in row.runs]
    shared = {name: text for name, text in of_runs[0].items() if all(one.get(name) == text for one in of_runs)}
    names = list(dict.fromkeys(name for one in of_runs for name in one if name not in (*shared, "Record")))
    others = [(name, text) for name, text in shared.items() if name not in (*FIRST, "Record")]
    return others, names, [[one.get(name, "-") for name in names] for one in of_runs]


def first_facts(row: Row) -> list[tuple[str, str]]:
    """The seeds of a row, the machine and the code that they were run with; what differs, in turn."""
    of_runs = [dict(run_facts(run)) for run in row.runs]
    seeds = ", ".join(str(run.record.seed) for run in row.runs)
    others = ((name, "; ".join(dict.fromkeys(one[name] for one in of_runs if name in one))) for name in FIRST)
    return [("Seeds", seeds), *((name, texts) for name, texts in others if texts)]


def run_facts(run: RunResult) -> Iterator[tuple[str, str]]:
    """One seed's identity and costs, as labels and texts."""
    record = run.record
    epochs = [f"{rule} {scores.epoch}" for rule in SELECTION_RULES if (scores := record.results.get(rule))]
    yield "Record", run.path
    yield "Status", record.status
    yield "Checked", TIERS[run.tier]
    yield "Run key", record.run_key
    yield "Code version", record.code_version
    yield "Stages", " + ".join(record.stages)
    yield "Stage 1 selection", record.stage1_selection or "none (one stage)"
    yield "Stage 1 key", record.stage1_key
    yield "Epoch reported", ", ".join(epochs) or "none"
    if record.evaluated_epochs:
        yield "Epochs evaluated", record.evaluated_epochs
    if record.failure:
        stop = [f"{name} {at}" for name in ("epoch", "step") if (at := getattr(record.failure, name)) is not None]
        yield "Failure", record.failure.reason + (f" (at {', '.join(stop)})" if stop else "")
    yield from _costs(run.costs)


def _costs(costs: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Known keys only, clipped: the file beside a record is written by other versions and other people.

    Of a stage, only what is not the same for the whole run.
    """
    whole = dict(_known(costs))
    yield from whole.items()
    versions = costs.get("versions")
    if isinstance(versions, Mapping):
        yield "Versions", ", ".join(f"{name} {value}" for name, value in sorted(versions.items()))[:LONGEST]
    stages = costs.get("stages")
    if isinstance(stages, Mapping):
        for stage, facts in sorted(stages.items()):
            if isinstance(facts, Mapping):
                own = (item for item in _known(facts) if item not in whole.items())
                yield from ((f"{str(stage)[:LONGEST]}: {label}", text) for label, text in own)


def _known(costs: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    spans = costs.get("processors")
    several = isinstance(spans, list) and len(spans) > 1 and all(isinstance(span, Mapping) for span in spans)
    for key, label in COSTS.items():
        value = costs.get(key)
        if isinstance(value, bool | int | float | str) and not (several and key == "processor"):
            yield label, (f"{value:,.1f}" if isinstance(value, float) else str(value))[:LONGEST]
    if isinstance(spans, list) and several:
        texts = [f"{s.get('processor')} (epochs {s.get('first_epoch')} to {s.get('last_epoch')})" for s in spans]
        yield IN_TURN, "; ".join(texts)[: 3 * LONGEST]
