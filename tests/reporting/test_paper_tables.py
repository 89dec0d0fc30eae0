"""Tables of papers: which claim stands in which cell, and what its status is."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.base.errors import UserError
from harness.records.schema import Record
from harness.reporting import paper_tables
from harness.reporting.claims import Card, Claim, load_claims, load_shipped_cards
from harness.reporting.comparison import Beside, Comparison, MeasuredRows
from harness.reporting.paper_tables import Column, PaperTable, TableRow, fill, load_tables
from harness.reporting.summary import RunResult, summarize
from harness.spec.registry import find_plugins
from tests.factories import CLASS_COUNTS, make_record, make_scores
from tests.reporting.conftest import HOSTILE, NO_TAIL

CIFAR: dict[str, Any] = {"dataset": "cifar100", "split": "cifar100-lt-if100", "backbone": "resnet32"}
CLAIM = Claim(
    dataset="CIFAR-100-LT", imbalance_factor=100, backbone="ResNet-32", method="ce", variant="", group="all",
    value=45.0, selection="last", source="A paper", location="Table 2",
)  # fmt: skip
ROW = TableRow("Cross-entropy", method="ce")
TABLE = PaperTable("a-table", "A paper, Table 2", "A paper", (Column("100", imbalance_factor=100),), (ROW,), "Table 2")


def cell(claim: Claim, *records: Record, table: PaperTable = TABLE, row: TableRow = ROW) -> Comparison:
    sections = summarize(RunResult(f"{i}.json", record, {}) for i, record in enumerate(records))
    columns = (Column("x", group=claim.group),)
    (filled,) = fill([replace(table, rows=(row,), columns=columns)], [claim], [], MeasuredRows(sections))
    ((_, (found,)),) = filled.rows
    assert found is not None
    return found


def best(found: Comparison) -> Beside:
    assert found.best is not None
    return found.best


def runs(*accuracies: float, **facts: Any) -> list[Record]:
    return [make_record(seed=seed, accuracy=value, **(CIFAR | facts)) for seed, value in enumerate(accuracies)]


# The shipped tables ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped() -> tuple[list[PaperTable], list[Claim], list[Card]]:
    folders = {name: plugin.folder for name, plugin in find_plugins().items()}
    return load_tables(folders), load_claims(folders), load_shipped_cards(folders)


def test_every_claim_of_a_table_stands_in_one_cell(shipped: tuple[list[PaperTable], list[Claim], list[Card]]) -> None:
    tables, claims, cards = shipped
    everything = claims + [claim for card in cards for claim in card.claims]
    for filled in fill(tables, claims, cards, MeasuredRows([])):
        found = Counter(id(cell.claim) for row in filled.rows for cell in row.cells if cell)
        expected = Counter(id(claim) for claim in everything if filled.table.has(claim))
        assert found == expected, filled.table.id
        assert sum(filled.counts.values()) == len(expected)


def test_no_row_and_no_column_is_empty(shipped: tuple[list[PaperTable], list[Claim], list[Card]]) -> None:
    for filled in fill(*shipped, MeasuredRows([])):
        assert [row.row.label for row in filled.rows if not any(row.cells)] == [], filled.table.id
        columns = zip(*(row.cells for row in filled.rows), strict=True)
        assert all(any(cells) for cells in columns), filled.table.id


def test_no_claim_stands_in_two_tables(shipped: tuple[list[PaperTable], list[Claim], list[Card]]) -> None:
    tables, claims, cards = shipped
    for claim in claims + [claim for card in cards for claim in card.claims]:
        assert sum(table.has(claim) for table in tables) <= 1, claim


def test_published_cells_are_where_the_papers_have_them(
    shipped: tuple[list[PaperTable], list[Claim], list[Card]],
) -> None:
    values = {
        (filled.table.id, row.row.label, column.title): cell.claim.value
        for filled in fill(*shipped, MeasuredRows([]))
        for row in filled.rows
        for column, cell in zip(filled.table.columns, row.cells, strict=True)
        if cell
    }
    assert values["gcl-table-1", "GCL", "CIFAR-100-LT, 50"] == 53.55
    assert values["balms-table-2", "BALMS", "CIFAR-10-LT, 200"] == 81.5
    assert values["balms-readme", "BALMS", "CIFAR-10-LT, 200"] == 82.2
    assert values["wb-table-1", "WD + CB & Max", "All"] == 50.20
    assert values["wb-table-2", "WD + CB & Max", "100"] == 50.24
    assert values["wb-logs", "CB & WD & Max, last", "All"] == 51.83
    assert values["openlt-readme", "cRT, their re-run", "ResNet-50"] == 48.7
    assert ("gcl-table-1", "De-confound-TDE", "CIFAR-10-LT, 200") not in values


def test_a_variant_that_runs_the_sources_recipe_exists(
    shipped: tuple[list[PaperTable], list[Claim], list[Card]],
) -> None:
    settings = {at for c in shipped[1] for at in (c.dataset, f"{c.dataset} {c.imbalance_factor:g}")}
    for table in shipped[0]:
        for row in table.rows:
            assert set(row.measured_as) <= settings, (table.id, row.label)
            for variant in filter(None, row.measured_as.values()):
                recipes = find_plugins()[row.method or ""].folder / "recipes.yaml"
                assert variant in yaml.safe_load(recipes.read_text(encoding="utf-8"))["variants"]


def test_a_table_and_the_mapping_name_the_same_variant(
    shipped: tuple[list[PaperTable], list[Claim], list[Card]],
) -> None:
    """A claim has the variant of its cell, or that of its row, which the cell replaces."""
    cells = 0
    for filled in fill(*shipped, MeasuredRows([])):
        for row, claim in ((line.row, cell.claim) for line in filled.rows for cell in line.cells if cell):
            if row.method and claim.method == row.method and claim.variant != (row.variant or ""):
                assert claim.variant == row.variant_measured(claim), (filled.table.id, row.label, claim)
                cells += 1
    assert cells == 6 + 4 + 2, "MiSLAS's two stages, and its row in GCL's table"


def test_only_these_rows_have_no_method() -> None:
    """REPRODUCTION.md says why; a row of a method that is not here counts as that method's."""
    found = {table.id: [row.label for row in table.rows if row.card] for table in load_tables({})}
    assert {table: labels for table, labels in found.items() if labels} == {
        "balms-table-3": ["Lifted loss", "Range loss", "OLTR"],
        "gcl-table-2": ["OLTR", "Decoupling"],
        "openlt-readme": ["Balanced Softmax, reported", "Balanced Softmax, their re-run"],
        "tvmf-readme": ["Others [1]"],
        "wb-table-2": ["LDAM+SSP", "SSD", "DRO-LT", "ACE (4-expert)"],
    }


