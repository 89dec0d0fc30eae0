"""Forged records: each kind is refused by the import, and by `collect` if it lies among the records; or it is named.

Each forgery is made of a real record with the project's own functions, and stamped again, as a forger would.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.base.files import read_json, stamped, write_json
from harness.metrics.shots import group_sizes
from harness.records import imports
from harness.records.arrays import Arrays, read_arrays, write_arrays
from harness.records.check import repeated
from harness.records.collect import collect
from harness.records.evaluate import score_epoch, split_facts
from harness.records.evidence import evidence_path
from harness.records.runs import run_info
from harness.records.schema import costs_path, read_record
from harness.spec.entries import parse_entry
from harness.spec.provenance import code_version
from harness.spec.recipes import resolve
from harness.spec.registry import get_plugin
from harness.splits.splits import read_split, write_split

ROOT = Path(__file__).parents[2]
CELL = Path("mnist5k-lt-if100/common")
Value = dict[str, Any]
Forge = Callable[[Value, Arrays], None]  # changes the record and the arrays of its evidence


def scores(**changes: Any) -> Forge:
    return lambda record, _: record["results"]["last"].update(changes)


def field(**changes: Any) -> Forge:
    return lambda record, _: record.update(changes)


def all_99(record: Value, _: Arrays) -> None:
    for rule in ("last", "best_val", "best_test"):
        given = record["results"][rule]
        given |= dict.fromkeys(("all", "macro", "many", "medium", "few", "macro_f1"), 0.99) | {"per_class": [0.99] * 10}


def group_sizes_alone(record: Value, _: Arrays) -> None:
    record["groups"] = {"many": 0, "medium": 0, "few": 10}


def policy_alone(record: Value, _: Arrays) -> None:
    record |= {"shot_policy": "inclusive_100_20", "groups": {"many": 5, "medium": 5, "few": 0}}


def easier_targets(record: Value, arrays: Arrays) -> None:
    """Half of the wrong predictions become right, and every score follows."""
    row = arrays["predictions"][arrays["row"][list(arrays["rules"]).index("last")]]
    wrong = np.flatnonzero(row != arrays["targets"])
    arrays["targets"] = arrays["targets"].copy()
    arrays["targets"][wrong[::2]] = row[wrong[::2]]
    rescore(record, arrays)


def fewer_images(record: Value, arrays: Arrays) -> None:
    """The images that are wrong are left out."""
    row = arrays["predictions"][arrays["row"][list(arrays["rules"]).index("last")]]
    kept = np.flatnonzero(row == arrays["targets"])
    arrays["targets"], arrays["predictions"] = arrays["targets"][kept], arrays["predictions"][:, kept]
    record["test_images"] = len(kept)
    rescore(record, arrays)


def the_labels(record: Value, arrays: Arrays) -> None:
    arrays["predictions"] = np.tile(arrays["targets"], (len(arrays["predictions"]), 1))
    rescore(record, arrays)


def rescore(record: Value, arrays: Arrays) -> None:
    """All scores, and the points of the curve, as the changed predictions give them."""
    for rule, row in zip(arrays["rules"].tolist(), arrays["row"].tolist(), strict=True):
        old = record["results"][rule]
        found = score_epoch(
            arrays["predictions"][row], arrays["targets"], record["class_counts"], epoch=old["epoch"], ece=old["ece"]
        )
        record["results"][rule] = dataclasses.asdict(found)
        arrays["test"] = arrays["test"].copy()
        arrays["test"][np.flatnonzero(arrays["epochs"] == old["epoch"])] = found.all
    arrays["test"] = np.minimum(arrays["test"], max(s["all"] for s in record["results"].values()))


def best_as_last(record: Value, arrays: Arrays) -> None:
    """The scores and predictions of the best epoch under the name of the last."""
    record["results"]["last"] = record["results"]["best_test"]
    rules = arrays["rules"].tolist()
    arrays["row"] = arrays["row"].copy()
    arrays["row"][rules.index("last")] = arrays["row"][rules.index("best_test")]


def best_under_the_last_epoch(record: Value, arrays: Arrays) -> None:
    last = record["results"]["last"]["epoch"]
    best_as_last(record, arrays)
    record["results"]["last"] = record["results"]["last"] | {"epoch": last}


def recipe(record: Value, _: Arrays) -> None:
    record["recipe"]["train"]["lr"] *= 2


def recipe_and_hash(record: Value, arrays: Arrays) -> None:
    from harness.base.files import sha256_json

    recipe(record, arrays)
    record["recipe_sha256"] = sha256_json(record["recipe"])


def shorter_curves(_: Value, arrays: Arrays) -> None:
    arrays["test"] = arrays["test"][1:]


def class_beyond(_: Value, arrays: Arrays) -> None:
    arrays["predictions"] = arrays["predictions"].copy()
    arrays["predictions"][:, 0] = 77


def rule_left_out(record: Value, _: Arrays) -> None:
    record["results"]["best_test"] = None


def another_run_key(_: Value, arrays: Arrays) -> None:
    arrays["run_key"] = np.array("0" * 16)


def half_curve(_: Value, arrays: Arrays) -> None:
    arrays["test"] = (arrays["test"] + 0.05).astype(np.float32)


FORGERIES: dict[str, Forge] = {
    "all scores 99 %": all_99,
    "accuracy": scores(all=0.99),
    "class-mean accuracy": scores(macro=0.99),
    "few-shot accuracy": scores(few=0.99),
    "many-shot accuracy": scores(many=0.999),
    "macro-F1": scores(macro_f1=0.99),
    "per-class accuracy": scores(per_class=[0.9] * 10),
    "a score above 1": scores(few=1.5),
    "a group left empty": scores(few=None),
    "epoch of the last": scores(epoch=3),
    "group sizes": group_sizes_alone,
    "shot policy": policy_alone,
    "unknown shot policy": field(shot_policy="mine"),
    "targets": easier_targets,
    "wrong images left out": fewer_images,
    "the best epoch as the last": best_as_last,
    "the best epoch under the last one's number": best_under_the_last_epoch,
    "a rule left out": rule_left_out,
    "evaluated epochs": field(evaluated_epochs="1-400"),
    "a better curve": half_curve,
    "curves that do not fit": shorter_curves,
    "a class that does not exist": class_beyond,
    "evidence of another run": another_run_key,
    "class counts": field(class_counts=[500] * 10),
    "number of test images": field(test_images=10_000),
    "number of validation images": field(val_images=0),
    "data set": field(dataset="cifar10"),
    "imbalance factor": field(imbalance_factor=10.0),
    "profile": field(profile="step"),
    "subset rule": field(subset_rule="hash:1"),
    "backbone": field(backbone="resnet152"),
    "a stage more": field(stages=["train", "finetune"], stage1_selection="last"),
    "recipe": recipe,
    "seed under another name": field(seed=5),
}
IMPORT_ONLY: dict[str, Forge] = {  # that what lies in a checkout may be of its older code
    "recipe with its hash": recipe_and_hash,
    "run key": lambda record, arrays: (record.update(run_key="0" * 16), arrays.update(run_key=np.array("0" * 16)))[0],
    "code version": field(code_version="0" * 16),
    "another split": field(split_sha256="0" * 64),
    "method": field(method="focal"),
    "track": field(track="short"),
}


@pytest.fixture
def campaign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A campaign's folder with the three seeds of cross-entropy, in a checkout without results but its splits."""
    monkeypatch.setattr(
        imports,
        "versions_of",
        lambda method, _: [read_record(seed_file()).code_version, code_version(get_plugin(method).folder)],
    )
    shutil.copytree(ROOT / "results/records" / CELL / "ce", tmp_path / "campaign/records" / CELL / "ce")
    shutil.copytree(ROOT / "results/splits", tmp_path / "results/splits")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "campaign"


