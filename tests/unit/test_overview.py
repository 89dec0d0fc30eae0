"""`ltbench status` of a checkout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.base import config
from harness.base.errors import UserError
from harness.base.files import sha256_json, write_json
from harness.cli import app
from harness.cli.arguments import CAMPAIGNS
from harness.records.progress import Progress, Running, read_progress
from harness.records.schema import write_record
from harness.running import overview
from harness.spec.entries import parse_entry
from harness.spec.provenance import code_version
from harness.spec.recipes import resolve
from harness.spec.registry import get_plugin
from tests.factories import make_record

RECORDS = Path("results/records/mnist5k-lt-if100/common")


@pytest.fixture(autouse=True)
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def put(method: str, seed: int = 0, **changes: Any) -> None:
    recipe = resolve(parse_entry(f"{method}@common"), "mnist5k").recipe.as_dict()
    given = {"track": "common", "recipe": recipe, "code_version": code_version(get_plugin(method).folder)} | changes
    given |= {"backbone": recipe["backbone"], "stages": ["train", "finetune"] if recipe["finetune"] else ["train"]}
    given |= {"stage1_selection": "last" if recipe["finetune"] else None}
    record = make_record(method, seed, recipe_sha256=sha256_json(given["recipe"]), **given)
    write_record(RECORDS / method / f"seed{seed}.json", record)


def test_cells_done_failed_stale_and_not_run(capsys: pytest.CaptureFixture[str]) -> None:
    put("ce")
    put("ce", 1)
    put("tvmf")
    put("tvmf", 1, failure="loss is NaN")
    put("gcl", recipe={**resolve(parse_entry("gcl@common"), "mnist5k").recipe.as_dict(), "image_size": 64})
    put("focal", code_version="0" * 16)
    put("ib", code_version="1" * 16)
    (RECORDS / "crt").mkdir()
    (RECORDS / "crt" / "seed0.json").write_text("{")
    found = overview.look(CAMPAIGNS)
    states = {cell.entry: (cell.state, cell.seeds) for cell in found.cells}
    assert states == {
        "ce@common": ("done", [0, 1]),
        "tvmf@common": ("failed", [0, 1]),
        "gcl@common": ("stale", [0]),
        "focal@common": ("stale", [0]),
        "ib@common": ("stale", [0]),
    }
    why = {cell.entry: cell.why for cell in found.cells}
    assert why["tvmf@common"] == "seed 1: loss is NaN"
    assert why["gcl@common"] == "measured with another recipe than this checkout's"
    assert why["focal@common"].startswith("measured with other code that is not known")
    assert "mnist5k-lt-if100 crt@common" in found.not_run
    assert "mnist5k-lt-if100 ce@common" not in found.not_run
    assert "crt/seed0.json" in found.left_out[0]
    capsys.readouterr()
    overview.show(found)
    out = capsys.readouterr().out
    row = next(line for line in out.splitlines() if "mnist5k-lt-if100" in line and "common" in line)
    assert [word for word in row.split() if word.isdigit()] == ["5", "1", "1", "3"]
    assert "failed: mnist5k-lt-if100: seed 1: loss is NaN: tvmf@common\n" in out
    assert "measure the same (ltbench same-bits): focal@common, ib@common\n" in out
    assert "not run, of suite default: mnist5k-lt-if100 crt@common\n" in out


def test_campaigns_are_found_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress("cifar10", made=3, left=9, running=[Running("cifar10-lt-if100 ce@short seed 1 train", 4, 20)])
    write_json(CAMPAIGNS / "cifar10/progress.json", config.as_dict(progress))
    (CAMPAIGNS / "broken").mkdir()
    (CAMPAIGNS / "broken/progress.json").write_text("{")
    app(["status"], standalone_mode=False)
    out, err = capsys.readouterr()
    assert err.startswith("left out: ")
    assert "broken/progress.json" in err
    assert out.startswith("no records yet; e.g. ltbench run mnist5k ce")
    assert "campaign cifar10: 3 of 12 records made; 9 left (runs/campaigns/cifar10)\n" in out
    assert "  cifar10-lt-if100 ce@short seed 1 train: epoch 4 of 20\n" in out
    app(["status", "--json"], standalone_mode=False)
    data = json.loads(capsys.readouterr().out)
    assert data["cells"] == []
    assert len(data["left_out"]) == 1
    assert [(one["folder"], one["left"], one["at_work"]) for one in data["campaigns"]] == [
        ("runs/campaigns/cifar10", 9, False)
    ]


def test_a_campaign_elsewhere_needs_no_suite(capsys: pytest.CaptureFixture[str]) -> None:
    write_json(Path("night1/progress.json"), config.as_dict(Progress("cifar10", made=3, left=9)))
    app(["status", "--out", "night1"], standalone_mode=False)
    assert capsys.readouterr().out.startswith("cifar10: 3 of 12 records made")
    with pytest.raises(UserError, match="--save: of a campaign; name its suite"):
        app(["status", "--save", "x"], standalone_mode=False)
    with pytest.raises(UserError, match="ltbench campaign SUITE --budget SECONDS --out gone"):
        read_progress("", Path("gone"))
