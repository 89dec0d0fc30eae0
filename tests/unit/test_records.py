"""Records: scored from stored predictions, written once as the same bytes, collected whatever lies around."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.base.errors import UserError
from harness.base.files import write_json
from harness.reading.dataset import Dataset
from harness.records.collect import collect
from harness.records.evaluate import evaluate, spans
from harness.records.evidence import read_evidence
from harness.records.runs import write_run_info
from harness.records.schema import SCHEMA, Record, costs_path, read_costs, read_record, record_paths, write_record
from harness.records.table import COLUMNS, rows, write_table
from harness.splits.splits import Split, write_split
from tests.factories import make_record
from tests.unit import toys

# ---- the file ------------------------------------------------------------------------------------------------------

RECORDS = [
    make_record(),
    make_record(failure="loss is nan"),
    make_record(results=make_record().results | {"best_val": None}),
    make_record("tvmf", variant="k64", stages=["train", "finetune"], stage1_selection="last"),
]


@pytest.mark.parametrize("record", RECORDS)
def test_round_trip_gives_the_same_bytes(tmp_path: Path, record: Record) -> None:
    write_record(tmp_path / "a.json", record)
    read = read_record(tmp_path / "a.json")
    write_record(tmp_path / "b.json", read)
    assert read == record
    assert (tmp_path / "b.json").read_bytes() == (tmp_path / "a.json").read_bytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": SCHEMA + 1}, f"another version \\(schema {SCHEMA + 1}, this one knows {SCHEMA}\\)"),
        ({"schema": 0}, "another version \\(schema 0"),
        ({"schema": "1"}, "no schema number"),
        ({"schema": True}, "schema"),
        ({"status": "fine"}, r"status: expected one of ok, failed, skipped"),
        ({"results": []}, "results: expected dict\\[str, Scores \\| None\\]"),
        ({"results": {"last": 3}}, "results.last: expected Scores"),
        ({"results": {"last": {"epoch": 1}}}, "results.last: key 'all' is missing"),
        ({"seed": "0"}, r"\.seed: expected int"),
        ({"groups": {"many": "x"}}, "groups"),
        ({"failure": {}}, "failure: key 'reason' is missing"),
        ({"surprise": 1}, "unknown key 'surprise'"),
    ],
)
def test_what_is_no_record(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = tmp_path / "a.json"
    write_record(path, make_record())
    toys.edit_json(path, **changes)
    with pytest.raises(UserError, match=message) as caught:
        read_record(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_score_that_is_no_number_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_record(path, make_record())
    path.write_text(path.read_text().replace('"ece": 0.05', '"ece": NaN'))
    with pytest.raises(UserError):
        read_record(path)


# ---- collecting ----------------------------------------------------------------------------------------------------


def test_damaged_records_are_left_out_with_their_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_record(tmp_path / "a" / "seed0.json", make_record(seed=0))
    write_record(tmp_path / "b" / "seed1.json", make_record(seed=1))
    write_record(tmp_path / "b" / "later.json", make_record(schema=SCHEMA + 1))
    for name, content in {"empty": "", "half": '{"schema": 1', "list": "[]", "deep": "[" * 100_000}.items():
        (tmp_path / f"{name}.json").write_text(content)
    (tmp_path / "folder.json").mkdir()
    found = collect(tmp_path)
    assert [(path.name, record.seed) for path, record in found.records] == [("seed0.json", 0), ("seed1.json", 1)]
    left_out = {path.stem: reason for path, reason in found.left_out}
    assert left_out.keys() == {"empty", "half", "list", "deep", "later", "folder"}
    assert "another version" in left_out["later"]
    printed = capsys.readouterr().err
    assert all(name in printed for name in left_out)
    assert len(printed.splitlines()) == len(left_out)


def test_cost_files_and_temporary_ones_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "seed0.json"
    write_record(path, make_record())
    write_json(costs_path(path), {"wall_seconds": 3})
    (tmp_path / ".seed1.json.abc.tmp").write_text("half")
    assert list(record_paths(tmp_path)) == [path]
    found = collect(tmp_path)
    assert read_costs(path) == {"wall_seconds": 3}
    assert found.left_out == []


@pytest.mark.parametrize("content", ["", "[1]", "{", "null"])
def test_damaged_costs_are_no_costs(tmp_path: Path, content: str) -> None:
    path = tmp_path / "seed0.json"
    write_record(path, make_record())
    assert read_costs(path) == {}
    costs_path(path).write_text(content)
    assert read_costs(path) == {}


def table(tmp_path: Path, *records: Record) -> list[dict[str, str]]:
    for i, record in enumerate(records):
        write_record(tmp_path / "records" / f"{i}.json", record)
    write_table(rows(collect(tmp_path / "records")), tmp_path / "table.csv")
    with open(tmp_path / "table.csv", newline="") as file:
        reader = csv.DictReader(file)
        assert tuple(reader.fieldnames or ()) == COLUMNS
        return list(reader)


def test_table_of_a_good_run(tmp_path: Path) -> None:
    lines = table(tmp_path, make_record(accuracy=0.8, slope=0.2, imbalance_factor=100.0, notes=("one", "two")))
    assert {line["notes"] for line in lines} == {"one; two"}
    assert [line["selection"] for line in lines] == ["last", "best_val", "best_test"]
    assert {line["status"] for line in lines} == {"ok"}
    assert lines[0]["all"] == "0.8"
    assert lines[0]["imbalance_factor"] == "100"
    assert lines[0]["epoch"] == "9"
    assert lines[0]["variant"] == lines[0]["reason"] == ""
    assert lines[0]["record"].endswith("records/0.json")
    assert float(lines[0]["many"]) > float(lines[0]["few"])


def test_rules_that_do_not_apply_and_empty_groups_are_no_numbers(tmp_path: Path) -> None:
    record = make_record(class_counts=[500, 300, 200], groups={"many": 3, "medium": 0, "few": 0})
    lines = table(tmp_path, dataclasses.replace(record, results=record.results | {"best_val": None}))
    assert [line["selection"] for line in lines] == ["last", "best_test"]
    assert lines[0]["medium"] == lines[0]["few"] == ""
    assert lines[0]["many"] != ""


@pytest.mark.parametrize("status", ["failed", "skipped"])
def test_a_run_without_result_is_one_row_with_its_reason(tmp_path: Path, status: Any) -> None:
    record = dataclasses.replace(make_record(failure="loss is nan, at once"), status=status, results={})
    [line] = table(tmp_path, record)
    assert (line["status"], line["reason"], line["selection"]) == (status, "loss is nan, at once", "")
    assert all(line[column] == "" for column in ("all", "many", "few", "epoch", "ece"))


def test_no_record_vanishes_from_the_table(tmp_path: Path) -> None:
    """One that has only scores of a rule nobody knows is refused or a row, but not lost."""
    path = tmp_path / "records" / "0.json"
    write_record(path, make_record())
    toys.edit_json(path, results={"best_of_three": json.loads(path.read_text())["results"]["last"]})
    found = collect(tmp_path / "records")
    assert len(rows(found)) + len(found.left_out) == 1


def test_small_and_whole_numbers_in_the_table(tmp_path: Path) -> None:
    from tests.factories import make_scores

    scores = make_scores(ece=0.0, all=1.0, macro=1e-9, macro_f1=1 / 3)
    line = table(tmp_path, make_record(seed=100, results={"last": scores}))[0]
    assert (line["ece"], line["all"], line["macro"], line["macro_f1"], line["seed"]) == (
        "0",
        "1",
        "0",
        "0.333333",
        "100",
    )


# ---- scoring -------------------------------------------------------------------------------------------------------
# the toy split: classes with 12, 6 and 3 training images (all few), 4 test and 2 validation images each

PERFECT = [0] * 4 + [1] * 4 + [2] * 4
BY_CLASS = [0, 0, 0, 0, 1, 1, 0, 0, 2, 0, 0, 0]  # class accuracies 1, 1/2, 1/4
VAL_PERFECT, VAL_WORST = [0, 0, 1, 1, 2, 2], [1, 1, 2, 2, 0, 0]


@pytest.fixture
def split(toy: Dataset, tmp_path: Path) -> Split:
    made = toys.make_split()
    write_split(made, tmp_path / "split.json")
    return made


def scored(tmp_path: Path, *runs: str, policy: str = "strict_100_20") -> Record:
    folders = [tmp_path / run for run in runs or ("run",)]
    [path] = evaluate(tmp_path / "split.json", folders, [0], tmp_path / "out", policy)
    return read_record(path)


def test_hand_computed_record(split: Split, tmp_path: Path) -> None:
    info = toys.make_run_info(split)
    test, val = [[0] * 12, PERFECT, BY_CLASS], [VAL_PERFECT, VAL_WORST, VAL_PERFECT]
    toys.save_run(tmp_path / "run", info, test, val, ece=[0.3, 0.2, 0.1], epochs=[5, 10, 15])
    record = scored(tmp_path, policy="thirds")
    assert record.results.keys() == {"last", "best_val", "best_test"}
    last, best_val, best_test = (record.results[rule] for rule in ("last", "best_val", "best_test"))
    assert last is not None
    assert best_val is not None
    assert best_test is not None
    assert (last.epoch, best_val.epoch, best_test.epoch) == (15, 5, 10)
    assert (last.ece, best_val.ece, best_test.ece) == (0.1, 0.3, 0.2)
    assert last.all == last.macro == pytest.approx(7 / 12)
    assert (last.many, last.medium, last.few) == (1.0, 0.5, 0.25)
    assert last.per_class == [1.0, 0.5, 0.25]
    # F1: class 0 has 4 hits and 9 predictions, class 1 2 and 2, class 2 1 and 1
    assert last.macro_f1 == pytest.approx((8 / 13 + 4 / 6 + 2 / 5) / 3)
    assert best_test.all == 1.0
    assert best_val.per_class == [1.0, 0.0, 0.0]
    assert record.groups == {"many": 1, "medium": 1, "few": 1}
    assert record.shot_policy == "thirds"
    assert (record.status, record.failure, record.backbone) == ("ok", None, "resnet8_cifar")
    assert (record.test_images, record.val_images, record.class_counts) == (12, 6, [12, 6, 3])
    assert (record.split, record.split_sha256, record.imbalance_factor) == ("toy-lt-if4", split.sha256, 4.0)
    assert record.stage1_selection is None
    assert record.evaluated_epochs == "5-15 by 5"


def test_groups_without_a_class_are_none(split: Split, tmp_path: Path) -> None:
    toys.save_run(tmp_path / "run", toys.make_run_info(split), [BY_CLASS], [VAL_WORST])
    last = scored(tmp_path).results["last"]
    assert last is not None
    assert (last.many, last.medium, last.few) == (None, None, pytest.approx(7 / 12))


def test_the_same_run_gives_the_same_bytes(split: Split, tmp_path: Path) -> None:
    toys.save_run(tmp_path / "run", toys.make_run_info(split), [BY_CLASS], [VAL_WORST])
    scored(tmp_path)
    before = (tmp_path / "out" / "seed0.json").read_bytes()
    scored(tmp_path)
    assert (tmp_path / "out" / "seed0.json").read_bytes() == before


def test_a_record_is_the_last_file_of_its_run(split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed before it, the run has none, not even an old one beside new evidence."""
    toys.save_run(tmp_path / "run", toys.make_run_info(split), [BY_CLASS], [VAL_WORST])
    scored(tmp_path)
    there = {path.name for path in (tmp_path / "out").iterdir()}
    assert there == {"seed0.json", "seed0.npz", "seed0.run.json"}

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("harness.records.evaluate.write_record", killed)
    with pytest.raises(KeyboardInterrupt):
        scored(tmp_path)
    assert {path.name for path in (tmp_path / "out").iterdir()} == there - {"seed0.json"}