@pytest.fixture(scope="module", autouse=True)
def figures() -> Iterator[dict[str, str]]:
    """What each kind met; `make forgeries` keeps it."""
    found: dict[str, str] = {}
    yield found
    if path := os.environ.get("LTBENCH_FIGURES"):
        write_json(Path(path), {"kinds": len(found), "met": found})


def seed_file(seed: int = 0, root: Path = ROOT / "results") -> Path:
    return root / "records" / CELL / "ce" / f"seed{seed}.json"


def forged(campaign: Path, forge: Forge) -> Path:
    path = seed_file(0, campaign)
    record = read_json(path, "record")
    with read_arrays(evidence_path(path), "evidence", "") as arrays:
        pass
    forge(record, arrays)
    del record["sha256"]
    write_json(path, stamped(record))
    write_arrays(evidence_path(path), arrays)
    return path


def imported(campaign: Path) -> imports.Imported:
    return imports.import_campaign(campaign, Path("results/splits"), Path("results/imported"))


def test_the_real_ones_are_taken(campaign: Path) -> None:
    found = imported(campaign)
    assert (found.refused, len(found.taken)) == ([], 3)
    collected = collect(Path("results/imported"))
    assert (len(collected.records), collected.left_out, collected.unchecked) == (3, [], [])
    assert repeated(collected.records) == []


