"""`--dry-run`: times from the costs of measured runs, and nothing is written."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.base.errors import UserError
from harness.base.files import sha256_json, stamped, write_json
from harness.cli import app
from harness.engine.device import pick_device
from harness.records.runs import run_info, stage_files, write_run_info
from harness.records.schema import costs_path, write_record
from harness.running import cells, estimates
from harness.spec import suites
from harness.spec.entries import parse_entry
from harness.spec.recipes import resolve
from harness.splits.splits import Split, read_split
from tests.factories import make_record

ROOT = Path(__file__).parents[2]
SPLIT = "mnist5k-lt-if100"
CPU = "CPU, 1 thread"
SUITE = f"one: {{splits: [{SPLIT}], entries: [ce@common, crt@common, tau_norm@common], seeds: [0, 1]}}"
Call = Callable[..., str]


@pytest.fixture
def split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Split:
    """A checkout that has drawn its split, and has no records and no data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LTBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(estimates, "_device", lambda _name: CPU)
    monkeypatch.setattr(estimates, "_seeds_at_once", lambda _device, seeds: min(seeds, 2))
    monkeypatch.setattr(estimates, "_useful", lambda _devices: 2)
    (tmp_path / "suites.yaml").write_text(SUITE)
    monkeypatch.setattr(suites, "SUITES_FILE", tmp_path / "suites.yaml")
    (tmp_path / "results/splits").mkdir(parents=True)
    shutil.copy(ROOT / f"results/splits/{SPLIT}.json", "results/splits")
    return read_split(Path(f"results/splits/{SPLIT}.json"))


@pytest.fixture
def ltbench(split: Split, capsys: pytest.CaptureFixture[str]) -> Call:
    """What a command prints; it must leave no file behind."""

    def call(*words: str) -> str:
        before = sorted(Path().rglob("*"))
        app([*words, "--dry-run"], standalone_mode=False)
        assert sorted(Path().rglob("*")) == before
        return capsys.readouterr().out

    return call


def measured(split: Split, entry: str, seed: int = 0, root: str = "results/records", **stages: dict[str, Any]) -> None:
    """A record of a run with these costs."""
    cell = resolve(parse_entry(entry), "mnist5k")
    info = run_info(cell, split, seed, cell.stages[-1])
    facts = {name: getattr(info, name) for name in ("recipe", "recipe_sha256", "stage1_key", "run_key", "stages")}
    facts |= {"split_sha256": split.sha256, "class_counts": split.class_counts, "backbone": cell.recipe.backbone}
    facts |= {"stage1_selection": "last" if cell.recipe.finetune else None, "code_version": info.code_version}
    record = make_record(info.method, seed, track=info.track, variant=info.variant, **facts)
    path = Path(root) / SPLIT / cell.entry.path / f"seed{seed}.json"
    write_record(path, record)
    costs = {"run_key": info.run_key, "record_sha256": sha256_json("any"), "stages": stages}
    write_json(costs_path(path), stamped(costs))


def stage(seconds: float, at_once: int = 1, *, images: float = 0.0, device: str = CPU, **more: Any) -> dict[str, Any]:
    facts = {"wall_seconds": seconds, "runs_at_once": at_once, "cpus": 2, "device": device, "processor": "Some CPU"}
    return facts | {"train_seconds": seconds, "images_per_second": images / seconds} | more


def row(text: str, entry: str, name: str) -> list[str]:
    """The cells of a table's row: runs, time, basis."""
    line = next(line for line in text.splitlines() if f" {entry} " in line and f" {name} " in line)
    return [cell.strip() for cell in line.strip("│").split("│")][3:]


def images(split: Split, entry: str) -> int:
    return sum(split.class_counts) * resolve(parse_entry(entry), "mnist5k").recipe.train.epochs


def test_a_run_of_the_same_recipe(split: Split, ltbench: Call) -> None:
    """Three at once on two cores had two thirds of a core each: 60 s of wall time are 40 s of a core."""
    measured(split, "ce@common", train=stage(60.0, 3))
    out = ltbench("run", SPLIT, "ce", "--seeds", "0,1,2")
    assert row(out, "ce@common", "train") == ["3", "about 2 min", "this recipe"]
    assert out.endswith("in all about 60 s with 2 at once, as measured on Some CPU\n")


def test_another_length_counts_by_images(split: Split, ltbench: Call) -> None:
    measured(split, "ce@common", train=stage(60.0, images=images(split, "ce@common")))
    epochs = resolve(parse_entry("ce@common"), "mnist5k").recipe.train.epochs
    out = ltbench("run", SPLIT, "ce", "--seeds", "0", "--set", f"epochs={3 * epochs}")
    assert row(out, "ce@common", "train") == ["1", "about 3 min", "this method, by its images"]
    out = ltbench("run", SPLIT, "focal", "--seeds", "0")
    assert row(out, "focal@common", "train") == ["1", "about 60 s", "other methods, by their images"]