def test_without_a_validation_part(toy: Dataset, tmp_path: Path) -> None:
    from harness.splits.splits import build_split

    parts = {part: images for part, images in toys.make_parts().items() if part != "val"}
    made = build_split("toy-lt-if4", toy, parts)
    write_split(made, tmp_path / "split.json")
    toys.save_run(tmp_path / "run", toys.make_run_info(made), [BY_CLASS, PERFECT], [[], []])
    record = scored(tmp_path)
    assert record.results["best_val"] is None
    assert record.results["last"] is not None


@pytest.mark.parametrize(("train", "finetune"), [("train", "finetune"), ("1/crt", "2/crt"), ("1", "2")])
def test_the_last_stage_is_scored_and_costs_add_up(split: Split, tmp_path: Path, train: str, finetune: str) -> None:
    """Whatever the folders of the stages are called."""
    costs = {"wall_seconds": 1.5, "train_seconds": 1.0, "eval_seconds": 0.25, "peak_memory_mb": 10.0, "device": "CPU"}
    toys.save_run(tmp_path / train, toys.make_run_info(split), [[0] * 12], [VAL_WORST])
    recipe = {"backbone": "resnet8_cifar", "finetune": {"epochs": 1}}
    second = toys.make_run_info(split, stages=["train", "finetune"], recipe=recipe, run_key="2" * 16)
    toys.save_run(tmp_path / finetune, second, [PERFECT], [VAL_WORST])
    write_json(tmp_path / train / "costs" / "seed0.json", costs | {"peak_memory_mb": 30.0})
    write_json(tmp_path / finetune / "costs" / "seed0.json", costs)
    record = scored(tmp_path, train, finetune)
    last = record.results["last"]
    assert last is not None
    assert last.all == 1.0
    assert record.stage1_selection == "last"
    summed = json.loads((tmp_path / "out" / "seed0.run.json").read_text())
    assert (summed["wall_seconds"], summed["train_seconds"], summed["eval_seconds"]) == (3.0, 2.0, 0.5)
    assert summed["peak_memory_mb"] == 30.0
    assert summed["stages"].keys() == {"train", "finetune"}
    with pytest.raises(
        UserError, match="holds a second stage; name the folder of the first one before it: --run FIRST --run"
    ):
        scored(tmp_path, finetune)