def test_a_row_of_a_method_that_is_not_here_is_reported_only() -> None:
    card = Card("ce", "no method 'ce' is here", (CLAIM,))
    (filled,) = fill([TABLE], [], [card], MeasuredRows([]))
    (cell,) = filled.cells
    assert (cell.claim, cell.status, cell.reason) == (CLAIM, "reported only", "no method 'ce' is here")
    (here,) = fill([TABLE], [CLAIM], [card], MeasuredRows([]))
    assert [cell.status for cell in here.cells] == ["not run"]


# Statuses -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("printed", "built"),
    [("ResNet-32", "resnet32_cifar"), ("ResNet-34 (CIFAR stem)", "resnet34_cifar"), ("ResNeXt-50", "resnext50_32x4d")],
)
def test_a_printed_backbone_is_the_one_that_builds_it(printed: str, built: str) -> None:
    claim = replace(CLAIM, backbone=printed)
    assert cell(claim, *runs(0.45, backbone=built)).status == "reproduced"
    assert cell(claim, *runs(0.45, backbone="resnet34")).status == "not comparable"


def test_another_spelling_of_a_data_set_is_the_same() -> None:
    facts: dict[str, Any] = {"dataset": "inat2018", "imbalance_factor": 500.0, "profile": "given"}
    claim = replace(CLAIM, dataset="iNaturalist-2018", imbalance_factor=500, backbone="ResNet-50")
    assert best(cell(claim, *runs(0.45, **facts, backbone="resnet50"))).delta == pytest.approx(0)


