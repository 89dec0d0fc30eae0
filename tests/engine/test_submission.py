"""A second lab's results on their whole way: measured in another clone, validated, previewed, imported, on the page."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from harness.base.errors import UserError
from harness.base.files import read_json, stamped, write_json
from harness.base.progress import Reporter
from harness.records.check import VERDICT
from harness.records.collect import ROOTS, Collected, collect
from harness.records.evaluate import evaluate
from harness.records.imports import import_campaign
from harness.reporting.preview import preview
from harness.reporting.report import Sources
from harness.reporting.site.config import Site
from harness.reporting.site.publish import publish_site
from harness.running import stages
from harness.running.validate import validate
from harness.spec.entries import parse_entry
from harness.spec.recipes import resolve

SPLIT = Path("results/splits/tiny-lt-if10.json")


def measure(entry: str, seeds: list[int], out: Path) -> None:
    """Runs of a toy method, in this working folder."""
    place, runs = stages.Workplace(torch.device("cpu"), Reporter()), Path("runs") / entry
    stages.train(resolve(parse_entry(f"{entry}@common"), "tiny"), SPLIT, seeds, runs, place)
    evaluate(SPLIT, [runs], seeds, out / "tiny-lt-if10/common" / entry)


@pytest.fixture
def submission(workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host that has two seeds of `plain`, and a clone of it where a lab measured two of `toy-once`."""
    lab = tmp_path / "lab"
    shutil.copytree(workspace, lab)
    measure("plain", [0, 1], Path("results/records"))
    monkeypatch.chdir(lab)
    measure("toy-once", [0, 1], Path("sent/records"))
    shutil.copytree("results/splits", "sent/splits")
    Path("sent/submission.yaml").write_text("who: A lab <b>\nlink: https://example.org/lab\n")
    monkeypatch.chdir(workspace)
    return lab / "sent"


def present() -> Collected:
    return collect(*(root for root in ROOTS if root.is_dir()))


def test_a_submission_comes_on_the_page(submission: Path) -> None:
    before = present()
    assert validate(submission, 1, "cpu", Path("scratch")).tier == "re-run"
    text = preview(submission, before, Sources())
    assert "Records: 2 new, 0 measured again, 0 as they are here, 0 gone, 0 left out." in text
    (row,) = (line for line in text.splitlines() if line.startswith("| tiny-lt-if10, common | toy-once |"))
    place, checked = row.split("|")[3].strip(), row.split("|")[-2].strip()
    assert checked == "self-measured", "one of its runs was measured again, not each"
    assert present() == before, "a preview changes nothing"
    taken = import_campaign(submission, Path("results/splits"))
    assert (len(taken.taken), taken.refused) == (2, [])
    publish_site(present(), Sources(), Site("Toys"), Path("site"))
    page = Path("site/methods/toy/index.html").read_text()
    assert f'<td class="number">{place}</td>' in page
    pages = [one.read_text() for one in Path("site/runs").glob("*/index.html")]
    assert sum('<a href="https://example.org/lab" rel="noreferrer">A lab &lt;b&gt;</a>' in one for one in pages) == 2
    runs = {json.loads(one.read_text())["variant"]: one.parent for one in Path("site/runs").glob("*/record.json")}
    assert sorted(runs) == ["", "once"]
    badges = [one.joinpath("index.html").read_text().count(">re-run by us<") for one in Path("site/runs").iterdir()]
    assert sorted(badges) == [0, 0, 0, 1]
    assert "2 as they are here" in preview(submission, present(), Sources())


def test_a_preview_names_what_is_wrong(submission: Path) -> None:
    path = submission / "records/tiny-lt-if10/common/toy-once/seed0.json"
    record = read_json(path, "record")
    record["results"]["last"]["macro_f1"] = 0.99
    write_json(path, stamped({key: value for key, value in record.items() if key != "sha256"}))
    text = preview(submission, present(), Sources())
    assert "1 new" in text
    assert "1 left out" in text
    assert "macro\\_f1 at last is 0.99" in text
    with pytest.raises(UserError, match="preview takes a folder that a campaign wrote, or another checkout"):
        preview(submission / "splits/none", present(), Sources())


def test_a_sender_that_cannot_be_shown_is_refused(submission: Path) -> None:
    (submission / "submission.yaml").write_text("who: A lab\nlink: javascript:alert(1)\n")
    assert "link must start with https://" in validate(submission, 0, "cpu", Path("scratch")).refused[0]
    with pytest.raises(UserError, match=r"submission\.yaml: link must start with https://"):
        import_campaign(submission, Path("results/splits"))
    assert not Path("results/imported").exists()


def test_another_measurement_of_a_run_is_named(submission: Path) -> None:
    """From the lab's whole checkout, in which one record is another one and one is not there."""
    lab = submission.parent
    shutil.copytree("results/records", lab / "results/records")
    (lab / "results/records/tiny-lt-if10/common/plain/seed1.json").unlink()
    path = lab / "results/records/tiny-lt-if10/common/plain/seed0.json"
    record = read_json(path, "record")
    record["notes"] = ["by hand"]
    write_json(path, stamped({key: value for key, value in record.items() if key != "sha256"}))
    text = preview(lab, present(), Sources())
    assert "Records: 0 new, 1 measured again, 0 as they are here, 1 gone, 0 left out." in text
    assert "plain@common on tiny-lt-if10: 1 of its seeds" in text


def test_a_verdict_that_comes_along_is_replaced_and_named(submission: Path) -> None:
    found = validate(submission, 2, "cpu", Path("scratch"))
    assert found.tier == "re-run"
    again = validate(submission, 0, "cpu", Path("scratch"))
    assert (again.tier, len(again.named)) == ("recomputed", 2)
    assert f"{VERDICT}: said that records/tiny-lt-if10/common/toy-once/seed0.json was re-run" in again.named[0]
    assert validate(submission, 0, "cpu", Path("scratch")).named == []
