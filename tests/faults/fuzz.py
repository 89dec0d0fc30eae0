"""Fuzzing of everything that reads text: each input is read or refused with one line, in bounded time and memory.

`python -m tests.faults.fuzz --inputs 100000 --json FILE` shares the inputs among the readers below. An input that takes
more than `SECONDS`, or a process that needs more than `MEMORY`, is a failure like any exception other than `UserError`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import resource
import signal
import sys
import tempfile
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st

from harness.base.config import build
from harness.base.errors import UserError
from harness.base.files import parse_yaml, sha256_json, stamped
from harness.reading.lists import read_list
from harness.records.runs import read_run_info
from harness.records.schema import read_record
from harness.records.sender import Sender
from harness.reporting.claims import load_cards
from harness.reporting.site.config import Site
from harness.reporting.site.versions import read_manifest
from harness.spec.entries import parse_entry
from harness.spec.recipe_layers import MethodFile, parse_override
from harness.spec.recipes import resolve
from harness.spec.stage_recipe import StageRecipe
from harness.spec.suites import Suite, parse_seeds
from harness.splits.split_names import parse_split_name
from harness.splits.splits import read_split
from tests.factories import make_record
from tests.faults import trees

SECONDS = 60  # of wall time, on a machine that may be busy with other work
MEMORY = 6 * 2**30  # bytes of address space, of which torch alone takes more than half

Target = Callable[[Path, Any], object]

# ---- what is fed to them ---------------------------------------------------------------------------------------------

TOKENS = [
    "a: ", "b: ", "- ", "\n", "  ", "{", "}", "[", "]", ", ", "&x ", "*x", "&y ", "*y", "!!int ", "!!set ", "!!map ",
    "<<: ", "? ", "lr: ", "epochs: ", "params: ", "tracks: ", "common: ", "variants: ", "mnist5k: ", '"*": ', "base: ",
    "augment: ", "finetune: ", "title: x\n", "2001-01-01", "99", "1e999", ".inf", "0x", "0b", "_", "1e", "|", ">", "'",
    '"', "#", "~", "---\n", "é", "\t", "%", "\0", "[" * 70,
]  # fmt: skip
texts = st.text(max_size=60) | st.lists(st.sampled_from(TOKENS), max_size=30).map("".join)
scalars = st.none() | st.booleans() | st.integers(-3, 300) | st.just(10**400) | st.floats() | st.text(max_size=8)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)
edits = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 3), st.binary(max_size=4)), max_size=6)
changes = st.lists(st.tuples(st.lists(st.integers(0, 30), min_size=1, max_size=4), values), min_size=1, max_size=3)


def edited(data: bytes, steps: list[tuple[int, int, bytes]]) -> bytes:
    """Bytes with some of them replaced, removed, doubled, or the rest cut off."""
    for place, kind, given_bytes in steps:
        at = place % (len(data) + 1)
        data = [
            data[:at] + given_bytes + data[at + len(given_bytes) :],
            data[:at] + data[at + 1 + place % 7 :],
            data[:at] + data[max(at - 20, 0) : at] + data[at:],
            data[:at],
        ][kind]
    return data


def edits_of(text: str) -> st.SearchStrategy[bytes]:
    """A text file with bytes changed."""
    return edits.map(lambda steps: edited(text.encode(), steps))


def changed(value: Any, path: list[int], new: Any) -> Any:
    """A JSON value with the one at the path (indices, counted round) replaced."""
    if not path or not isinstance(value, (dict, list)) or not value:
        return new
    if isinstance(value, list):
        at = path[0] % len(value)
        return [*value[:at], changed(value[at], path[1:], new), *value[at + 1 :]]
    key = sorted(value)[path[0] % len(value)]
    return {**value, key: changed(value[key], path[1:], new)}


def structured(start: Any) -> st.SearchStrategy[bytes]:
    """JSON files: `start` with bytes changed, or with values changed and its hash made right again."""

    def rehashed(steps: list[tuple[list[int], Any]]) -> bytes:
        value = {key: item for key, item in start.items() if key != "sha256"}
        for path, new in steps:
            value = changed(value, path, new)
        try:
            return json.dumps(stamped(value) if isinstance(value, dict) else value).encode()
        except ValueError:  # NaN has no hash
            return json.dumps(value).encode()

    plain = json.dumps(start).encode()
    return edits.map(lambda steps: edited(plain, steps)) | changes.map(rehashed) | st.binary(max_size=40)


# ---- the readers -----------------------------------------------------------------------------------------------------

RECORD = dataclasses.asdict(make_record())
RUN = {key: RECORD[key] for key in (
    "method", "variant", "track", "seed", "split", "split_sha256", "stages", "recipe", "recipe_sha256", "stage1_key",
    "run_key", "code_version", "status", "failure",
)}  # fmt: skip
PART = {"class_counts": [1, 2], "sha256": "0" * 64}
SPLIT: dict[str, Any] = {
    "schema": 1, "id": "toy-lt-if2", "dataset": "toy", "profile": "exponential", "imbalance_factor": 2.0,
    "subset_rule": "hash:0", "split_seed": 0, "class_names": ["a", "b"], "image_shape": [2, 2, 1], "mean": [0.5],
    "std": [0.5], "class_counts": [2, 1], "train": [["x", "y"], ["z"]], "val": PART, "test": PART,
}  # fmt: skip
SPLIT["sha256"] = sha256_json(SPLIT)
LIST = "train/n01/1.JPEG 0\ntrain/n02/2.JPEG 1\n"
METHOD = """
title: Cross-entropy
variants: {wide: {params: {}, lr: 0.2, applies_to: {tracks: [common]}}}
tracks:
  common: {"*": {weight_decay: 5e-3}, mnist5k: {epochs: 3, augment: {flip: true}}}
  paper: {cifar10: {base: gcl_cifar, iterations: 100, epochs: 0}}
