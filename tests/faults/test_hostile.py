"""Hostile input that no other test has: names that are paths, and code in files. RELIABILITY.md lists the others."""

from __future__ import annotations

import dataclasses
import json
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from harness.base.errors import UserError
from harness.records.evidence import read_evidence
from harness.records.history import read_history
from harness.records.imports import import_campaign
from harness.records.runs import run_info
from harness.records.schema import write_record
from harness.reporting.report import build_report
from harness.spec import suites
from harness.spec.entries import parse_entry
from harness.spec.recipes import resolve
from harness.splits import store
from harness.splits.split_names import parse_split_name
from harness.splits.splits import read_split, write_split
from tests.factories import collected, make_record, sources

ROOT = Path(__file__).parents[2]
PATHS = [
    "../ce",
    "ce/../..",
    "/etc/passwd",
    "ce\0",
    "..",
    "ce\\..",
    "~/ce",
    "$(touch pwned)",
    "ce;touch pwned",
    "ce`x`",
    "ce\n",
]


@pytest.mark.parametrize("name", PATHS)
def test_an_entry_is_no_path_and_no_command(name: str) -> None:
    for text in (f"{name}@common", f"ce-{name}@common", f"ce@{name}"):
        try:
            entry = parse_entry(text)
        except UserError:
            continue
        assert text == "ce-..@common", "dots alone stay within a folder's name"
        assert entry.path.parts == ("common", "ce-..")
        with pytest.raises(UserError, match="no variant"):
            resolve(entry, "mnist5k")


@pytest.mark.parametrize("name", PATHS)
def test_a_split_is_no_path_and_no_command(name: str) -> None:
    for text in (name, f"{name}-lt-if100", f"mnist5k-lt-if100/{name}", f"folder-{name}-lt-if10", f"folder-{name}"):
        with pytest.raises(UserError):
            parse_split_name(text)


def test_a_users_folder_is_known_by_its_own_name_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LTBENCH_DATA", str(tmp_path / "data"))
    (tmp_path / "data" / ".folders").mkdir(parents=True)
    (tmp_path / "outside.json").write_text(json.dumps({"path": "/"}))
    with pytest.raises(UserError, match="no folder is known as"):
        store.get_dataset("folder-x/../../../outside")
    damaged = ["[]", '{"path": 3}', '{"path": "/", "holdout": "0.2"}', '{"path": "/", "holdout": 1}']
    for content in [*damaged, '{"path": "/", "holdout": null}', '{"path": "/", "kind": []}']:
        (tmp_path / "data" / ".folders" / "folder-x-01234567.json").write_text(content)
        with pytest.raises(UserError, match="damaged; to make it anew"):
            store.get_dataset("folder-x-01234567")


def test_an_imported_record_cannot_write_outside_of_the_workspace(workspace: Path) -> None:
    """A campaign's folder comes from elsewhere. Its split may even have the hash and the keys that are expected."""
    cell, split = resolve(parse_entry("plain@common"), "tiny"), read_split(Path("results/splits/tiny-lt-if10.json"))
    for number, name in enumerate(["../../escaped", "/tmp/escaped", "tiny-lt-if10/../../escaped"]):
        hostile = dataclasses.replace(split, id=name)
        hostile = dataclasses.replace(hostile, sha256=hostile.digest())
        folder = Path(f"campaign{number}")
        (folder / "splits").mkdir(parents=True)
        write_split(hostile, folder / "splits" / f"{name}.json")
        info = run_info(cell, hostile, 0, "train")
        shared = {name: getattr(info, name) for name in ("method", "track", "stage1_key", "run_key", "code_version")}
        record = make_record(
            dataset="tiny", split=name, split_sha256=hostile.sha256, class_counts=hostile.class_counts,
            recipe=info.recipe, recipe_sha256=info.recipe_sha256, **{k: v for k, v in shared.items() if k != "method"},
            seed=0,
        )  # fmt: skip
        write_record(folder / "records" / "seed0.json", dataclasses.replace(record, method="plain"))
        before = {path for path in workspace.parent.rglob("*") if path.is_file()}
        found = import_campaign(folder, Path("results/splits"), Path("results/imported"))
        assert len(found.refused) == 1
        assert "is not" in found.refused[0]
        assert {path for path in workspace.parent.rglob("*") if path.is_file()} == before


def test_a_path_in_a_suite_never_reaches_a_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`dvc.yaml` puts names of splits and entries into shell commands."""
    from PIL import Image

    monkeypatch.setenv("LTBENCH_DATA", str(tmp_path / "data"))
    folder = tmp_path / "mine; touch pwned"
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            (folder / part / name).mkdir(parents=True)
            Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / part / name / "0.png")
    given = {"default": {"splits": [f"folder:{folder}-lt-if1"], "entries": ["ce@common"]}}
    (tmp_path / "suites.yaml").write_text(yaml.safe_dump(given))
    monkeypatch.setattr(suites, "SUITES_FILE", tmp_path / "suites.yaml")
    with pytest.raises(UserError, match=r"write it as folder-mine_touch_pwned-[0-9a-f]{8}-lt-if1$"):
        suites.grid()


def test_every_word_of_the_grid_is_plain() -> None:
    """What stands in the committed grid goes into commands as it is."""

    def words(value: Any) -> list[str]:
        if isinstance(value, dict):
            return [word for key, item in value.items() for word in (str(key), *words(item))]
        return [str(value)]

    assert not [word for word in words(suites.grid()) if not re.fullmatch(r"[A-Za-z0-9_.@,/-]+", word)]


@pytest.mark.parametrize("name", ["../../records", "/etc/passwd", "x/../y"])
def test_evaluate_takes_no_path_for_a_split(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "harness", "evaluate", name, "--run", "runs", "--out", "out"],
        cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "PATH": ""}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_names_in_records_cannot_lead_a_report_outside(tmp_path: Path) -> None:
    names = ["../../escaped", "/tmp/escaped", "..", "a\0b"]
    records = [make_record(name, split=name, track="../x") for name in names]
    build_report(collected(*records), tmp_path / "deep" / "er" / "out", sources())
    written = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert written
    assert all((tmp_path / "deep" / "er" / "out") in path.parents for path in written)
    assert not Path("/tmp/escaped").exists()


class Malicious:
    """Unpickling it would create the file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_pickles_in_array_files_are_not_loaded(tmp_path: Path) -> None:
    attack = np.array([Malicious(tmp_path / "pwned")], dtype=object)
    np.savez(tmp_path / "x.npz", run_key=attack, targets=attack, rules=attack, row=attack, test=attack)
    with pytest.raises(UserError):
        read_evidence(tmp_path / "x.npz", make_record())
    with pytest.raises(UserError):
        read_history(tmp_path / "x.npz")
    assert not (tmp_path / "pwned").exists()
    pickle.loads(pickle.dumps(attack))  # the attack itself works
    assert (tmp_path / "pwned").exists()
