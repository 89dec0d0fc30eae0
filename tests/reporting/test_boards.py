"""Boards: a row a method, ranks among methods, columns that are empty, ranks that surprise; what was not run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.records.collect import collect
from harness.reporting.boards import Axis, Board, boards_of, display_name, short_mark, split_marks, warns
from harness.reporting.claims import Claim
from harness.reporting.methods import bibtex
from harness.reporting.report import Sources, ranked_sections
from harness.reporting.speed import SpeedReport, SpeedRow
from harness.reporting.summary import EARLIER_CODE
from harness.reporting.todo import Planner
from tests.factories import collected, make_record
from tests.reporting.conftest import NO_TAIL, store


def board(*records: Any) -> Board:
    (found,) = boards_of(ranked_sections(collected(*records)).sections)
    return found


def test_the_row_without_a_variant_stands_for_its_method() -> None:
    found = board(
        make_record("crt", accuracy=0.9, variant="flip"),
        make_record("gcl", accuracy=0.8, variant="cb"),
        make_record("crt", accuracy=0.7),
        make_record("gcl", accuracy=0.6, variant="crt"),
    )
    rows = found.section.rows
    assert [(row.name, [other.name for _, other in others]) for _, row, others in found.families] == [
        ("gcl-cb", ["gcl-crt"]),
        ("crt", ["crt-flip"]),
    ]
    assert [row.ranks["last"] for row in rows] == [1, 2, 3, 4]
    assert [row.places.get("last") for row in rows] == [None, 1, 2, None]


def test_places_are_tested_among_the_methods(tmp_path: Path) -> None:
    for seed in range(3):
        store(tmp_path, "ce", seed, [0.8] * 10)
        store(tmp_path, "crt", seed, [0.8] * 9 + [0.78])
        store(tmp_path / "flip", "crt", seed, [0.98] * 10, variant="flip")
    section = ranked_sections(collect(tmp_path)).sections[0]
    assert {row.name: row.ranks["last"] for row in section.rows} == {"crt-flip": 1, "ce": 2, "crt": 2}
    assert {row.name: row.places["last"] for row in section.rows if row.places} == {"ce": 1, "crt": 1}


def test_an_empty_column_goes_with_a_reason() -> None:
    found = board(make_record(class_counts=NO_TAIL))
    assert "few" not in [metric.key for metric in found.metrics]
    assert found.hidden == ["Few: no class is few-shot in this split (strict_100_20)."]
    assert board(make_record()).hidden == []


def test_a_rank_that_surprises_is_explained(tmp_path: Path) -> None:
    """A row that varies from seed to seed stays with the first; one as good on average that does not, is worse."""
    for seed, wild in enumerate((0.9, 0.92, 0.62)):
        store(tmp_path, "ce", seed, [0.9] * 10)
        store(tmp_path, "wild", seed, [wild] * 10)
        store(tmp_path, "steady", seed, [0.8] * 10)
    (found,) = boards_of(ranked_sections(collect(tmp_path)).sections)
    places = {row.name: row.places["last"] for row in found.section.rows}
    assert places == {"ce": 1, "wild": 1, "steady": 3}
    ((key, text),) = found.surprises(str.upper).items()
    assert key == next(row.key for row in found.section.rows if row.name == "steady")
    assert text.startswith("The tests show it to be worse than CE, which has the highest All of rank 1 (p = ")
    assert "WILD (81.3 ± 16.8) they do not" in text
    assert "one seed that disagrees can prevent it" in text


def test_a_rank_that_does_not_surprise_is_not(tmp_path: Path) -> None:
    for seed in range(3):
        store(tmp_path, "ce", seed, [0.9] * 10)
        store(tmp_path, "crt", seed, [0.5] * 10)
    (found,) = boards_of(ranked_sections(collect(tmp_path)).sections)
    assert found.surprises(str) == {}
    assert found.zero == pytest.approx(0.9)


def test_what_another_epoch_does_to_the_ranks_is_one_sentence() -> None:
    found = board(
        make_record("ce", accuracy=0.80, optimism=0.0),
        make_record("crt", accuracy=0.79, optimism=0.04),
        make_record("gcl", accuracy=0.50, optimism=0.02),
    )
    assert found.moves("best_test", str.upper) == (
        "2 of 3 ranks move, the furthest by 1: CE from 1 to 2, and 1 other as far. All rises by 2.0 points on average."
    )
    posthoc = make_record("tau_norm", accuracy=0.7, optimism=0.0)
    posthoc = replace(posthoc, results={rule: replace(one, epoch=0) for rule, one in posthoc.results.items() if one})
    two = board(make_record("ce", accuracy=0.8, optimism=0.02), posthoc)
    assert two.moves("best_test", str).endswith("All rises by 2.0 points on average."), "it has no epoch to choose"
    assert [row.stats["last"]["optimism"] is None for row in two.section.rows] == [False, True]
    alike = board(make_record("ce", accuracy=0.8, optimism=-0.02), make_record("crt", accuracy=0.7, optimism=-0.02))
    assert alike.moves("best_test", str) == "none of 2 ranks moves. All falls by 2.0 points on average."
    hardly = board(make_record("ce", accuracy=0.8, optimism=0.0002))
    assert hardly.moves("best_test", str).endswith("All changes by less than 0.1 points on average.")
    nothing = board(make_record("ce", failure="loss is NaN"))
    assert nothing.moves("best_test", str) == ""


@pytest.mark.parametrize(
    ("second", "shown"),
    [
        ([], "common: 12 epochs"),
        ([{"epochs": 0}], "common: 12 epochs"),  # post-hoc
        ([{"epochs": 0}, {"epochs": 5}], "common: 12 epochs, 12 + 5 with a second stage"),
        ([{"epochs": 5}, {"epochs": 2}], "common: 12 epochs, 12 + 2 to 5 with a second stage"),
        ([{"epochs": 0, "iterations": 40, "batch_size": 50}], "common: 12 epochs, 12 + 2 with a second stage"),
    ],
)
def test_both_stages_are_counted(second: list[dict[str, int]], shown: str) -> None:
    facts: dict[str, Any] = {"track": "common", "class_counts": [100] * 10}
    records = [make_record("ce", recipe={"train": {"epochs": 12}}, **facts)]
    for number, one in enumerate(second):
        two = {"train": {"epochs": 12}, "finetune": one}
        records.append(make_record(f"two{number}", recipe=two, stages=["train", "finetune"], **facts))
    assert board(*records).conditions == shown
    assert board(*records).track == "common"


def test_rare_classes_come_first() -> None:
    assert [metric.key for metric in board(make_record()).metrics[:4]] == ["all", "few", "medium", "many"]


@pytest.mark.parametrize("low", np.linspace(0, 0.9, 7))
@pytest.mark.parametrize("width", [0.004, 0.02, 0.11, 0.5, 1.0])
def test_an_axis_has_round_ticks_inside(low: float, width: float) -> None:
    axis = Axis(low, low + width)
    assert all(axis.low <= tick <= axis.high for tick in axis.ticks)
    assert len(axis.ticks) <= 5
    assert axis.at(axis.low) < axis.at(axis.high)


CLAIM: dict[str, Any] = {
    "dataset": "CIFAR-100-LT", "imbalance_factor": 100.0, "backbone": "ResNet-32", "method": "crt", "variant": "",
    "group": "all", "value": 40.0, "selection": "last", "source": "A", "location": "T",
}  # fmt: skip
RECIPE = {"backbone": "resnet32_cifar", "train": {"epochs": 200, "iterations": 0, "batch_size": 128}}
LOOP = SpeedRow("training, resnet32_cifar, stage 1", "float32", 301.3, 1.0, None, 1.0, 1.0, 1.0)
SPEED = SpeedReport("x", "CPU, 2 threads", "", "", [LOOP], [], {("crt", "train"): 1.5})


def planner(recipe: dict[str, Any] | None) -> Planner:
    return Planner(lambda entry, dataset: recipe, ranked_sections(collected()).sections, [SPEED])


def test_what_was_not_run_has_a_command_and_its_time() -> None:
    todo = planner(RECIPE)(Claim(**CLAIM), "mixup")
    assert todo.command == (
        "ltbench run --dataset cifar100 --imbalance-factor 100 --method crt --variant mixup --track paper --seeds 0,1,2"
    )
    # 200 epochs of 10,847 images at 301.3 a second are 2.0 hours
    assert todo.cost == "about 6.0 h for 3 seeds on CPU, 2 threads: 301 images/s of resnet32_cifar *"
    timed = planner(RECIPE)(Claim(**CLAIM), "")
    assert timed.cost == "about 9.0 h for 3 seeds on CPU, 2 threads: 301 images/s of resnet32_cifar"
    second = RECIPE | {"finetune": {"epochs": 0, "iterations": 8475, "batch_size": 128}}  # half as much again
    assert planner(second)(Claim(**CLAIM), "mixup").cost.startswith("about 9.0 h for 3 seeds")


def test_what_stands_in_the_way_is_said() -> None:
    claim = Claim(**CLAIM)
    assert planner(None)(claim, "").obstacle == "crt@paper has no recipe for cifar100 here"
    other = planner(RECIPE | {"backbone": "resnet50"})(claim, "")
    assert other.obstacle == "the recipe of crt@paper is of resnet50, the number of ResNet-32"
    assert (
        planner(RECIPE)(Claim(**CLAIM | {"dataset": "No such"}), "").obstacle
        == "No such is not among the data sets here"
    )
    unknown = planner(RECIPE | {"backbone": "resnet8"})(Claim(**CLAIM | {"backbone": "resnet8"}), "")
    assert unknown.cost == "time not known: resnet8 has not been timed on these images here"


def test_a_paper_becomes_bibtex() -> None:
    text = bibtex("Ren et al., Balanced Meta-Softmax, for Long Tails, NeurIPS 2020", "https://arxiv.org/abs/1")
    assert text == (
        "@inproceedings{ren2020balanced,\n  author = {Ren and others},\n"
        "  title = {{Balanced Meta-Softmax, for Long Tails}},\n  booktitle = {NeurIPS},\n  year = {2020},\n"
        "  url = {https://arxiv.org/abs/1},\n}"
    )
    assert bibtex("Cui et al., Generalized, TPAMI 2023").startswith("@article{cui2023generalized,")
    assert bibtex("Kobayashi, t-vMF Similarity, CVPR 2021").startswith("@inproceedings{kobayashi2021tvmf")
    assert bibtex("no paper") == ""


def test_what_code_a_row_has_is_a_footnote() -> None:
    current = dict.fromkeys(("ce", "crt"), "0123456789abcdef")
    records = collected(make_record("ce"), make_record("crt", code_version="0123456789abcdef"))
    (found,) = boards_of(ranked_sections(records, Sources(current=current)).sections)
    ((sign, rows, meaning),) = found.footnotes
    assert (sign, rows) == ("‡", 1)
    assert "not yet shown" in meaning
    alike = board(make_record("ce", notes=[EARLIER_CODE]), make_record("crt", notes=[EARLIER_CODE]))
    assert [(sign, rows) for sign, rows, _ in alike.footnotes] == [("†", 2)]  # of all rows, and no less a footnote
    assert alike.on_all == alike.no_news == ["†"]
    most = board(*(make_record(name, notes=[EARLIER_CODE]) for name in ("ce", "crt")), make_record("gcl"))
    assert (most.on_all, most.no_news) == ([], ["†"])
    assert not found.no_news  # a warning stays with its row
    assert split_marks(["x", "earlier code, same bits on a small suite"]) == (
        {"†": "earlier code, same bits on a small suite"},
        ["x"],
    )


@pytest.mark.parametrize(
    ("label", "shown"),
    [
        ("gcl", "GCL"),
        ("gcl-one-stage", "GCL, one-stage"),
        ("own-flip", "own-flip"),
        ("gcl, recipe ab", "GCL, recipe ab"),
    ],
)
def test_rows_are_called_by_the_titles_of_their_methods(label: str, shown: str) -> None:
    assert display_name(label, {"gcl": "GCL"}) == shown


def test_only_warnings_warn_and_long_marks_have_a_short_form() -> None:
    tuned = "tuned on the test part: alpha was chosen after 51 % had been seen"
    failed = "1 of 2 seeds; seed 1 failed: loss is NaN, which takes more words than a narrow cell has room for"
    plain = "predicts from the mean logits of an image and its mirror image"
    assert [warns(mark) for mark in (tuned, failed, plain)] == [True, True, False]
    assert [short_mark(mark) for mark in (tuned, failed, plain)] == ["tuned on test", "1 of 2 seeds", plain]
    long = "train: averaged weights (ema 0.944); the raw ones end at 99.00 %, which is more than that"
    assert short_mark(long) == "averaged weights (ema 0.944)"
    assert short_mark("one word and another " * 5).endswith("and another \N{HORIZONTAL ELLIPSIS}")
