"""Proof that an edit changed no number: a small suite, run with the code of a commit and with this checkout's.

Both run here and now, one after the other, so machine, libraries and data are the same. Compared are every score, the
predictions and curves behind it, and the weights of every stage, bit by bit. What measured the same is written down in
`results/same_code.json`; an import takes records of such older code, and the report says so beside them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from harness.data import store
from harness.errors import UserError
from harness.files import sha256_bytes, write_bytes, write_json
from harness.provenance import PACKAGE
from harness.records.evidence import evidence_path
from harness.records.same_code import SAME_CODE, read_same_code
from harness.records.schema import Record, read_record, record_paths
from harness.suites import SUITES_FILE, get_suite

# A suite that gives the entries, and how its runs are shortened.
SHORT = ("recipe.epochs=2", "recipe.warmup_epochs=1", "recipe.finetune.epochs=1", "recipe.finetune.warmup_epochs=0")
SHORTENED = {"default": SHORT, "full-length": (*SHORT, "image_size=16")}
ROOT = PACKAGE.parent


@dataclass
class Compared:
    """Methods, by what became of their numbers."""

    same: list[str] = field(default_factory=list)
    other: dict[str, str] = field(default_factory=dict)  # method -> the first difference


@dataclass(frozen=True)
class Outcome:
    """What one version of the code measured in a run."""

    code_version: str
    facts: dict[str, Any]  # name -> what must be equal


def compare_with(revision: str, path: Path = SAME_CODE) -> Compared:
    """Runs both versions, and writes down which methods measured the same.

    Raises:
        UserError: no such commit, or its code cannot run the suite.
    """
    with tempfile.TemporaryDirectory(prefix="ltbench-same-bits-") as name:
        before, now = Path(name) / "before", Path(name) / "now"
        _unpack(revision, before)
        for part in (PACKAGE.name, "methods"):
            shutil.copytree(ROOT / part, now / part, ignore=shutil.ignore_patterns("__pycache__"))
        return note(_measure(before), _measure(now), path)


def note(before: Mapping[str, Outcome], now: Mapping[str, Outcome], path: Path) -> Compared:
    """Compares two versions' outcomes by run (`split entry seed`), and writes down what measured the same."""
    found, known = Compared(), read_same_code(path)
    by_method: dict[str, list[str]] = defaultdict(list)
    for run in {**before, **now}:
        by_method[run.split()[1].split("@")[0].split("-")[0]].append(run)
    for method, runs in sorted(by_method.items()):
        differences = [text for run in runs for text in _differences(run, before.get(run), now.get(run))]
        if differences:
            found.other[method] = differences[0]
            continue
        found.same.append(method)
        old, new = before[runs[0]].code_version, now[runs[0]].code_version
        if old != new:
            on = ", ".join(sorted({f"{run.split()[0]} ({run.split()[1].split('@')[1]})" for run in runs}))
            known[old] = {"method": method, "now": new, "on": on}
    write_json(path, dict(sorted(known.items())))
    return found


def _differences(run: str, before: Outcome | None, now: Outcome | None) -> list[str]:
    if before is None or now is None:
        return [f"{run}: only the {'older' if now is None else 'newer'} code ran it"]
    names = sorted({*before.facts, *now.facts})
    return [f"{run}: {name} differs" for name in names if before.facts.get(name) != now.facts.get(name)]


def _unpack(revision: str, folder: Path) -> None:
    commit = _git("rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}").decode().strip()
    archive = _git("archive", "--format=tar", commit, "--", PACKAGE.name, "methods")
    with tarfile.open(fileobj=BytesIO(archive)) as tar:
        for member in tar:  # not extractall: its filter came with Python 3.11.4
            if (content := tar.extractfile(member)) is not None:
                write_bytes(folder / member.name, content.read())


def _git(*arguments: str) -> bytes:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, check=False, cwd=ROOT)  # noqa: S603, S607
    except FileNotFoundError:
        raise UserError("git is not installed") from None
    if done.returncode:
        raise UserError(f"git {' '.join(arguments)}: {' '.join(done.stderr.decode(errors='replace').split())}")
    return done.stdout


def _measure(tree: Path) -> dict[str, Outcome]:
    """Runs the suites with the code in `tree`, seed 0 alone; what could not run (no data, say) is missing."""
    suites = {name: get_suite(name) for name in SHORTENED}
    text = {
        name: {"splits": suite.splits, "entries": [text for group in suite.groups for text in group], "seeds": [0]}
        for name, suite in suites.items()
    }
    write_json(tree / PACKAGE.name / SUITES_FILE.name, text)  # JSON is YAML
    environment = os.environ | {"PYTHONPATH": str(tree), "LTBENCH_DATA": str(store.data_root().resolve())}
    found: dict[str, Outcome] = {}
    for name, overrides in SHORTENED.items():
        out = tree / "out" / name
        command = [sys.executable, "-m", PACKAGE.name, "campaign", name, "--device", "cpu", "--budget", "100000"]
        command += ["--out", str(out), *(word for item in overrides for word in ("--set", item))]
        print(f"{tree.name}: {name}", file=sys.stderr, flush=True)
        done = subprocess.run(command, cwd=tree, env=environment, check=False)  # noqa: S603
        if done.returncode and not out.is_dir():
            print(f"{tree.name}: {name} was left out", file=sys.stderr)
        found |= {_name(record): _outcome(path, record, out) for path, record in _records(out)}
    if not found:
        raise UserError(f"nothing could be measured with the code of {tree.name}; see above")
    return found


def _records(out: Path) -> list[tuple[Path, Record]]:
    return [(path, read_record(path)) for path in record_paths(out / "records")]


def _name(record: Record) -> str:
    return f"{record.split} {record.entry} {record.seed}"


def _outcome(path: Path, record: Record, out: Path) -> Outcome:
    facts: dict[str, Any] = {"status": (record.status, record.failure), "scores": record.results}
    if evidence_path(path).is_file():
        with np.load(evidence_path(path), allow_pickle=False) as arrays:
            facts |= {name: arrays[name].tobytes() for name in arrays.files if name != "run_key"}
    for stage in record.stages:
        facts |= {f"weights of {stage}": _weights(out, record, stage)}
    return Outcome(record.code_version, facts)


def _weights(out: Path, record: Record, stage: str) -> dict[str, str]:
    """Hashes of a stage's tensors, by the run key that its file carries."""
    from safetensors import safe_open

    key = record.stage1_key if stage == "train" else record.run_key
    for path in out.glob(f"work/**/{stage}/checkpoint/seed{record.seed}.safetensors"):
        with safe_open(path, framework="np") as file:
            if (file.metadata() or {}).get("run_key", "").split(" ")[0] == key:
                return {name: sha256_bytes(file.get_tensor(name).tobytes()) for name in file.keys()}  # noqa: SIM118
    return {}