def test_nothing_measured_is_no_number(split: Split, ltbench: Call) -> None:
    measured(split, "ce@common", train=stage(60.0, device="Some GPU", images=1000))
    measured(split, "focal@common", train=stage(60.0, images=1000, at_once="two"))  # type: ignore[arg-type]
    measured(split, "gcl@common", train={"device": CPU})
    out = ltbench("run", SPLIT, "ce", "--seeds", "0")
    assert row(out, "ce@common", "train") == ["1", "not measured", "not measured"]
    why = "not in it: 1 stage of runs, because nothing comparable has been measured"
    assert out.endswith(f"{why}; `ltbench doctor {SPLIT} ce@common` times a step here\n")
    assert not re.search(r"about [1-9]", out)


def test_a_suite_shares_first_stages_and_skips_what_is_there(split: Split, ltbench: Call) -> None:
    measured(split, "ce@common", train=stage(50.0))
    measured(split, "crt@common", train=stage(50.0), finetune=stage(10.0))
    measured(split, "crt@common", 0, "out/records", train=stage(50.0), finetune=stage(10.0))
    there = next(Path("out/records").rglob("seed0.json"))
    for path in (there, costs_path(there)):
        cell = resolve(parse_entry("crt@common"), "mnist5k")
        target = path.with_name(path.name)
        target = target.parent.with_name(f"crt-{cell.recipe.sha256()[:8]}") / target.name
        target.parent.mkdir(exist_ok=True)
        path.rename(target)
    out = ltbench("campaign", "one", "--out", "out")
    assert row(out, "ce@common", "train") == ["2", "about 100 s", "this recipe"]
    assert row(out, "crt@common", "finetune") == ["1", "about 10 s", "this recipe"]
    assert row(out, "tau_norm@common", "finetune") == ["2", "about 0 s", "nothing is trained"]
    assert "5 records to be made, 1 there; nothing is run" in out
    assert "in all about 55 s with 2 at once" in out
    assert ltbench("sweep", "one", "--out", "out") == out


def test_a_first_stage_of_other_code_is_not_done(split: Split, ltbench: Call) -> None:
    """Its folder is named by the recipe alone; nor is one that failed."""
    measured(split, "crt@common", train=stage(50.0), finetune=stage(10.0))
    cell = resolve(parse_entry("crt@common"), "mnist5k")
    info = run_info(cell, split, 0, "train")
    file = stage_files(cells.folders(cell, SPLIT, Path("runs")).first, 0)["run.json"]
    told = [(replace(info, run_key="0" * 16, status="ok"), "this recipe"), (info.failed("killed"), "this recipe")]
    for there, basis in [*told, (replace(info, status="ok"), "done")]:
        write_run_info(file, there)
        assert row(ltbench("run", SPLIT, "crt", "--seeds", "0"), "crt@common", "train")[2] == basis


def test_more_workers_than_runs_are_no_faster(split: Split, ltbench: Call) -> None:
    measured(split, "ce@common", train=stage(60.0))
    cell = resolve(parse_entry("ce@common"), "mnist5k")
    measured(split, "ce@common", 0, "there", train=stage(60.0))
    target = cells.folders(cell, SPLIT, Path("runs")).records
    target.parent.mkdir(parents=True)
    next(Path("there").rglob("seed0.json")).parent.rename(target)
    assert "in all about 60 s with 1 at once" in ltbench("run", SPLIT, "ce", "--seeds", "0,1")


def test_nothing_left(split: Split, ltbench: Call) -> None:
    measured(split, "ce@common", train=stage(50.0))
    cell = resolve(parse_entry("ce@common"), "mnist5k")
    path = next(Path("results/records").rglob("seed0.json"))
    there = Path(f"runs/records/{SPLIT}/common/ce-{cell.recipe.sha256()[:8]}/seed0.json")
    there.parent.mkdir(parents=True)
    path.rename(there)
    assert ltbench("run", SPLIT, "ce", "--seeds", "0") == "nothing is left to run: 1 record there\n"


def test_a_records_run_again(split: Split, ltbench: Call) -> None:
    measured(split, "crt@common", train=stage(50.0), finetune=stage(10.0))
    out = ltbench("reproduce", str(next(Path("results/records").rglob("seed0.json"))))
    assert "in all about 60 s with 1 at once" in out


def test_data_that_are_not_here(split: Split, ltbench: Call) -> None:
    with pytest.raises(UserError, match=r"mnist5k-lt-if50: neither the split nor its data .* ltbench fetch mnist5k"):
        ltbench("run", "mnist5k-lt-if50", "ce")


def test_a_clusters_cards_are_not_asked_for_here(split: Split, ltbench: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """A login node has none; the costs are those of any card, never a processor's."""
    monkeypatch.setattr(estimates, "_device", pick_device)
    measured(split, "ce@common", train=stage(60.0))
    measured(split, "ce@common", seed=1, train=stage(6.0, device="Some GPU"))
    out = ltbench("sweep", "one", "--executor", "slurm", "--device", "cuda")
    assert row(out, "ce@common", "train")[1:] == ["about 12 s", "this recipe"]
    assert "as measured on Some GPU" in out


def test_an_executor_that_is_none(split: Split, ltbench: Call) -> None:
    with pytest.raises(UserError, match="--executor: no executor is named 'foo'"):
        ltbench("sweep", "one", "--executor", "foo")


def test_a_campaign_needs_a_budget_or_a_dry_run(split: Split) -> None:
    with pytest.raises(UserError, match="--budget: missing, in seconds; `ltbench campaign one --dry-run` says"):
        app(["campaign", "one"], standalone_mode=False)
