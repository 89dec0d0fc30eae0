"""Where a number came from: code version, machine, library versions. No host names, no user names."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

from harness.files import sha256_bytes, sha256_json

PACKAGE = Path(__file__).parent
CODE = ("engine", "data", "api.py")  # what decides a run's numbers, besides the method itself
LIBRARIES = ("torch", "torchvision", "timm", "numpy")


@cache
def code_version(method_folder: Path) -> str:
    """Hash over the code that decides a run's numbers: `harness/engine`, `harness/data`, `harness/api.py`, the method.

    Needs no git, so it is the same on a machine that only has the files.
    """
    files = [file for name in CODE for file in _python_files(PACKAGE / name)]
    named = {file.relative_to(PACKAGE.parent).as_posix(): sha256_bytes(file.read_bytes()) for file in files}
    named |= {
        f"method/{file.relative_to(method_folder).as_posix()}": sha256_bytes(file.read_bytes())
        for file in _python_files(method_folder)
    }
    return sha256_json(named)[:16]


def _python_files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(path.rglob("*.py"))


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
    try:
        commit = _git("rev-parse", "--short=12", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", "harness", "methods")
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+" if changed else "")


def _git(*arguments: str) -> str:
    command = ["git", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=PACKAGE.parent)  # noqa: S603
    return result.stdout.strip()
