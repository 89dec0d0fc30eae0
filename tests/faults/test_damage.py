"""Every file that a stage reads, damaged: it is refused with one line, made anew, or means what it meant before."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from harness.base.errors import UserError
from harness.base.files import write_bytes
from harness.base.progress import Reporter
from harness.datasets import _folder
from harness.engine.checkpoint import load_state, load_weights, save_state
from harness.reading.cache import cached
from harness.reading.dataset import Images
from harness.records.collect import collect
from harness.records.evaluate import SUMMED, evaluate
from harness.records.evidence import evidence_path, read_evidence
from harness.records.runs import run_info
from harness.records.schema import costs_path, read_costs, read_record
from harness.records.table import rows
from harness.running import stages
from harness.spec import recipe_layers
from harness.spec.entries import parse_entry
from harness.spec.recipes import resolve
from harness.splits import store
from harness.splits.splits import Split, build_split, read_split, select, write_split
from tests.data.test_lists import lines, make_dataset

FLIPS = 150
SPLIT = Path("results/splits/tiny-lt-if10.json")
FIRST, SECOND, RECORDS = Path("first"), Path("second"), Path("records")

Read = Callable[[], Any]


def damages(data: bytes, other: bytes | None, flips: int = FLIPS) -> Iterator[tuple[str, bytes]]:
    """What may happen to a file, with a name for each."""
    rng = random.Random(0)
    for _ in range(flips):
        place, bit = rng.randrange(len(data)), rng.randrange(8)
        flipped = bytearray(data)
        flipped[place] ^= 1 << bit
        yield f"bit {bit} of byte {place} flipped", bytes(flipped)
    for share in (0.01, 0.3, 0.7, 0.99):
        yield f"cut to {share:.0%}", data[: int(len(data) * share)]
    yield "empty", b""
    yield "zeros", bytes(len(data))
    if other is not None:
        yield "swapped with another", other


def undetected(path: Path, read: Read, other: Path | None = None) -> dict[str, str]:
    """The damages after which `read` gives something else, or raises anything but one clear line."""
    data, expected, trouble = path.read_bytes(), read(), {}
    for name, damaged in damages(data, other.read_bytes() if other else None):
        write_bytes(path, damaged)  # as another file: the old one may be mapped into memory
        try:
            found = read()
        except UserError as error:
            if "\n" in str(error):
                trouble[name] = str(error)
        except Exception as error:
            trouble[name] = f"{type(error).__name__}: {error}"
        else:
            if not same(found, expected):
                trouble[name] = "other content"
    write_bytes(path, data)
    assert same(read(), expected), "the file itself is read as before"
    return trouble


def same(one: Any, other: Any) -> bool:
    """Equality of what readers give: arrays and tensors by their values, objects by their fields."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if dataclasses.is_dataclass(one):
        return same(vars(one), vars(other))
    return bool(one == other)


# ---- what a run reads and leaves -----------------------------------------------------------------------------------


@pytest.fixture
def measured(workspace: Path) -> None:
    """Two seeds of two stages, and their records."""
    cell, place = resolve(parse_entry("toy@common"), "tiny"), stages.Workplace(torch.device("cpu"), Reporter())
    stages.train(cell, SPLIT, [0, 1], FIRST, place)
    stages.finetune(cell, SPLIT, [0, 1], FIRST, SECOND, place)
    evaluate(SPLIT, [FIRST, SECOND], [0, 1], RECORDS)


def score() -> dict[str, bytes]:
    """All that `ltbench evaluate` makes of the first seed."""
    evaluate(SPLIT, [FIRST, SECOND], [0], Path("again"))
    return {path.name: path.read_bytes() for path in sorted(Path("again").iterdir())}


def tabulate() -> list[dict[str, Any]]:
    """The table's rows; a record that is left out is an error here."""
    collected = collect(RECORDS)
    if collected.left_out:
        raise UserError(collected.left_out[0][1])
    return rows(collected)


def test_a_split(workspace: Path, tiny_split: Split) -> None:
    write_split(dataclasses.replace(tiny_split, split_seed=1), Path("other.json"))
    assert not undetected(SPLIT, lambda: read_split(SPLIT), Path("other.json"))


@pytest.mark.usefixtures("measured")
@pytest.mark.parametrize("name", ["seed0.json", "seed0.npz"])
def test_identity_and_predictions_of_a_run(name: str) -> None:
    path = SECOND / "predictions" / name
    assert not undetected(path, score, path.with_name(name.replace("0", "1")))
    assert not undetected(path, score, FIRST / "predictions" / name)


@pytest.mark.usefixtures("measured")
def test_costs_of_a_run() -> None:
    def read() -> dict[str, float]:
        costs = json.loads(score()["seed0.run.json"])
        return {key: costs[key] for key in SUMMED}

    assert not undetected(SECOND / "costs" / "seed0.json", read)


@pytest.mark.usefixtures("measured")
def test_weights_that_a_second_stage_starts_from() -> None:
    path = FIRST / "checkpoint" / "seed0.safetensors"
    key = json.loads((FIRST / "predictions" / "seed0.json").read_text())["run_key"]
    assert not undetected(path, lambda: load_weights(path, key), path.with_name("seed1.safetensors"))


def test_a_resume_state(tmp_path: Path) -> None:
    path, other = tmp_path / "resume.pt", tmp_path / "other.pt"
    torch.manual_seed(0)
    save_state(path, {"model": {"weight": torch.randn(50, 50)}, "epoch": 3}, "key")
    save_state(other, {"model": {"weight": torch.randn(50, 50)}, "epoch": 3}, "another")
    assert not undetected(path, lambda: load_state(path, "key"), other)


