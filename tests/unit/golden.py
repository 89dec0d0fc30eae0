"""Vectors of the published reference implementations (tests/golden), in float64, and how ours are held against them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

FOLDER = Path(__file__).parents[1] / "golden"


def read(name: str) -> dict[str, Any]:
    """A file of vectors."""
    found: dict[str, Any] = json.loads((FOLDER / name).read_text())
    return found


def cases(golden: dict[str, Any], name: str) -> list[Any]:
    """The cases of a name, as parameters of a test."""
    found = [case for case in golden["cases"] if case["name"] == name]
    assert found, name
    return [pytest.param(case, id=f"{name}{number}") for number, case in enumerate(found)]


def f64(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def same(found: Tensor, expected: Any, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(found.detach(), f64(expected), rtol=tolerance, atol=1e-13)


def gradient(loss: Tensor, of: Tensor) -> Tensor:
    return torch.autograd.grad(loss, of, retain_graph=True)[0]
