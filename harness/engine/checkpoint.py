"""Weights and resume states on disk: atomic, bound to their run by its run key, and checked against their sha256.

Neither safetensors nor PyTorch notices a flipped bit in a tensor.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from harness.base.errors import UserError
from harness.base.files import sha256_bytes, write_bytes

SEAL = 64  # characters of the hash behind a resume state


def save_weights(
    path: Path, model: nn.Module, run_key: str, method_state: dict[str, Any], left_out: Collection[str] = ()
) -> None:
    """Final weights as safetensors, with the run key and the tensors' hash in the file's header.

    Both share one header value: safetensors writes several in any order, and the same run must give the same bytes.

    The tensors of `method_state` go along, named `method.<name>`; those of the model in `left_out` do not: they are
    still those of the pretrained weights that the run's recipe names.
    """
    kept = {name: value for name, value in model.state_dict().items() if name not in left_out}
    named = kept | {f"method.{k}": v for k, v in method_state.items() if isinstance(v, Tensor)}
    # Clones, since tied parameters share memory, which safetensors refuses; plain strides, since it stores no others.
    tensors = {name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in named.items()}
    write_bytes(path, save(tensors, metadata={"run_key": run_key + " " + tensors_digest(tensors)}))


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """Hex sha256 over names, types, shapes and values."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name]
        found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        found.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def load_weights(path: Path, run_key: str) -> dict[str, Tensor]:
    """Weights of the run with this key, without the method's own state.

    Raises:
        UserError: missing, damaged, or made by another run (recipe, split, seed or code differ).
    """
    try:
        with safe_open(path, framework="pt") as file:
            found, _, digest = (file.metadata() or {}).get("run_key", "").partition(" ")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise UserError(f"{path}: missing; the first stage has not been run: ltbench train") from None
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise UserError(f"{path}: damaged checkpoint ({error}); run the first stage again: ltbench train") from None
    if found != run_key:
        raise UserError(
            f"{path}: made by run {found}, expected {run_key}: its recipe, split, seed or code differ; "
            "run the first stage again (ltbench train), and `ltbench grid` if a recipe was edited"
        )
    if digest != tensors_digest(tensors):
        raise UserError(f"{path}: damaged checkpoint (wrong sha256); run the first stage again: ltbench train")
    return {name: value for name, value in tensors.items() if not name.startswith("method.")}


def save_state(path: Path, state: dict[str, Any], run_key: str) -> None:
    """A resume state, atomically, with its hash behind it."""
    buffer = io.BytesIO()
    torch.save({"run_key": run_key, **state}, buffer)
    write_bytes(path, sealed(buffer.getvalue()))


def sealed(data: bytes) -> bytes:
    """The bytes with their hash behind them."""
    return data + sha256_bytes(data).encode()


def load_state(path: Path, run_key: str) -> dict[str, Any] | None:
    """The resume state of the run with this key, or None when there is none.

    Raises:
        UserError: damaged, or of another run.
    """
    if not path.is_file():
        return None
    try:
        stored = path.read_bytes()
        if stored != sealed(stored[:-SEAL]):
            raise ValueError("wrong sha256")
        state: Any = torch.load(io.BytesIO(stored[:-SEAL]), map_location="cpu", weights_only=True)
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