"""


def on_file(read: Callable[[Path], object]) -> Target:
    """A reader of files, fed with bytes."""

    def target(folder: Path, data: bytes) -> object:
        path = folder / "input.json"
        path.write_bytes(data)
        return read(path)

    return target


def _recipe(folder: Path, data: bytes) -> object:
    """A method's own recipes.yaml, as far as the resolved recipe."""
    (folder / "methods" / "fuzzed" / "recipes.yaml").write_bytes(data)
    return resolve(parse_entry("fuzzed-wide@common"), "mnist5k").recipe.sha256()


def _stage(_: Path, text: str) -> object:
    """Text as YAML, and the YAML as everything that a YAML file may hold here."""
    value = parse_yaml(text, "fuzzed.yaml")
    for kind in (StageRecipe, MethodFile, Suite, Site, Sender):
        try:
            build(kind, value, "fuzzed.yaml")
        except UserError as error:
            one_line(error)
    return value


def _card(folder: Path, data: bytes) -> object:
    (folder / "cards").mkdir(exist_ok=True)
    (folder / "cards" / "card.json").write_bytes(data)
    return load_cards(folder / "cards")


CARD = {
    "schema": 1, "name": "Other", "reason": "no code", "claims": [
        {"variant": "", "dataset": "cifar10", "imbalance_factor": 100.0, "backbone": "resnet32_cifar", "group": "all",
         "selection": "not stated", "value": 80.0, "source": "paper", "location": "table 1"},
    ],
}  # fmt: skip
MANIFEST = {
    "schema": 1, "version": "0" * 8, "name": "2026-01-01-00000000", "title": "Site", "time": 1, "files": ["index.html"],
    "records": {
        "a.json": {
            "sha256": "0", "address": "a", "split": "s", "entry": "e", "seed": 0, "status": "ok", "tier": "re-run",
        },
    },
    "rows": [{"board": "b", "table": "t", "row": "r", "rank": 1, "mean": 0.5, "n": 3}],
}  # fmt: skip
entries = st.from_regex(re.compile(r"[a-z_]{0,5}(-[A-Za-z0-9_./]{0,4})?@?[a-z]{0,7}"), fullmatch=True)
names = st.from_regex(
    re.compile(r"(mnist5k|cifar10|folder-x|\.\.)(-lt-if|-cut)?[0-9.]{0,5}(-(step|zipf|pool-hash[0-9]{1,3}|/))?"),
    fullmatch=True,
)
TARGETS: dict[str, tuple[Target, st.SearchStrategy[Any]]] = {
    "yaml": (_stage, texts),
    "recipe": (_recipe, edits_of(METHOD) | texts.map(lambda text: text.encode("utf-8", "replace"))),
    "override": (lambda _, text: parse_override(text), texts.map(lambda text: f"params.x={text}") | texts),
    "record": (on_file(read_record), structured(stamped(RECORD))),
    "run": (on_file(read_run_info), structured(stamped(RUN))),
    "split": (on_file(read_split), structured(SPLIT)),
    "list": (on_file(lambda path: read_list(path, 2)), edits_of(LIST) | st.binary(max_size=60)),
    "own list": (trees.lists, edits_of(trees.LIST) | st.binary(max_size=60)),
    "own folder": (trees.folder, trees.trees),
    "card": (_card, structured(CARD)),
    "manifest": (on_file(read_manifest), structured(MANIFEST)),
    "entry": (lambda _, text: parse_entry(text), texts | entries),
    "split name": (lambda _, text: parse_split_name(text), texts | names),
    "seeds": (lambda _, text: parse_seeds(text), texts | st.text("0123456789,-_ ", max_size=12)),
}  # fmt: skip
SLOW = {"recipe": 0.2, "card": 0.5, "own folder": 0.2}  # share of the inputs that the others get