@pytest.mark.usefixtures("measured")
def test_a_record() -> None:
    assert not undetected(RECORDS / "seed0.json", tabulate, RECORDS / "seed1.json")


@pytest.mark.usefixtures("measured")
def test_costs_beside_a_record() -> None:
    record = RECORDS / "seed0.json"
    known = [key for key in json.loads(costs_path(record).read_text()) if key != "sha256"]

    def read() -> dict[str, Any]:
        costs = read_costs(record)
        if not costs:
            raise UserError("no costs are shown")
        return {key: costs.get(key) for key in known}

    assert not undetected(costs_path(record), read)


@pytest.mark.usefixtures("measured")
def test_evidence_beside_a_record() -> None:
    path, record = evidence_path(RECORDS / "seed0.json"), read_record(RECORDS / "seed0.json")
    assert not undetected(path, lambda: read_evidence(path, record), path.with_name("seed1.npz"))


def swallow_last_entry(path: Path) -> None:
    """Gives the last entry but one of an archive a comment as long as the last one: readers then do not see that."""
    data = bytearray(path.read_bytes())
    last = data.rindex(b"PK\x01\x02")
    before = data.rindex(b"PK\x01\x02", 0, last)
    data[before + 32 : before + 34] = (len(data) - 22 - last).to_bytes(2, "little")
    write_bytes(path, bytes(data))
    with np.load(path) as file:
        assert not [name for name in file.files if name.startswith("class/")]


@pytest.mark.usefixtures("measured")
def test_evidence_with_an_entry_hidden() -> None:
    path = evidence_path(RECORDS / "seed0.json")
    swallow_last_entry(path)
    with pytest.raises(UserError, match="entries are missing"):
        read_evidence(path, read_record(RECORDS / "seed0.json"))


@pytest.mark.usefixtures("measured")
def test_predictions_with_an_entry_hidden() -> None:
    swallow_last_entry(SECOND / "predictions" / "seed0.npz")
    with pytest.raises(UserError, match="entries are missing"):
        score()


# ---- data ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["train.pixels.npy", "train.labels.npy", "manifest.json"])
def test_decoded_images(tmp_path: Path, name: str) -> None:
    """A damaged cache is decoded anew, so that nothing is ever refused."""
    rng = np.random.default_rng(0)

    images, others = (Images(rng.integers(0, 256, (4, 3, 3, 1), np.uint8), np.arange(4) + i) for i in range(2))

    def read() -> Any:
        return cached(tmp_path / "one", "key", lambda: {"train": images})

    cached(tmp_path / "other", "another key", lambda: {"train": others})
    read()
    path = tmp_path / "one" / name
    assert not undetected(path, read, tmp_path / "other" / name)


def test_an_official_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LTBENCH_DATA", str(tmp_path))
    content = {"train": lines([120, 30, 5]), "test": lines([2, 2, 2], "val")}
    dataset = make_dataset(content)
    for part, text in content.items():
        (tmp_path / "made").mkdir(exist_ok=True)
        (tmp_path / "made" / f"{part}.txt").write_bytes(text)
    train = tmp_path / "made" / "train.txt"
    assert not undetected(train, lambda: store.load(dataset)["train"], train.with_name("test.txt"))


def test_an_image_of_a_users_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LTBENCH_DATA", str(tmp_path / "data"))
    rng = np.random.default_rng(0)
    for part, count in (("train", 6), ("test", 2)):
        for name in ("cat", "dog"):
            folder = tmp_path / "mine" / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(folder / f"{i}.png")
    name = f"folder:{tmp_path / 'mine'}"
    dataset = store.get_dataset(name)
    split = build_split(f"{name}-lt-if3", dataset, store.load(dataset))

    def read() -> Any:
        _folder._scan.cache_clear()
        return select(split, store.load(store.get_dataset(dataset.name)))["train"]

    cats = tmp_path / "mine" / "train" / "cat"
    assert not undetected(cats / "0.png", read, cats.parent / "dog" / "1.png")


# ---- recipes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [False, True], ids=["of a method", "that methods share"])
def test_a_recipe(workspace: Path, tiny_split: Split, monkeypatch: pytest.MonkeyPatch, shared: bool) -> None:
    """A recipe may be edited, so what is still YAML is another recipe; its runs then have another key."""
    path = workspace.parent / "plugins/methods/toy/recipes.yaml"
    if shared:
        path = Path("shared.yaml")
        path.write_text("common: {tiny: {lr: 0.2, momentum: 0.8, nesterov: true, mixup_alpha: 0.1}}\n")
        monkeypatch.setattr(recipe_layers, "COMMON_FILE", path.resolve())

    def read() -> tuple[dict[str, Any], str]:
        cell = resolve(parse_entry("toy@common"), "tiny")
        return cell.recipe.as_dict(), run_info(cell, tiny_split, 0, "finetune").run_key

    (recipe, key), refused, trouble = read(), 0, {}
    for name, damaged in damages(path.read_bytes(), None, flips=40):
        path.write_bytes(damaged)
        try:
            found = read()
        except UserError as error:
            refused += 1
            if "\n" in str(error):
                trouble[name] = str(error)
        else:
            if (found[0] == recipe) != (found[1] == key):
                trouble[name] = "another recipe under the same key"
    assert not trouble
    assert refused > 10