@pytest.mark.parametrize("damage", ["gone", "bytes", "images"])
def test_damaged_curves_of_the_first_stage_cost_no_record(split: Split, tmp_path: Path, damage: str) -> None:
    toys.save_run(tmp_path / "train", toys.make_run_info(split), [[0] * 12], [VAL_WORST])
    recipe = {"backbone": "resnet8_cifar", "finetune": {"epochs": 1}}
    second = toys.make_run_info(split, stages=["train", "finetune"], recipe=recipe, run_key="2" * 16)
    toys.save_run(tmp_path / "finetune", second, [PERFECT], [VAL_WORST])
    before = scored(tmp_path, "train", "finetune")
    evidence = read_evidence(tmp_path / "out/seed0.npz", before)
    assert evidence is not None
    assert evidence.first
    path = tmp_path / "train/predictions/seed0.npz"
    if damage == "images":
        toys.save_run(tmp_path / "train", toys.make_run_info(split), [[0] * 11], [VAL_WORST])
    else:
        path.write_bytes(path.read_bytes()[:-40]) if damage == "bytes" else path.unlink()
    record = scored(tmp_path, "train", "finetune")
    assert record.results == before.results
    evidence = read_evidence(tmp_path / "out/seed0.npz", record)
    assert evidence is not None
    assert not evidence.first
    assert len(record.notes) - len(before.notes) == (damage != "gone")