def test_within_half_a_point_is_reproduced() -> None:
    found = cell(CLAIM, *runs(0.455))  # exactly 0.5 points; floats make a little more of it
    assert (found.status, found.reason) == ("reproduced", "")
    _, stat, delta = best(found)
    assert delta == pytest.approx(0.005)
    assert tuple(stat) == (pytest.approx(0.455), None, 1)
    assert found.row_key


def test_one_seed_has_no_interval() -> None:
    found = cell(CLAIM, *runs(0.456))
    assert (found.status, found.reason) == ("differs", "no known reason")


@pytest.mark.parametrize(("value", "status"), [(45.74, "reproduced"), (45.75, "differs"), (44.26, "reproduced")])
def test_the_interval_of_the_mean(value: float, status: str) -> None:
    # n = 3, mean 0.45, s = 0.003: t(0.975, 2) = 4.302653, half width 4.302653 * 0.003 / sqrt(3) = 0.0074524
    assert cell(replace(CLAIM, value=value), *runs(0.447, 0.45, 0.453)).status == status


@pytest.mark.parametrize(("value", "status"), [(46.0, "reproduced"), (46.01, "differs"), (44.0, "reproduced")])
def test_seeds_that_lie_far_apart_do_not_make_a_number_agree(value: float, status: str) -> None:
    found = cell(replace(CLAIM, value=value), *runs(0.44, 0.45, 0.46))  # half width 0.024841
    assert found.status == status
    assert ("95 % interval of the mean ± 2.5" in found.marks) == (status == "reproduced")


def test_the_interval_of_two_seeds_reproduces_nothing() -> None:
    # n = 2, mean 0.45, s = 0.0141421: t(0.975, 1) = 12.7062, half width 12.7 points, in which nearly every value lies
    records = runs(0.44, 0.46)
    assert cell(replace(CLAIM, value=45.5), *records).status == "reproduced"
    assert cell(replace(CLAIM, value=45.6), *records).status == "differs"


def test_equal_seeds_leave_the_tolerance() -> None:
    assert cell(CLAIM, *runs(0.454, 0.454)).status == "reproduced"
    assert cell(CLAIM, *runs(0.456, 0.456)).status == "differs"


def test_a_difference_names_the_rows_reason_before_the_tables() -> None:
    table = replace(TABLE, known="another subset")
    assert cell(CLAIM, *runs(0.5), table=table).reason == "another subset"
    assert cell(CLAIM, *runs(0.5), table=table, row=replace(ROW, known="another net")).reason == "another net"
    assert cell(CLAIM, *runs(0.45), table=table).reason == ""


def test_the_claims_own_selection_rule_is_read() -> None:
    records = runs(0.45, optimism=0.02)
    assert best(cell(replace(CLAIM, selection="best_test"), *records)).delta == pytest.approx(0.02)
    assert best(cell(replace(CLAIM, selection="best_val"), *records)).delta == pytest.approx(0.01)
    found = cell(replace(CLAIM, selection="not stated"), *records)
    assert best(found).delta == pytest.approx(0)
    assert {"selection not stated there", "measured at the last epoch"} <= set(found.marks)


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"track": "common"}, "recipe: common track"),
        ({"backbone": "resnet20_cifar"}, "backbone resnet20_cifar, paper ResNet-32"),
        ({"profile": "step"}, "profile step"),
        ({"track": "common", "profile": "step"}, "recipe: common track; profile step"),
    ],
)
def test_another_protocol_is_not_comparable(facts: dict[str, Any], reason: str) -> None:
    found = cell(CLAIM, *runs(0.45, **facts))
    assert (found.status, found.reason, found.best) == ("not comparable", reason, None)
    assert found.row_key