@pytest.mark.parametrize("kind", [*FORGERIES, *IMPORT_ONLY])
def test_a_forgery_is_not_imported(kind: str, campaign: Path, figures: dict[str, str]) -> None:
    path = forged(campaign, (FORGERIES | IMPORT_ONLY)[kind])
    (line,) = imported(campaign).refused
    assert str(path.with_suffix("")) in line
    assert "\n" not in line
    figures[kind] = "refused: " + line.partition(path.stem)[2].partition(": ")[2].replace(f"{ROOT}/", "")


@pytest.mark.parametrize("kind", FORGERIES)
def test_a_forgery_among_the_records_is_left_out(kind: str, campaign: Path) -> None:
    path = forged(campaign, FORGERIES[kind])
    collected = collect(campaign / "records")
    assert [left for left, _ in collected.left_out] == [path]
    assert len(collected.records) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_counts": [380, 380, 3, 3, 3, 3, 3, 3, 3, 3]}, "its split has class_counts [380, 380, 3, "),
        ({"imbalance_factor": 10.0}, "its split has imbalance_factor 10, by its name mnist5k-lt-if100 it is 100"),
        ({"profile": "step"}, "its split has profile step, by its name mnist5k-lt-if100 it is exponential"),
        ({"subset_rule": "first_n"}, "its split has subset_rule first_n, by its name mnist5k-lt-if100 it is hash:0"),
        ({"split_seed": 7}, "its split has split_seed 7, by its name mnist5k-lt-if100 it is 0"),
        ({"dataset": "fashion-mnist"}, "its split has dataset fashion-mnist, by its name mnist5k-lt-if100 it is "),
        ({"id": "fashion-mnist-lt-if100"}, "its split has dataset mnist5k, by its name fashion-mnist-lt-if100 it is "),
        ({"id": "mnist5k"}, "'mnist5k' is not a split"),
    ],
)  # fmt: skip
def test_a_split_that_contradicts_its_name_is_not_taken_over(
    changes: Value, message: str, campaign: Path, figures: dict[str, str]
) -> None:
    """Record and evidence follow from it, and no split of that name is here to compare it with."""
    figures["a split that is not what its name says"] = "refused"
    ours = Path("results/splits/mnist5k-lt-if100.json")
    split = read_split(ours)
    sizes = changes.get("class_counts", split.class_counts)
    images = [(of * 200)[:size] for of, size in zip(split.train, sizes, strict=True)]
    split = dataclasses.replace(split, train=images, **changes)
    split = dataclasses.replace(split, sha256=split.digest())
    ours.unlink()
    write_split(split, campaign / f"splits/{split.id}.json")
    code = {"ce": read_record(seed_file(0, campaign)).code_version}
    info = run_info(resolve(parse_entry("ce@common"), split.dataset), split, 0, "train", codes=code)

    def follow(record: Value, arrays: Arrays) -> None:
        names = ("recipe", "recipe_sha256", "stage1_key", "run_key")
        record |= split_facts(split) | {name: getattr(info, name) for name in names}
        record |= {"backbone": info.recipe["backbone"]}
        record |= {"groups": group_sizes(split.class_counts, record["shot_policy"])}
        arrays["run_key"] = np.array(info.run_key)
        rescore(record, arrays)

    path = forged(campaign, follow)
    refused = {line.partition(": ")[0]: line for line in imported(campaign).refused}
    assert message in refused[str(path)]
    assert not ours.exists()
    assert message in dict(collect(campaign / "records").left_out)[path]


