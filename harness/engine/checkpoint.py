"""Weights and resume states on disk: atomic, and bound to the run that made them by its run key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from harness.errors import UserError
from harness.files import atomic_path, write_bytes


def save_weights(path: Path, model: nn.Module, run_key: str, method_state: dict[str, Any]) -> None:
    """Final weights as safetensors, with the run key in the file's header.

    The tensors of `method_state` go along, named `method.<name>`.
    """
    named = dict(model.state_dict()) | {f"method.{k}": v for k, v in method_state.items() if isinstance(v, Tensor)}
    # Clones, since tied parameters share memory, which safetensors refuses; plain strides, since it stores no others.
    tensors = {name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in named.items()}
    write_bytes(path, save(tensors, metadata={"run_key": run_key}))


def load_weights(path: Path, run_key: str) -> dict[str, Tensor]:
    """Weights of the run with this key, without the method's own state.

    Raises:
        UserError: missing, damaged, or made by another run (recipe, split, seed or code differ).
    """
    try:
        with safe_open(path, framework="pt") as file:
            found = (file.metadata() or {}).get("run_key")
            tensors = {name: file.get_tensor(name) for name in file.keys() if not name.startswith("method.")}  # noqa: SIM118
    except FileNotFoundError:
        raise UserError(f"{path}: missing; the first stage has not been run: ltbench train") from None
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise UserError(f"{path}: damaged checkpoint ({error}); run the first stage again: ltbench train") from None
    if found != run_key:
        raise UserError(
            f"{path}: made by run {found}, expected {run_key}: its recipe, split, seed or code differ; "
            "run the first stage again (ltbench train), and `ltbench grid` if a recipe was edited"
        )
    return tensors


def save_state(path: Path, state: dict[str, Any], run_key: str) -> None:
    """A resume state, atomically."""
    with atomic_path(path) as temporary:
        torch.save({"run_key": run_key, **state}, temporary)


def load_state(path: Path, run_key: str) -> dict[str, Any] | None:
    """The resume state of the run with this key, or None when there is none.

    Raises:
        UserError: damaged, or of another run.
    """
    if not path.is_file():
        return None
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many types on damaged bytes; each means the same to the user
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"{path}: damaged resume state ({reason}); delete it to start this run again") from None
    if not isinstance(state, dict):
        raise UserError(f"{path}: damaged resume state (not one at all); delete it to start this run again")
    if state.get("run_key") != run_key:
        raise UserError(
            f"{path}: resume state of run {state.get('run_key')}, expected {run_key}; delete it to start again"
        )
    return dict(state)
