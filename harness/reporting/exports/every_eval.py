"""Rows in the schema of every_eval_ever (https://github.com/evaleval/every_eval_ever), version 0.3.0: a file for each.

The aggregate schema describes one evaluated model a file. Here that is a method with its recipe on one split; the runs
of several seeds give each score its standard deviation.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

from harness import __version__
from harness.base.files import json_text, sha256_json
from harness.reporting.drawer import TIERS, flat
from harness.reporting.exports.rows import Measured, finished, numbers
from harness.reporting.site.config import Site
from harness.reporting.site.content import Content, address
from harness.reporting.summary import Row, Section

SCHEMA = "0.3.0"


def files(content: Content) -> Iterator[tuple[str, str]]:
    """Path, as that project's data folder has it, and text of each file."""
    for section, row in finished(content.ranked.sections):
        value = _evaluation(section, row, content)
        name = uuid.uuid5(uuid.NAMESPACE_URL, sha256_json(value))
        yield f"data/ltbench/{address(row.first.method)}/{address(row.name)}/{name}.json", json_text(value)


def _evaluation(section: Section, row: Row, content: Content) -> dict[str, Any]:
    first, pages = row.first, content.pages_of(row)
    times = [page.history.time for page in pages if page.history]
    stamp = str(max(times)) if len(times) == len(pages) else "unknown"
    model = f"{first.method}/{row.name}"
    return {
        "schema_version": SCHEMA,
        "evaluation_id": f"ltbench-{section.slug}/{model}/{stamp}/{first.recipe_sha256[:8]}",
        "retrieved_timestamp": stamp,
        "source_metadata": _source(content.site),
        "eval_library": {"name": "ltbench", "version": __version__},
        "model_info": {
            "name": row.label,
            "id": model,
            "additional_details": {
                "deployment_type": "self_deployed",
                "model_availability": "unknown",
                "backbone": first.backbone,
                "track": first.track,
                "recipe_sha256": first.recipe_sha256,
                "code_version": first.code_version,
                **({"notes": "; ".join(row.marks)} if row.marks else {}),
                **{f"recipe.{key}": value for key, value in flat(first.recipe)},
            },
        },
        "evaluation_results": [_result(section, row, one) for one in numbers(section, row)],
    }


def _source(site: Site) -> dict[str, Any]:
    url = {"source_organization_url": site.url or site.repository} if site.url or site.repository else {}
    return {
        "source_name": site.title,
        "source_type": "evaluation_run",
        "source_organization_name": site.title,
        "evaluator_relationship": "third_party",
        **url,
    }


def _result(section: Section, row: Row, one: Measured) -> dict[str, Any]:
    protocol, runs = section.protocol, [run.record for run in row.finished]
    deviation = {} if one.stat.std is None else {"standard_deviation": round(one.stat.std, 6)}
    return {
        "evaluation_name": f"{protocol.split}: {one.title}",
        "source_data": {
            "dataset_name": protocol.split,
            "source_type": "other",
            "additional_details": {
                "dataset": protocol.dataset,
                "imbalance_factor": f"{protocol.imbalance_factor:g}",
                "subset_rule": protocol.subset_rule,
                "split_sha256": protocol.split_sha256,
                "test_images": str(protocol.test_images),
            },
        },
        "metric_config": {
            "evaluation_description": f"{one.description}; at the last epoch, mean over seeds",
            "metric_id": f"ltbench.{one.key}",
            "metric_name": one.title,
            "metric_unit": "proportion",
            "lower_is_better": one.lower_is_better,
            "score_type": "continuous",
            "min_score": 0,
            "max_score": 1,
        },
        "score_details": {
            "score": round(one.stat.mean, 6),
            "details": {
                "seeds": ", ".join(str(record.seed) for record in runs),
                "checked": TIERS[row.tier],
                "run_keys": ", ".join(record.run_key for record in runs),
            },
            "uncertainty": {**deviation, "num_samples": one.stat.n},
        },
    }