def test_the_closest_protocol_is_named() -> None:
    records = [*runs(0.45, track="common", backbone="resnet34"), *runs(0.45, track="common")]
    assert cell(CLAIM, *records).reason == "recipe: common track"


def test_a_group_needs_the_same_shot_policy() -> None:
    claim = replace(CLAIM, group="many", shot_policy="strict_100_20")
    records = runs(0.45, shot_policy="thirds")
    assert cell(claim, *records).reason == "shot policy thirds, paper strict_100_20"
    assert cell(replace(claim, group="all"), *records).status == "reproduced"
    assert cell(claim, *runs(0.45)).status == "reproduced"
    silent = cell(replace(claim, shot_policy=None), *runs(0.45))
    assert (silent.status, silent.reason) == ("not comparable", "shot policy strict_100_20, paper does not say")


def test_an_empty_group_is_not_comparable() -> None:
    found = cell(replace(CLAIM, group="few", shot_policy="strict_100_20"), *runs(0.45, class_counts=NO_TAIL))
    assert (found.status, found.reason) == ("not comparable", "no class is few-shot in the measured data set")


def test_a_rule_that_does_not_apply_is_not_comparable() -> None:
    (record,) = runs(0.45)
    record = replace(record, results=record.results | {"best_val": None})
    found = cell(replace(CLAIM, selection="best_val"), record)
    assert (found.status, found.reason) == (
        "not comparable",
        "no result at the epoch best on the validation part, as there is no validation part",
    )


@pytest.mark.parametrize(
    "other", [{"dataset": "cifar10"}, {"imbalance_factor": 50.0}, {"variant": "x"}, {"method": "x"}]
)
def test_another_thing_is_not_run(other: dict[str, Any]) -> None:
    assert cell(CLAIM, make_record(**(CIFAR | other))).status == "not run"
    assert cell(CLAIM).status == "not run"


def test_failed_rows_say_why() -> None:
    records = [make_record(seed=seed, failure="loss is\nNaN", **CIFAR) for seed in range(2)]
    found = cell(CLAIM, *records, *runs(0.45, track="common"))
    assert (found.status, found.reason, found.best) == ("failed", "loss is NaN", None)
    skipped = [replace(record, status="skipped") for record in records]
    assert cell(CLAIM, *skipped).status == "not run"


def test_some_failed_seeds_are_a_mark() -> None:
    found = cell(CLAIM, *runs(0.45, 0.45), make_record(seed=2, failure="broken", **CIFAR))
    assert (found.status, best(found).stat.n) == ("reproduced", 2)
    assert "2 of 3 seeds" in found.marks


def test_a_card_is_reported_only() -> None:
    card = Card("BBN", "two branches", (replace(CLAIM, method="BBN", variant="re-run"),))
    (filled,) = fill([replace(TABLE, rows=(ROW, TableRow("BBN", card="BBN")))], [], [card], MeasuredRows([]))
    ((_, (found,)),) = filled.rows  # the other row holds no number
    assert found is not None
    assert (found.status, found.reason) == ("reported only", "two branches")
    assert filled.counts == {
        "reproduced": 0, "differs": 0, "not comparable": 0, "failed": 0, "not run": 0, "reported only": 1,
    }  # fmt: skip


# Marks ----------------------------------------------------------------------------------------------------------------


def test_the_subset_of_cifar_is_a_mark_not_a_bar() -> None:
    assert cell(CLAIM, *runs(0.45, subset_rule="numpy0")).marks == (
        "measured at the last epoch",
        "images drawn by rule numpy0",
    )
    claim = replace(CLAIM, dataset="ImageNet-LT")
    assert cell(claim, *runs(0.45, dataset="imagenet-lt", profile="given", subset_rule="given")).marks == (
        "measured at the last epoch",
    )


