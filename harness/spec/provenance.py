"""Where a number came from: code version, machine, library versions. No host names, no user names."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import platform
from functools import cache
from pathlib import Path
from typing import Any

from harness.base.errors import UserError
from harness.base.files import PACKAGE, sha256_bytes, sha256_json
from harness.base.git import git

CODE = (
    "api.py",
    "engine",
    "feed",
    "reading",
    "toolbox",
    "running/stages.py",
    "spec/stage_recipe.py",
    "splits/rules.py",
    "splits/splits.py",
)  # what decides a run's numbers, besides the method itself and what its split and recipe say
LIBRARIES = ("torch", "torchvision", "timm", "numpy")


@cache
def code_version(method_folder: Path) -> str:
    """Hash over the code that decides a run's numbers: `CODE`, decoders included, and the method's own files.

    It is taken over syntax trees without docstrings, so comments, line ends and layout do not change it. It needs no
    git, so it is the same on a machine that only has the files.
    """
    own = {f"method/{file.relative_to(method_folder).as_posix()}": _tree(file) for file in _python_files(method_folder)}
    return sha256_json(_harness_code() | own)[:16]


@cache
def harness_version() -> str:
    """Hash over `CODE` alone."""
    return sha256_json(_harness_code())


@cache
def _harness_code() -> dict[str, str]:
    files = [file for name in CODE for file in _python_files(PACKAGE / name)]
    return {file.relative_to(PACKAGE).as_posix(): _tree(file) for file in files}


def _python_files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(path.rglob("*.py"))


def _tree(file: Path) -> str:
    """Hash of a file's syntax tree; of its bytes where it is no Python that can be read."""
    try:
        return sha256_json(_plain(ast.parse(file.read_bytes())))
    except (SyntaxError, ValueError, RecursionError):
        return sha256_bytes(file.read_bytes())


def _plain(value: Any) -> Any:
    """A syntax tree as plain values. Empty fields are left out: which ones there are differs between Pythons."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if not isinstance(value, ast.AST):
        return repr(value)
    fields = dict(ast.iter_fields(value))
    if isinstance(value, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(
        value
    ):
        fields["body"] = value.body[1:]
    kept = {name: _plain(item) for name, item in fields.items() if item not in (None, [])}
    return [type(value).__name__, kept]


def machine(device_name: str) -> dict[str, Any]:
    """What varies between machines and is worth knowing beside a timing."""
    return {
        "device": device_name,
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in LIBRARIES},
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "cpus": os.cpu_count(),
        "commit": git_commit(),
    }


@cache
def processor() -> str:
    """The processor as its maker calls it, and the instructions that torch takes of it: other ones, other bits."""
    import torch

    listing = Path("/proc/cpuinfo")
    lines = listing.read_text(encoding="utf-8").splitlines() if listing.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}"


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


@cache
def git_commit() -> str | None:
    """The commit of the working tree, with "+" when tracked code differs from it; None without git."""
    here = PACKAGE.parent
    try:
        commit = git("rev-parse", "--short=12", "HEAD", where=here).decode().strip()
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "harness", "methods", where=here)
    except UserError:
        return None
    return commit + ("+" if changed else "")
