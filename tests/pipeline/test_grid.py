"""Generated files that are committed: a stale one fails here, with the command that mends it."""

from harness.spec import suites


def test_grid_is_up_to_date() -> None:
    assert suites.GRID_FILE.read_text() == suites.grid_text(), "harness/grid.yaml is stale; run: ltbench grid"


def test_every_cell_trains_evaluates_and_finds_its_first_stage() -> None:
    grid = suites.grid()
    folders = {item["out"] for item in grid["train"].values()}
    for key, item in grid["evaluate"].items():
        assert item["first"] in folders
        assert item["last"] == (grid["finetune"][key]["out"] if key in grid["finetune"] else item["first"])
