"""Results and splits in the formats of others, held against their own readers where these are installed."""

from __future__ import annotations

import importlib.util
import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from typer.testing import CliRunner

from harness.base.errors import UserError
from harness.cli import app
from harness.records.collect import Collected
from harness.reporting.exports import command, croissant
from harness.reporting.report import Sources
from harness.reporting.site.config import Board, Site
from harness.reporting.site.publish import publish_site
from harness.reporting.terminal import show
from harness.spec.recipe_layers import MethodFile
from harness.splits.splits import Split, write_split
from tests.factories import collected, make_record, sources
from tests.reporting.conftest import HOSTILE

SITE = Site("Boards of a lab", licence="CC-BY-4.0", url="https://example.org")


def exported(form: str, out: Path, records: Collected, site: Site = SITE) -> list[Path]:
    return command.export(form, out, lambda: records, site)


def test_every_row_is_an_evaluation_with_its_scores(measured: Collected, tmp_path: Path) -> None:
    paths = exported("every-eval-ever", tmp_path / "out", measured)
    values = {path.parent.name: json.loads(path.read_text()) for path in paths}
    assert sorted(values) == ["balanced_softmax", "ce", "crt"]
    assert {path.relative_to(tmp_path / "out").parts[:2] for path in paths} == {("data", "ltbench")}
    one = values["ce"]
    required = ["eval_library", "evaluation_id", "evaluation_results", "model_info", "retrieved_timestamp"]
    assert sorted(one) == [*required, "schema_version", "source_metadata"]
    found = {result["metric_config"]["metric_id"]: result for result in one["evaluation_results"]}
    score = found["ltbench.all"]["score_details"]
    assert score["score"] == pytest.approx(0.638)
    assert score["uncertainty"] == {"standard_deviation": 0.0, "num_samples": 3}
    assert found["ltbench.ece"]["metric_config"]["lower_is_better"]
    assert not found["ltbench.few"]["metric_config"]["lower_is_better"]
    assert "few < 20" in found["ltbench.few"]["metric_config"]["evaluation_description"]
    again = exported("every-eval-ever", tmp_path / "again", measured)
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in paths]


def test_a_recipe_that_has_seen_the_test_part_says_so_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In exports, in the terminal and on the runs' pages, as on the page."""
    made = collected(*(make_record("ce", seed, track="common") for seed in range(3)))
    seen = MethodFile("CE", tuned_on_test={"mnist5k": "its rate was seen"})
    monkeypatch.setattr(Sources, "abouts", {"ce": seen})
    for form in ("every-eval-ever", "hub"):
        texts = [path.read_text() for path in exported(form, tmp_path / form, made)]
        assert sum("tuned on the test part: its rate was seen" in text for text in texts) == 1, form
    show(made, "", "last", "json")
    assert capsys.readouterr().out.count("tuned on the test part: its rate was seen") == 1
    publish_site(made, sources(), SITE, tmp_path / "site")
    pages = [path.read_text() for path in (tmp_path / "site/runs").rglob("index.html")]
    assert sum("its rate was seen" in text for text in pages) == 3, "one for each seed"


def test_a_site_says_which_runs_are_on_none_of_its_boards(tmp_path: Path) -> None:
    made = collected(make_record("ce"), make_record("ce", dataset="cifar10", split="cifar10-lt-if100"))
    boards = [Board("digits", "Digits", dataset="mnist5k")]
    assert publish_site(made, sources(), SITE, tmp_path / "all").unplaced == {}
    assert publish_site(made, sources(), replace(SITE, boards=boards), tmp_path / "one").unplaced == {"cifar10": 1}


def test_a_splits_name_leads_nowhere(tiny_split: Split, tmp_path: Path) -> None:
    split = replace(tiny_split, id="../../escaped")
    write_split(replace(split, sha256=split.digest()), tmp_path / "splits/one.json")
    names = [name for name, _ in croissant.files(tmp_path / "splits", SITE)]
    assert len(names) == 2
    assert not any(".." in name for name in names)


def test_evaluations_fit_the_schema_of_every_eval_ever(made: Collected, tmp_path: Path) -> None:
    """Awkward rows, too: failed seeds, empty groups, hostile names."""
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    spec = importlib.util.find_spec("every_eval_ever")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("every-eval-ever is not installed (it needs Python 3.12)")
    schema = json.loads(Path(spec.submodule_search_locations[0], "schemas/eval.schema.json").read_text())
    paths = exported("every-eval-ever", tmp_path, made)
    assert len(paths) == 6
    for path in paths:
        jsonschema.validate(json.loads(path.read_text()), schema)


