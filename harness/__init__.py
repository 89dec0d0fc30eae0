"""Benchmarking and reproducibility harness for long-tailed visual recognition.

Importing this package is cheap on purpose: torch is imported only by what trains, so that `ltbench --help` and `report`
start fast. The names below are found when they are asked for (`from harness import shot_accuracy`).
"""

import importlib
from typing import Any

__version__ = "0.1.0"

PUBLIC = {
    "load_results": "records.table",
    "get_method": "spec.registry",
    "available_methods": "spec.registry",
    "exponential_class_counts": "reading.profiles",
    "class_balanced_weights": "toolbox.samplers",
    "effective_number_weights": "toolbox.samplers",
    "cben_weights": "toolbox.samplers",
    "shot_accuracy": "metrics.shots",
    "register_backbones": "engine.backbones",
}
"""What users' scripts may rely on, and the module that holds it today."""


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f"module 'harness' has no attribute '{name}'")
    return getattr(importlib.import_module(f"harness.{PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *PUBLIC])
