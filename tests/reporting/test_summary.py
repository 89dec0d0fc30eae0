"""Records -> rows: what is averaged, what is kept apart, and what is said about it."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Any

import pytest

from harness.records.schema import Record
from harness.reporting.drawer import first_facts
from harness.reporting.summary import METRICS, Row, RunResult, Section, stat, summarize
from harness.reporting.tables import notes
from tests.factories import CLASS_COUNTS, make_record, make_scores

ALL = METRICS[0]


def sections(*records: Record) -> list[Section]:
    return summarize(RunResult(f"{i}.json", record, {}) for i, record in enumerate(records))


def rows(*records: Record) -> tuple[Row, ...]:
    (section,) = sections(*records)
    return section.rows


def test_stat_is_the_sample_deviation() -> None:
    result = stat([0.1, 0.2, 0.6])
    assert result is not None
    assert result.mean == pytest.approx(0.3)
    assert result.std == pytest.approx(math.sqrt((0.04 + 0.01 + 0.09) / 2))
    assert result.n == 3


def test_one_value_has_no_deviation_and_none_has_no_mean() -> None:
    single = stat([0.5, None])
    assert single is not None
    assert (single.mean, single.std, single.n) == (0.5, None, 1)
    assert stat([None, None]) is None


def test_seeds_of_one_recipe_are_one_row() -> None:
    (row,) = rows(*(make_record(seed=seed, accuracy=0.7 + 0.1 * seed) for seed in (2, 0, 1)))
    assert [run.record.seed for run in row.runs] == [0, 1, 2]
    value = row.stats["last"]["all"]
    assert value is not None
    assert [value.mean, value.std, value.n] == pytest.approx([0.8, 0.1, 3])
    assert row.marks == ()


def test_an_empty_group_has_no_value() -> None:
    (row,) = rows(make_record(class_counts=[500, 300, 50]))
    assert row.stats["last"]["few"] is None
    assert row.stats["last"]["many"] is not None


def test_optimism_is_taken_seed_by_seed() -> None:
    (row,) = rows(make_record(seed=0, optimism=0.01), make_record(seed=1, optimism=0.03))
    value = row.stats["last"]["optimism"]
    assert value is not None
    assert value.mean == pytest.approx(0.02)
    assert value.std == pytest.approx(math.sqrt(2) * 0.01)


@pytest.mark.parametrize(
    "changed",
    [
        {"split_sha256": "other"},
        {"shot_policy": "thirds"},
        {"class_counts": CLASS_COUNTS[::-1]},
        {"subset_rule": "first_n"},
    ],
)
def test_another_protocol_is_another_table_and_both_say_so(changed: dict[str, Any]) -> None:
    first, second = sections(make_record(seed=0), make_record(seed=1, **changed))
    assert len(first.rows) == len(second.rows) == 1
    assert next(iter(changed)) in first.conflicts
    assert first.conflicts == second.conflicts
    assert first.slug != second.slug


def test_tracks_are_tables_of_their_own_without_a_conflict() -> None:
    first, second = sections(make_record(), make_record(track="common"))
    assert (first.protocol.track, second.protocol.track) == ("common", "paper")
    assert first.conflicts == second.conflicts == ()


def test_another_recipe_is_another_row_with_a_mark() -> None:
    one, two = rows(make_record(seed=0), make_record(seed=1, recipe={"train": {"lr": 1.0}}))
    assert one.first.recipe_sha256 != two.first.recipe_sha256
    for row in (one, two):
        assert row.marks == (f"recipe {row.first.recipe_sha256[:8]}, one of 2 recipes of this entry",)
    assert f"{one.name} (lr=1.0)" in {one.label, two.label}


def test_rows_of_one_entry_are_told_apart_by_what_was_set() -> None:
    base = {
        "backbone": "resnet8",
        "train": {"epochs": 2, "lr": 0.1},
        "finetune": {"epochs": 2, "lr": 1.0},
        "params": {},
    }
    longer = base | {key: base[key] | {"epochs": 9} for key in ("train", "finetune")}  # type: ignore[operator]
    other = base | {"backbone": "resnet18", "params": {"k": 3}}

    def labels(*recipes: dict[str, Any]) -> list[str]:
        return sorted(row.label.removeprefix(row.name) for row in rows(*(make_record(recipe=one) for one in recipes)))

    assert labels(base, longer) == [" (epochs=2)", " (epochs=9)"]
    assert labels(base, base | {"backbone": "resnet18"}) == [" (backbone=resnet18)", " (backbone=resnet8)"]
    assert " (backbone=resnet18, epochs=2, ...)" in labels(longer, other)


def test_another_stage_1_is_another_row_with_a_mark() -> None:
    both = [make_record(seed=seed, stage1_selection=rule) for seed, rule in enumerate(["last", "best_test"])]
    assert sorted(mark for row in rows(*both) for mark in row.marks) == [
        "stage 1 taken at the epoch best on the test part",
        "stage 1 taken at the last epoch",
    ]


def test_a_repeated_seed_is_never_averaged_and_never_dropped() -> None:
    found = rows(
        make_record(seed=0, accuracy=0.8), make_record(seed=1, accuracy=0.8), make_record(seed=0, accuracy=0.6)
    )
    assert sorted(len(row.runs) for row in found) == [1, 2]
    assert [row.stats["last"]["all"].mean for row in found if row.stats["last"]["all"]] == pytest.approx([0.8, 0.6])
    assert all(row.marks == ("seed 0 recorded more than once: kept in separate rows",) for row in found)


def test_code_versions_in_one_row_are_marked() -> None:
    (row,) = rows(make_record(seed=0, code_version="aaaa"), make_record(seed=1, code_version="bbbb"))
    assert row.marks == ("2 code versions: aaaa, bbbb",)


def test_what_holds_for_every_row_is_said_once() -> None:
    records = [
        make_record(name, 0, failure=reason) for name, reason in (("ce", "late"), ("crt", "late"), ("gcl", "late"))
    ]
    (section,) = sections(*records)
    (mark,) = section.shared_marks
    assert mark == "0 of 1 seeds; seed 0 failed: late"
    assert [section.own_marks(row) for row in section.rows] == [[], [], []]
    assert notes(section) == [f"all rows: {mark}"]
    (section,) = sections(*records[:2], make_record("gcl", 0, failure="early"))
    assert section.shared_marks == ()
    assert notes(section) == [f"{row.name}: {row.marks[0]}" for row in section.rows]
    (alone,) = sections(records[0])
    assert alone.shared_marks == ()


def test_a_failed_seed_does_not_count_and_is_named() -> None:
    (row,) = rows(make_record(seed=0), make_record(seed=1, failure="loss is\nNaN"))
    assert row.status == "partial"
    assert row.marks == ("1 of 2 seeds; seed 1 failed: loss is NaN",)
    assert row.stats["last"]["all"].n == 1


def test_a_cell_without_a_result_is_a_row() -> None:
    failed, skipped = make_record("a", failure="broken"), replace(make_record("b", failure="no GPU"), status="skipped")
    found = rows(failed, skipped)
    assert [row.status for row in found] == ["failed", "skipped"]
    assert all(row.stats["last"]["all"] is None and row.per_class["last"] is None for row in found)


def test_ranks_share_ties_and_leave_out_what_has_no_result() -> None:
    (section,) = sections(
        make_record("a", accuracy=0.7), make_record("b", accuracy=0.9), make_record("c", accuracy=0.9),
        make_record("d", failure="broken"),
    )  # fmt: skip
    assert [row.name for row in section.rows] == ["b", "c", "a", "d"]
    assert [row.ranks["last"] for row in section.rows] == [1, 1, 3, None]


def test_best_is_what_a_reader_sees_as_best() -> None:
    (section,) = sections(make_record("a", accuracy=0.9004), make_record("b", accuracy=0.9001), make_record("c"))
    assert section.best("last", ALL, digits=1) == {0, 1}
    assert section.best("last", ALL, digits=2) == {0}
    ece = next(metric for metric in METRICS if metric.key == "ece")
    low = replace(make_record("d"), results={"last": make_scores(ece=0.01)})
    (section,) = sections(make_record("a", accuracy=0.9), low)
    assert section.best("last", ece, digits=1) == {1}


def test_equal_rows_have_no_best() -> None:
    (section,) = sections(make_record("a"), make_record("b"))
    assert section.best("last", ALL, digits=1) == set()


def test_a_single_row_is_not_called_best() -> None:
    (section,) = sections(make_record())
    assert section.best("last", ALL, digits=1) == set()


def test_the_order_of_the_files_does_not_matter() -> None:
    records = [make_record(m, s, 0.7 + s / 100, track=t) for m in "ab" for s in range(3) for t in ("paper", "common")]
    runs = [RunResult(f"{i:02}.json", record, {}) for i, record in enumerate(records)]
    shuffled = random.Random(3).sample(runs, len(runs))
    assert shuffled != runs
    assert summarize(shuffled) == summarize(runs)


def test_per_class_is_the_mean_over_seeds() -> None:
    (row,) = rows(make_record(seed=0, accuracy=0.6), make_record(seed=1, accuracy=0.8))
    assert row.per_class["last"] == pytest.approx([0.7] * len(CLASS_COUNTS))


def test_labels_tell_rows_of_one_entry_apart() -> None:
    (section,) = sections(make_record(), make_record(), make_record("b"), make_record(recipe={"train": {}}))
    labels = [row.label for row in section.rows]
    assert "b" in labels
    assert len(set(labels)) == len(section.rows) == 4


@pytest.mark.parametrize(
    ("variants", "chosen"),
    [(("", ""), True), (("a", "b"), True), (("", "a"), False)],  # changed by hand; no plain row; a plain row stands
)
def test_a_row_that_is_the_best_of_several_recipes_says_so(variants: tuple[str, str], chosen: bool) -> None:
    plain = {"backbone": "lenet", "params": {}, "train": {"epochs": 10, "lr": 0.1}}
    changed = plain | {"train": {"epochs": 10, "lr": 1.0}}
    made = zip(variants, (plain, changed), (0.9, 0.8), strict=True)
    (section,) = sections(*(make_record("crt", 0, mean, variant=name, recipe=recipe) for name, recipe, mean in made))
    found = ["of 2 recipes the one that scores best on the test part" in section.own_marks(row) for row in section.rows]
    assert found == [chosen, False]


def test_a_rows_first_facts_name_every_processor_of_its_runs() -> None:
    """One that was resumed on another machine, in its only stage and in the first of two."""
    spans = [
        {"processor": "old", "first_epoch": 1, "last_epoch": 121},
        {"processor": "new", "first_epoch": 121, "last_epoch": 200},
    ]
    turns = "old (epochs 1 to 121); new (epochs 121 to 200)"
    for costs, expected in (
        ({"processor": "new", "processors": spans}, {"Processors, in turn": turns}),
        (
            {"processor": "new", "stages": {"train": {"processors": spans}}},
            {"Processor": "new", "train: Processors, in turn": turns},
        ),
        ({"processor": "new", "processors": spans[1:]}, {"Processor": "new"}),
    ):
        (section,) = summarize([RunResult("a.json", make_record("ce"), costs)])
        found = dict(first_facts(section.rows[0]))
        assert {name: text for name, text in found.items() if "rocessor" in name} == expected