@pytest.mark.parametrize("status", ["failed", "skipped"])
def test_a_run_that_failed_needs_no_predictions(split: Split, tmp_path: Path, status: str) -> None:
    failure = {"reason": "loss is nan", "epoch": 3, "step": 1}
    info = toys.make_run_info(split, status=status, failure=failure)
    write_run_info(tmp_path / "run" / "predictions" / "seed0.json", info)
    record = scored(tmp_path)
    assert (record.status, record.results) == (status, {})
    assert record.failure is not None
    assert dataclasses.asdict(record.failure) == failure


def test_a_run_on_another_split(split: Split, tmp_path: Path) -> None:
    toys.save_run(tmp_path / "run", toys.make_run_info(split, split_sha256="0" * 64), [BY_CLASS], [VAL_WORST])
    with pytest.raises(UserError, match="measured on split 0000"):
        scored(tmp_path)


def test_predictions_of_another_run(split: Split, tmp_path: Path) -> None:
    info = toys.make_run_info(split)
    toys.save_run(tmp_path / "run", info, [BY_CLASS], [VAL_WORST])
    toys.rewrite_json(tmp_path / "run" / "predictions" / "seed0.json", run_key="x" * 16)
    with pytest.raises(UserError, match="expected xxxx"):
        scored(tmp_path)


