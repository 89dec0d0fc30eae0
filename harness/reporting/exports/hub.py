"""Rows as `model-index` metadata, which the Hugging Face hub reads from the head of a model card: a file for each.

`huggingface_hub` comes with timm."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml
from huggingface_hub.repocard_data import EvalResult, eval_results_to_model_index

from harness.reporting.exports.rows import finished, numbers
from harness.reporting.site.content import Content, address
from harness.reporting.summary import Row, Section

METRICS = {"macro_f1": "f1", "ece": "ece"}  # the hub's names; all others are accuracies


def files(content: Content) -> Iterator[tuple[str, str]]:
    """Path and text of each file; rows of one name in a table are told apart by their recipes' hash."""
    taken = set[str]()
    for section, row in finished(content.ranked.sections):
        path = f"{address(section.slug)}/{address(row.name)}"
        path += f"-{row.key}" if path in taken else ""
        taken.add(path)
        index = eval_results_to_model_index(row.name, [*_results(section, row, content)])
        yield f"{path}.yaml", yaml.safe_dump({"model-index": index}, sort_keys=False, allow_unicode=True)


def _results(section: Section, row: Row, content: Content) -> Iterator[EvalResult]:
    protocol, site = section.protocol, content.site
    for one in numbers(section, row):
        more: dict[str, Any] = {} if one.stat.std is None else {"standard_deviation": round(one.stat.std, 6)}
        more |= {"notes": "; ".join(row.marks)} if row.marks else {}
        yield EvalResult(
            task_type="image-classification",
            dataset_type=protocol.dataset,
            dataset_name=protocol.split,
            dataset_config=protocol.split,
            dataset_split="test",
            dataset_args={"split_sha256": protocol.split_sha256, "imbalance_factor": protocol.imbalance_factor},
            metric_type=METRICS.get(one.key, "accuracy"),
            metric_name=one.title,
            metric_value=round(one.stat.mean, 6),
            metric_args={"group": one.key, "seeds": one.stat.n, "epoch": "last", **more},
            source_name=site.title if site.url else None,
            source_url=site.url or None,
        )