def test_runs_without_a_score_are_none_of_an_evaluations(made: Collected, tmp_path: Path) -> None:
    counts = set()
    for path in exported("every-eval-ever", tmp_path, made):
        for result in json.loads(path.read_text())["evaluation_results"]:
            details = result["score_details"]["details"]
            assert len(details["run_keys"].split(", ")) == len(details["seeds"].split(", "))
            counts.add(len(details["seeds"].split(", ")))
    assert len(counts) > 1, "some seed failed"


@pytest.mark.parametrize(("words", "folder"), [(["--out", "."], "."), ([], "runs/exports/croissant")])
def test_the_working_folder_can_be_named(
    described: tuple[Split, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], folder: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    (tmp_path / "splits").rename("results/splits")
    Path("site.yaml").write_text("title: A lab")
    done = CliRunner().invoke(app, ["export", "--format", "croissant", "--site", "site.yaml", *words])
    assert (done.exit_code, done.output) == (0, f"{folder}: 2 files\n")
    assert Path(folder, "tiny-lt-if10/croissant.json").is_file()


def test_the_hub_reads_the_scores_from_a_model_card(made: Collected, tmp_path: Path) -> None:
    paths = exported("hub", tmp_path, made)
    assert not any(HOSTILE in str(path) for path in paths)
    (path,) = (path for path in paths if path.match("mnist5k-*/balanced_softmax.yaml"))
    data: Any = ModelCard(f"---\n{path.read_text()}---\n# A model\n").data
    assert data.eval_results is not None
    scores = {result.metric_name: result for result in data.eval_results}
    assert scores["Top-1 accuracy"].metric_value == pytest.approx(0.865)
    assert scores["Top-1 accuracy"].dataset_config == "mnist5k-lt-if100"
    assert scores["Few-shot accuracy"].metric_args["seeds"] == 3
    cifar = yaml.safe_load((tmp_path / "cifar10-lt-if10-paper/ce.yaml").read_text())
    names = {metric["name"] for metric in cifar["model-index"][0]["results"][0]["metrics"]}
    assert "Few-shot accuracy" not in names, "no class is few-shot"


@pytest.fixture
def described(tiny_split: Split, tmp_path: Path) -> tuple[Split, Path]:
    write_split(tiny_split, tmp_path / "splits/tiny-lt-if10.json")
    for name, text in croissant.files(tmp_path / "splits", SITE):
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_text(text)
    return tiny_split, tmp_path / "out/tiny-lt-if10/croissant.json"


def test_a_split_has_a_croissant_description(described: tuple[Split, Path]) -> None:
    split, path = described
    value: dict[str, Any] = json.loads(path.read_text())
    assert value["conformsTo"] == "http://mlcommons.org/croissant/1.0"
    assert [one["@id"] for one in value["recordSet"]] == ["classes", "train"]
    assert [line["classes/train_images"] for line in value["recordSet"][0]["data"]] == split.class_counts
    assert split.sha256 in value["description"]
    assert len((path.parent / "train.csv").read_text().splitlines()) == 1 + sum(split.class_counts)


def test_the_reader_of_croissant_finds_every_image(
    described: tuple[Split, Path], caplog: pytest.LogCaptureFixture
) -> None:
    reader = pytest.importorskip("mlcroissant", reason="mlcroissant is not installed")
    split, path = described
    with caplog.at_level(logging.WARNING):
        dataset = reader.Dataset(jsonld=str(path))
    assert [one for one in caplog.messages if "datePublished" not in one] == [], "it is in no git here"
    found = [(one["train/image"].decode(), one["train/class"]) for one in dataset.records("train")]
    assert found == [(image, number) for number, images in enumerate(split.train) for image in images]
    assert len(list(dataset.records("classes"))) == split.num_classes


def test_mistakes_are_one_line(measured: Collected, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="--format: no format is named 'croisant'"):
        exported("croisant", tmp_path, measured)
    with pytest.raises(UserError, match="results/splits: no split; `ltbench split NAME` writes one"):
        exported("croissant", tmp_path, measured)