def test_a_changed_recipe_is_no_paper_s() -> None:
    records = runs(0.45, recipe={"backbone": "resnet32", "train": {"epochs": 1, "lr": 0.1}})
    sections = summarize(RunResult(f"{i}.json", record, {}) for i, record in enumerate(records))

    def found(epochs: int) -> Comparison:
        recipe = {"backbone": "resnet32", "train": {"epochs": epochs, "lr": 0.1}}
        rows = MeasuredRows(sections, lambda entry, dataset: recipe)
        (filled,) = fill([replace(TABLE, columns=(Column("x"),))], [CLAIM], [], rows)
        ((_, (one,)),) = filled.rows
        assert one is not None
        return one

    assert found(1).status == "reproduced"
    assert (found(200).status, found(200).reason) == (
        "not comparable", "recipe changed: train.epochs 1 instead of 200",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("ranks", "mark"),
    [
        (8, "trained by 8 processes together, at most 16 images at once, BatchNorm each over its own images"),
        (1, "trained in parts of a batch, at most 16 images at once, BatchNorm over each part"),
    ],
)
def test_how_a_run_was_spread_over_devices_is_a_mark_and_no_other_recipe(ranks: int, mark: str) -> None:
    own = {"backbone": "resnet32", "train": {"epochs": 200}}
    records = runs(0.45, recipe=own | {"parallel": {"ranks": ranks, "micro_batch": 16, "sync_bn": False}})
    sections = summarize(RunResult(f"{i}.json", record, {}) for i, record in enumerate(records))
    rows = MeasuredRows(sections, lambda entry, dataset: own)
    (filled,) = fill([replace(TABLE, columns=(Column("x"),))], [CLAIM], [], rows)
    ((_, (found,)),) = filled.rows
    assert found is not None
    assert found.status == "reproduced"
    assert mark in found.marks


def test_cifar_is_cut_to_its_tail() -> None:
    assert cell(CLAIM, *runs(0.45, profile="given")).reason == "profile given"


def test_a_known_difference_is_said_even_where_none_shows() -> None:
    assert "another recipe" in cell(CLAIM, *runs(0.45), row=replace(ROW, known="another recipe")).marks


def test_where_stage_1_was_taken_is_a_mark() -> None:
    two: dict[str, Any] = {"stages": ["train", "finetune"], "stage1_selection": "last"}
    best = replace(CLAIM, selection="best_test")
    assert "stage 1 taken at the last epoch" in cell(best, *runs(0.45, **two)).marks
    assert "stage 1 taken at the last epoch" not in cell(CLAIM, *runs(0.45, **two)).marks
    assert "stage 1 taken at the last epoch" not in cell(best, *runs(0.45)).marks
    assert not any("stage 1" in m for m in cell(best, *runs(0.45, **two | {"stage1_selection": "best_test"})).marks)


def test_averaging_over_flips_is_a_mark() -> None:
    recipe = {"train": {"flip_average": False}, "finetune": {"flip_average": True}}
    flipped = cell(CLAIM, *runs(0.45, recipe=recipe, stages=["train", "finetune"]))
    assert "predicts from the mean logits of an image and its mirror image" in flipped.marks
    assert cell(CLAIM, *runs(0.45, recipe=recipe)).marks == (
        "measured at the last epoch",
        "images drawn by rule hash:0",
    )


def test_of_several_rows_the_one_with_most_seeds_is_taken() -> None:
    records = [*runs(0.9, recipe_sha256="1" * 64), *runs(0.45, 0.45, recipe_sha256="3" * 64)]
    records += runs(0.7, 0.7, recipe_sha256="4" * 64, subset_rule="numpy0", split="cifar100-lt-if100-numpy0")
    found = cell(CLAIM, *records)
    assert (best(found).delta, best(found).stat.n) == (pytest.approx(0), 2)
    assert found.marks[:3] == ("measured at the last epoch", "images drawn by rule hash:0", "one of 3 comparable rows")
    assert "one of 2 recipes of this entry" in found.marks[3], "what is marked on the leaderboard is marked here"