@pytest.mark.parametrize(("test", "val"), [(BY_CLASS[1:], VAL_WORST), (BY_CLASS, VAL_WORST[1:]), (BY_CLASS, [])])
def test_predictions_that_do_not_fit(split: Split, tmp_path: Path, test: list[int], val: list[int]) -> None:
    toys.save_run(tmp_path / "run", toys.make_run_info(split), [test], [val])
    with pytest.raises(UserError, match="do not fit split toy-lt-if4"):
        scored(tmp_path)


def test_predictions_of_classes_that_do_not_exist(split: Split, tmp_path: Path) -> None:
    toys.save_run(tmp_path / "run", toys.make_run_info(split), [[7] * 12], [VAL_WORST])
    with pytest.raises(UserError):
        scored(tmp_path)


@pytest.mark.parametrize("failure", [{"reason": "x", "surprise": 1}, {"epoch": 3}, {"reason": 3}, "text"])
def test_a_damaged_failure_is_one_line(split: Split, tmp_path: Path, failure: Any) -> None:
    info = toys.make_run_info(split, status="failed", failure={"reason": "x"})
    path = tmp_path / "run" / "predictions" / "seed0.json"
    write_run_info(path, info)
    toys.edit_json(path, failure=failure)
    with pytest.raises(UserError):
        scored(tmp_path)


def test_missing_runs_and_unknown_policies(split: Split, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"seed0\.json"):
        scored(tmp_path)
    toys.save_run(tmp_path / "run", toys.make_run_info(split), [BY_CLASS], [VAL_WORST])
    with pytest.raises(UserError, match="strict_100_20"):
        scored(tmp_path, policy="strict")
    (tmp_path / "run" / "predictions" / "seed0.npz").write_bytes(b"")
    with pytest.raises(UserError, match="damaged"):
        scored(tmp_path)
    assert not list(tmp_path.glob("out/*.json"))


def test_a_damaged_cost_file_is_one_line(split: Split, tmp_path: Path) -> None:
    toys.save_run(tmp_path / "run", toys.make_run_info(split), [BY_CLASS], [VAL_WORST])
    write_json(tmp_path / "run" / "costs" / "seed0.json", {"wall_seconds": 1})
    with pytest.raises(UserError, match="costs"):
        scored(tmp_path)


@pytest.mark.parametrize(
    ("epochs", "text"),
    [
        ([], ""),
        ([0], "0"),
        ([1, 2, 3], "1-3"),
        ([1, 2], "1, 2"),
        ([5, 10, 15, 20], "5-20 by 5"),
        ([*range(10, 161, 10), *range(161, 201)], "10-160 by 10, 161-200"),
        ([2, 4, 5, 6], "2, 4-6"),
    ],
)
def test_epochs_in_words(epochs: list[int], text: str) -> None:
    assert spans(epochs) == text


@given(st.sets(st.integers(0, 300)))
def test_epochs_in_words_name_each_epoch_once(epochs: set[int]) -> None:
    named: list[int] = []
    for part in filter(None, spans(sorted(epochs)).split(", ")):
        ends, _, step = part.partition(" by ")
        first, _, last = ends.partition("-")
        named += range(int(first), int(last or first) + 1, int(step or 1))
    assert named == sorted(epochs)