# ---- running them ----------------------------------------------------------------------------------------------------


def one_line(error: UserError) -> None:
    if not str(error).isprintable() or len(str(error)) > 5000:
        raise AssertionError(f"not one clear line: {str(error)[:300]!r}")


@contextmanager
def in_time() -> Iterator[None]:
    def late(*_: object) -> None:
        raise TimeoutError(f"more than {SECONDS} seconds")

    signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def prepare(folder: Path) -> None:
    """A method whose recipes.yaml is fuzzed; `folder` must be on sys.path."""
    code = """
        from harness.api import Method

        class Fuzzed(Method):
            name = "fuzzed"
        """
    (folder / "methods" / "fuzzed").mkdir(parents=True)
    (folder / "methods" / "fuzzed" / "method.py").write_text(textwrap.dedent(code))


def fuzz(name: str, inputs: int, seed: int, folder: Path) -> Counter[str]:
    """Feeds a reader; raises what it raised, with the smallest input found in the notes.

    Returns:
        how many inputs were read and how many refused.
    """
    target, strategy = TARGETS[name]
    counts: Counter[str] = Counter()

    @seeded(seed)
    @settings(
        max_examples=inputs,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )
    @given(strategy)
    def feed(data: Any) -> None:
        try:
            with in_time():
                target(folder, data)
            counts["read"] += 1
        except UserError as error:
            one_line(error)
            counts["refused"] += 1

    feed()
    return counts


def main() -> int:
    """The command line; 1 where a reader failed."""
    parser = argparse.ArgumentParser(description="Fuzz the readers.")
    parser.add_argument("--inputs", type=int, default=100_000, help="of all readers together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures there")
    arguments = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resolve(parse_entry("ce@common"), "mnist5k")  # imports torch, which is no input's fault
    shares = {name: SLOW.get(name, 1.0) for name in TARGETS}
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="ltbench-fuzz-") as folder:
        prepare(Path(folder))
        sys.path.insert(0, folder)
        for name, share in shares.items():
            began = time.monotonic()
            try:
                counts = fuzz(
                    name, round(arguments.inputs * share / sum(shares.values())) + 1, arguments.seed, Path(folder)
                )
                results[name] = dict(counts)
            except Exception as error:
                notes = " ".join(getattr(error, "__notes__", []))
                results[name] = {"failure": f"{type(error).__name__}: {error} {notes}"}
            results[name]["seconds"] = round(time.monotonic() - began, 1)
            print(name, results[name], flush=True)
    total = sum(found.get("read", 0) + found.get("refused", 0) for found in results.values())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    figures = {"seed": arguments.seed, "inputs": total, "peak_memory_mb": peak, "readers": results}
    print(json.dumps({key: figures[key] for key in ("inputs", "peak_memory_mb")}))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return 1 if any("failure" in found for found in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
