"""Valid records with few words. Every value can be overridden; what depends on another value follows it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.base.files import sha256_json
from harness.metrics.shots import GROUPS, group_of_class, group_sizes
from harness.records.collect import Collected
from harness.records.runs import Failure
from harness.records.schema import SCHEMA, Record, Scores
from harness.reporting.claims import Claim
from harness.reporting.report import Sources

CLASS_COUNTS = [380, 227, 136, 81, 49, 29, 17, 10, 6, 3]  # exponential, imbalance factor about 100


def digest(*names: object) -> str:
    """A sha256 that follows the names it stands for."""
    return hashlib.sha256("/".join(map(str, names)).encode()).hexdigest()


def make_scores(
    accuracy: float = 0.8,
    *,
    class_counts: Sequence[int] = CLASS_COUNTS,
    shot_policy: str = "strict_100_20",
    slope: float = 0.0,
    **overrides: Any,
) -> Scores:
    """Scores around `accuracy` that fall by `slope` from the most to the least frequent class."""
    last = max(len(class_counts) - 1, 1)
    per_class = [accuracy + slope * (0.5 - c / last) for c in range(len(class_counts))]
    groups = group_of_class(class_counts, shot_policy)
    members = {g: [a for a, group in zip(per_class, groups, strict=True) if group == g] for g in GROUPS}
    values: dict[str, Any] = {group: sum(m) / len(m) if m else None for group, m in members.items()}
    mean = sum(per_class) / len(per_class)
    values |= {"epoch": 9, "all": mean, "macro": mean, "macro_f1": mean - 0.01, "ece": 0.05, "per_class": per_class}
    return Scores(**(values | overrides))


def make_record(
    method: str = "ce",
    seed: int = 0,
    accuracy: float = 0.8,
    *,
    slope: float = 0.0,
    optimism: float = 0.005,
    failure: str | None = None,
    **overrides: Any,
) -> Record:
    """A record of `method`; with `failure`, of a run that failed for that reason."""
    given: dict[str, Any] = {"variant": "", "track": "paper", "split": "mnist5k-lt-if100"} | overrides
    counts = given.setdefault("class_counts", CLASS_COUNTS)
    policy = given.setdefault("shot_policy", "strict_100_20")
    recipe = given.setdefault("recipe", {"backbone": "lenet", "params": {}, "train": {"epochs": 10, "lr": 0.1}})

    def scores(shift: float, epoch: int) -> Scores:
        return make_scores(accuracy + shift, class_counts=counts, shot_policy=policy, slope=slope, epoch=epoch)

    results = {"last": scores(0, 9), "best_val": scores(optimism / 2, 7), "best_test": scores(optimism, 6)}
    defaults: dict[str, Any] = {
        "schema": SCHEMA,
        "status": "failed" if failure else "ok",
        "dataset": "mnist5k",
        "split_sha256": digest("split", given["split"], *counts),
        "profile": "exponential",
        "imbalance_factor": 100.0,
        "subset_rule": "hash:0",
        "test_images": 1000,
        "val_images": 200,
        "method": method,
        "recipe_sha256": sha256_json(recipe),
        "backbone": "lenet",
        "seed": seed,
        "stages": ["train"],
        "stage1_selection": None,
        "stage1_key": digest("stage1", method, seed)[:16],
        "run_key": digest("run", method, given["variant"], given["track"], given["split"], seed)[:16],
        "code_version": digest("code")[:16],
        "groups": group_sizes(counts, policy),
        "results": {} if failure else results,
        "failure": Failure(failure, epoch=3, step=40) if failure else None,
    }
    return Record(**(defaults | given))


def collected(*records: Record, left_out: Sequence[tuple[Path, str]] = ()) -> Collected:
    """The records as if read from files named after their entry and seed."""
    paths = [Path(f"results/records/{i:03}-{r.method}-{r.seed}.json") for i, r in enumerate(records)]
    return Collected(list(zip(paths, records, strict=True)), list(left_out))


def sources(claims: Sequence[Claim] = (), **others: Any) -> Sources:
    """What a report is made from besides its records, without this project's own cards."""
    return Sources(list(claims), **({"reported": Path("no cards")} | others))