def test_of_equally_many_seeds_the_smaller_recipe_hash_is_taken() -> None:
    records = [*runs(0.9, recipe_sha256="2" * 64), *runs(0.45, recipe_sha256="1" * 64)]
    assert best(cell(CLAIM, *records)).delta == pytest.approx(0)
    assert best(cell(CLAIM, *reversed(records))).delta == pytest.approx(0)


def test_a_variant_with_the_sources_recipe_is_measured_instead() -> None:
    row = replace(ROW, measured_as={"CIFAR-100-LT": "balms"})
    records = [*runs(0.9), *runs(0.45, variant="balms")]
    found = cell(CLAIM, *records, row=row)
    assert (found.status, found.marks) == (
        "reproduced",
        ("measured at the last epoch", "images drawn by rule hash:0", "measured as ce-balms"),
    )
    assert cell(CLAIM, *runs(0.9), row=row).status == "not run"


def test_a_claim_whose_variant_is_that_of_its_imbalance_factor_stands_in_the_row() -> None:
    row = replace(ROW, measured_as={"CIFAR-100-LT 100": "balms", "CIFAR-100-LT": "other"})
    claims = replace(CLAIM, variant="balms"), replace(CLAIM, imbalance_factor=50, variant="other"), CLAIM
    for claim in claims:
        assert row.has(claim), claim
    assert not row.has(replace(CLAIM, variant="other")), "that of another imbalance factor"
    assert not ROW.has(claims[0])
    found = cell(claims[0], *runs(0.45, variant="balms"), row=row)
    assert (found.status, found.marks) == ("reproduced", ("measured at the last epoch", "images drawn by rule hash:0"))


# Cells and files ------------------------------------------------------------------------------------------------------


def test_two_claims_in_one_cell_are_refused() -> None:
    claims = [CLAIM, replace(CLAIM, value=46.0, note="with mixup")]
    with pytest.raises(UserError) as caught:
        fill([TABLE], claims, [], MeasuredRows([]))
    message = str(caught.value)
    assert "table 'a-table', row 'Cross-entropy', column '100': 2 claims fit" in message
    assert "46.0 (Table 2, last, with mixup)" in message
    (filled,) = fill([replace(TABLE, rows=(replace(ROW, note="mixup"),))], claims, [], MeasuredRows([]))
    found = filled.rows[0].cells[0]
    assert found is not None
    assert found.claim.value == 46.0


@pytest.mark.parametrize(
    "change",
    [{"selection": "best_test"}, {"location": "Table 3"}, {"variant": "x"}],
)
def test_a_row_tells_claims_apart(change: dict[str, Any]) -> None:
    claims = [CLAIM, replace(CLAIM, value=46.0, **change)]
    row = TableRow("other", method="ce", **change)
    (filled,) = fill([replace(TABLE, rows=(row,), location=("Table 2", "Table 3"))], claims, [], MeasuredRows([]))
    found = filled.rows[0].cells[0]
    assert found is not None
    assert found.claim.value == 46.0


@pytest.mark.parametrize("other", [{"source": "Another"}, {"location": "Figure 1"}, {"group": "few"}, {"variant": "x"}])
def test_other_claims_stay_out(other: dict[str, str]) -> None:
    assert fill([TABLE], [replace(CLAIM, **other)], [], MeasuredRows([])) == []  # type: ignore[arg-type]


