"""A grid that is not what would be generated now is refused, and so is a stage that stands for a method of two."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.base.errors import UserError
from harness.base.files import write_json
from harness.records.evaluate import evaluate
from harness.spec import suites
from harness.spec.entries import Entry, parse_entry
from harness.spec.recipes import Cell, resolve
from harness.spec.suites import RECORDS, RUNS, check_cell, recipe_file, write_recipes
from harness.splits.splits import write_split
from tests.unit import toys

SPLIT = "mnist5k-lt-if100"
KEY = f"{SPLIT}.crt.common"
SUITE = {"default": {"splits": [SPLIT], "entries": ["ce@common", "crt@common", "balanced_softmax@common"]}}
Edit = Callable[[Callable[[dict[str, Any]], Any]], None]


@pytest.fixture
def edit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Edit:
    """Changes the grid of a suite of three cells, which was up to date."""
    (tmp_path / "suites.yaml").write_text(yaml.safe_dump(SUITE))
    monkeypatch.setattr(suites, "SUITES_FILE", tmp_path / "suites.yaml")
    monkeypatch.setattr(suites, "GRID_FILE", tmp_path / "grid.yaml")
    monkeypatch.chdir(tmp_path)
    suites.write_grid()

    def change(what: Callable[[dict[str, Any]], Any]) -> None:
        grid = yaml.safe_load(suites.GRID_FILE.read_text())
        what(grid)
        suites.GRID_FILE.write_text(yaml.safe_dump(grid))

    return change


def one_stage(grid: dict[str, Any]) -> None:
    """As the grid was before crt got its second stage."""
    own = f"results/runs/{SPLIT}/common/crt/train"
    grid["train"][KEY] = {**grid["finetune"].pop(KEY), "out": own}
    grid["evaluate"][KEY] |= {"first": own, "last": own}


# ---- ltbench recipes -----------------------------------------------------------------------------------------------


def test_a_grid_that_is_up_to_date_is_taken(edit: Edit) -> None:
    edit(lambda grid: None)  # another layout of the same content
    assert len(write_recipes("default")) == 3


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (one_stage, f"train@{KEY} and 2 more"),
        (lambda grid: grid["evaluate"].pop(KEY), f"evaluate@{KEY})"),
        (lambda grid: grid["evaluate"].update({"gone": grid["evaluate"][KEY]}), "evaluate@gone)"),
        (lambda grid: grid["train"][f"{SPLIT}.ce.common"].update(seeds="0"), f"train@{SPLIT}.ce.common)"),
        (lambda grid: grid.update(finetune=[]), "finetune, evaluate expected"),
    ],
)
def test_another_grid_is_refused_before_anything_is_written(
    edit: Edit, change: Callable[[dict[str, Any]], Any], named: str
) -> None:
    edit(change)
    with pytest.raises(UserError, match=r"^\S*grid\.yaml: .*ltbench grid$") as caught:
        write_recipes("default")
    assert named in str(caught.value)
    assert not Path("results").exists()


def test_a_new_seed_in_the_suite_is_refused_until_the_grid_is_made(edit: Edit) -> None:
    suites.SUITES_FILE.write_text(yaml.safe_dump({"default": SUITE["default"] | {"seeds": [0]}}))
    with pytest.raises(UserError, match="ltbench grid"):
        write_recipes("default")
    suites.write_grid()
    assert len(write_recipes("default")) == 3


def test_a_cell_that_no_longer_resolves_holds_nothing_up(edit: Edit, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(entry: Entry, dataset: str) -> Cell:
        if entry.method == "crt":
            raise UserError("no")
        return resolve(entry, dataset)

    suites.check_grid("default", broken)
    edit(lambda grid: grid["evaluate"].pop(KEY))
    with pytest.raises(UserError, match=KEY):
        suites.check_grid("default", broken)  # it must stand in the grid all the same, to become a row


# ---- ltbench train, ltbench finetune -------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", ["ce@common", "crt@common", "balanced_softmax@common", "tvmf@common"])
def test_a_stage_of_a_grid_that_has_its_stages_may_run(edit: Edit, entry: str) -> None:
    check_cell(resolve(parse_entry(entry), "mnist5k"), SPLIT, RUNS / "anything")


def test_a_stage_of_a_grid_that_has_other_stages_is_refused_in_the_pipeline_only(edit: Edit) -> None:
    edit(one_stage)
    cell = resolve(parse_entry("crt@common"), "mnist5k")
    with pytest.raises(UserError, match=r"crt@common .* train and finetune in its recipe.*ltbench grid"):
        check_cell(cell, SPLIT, RUNS / SPLIT / "common/crt/train")
    check_cell(cell, SPLIT, Path("elsewhere"))
    check_cell(cell, SPLIT, RUNS / "../../elsewhere")


def test_a_second_stage_that_the_recipe_lost_is_refused(edit: Edit) -> None:
    key = f"{SPLIT}.ce.common"
    edit(lambda grid: grid["evaluate"][key].update(last=f"results/runs/{SPLIT}/common/ce/finetune"))
    with pytest.raises(UserError, match="ltbench grid"):
        check_cell(resolve(parse_entry("ce@common"), "mnist5k"), SPLIT, RUNS / SPLIT / "common/ce/train")


def test_a_cell_of_one_stage_that_shares_it_has_two_stages_in_the_grid(edit: Edit) -> None:
    key, ce = f"{SPLIT}.balanced_softmax.common", f"results/runs/{SPLIT}/common/ce/train"
    edit(lambda grid: grid["evaluate"][key].update(first=ce, last=f"results/runs/{SPLIT}/common/b/finetune"))
    check_cell(resolve(parse_entry("balanced_softmax@common"), "mnist5k"), SPLIT, RUNS / "b/finetune")


# ---- ltbench evaluate ----------------------------------------------------------------------------------------------

ONE, TWO = {"backbone": "resnet8_cifar", "finetune": None}, {"backbone": "resnet8_cifar", "finetune": {"epochs": 1}}


def scored(tmp_path: Path, stages: list[str], recipe: dict[str, Any], out: Path) -> list[Path]:
    split = toys.make_split()
    write_split(split, tmp_path / "split.json")
    toys.save_run(tmp_path / "run", toys.make_run_info(split, stages=stages, recipe=recipe), [[0] * 12], [[0] * 6])
    return evaluate(tmp_path / "split.json", [tmp_path / "first", tmp_path / "run"], [0], out)


@pytest.mark.parametrize(("stages", "recipe"), [(["train"], TWO), (["train", "finetune"], ONE)])
def test_a_record_needs_the_stages_of_its_runs_recipe(
    toy: object, tmp_path: Path, stages: list[str], recipe: dict[str, Any]
) -> None:
    with pytest.raises(UserError, match=r"seed0\.json: train.* ran, but its recipe has (one|two) stage"):
        scored(tmp_path, stages, recipe, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("stages", "recipe", "frozen"), [(["train"], ONE, TWO), (["train", "finetune"], TWO, ONE)])
def test_a_record_of_the_pipeline_needs_those_of_the_frozen_recipe(
    toy: object,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stages: list[str],
    recipe: dict[str, Any],
    frozen: dict[str, Any],
) -> None:
    monkeypatch.chdir(tmp_path)
    file = recipe_file("toy-lt-if4", parse_entry("ce@common"), "finetune")
    assert scored(tmp_path, stages, recipe, RECORDS / "a"), "nothing is frozen"
    write_json(file, {"entry": "ce@common", "error": "a method that does not import"})
    assert scored(tmp_path, stages, recipe, RECORDS / "b")
    write_json(file, {"entry": "ce@common", "recipe": frozen})
    assert scored(tmp_path, stages, recipe, tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"ce\.finetune\.json has (one|two) stage.*ltbench grid"):
        scored(tmp_path, stages, recipe, RECORDS / "c")


def test_a_second_stage_needs_a_frozen_recipe_where_the_first_has_one(
    toy: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_json(recipe_file("toy-lt-if4", parse_entry("ce@common"), "train"), {"entry": "ce@common", "recipe": {}})
    assert scored(tmp_path, ["train"], ONE, RECORDS / "a")
    with pytest.raises(UserError, match=r"ce\.train\.json has one stage"):
        scored(tmp_path, ["train", "finetune"], TWO, RECORDS / "b")
