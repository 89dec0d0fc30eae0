"""Proof that an edit changed no number: a small suite, run with the code of a commit and with this checkout's.

Both run here and now, one after the other, so machine, libraries and data are the same. Compared are every score, the
predictions and curves behind it, and the weights of every stage, bit by bit. What measured the same is written down in
`results/same_code.json`; an import takes records of such older code, and the report says so beside them.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import os
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from harness.base.errors import UserError, unknown
from harness.base.files import PACKAGE, sha256_bytes, write_json
from harness.base.git import unpack
from harness.records.evidence import evidence_path
from harness.records.same_code import SAME_CODE, read_same_code
from harness.records.schema import Record, read_record, record_paths
from harness.spec.pretrained import find
from harness.spec.recipes import resolve
from harness.spec.suites import SUITES_FILE, entries_for, get_suite
from harness.splits import store
from harness.splits.split_names import parse_split_name

ROOT, CODE = PACKAGE.parent, (PACKAGE.name, "methods")
# Long enough for warm-up, the last fifth (where schedules fall and LDAM re-weights) and a second epoch of stage 2.
SHORT = ("recipe.epochs=5", "recipe.warmup_epochs=2")
SECOND = ("recipe.finetune.epochs=2", "recipe.finetune.warmup_epochs=0")  # of a second stage that trains
SMALL = (*SHORT, "image_size=8")


@dataclass(frozen=True)
class Trial:
    """What is run of a suite, and how it is shortened.

    Attributes:
        stopped_after: seconds after which the campaign is stopped once; the runs under way are then resumed.
    """

    suite: str
    overrides: tuple[str, ...]
    only: str = "*"
    stopped_after: float = 0.0


PARTS = (
    Trial("mnist5k-all", SHORT),
    Trial("cifar10-short", SMALL, only="crt@short", stopped_after=20.0),
    Trial("full-length", SMALL),
    Trial("tuned-cifar100", SMALL, only="lift-*"),
)
POST_HOC = "-post-hoc"
IN_TWO = "mnist5k-lt-if100", "ce@common"  # one run over two processes, in full


@dataclass
class Compared:
    """Methods, by what became of their numbers."""

    same: list[str] = field(default_factory=list)
    other: dict[str, str] = field(default_factory=dict)  # method -> the first difference


@dataclass(frozen=True)
class Measured:
    """What one version of the code measured in a run."""

    code_version: str
    facts: dict[str, Any]  # name -> what must be equal


def compare_with(revision: str, suite: str = "") -> Compared:
    """Runs both versions, and writes down which methods measured the same.

    Args:
        suite: the one part to run, where the older version has other recipes than today's for the rest; "": all.

    Raises:
        UserError: no such commit, or its code cannot run the suite.
    """
    with tempfile.TemporaryDirectory(prefix="ltbench-same-bits-") as name:
        before, now = Path(name) / "before", Path(name) / "now"
        unpack(revision, before, *CODE, where=ROOT)
        for part in CODE:
            shutil.copytree(ROOT / part, now / part, ignore=shutil.ignore_patterns("__pycache__"))
        parts = tuple(part for part in PARTS if suite in ("", part.suite))
        if not parts:
            raise unknown("part of the comparison", suite, [part.suite for part in PARTS])
        return note(_measure(before, parts), _measure(now, parts), SAME_CODE)


def note(before: Mapping[str, Measured], now: Mapping[str, Measured], path: Path) -> Compared:
    """Compares two versions' outcomes by run (`split entry seed`), and writes down what measured the same."""
    found, known = Compared(), read_same_code(path)
    by_method: dict[str, list[str]] = defaultdict(list)
    for run in {**before, **now}:
        by_method[run.split()[1].split("@")[0].split("-")[0]].append(run)
    for method, runs in sorted(by_method.items()):
        differences = [text for run in runs for text in _differences(run, before.get(run), now.get(run))]
        old, new = (
            next((outcomes[run].code_version for run in runs if run in outcomes), "") for outcomes in (before, now)
        )
        if differences:
            found.other[method] = differences[0]
            if (known.get(old, {}).get("method"), known.get(old, {}).get("now")) == (method, new):
                del known[old]  # an earlier comparison of fewer parts
            continue
        found.same.append(method)
        if old != new:
            on = ", ".join(sorted({f"{run.split()[0]} ({run.split()[1].split('@')[1]})" for run in runs}))
            known[old] = {"method": method, "now": new, "on": on}
    write_json(path, dict(sorted(known.items())))
    return found


def _differences(run: str, before: Measured | None, now: Measured | None) -> list[str]:
    if before is None or now is None:
        return [f"{run}: only the {'older' if now is None else 'newer'} code ran it"]
    for outcome in (before, now):
        if empty := [name for name, value in outcome.facts.items() if name.startswith("weights") and not value]:
            return [f"{run}: nothing to compare ({empty[0]})"]
        if (status := outcome.facts.get("status", ("ok", None)))[0] != "ok":
            return [f"{run}: nothing to compare ({status[0]}: {status[1]})"]
    names = sorted({*before.facts, *now.facts})
    return [f"{run}: {name} differs" for name in names if before.facts.get(name) != now.facts.get(name)]