def test_hostile_names_pass_through_as_text() -> None:
    claim = replace(CLAIM, source=HOSTILE, note=HOSTILE, method=HOSTILE)
    row = TableRow(HOSTILE, method=HOSTILE, known=HOSTILE)
    found = cell(claim, *runs(0.9, method=HOSTILE), table=replace(TABLE, title=HOSTILE, source=HOSTILE), row=row)
    assert (found.status, found.reason, found.claim.note) == ("differs", HOSTILE, HOSTILE)
    failed = cell(claim, make_record(HOSTILE, failure=HOSTILE, **CIFAR), table=replace(TABLE, source=HOSTILE), row=row)
    assert failed.reason == HOSTILE


def test_the_order_of_the_runs_does_not_matter() -> None:
    records = [*runs(0.44, 0.46), *runs(0.5, recipe_sha256="0" * 64), *runs(0.5, track="common")]
    assert best(cell(CLAIM, *records)).stat == best(cell(CLAIM, *reversed(records))).stat


def test_group_scores_are_those_of_the_group() -> None:
    (record,) = runs(0.45)
    scores = make_scores(0.45, class_counts=CLASS_COUNTS, few=0.2)
    record = replace(record, results={"last": scores})
    found = cell(replace(CLAIM, group="few", shot_policy="strict_100_20", value=21.0), record)
    assert (found.status, best(found).delta) == ("differs", pytest.approx(-0.01))


ENTRY: dict[str, Any] = {
    "id": "mine", "title": "Mine", "source": "A paper", "columns": [{"title": "100", "imbalance_factor": 100}],
    "rows": [{"label": "CE", "method": "ce"}],
}  # fmt: skip


def own(folder: Path, text: str) -> dict[str, Path]:
    folder.mkdir(exist_ok=True)
    (folder / "tables.yaml").write_text(text)
    return {folder.name: folder}


def test_a_method_folder_brings_its_own_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paper_tables, "PAPERS", tmp_path / "none")
    entry = ENTRY | {"location": ["Table 1", "Table 2"]}
    (table,) = load_tables(own(tmp_path / "ce", yaml.safe_dump({"tables": [entry]})) | {"gcl": tmp_path / "gcl"})
    assert table.rows == (TableRow("CE", method="ce"),)
    assert table.has(CLAIM)
    assert not table.has(replace(CLAIM, location="Table 3"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": "Table 1"}, "id must be of small letters"),
        ({"id": "gcl-table-1"}, "another of the tables has the id 'gcl-table-1'"),
        ({"titel": "x"}, "closest is 'title'"),
        ({"columns": []}, "a table has columns and rows"),
        ({"columns": [{"title": "x", "group": "tail"}]}, "columns[0]: group must be one of"),
        ({"columns": [{"title": "x", "imbalance": 3}]}, "closest is 'imbalance_factor'"),
        ({"rows": [{"label": "x"}]}, "rows[0]: give either 'method' or 'card'"),
        ({"rows": [{"label": "x", "method": "ce", "card": "CE"}]}, "give either 'method' or 'card'"),
        ({"rows": [{"label": "x", "card": "CE", "measured_as": {"a": "b"}}]}, "leave out 'measured_as'"),
        ({"rows": [{"label": "x", "method": "ce", "selection": "best"}]}, "selection must be one of"),
        ({"source": 3}, "tables[0].source: expected str"),
    ],
)
def test_bad_tables_are_refused_with_the_place(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        load_tables(own(tmp_path / "ce", yaml.safe_dump({"tables": [ENTRY | change]})))
    assert "tables.yaml" in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["tables: 3", "other: []", "tables: [a]", "- a", "tables: [}"])
def test_damaged_files_are_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"tables\.yaml"):
        load_tables(own(tmp_path / "ce", text))


def test_rows_whose_card_is_not_here_are_left_out_of_a_report() -> None:
    claims = load_claims({name: plugin.folder for name, plugin in find_plugins().items()})
    filled = fill(load_tables({}), claims, [], MeasuredRows([]))
    rows = [row for table in filled for row in table.rows]
    assert rows
    assert all(line.row.method and any(line.cells) for line in rows)
    assert fill(load_tables({}), [], [], MeasuredRows([])) == []