def test_a_record_without_evidence_is_not_imported_and_shown_as_unchecked(
    campaign: Path, figures: dict[str, str]
) -> None:
    figures["no evidence"] = "refused; among the records shown as unchecked"
    evidence_path(seed_file(0, campaign)).unlink()
    assert "evidence seed0.npz is missing" in imported(campaign).refused[0]
    assert collect(campaign / "records").unchecked == [
        (seed_file(0, campaign), "its evidence is missing, so no score could be computed anew")
    ]


def test_a_record_under_another_name_of_its_entry_is_not_imported(
    campaign: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`balanced-softmax` is read as `balanced_softmax`; the record would keep its own name in every table."""
    shutil.rmtree(campaign / "records" / CELL)
    shutil.copytree(ROOT / "results/records" / CELL / "balanced_softmax", campaign / "records" / CELL / "other")
    path = campaign / "records" / CELL / "other/seed0.json"
    code = read_record(path).code_version
    monkeypatch.setattr(imports, "versions_of", lambda *_: [code])
    value = read_json(path, "record")
    del value["sha256"]
    write_json(path, stamped(value | {"method": "balanced", "variant": "softmax"}))
    found = imported(campaign)
    (line,) = found.refused
    called, read = ("method 'balanced', variant 'softmax'", "method 'balanced_softmax', variant ''")
    assert line == f"{path}: {called}: entry balanced-softmax@common is {read}"
    assert len(found.taken) == 2


def test_a_run_that_went_well_after_all_keeps_nothing_of_the_one_that_failed(campaign: Path) -> None:
    path = seed_file(0, campaign)
    good, sound = path.read_bytes(), evidence_path(path).read_bytes()
    value = read_json(path, "record")
    del value["sha256"]
    failure = {"reason": "NaN loss", "epoch": 1, "step": 1}
    failed = {"status": "failed", "failure": failure, "results": {}, "evaluated_epochs": ""}
    write_json(path, stamped(value | failed))
    evidence_path(path).unlink()
    write_json(costs_path(path), stamped({"schema": 1, "stages": {}}))
    target = Path("results/imported/campaign") / CELL / "ce/seed0.json"
    assert target in imported(campaign).taken
    assert costs_path(target).is_file()
    path.write_bytes(good)
    evidence_path(path).write_bytes(sound)
    costs_path(path).unlink()
    assert imported(campaign).taken == [target]
    assert read_record(target).status == "ok"
    assert evidence_path(target).is_file()
    assert not costs_path(target).exists(), "the failed run's"


def test_an_edited_record_without_its_hash_is_refused(campaign: Path, figures: dict[str, str]) -> None:
    figures["edited, hash kept"] = figures["edited, hash deleted"] = "refused"
    path = seed_file(0, campaign)
    record = read_json(path, "record")
    record["results"]["last"]["all"] = 0.99
    write_json(path, record)
    assert "sha256" in imported(campaign).refused[0]
    del record["sha256"]
    write_json(path, record)
    assert "has no sha256 over its content" in imported(campaign).refused[0]
    assert [left for left, _ in collect(campaign / "records").left_out] == [path]


def test_predictions_that_are_the_labels_are_named(campaign: Path, figures: dict[str, str]) -> None:
    figures["the labels as predictions"] = "named by validate; a re-run tells"
    path = forged(campaign, the_labels)
    assert imported(campaign).refused == []
    assert repeated(collect(campaign / "records").records) == [f"{path}: its predictions are the labels"]


def test_one_runs_predictions_under_two_seeds_are_named(campaign: Path, figures: dict[str, str]) -> None:
    figures["one run's predictions under two seeds"] = "named by validate; a re-run tells"
    first, second = seed_file(0, campaign), seed_file(1, campaign)
    record, other = read_json(first, "record"), read_json(second, "record")
    with read_arrays(evidence_path(first), "evidence", "") as arrays:
        arrays["run_key"] = np.array(other["run_key"])
    write_arrays(evidence_path(second), arrays)
    changed = other | {"results": record["results"], "evaluated_epochs": record["evaluated_epochs"]}
    del changed["sha256"]
    write_json(second, stamped(changed))
    assert imported(campaign).refused == []
    assert repeated(collect(campaign / "records").records) == [
        f"{second}: its predictions are those of {first}, another run"
    ]