def _measure(tree: Path, parts: Sequence[Trial]) -> dict[str, Measured]:
    """Runs the parts with the code in `tree`, seed 0 alone; what could not run (no data, say) is missing."""
    trials = {name: (part, value) for part in parts for name, value in _suites(part, tree).items()}
    suites = {name: value for name, (_, value) in trials.items()}
    write_json(tree / PACKAGE.name / SUITES_FILE.name, suites)  # JSON is YAML
    found: dict[str, Measured] = {}
    for name, (part, _) in trials.items():
        out, overrides = tree / "out" / name, (*part.overrides, *(() if name.endswith(POST_HOC) else SECOND))
        words = ["campaign", name, "--device", "cpu", "--out", str(out)]
        words += [word for item in overrides for word in ("--set", item)]
        for budget in filter(None, (part.stopped_after, 1e6)):
            _ltbench(tree, *words, "--budget", f"{budget:g}")
        found |= _outcomes(out)
    if IN_TWO:
        found |= _in_two(tree, *IN_TWO)
    if not found:
        raise UserError(f"nothing could be measured with the code of {tree.name}; see above")
    return found


def _suites(part: Trial, tree: Path) -> dict[str, dict[str, Any]]:
    """The part's entries with seed 0, of methods that are in `tree` and weights that are here.

    Those that apply a rule to a finished network (their second stage has no epochs) make a suite of their own.
    """
    suite = get_suite(part.suite)
    dataset = parse_split_name(suite.splits[0]).dataset
    found: dict[str, list[str]] = {part.suite: [], part.suite + POST_HOC: []}
    for entry in entries_for(suite, dataset):
        if fnmatch.fnmatchcase(str(entry), part.only) and (tree / "methods" / entry.method).is_dir():
            recipe = resolve(entry, dataset).recipe
            try:
                find(recipe.pretrained)
            except UserError as error:
                print(f"left out: {error}", file=sys.stderr)
                continue
            second = recipe.finetune
            found[part.suite + (POST_HOC if second and not second.epochs else "")].append(str(entry))
    return {name: {"splits": suite.splits, "entries": texts, "seeds": [0]} for name, texts in found.items() if texts}


def _in_two(tree: Path, split: str, entry: str) -> dict[str, Measured]:
    """One run over two processes, of one stage."""
    out = tree / "out" / "in-two"
    stage = str(out / "work/train")
    _ltbench(tree, "split", split)
    _ltbench(tree, "train", split, entry, "--seeds", "0", "--device", "cpu", "--nproc", "2", "--out", stage)
    _ltbench(tree, "evaluate", split, "--run", stage, "--seeds", "0", "--out", str(out / "records"))
    return {f"{run} in-two": outcome for run, outcome in _outcomes(out).items()}


def _ltbench(tree: Path, *words: str) -> None:
    environment = os.environ | {
        "PYTHONPATH": str(tree),
        "LTBENCH_DATA": str(store.data_root().resolve()),
        "LTBENCH_CHECKPOINT_SECONDS": "1",
    }
    print(f"{tree.name}: ltbench {' '.join(words[:3])}", file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", PACKAGE.name, *words], cwd=tree, env=environment, check=False)  # noqa: S603


def _outcomes(out: Path) -> dict[str, Measured]:
    """What the records under `out` say, by run."""
    records = {path: read_record(path) for path in record_paths(out / "records")}
    return {f"{one.split} {one.entry} {one.seed}": _outcome(path, one, out) for path, one in records.items()}


def _outcome(path: Path, record: Record, out: Path) -> Measured:
    results = record.results.items()  # top-5 accuracy is left out: earlier code does not measure it
    scores = {rule: some and dataclasses.replace(some, top5=None) for rule, some in results}
    facts: dict[str, Any] = {"status": (record.status, record.failure), "scores": scores}
    if evidence_path(path).is_file():
        with np.load(evidence_path(path), allow_pickle=False) as arrays:
            stored = (name for name in arrays.files if name != "run_key" and not name.startswith("first/"))
            facts |= {name: arrays[name].tobytes() for name in stored}  # stage 1's curves: its own run has them
    for stage in record.stages:
        facts |= {f"weights of {stage}": _weights(out, record, stage)}
    return Measured(record.code_version, facts)


def _weights(out: Path, record: Record, stage: str) -> dict[str, str]:
    """Hashes of a stage's tensors, found by the run key that their file carries."""
    key = record.stage1_key if stage == "train" else record.run_key
    paths = out.glob(f"work/**/{stage}/checkpoint/seed{record.seed}.safetensors")
    for path in paths:
        with safe_open(path, framework="np") as file:
            if (file.metadata() or {}).get("run_key", "").split(" ")[0] == key:
                return {name: sha256_bytes(file.get_tensor(name).tobytes()) for name in file.keys()}  # noqa: SIM118
    return {}
