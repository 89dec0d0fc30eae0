"""Studies: contrasts between rows, findings that stand only while the records support them, and their blocks."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.base import config
from harness.base.errors import UserError
from harness.base.files import stamped, write_json
from harness.records.collect import Collected, collect
from harness.records.schema import write_record
from harness.reporting import documents
from harness.reporting.documents import refresh
from harness.reporting.figures import pictures, write_figures
from harness.reporting.report import build_report, ranked_sections
from harness.reporting.studies import (
    Contrast,
    MeasuredContrast,
    Study,
    StudyResult,
    carry_out,
    common_marks,
    load_studies,
    number,
    ranked,
    usual_study,
)
from harness.spec.entries import parse_entry
from harness.spec.recipes import resolve
from harness.spec.registry import find_plugins
from harness.splits.split_names import parse_split_name
from tests.factories import make_record, sources
from tests.reporting.conftest import TEST_IMAGES, store

STUDY: dict[str, Any] = {
    "id": "made",
    "title": "A <made> study",
    "question": "Which?",
    "split": "mnist5k-lt-if100",
    "track": "paper",
    "contrasts": [
        {"label": "Balanced", "row": "balanced_softmax", "against": "ce"},
        {"label": "cRT & co", "row": "crt", "against": "balanced_softmax"},
        {"label": "At its best", "row": "ce", "against": "ce", "at": "best_test", "name": "oracle"},
        {"label": "Not there", "row": "gcl", "against": "ce"},
    ],
    "findings": [
        {
            "text": "It gains {balanced_softmax} and {balanced_softmax few}.",
            "holds": {"balanced_softmax": "above 20", "balanced_softmax few": "better"},
        },
        {"text": "It loses {balanced_softmax}.", "holds": {"balanced_softmax": "worse"}},
        {"text": "GCL gains {gcl}.", "holds": {"gcl": "better"}},
    ],
    "quantity": "weight norm",
    "quantity_rows": ["ce", "gcl"],
}


def made(**changes: Any) -> Study:
    return config.build(Study, STUDY | changes, "studies.yaml: studies[0]")


def result(measured: Collected, **changes: Any) -> StudyResult:
    tables = ranked_sections(measured)
    return carry_out(made(**changes), tables.sections)


def test_contrasts_are_differences_of_the_rows_of_one_table(measured: Collected) -> None:
    balanced, crt, oracle, gcl = result(measured).measured
    found = balanced.effects["all"]
    assert found is not None
    assert (found.mean, found.n, found.verdict) == (pytest.approx(0.9 - 0.638), 3, "better")
    few = balanced.effects["few"]
    assert few is not None
    assert few.mean == pytest.approx(0.4)
    assert crt.effects["all"] is not None
    assert crt.effects["all"].verdict == "not resolved"
    assert oracle.effects["all"] is not None
    assert (oracle.effects["all"].mean, oracle.effects["all"].inferred) == (0, False)
    assert gcl.missing == "not run: gcl has not been measured"


def test_costs_are_images_times_what_each_takes(measured: Collected, tmp_path: Path) -> None:
    """Of cross-entropy 1,000 images; of cRT these and 500 of a second stage, each for a fifth of the time."""
    stage = {"images_per_second": 10.0, "train_seconds": 100.0}
    costs = {"ce": {"train": stage}, "crt": {"train": stage, "finetune": {**stage, "train_seconds": 50.0}}}
    for method, stages in costs.items():
        for seed in range(3):
            write_json(tmp_path / f"records/{method}/seed{seed}.run.json", stamped({"stages": stages}))
    tables = ranked_sections(collect(tmp_path / "records"))
    times = {("ce", "train"): 1.0, ("crt", "train"): 1.0, ("crt", "finetune"): 0.2}
    names = ("crt", "balanced_softmax")
    contrasts = [{"label": name, "row": name, "against": "ce"} for name in names]
    asked = made(contrasts=contrasts, findings=[], quantity_rows=[], cost=True)
    found = carry_out(asked, tables.sections, times)
    crt, balanced = found.measured
    assert crt.cost == pytest.approx(1.1)
    assert balanced.cost is None, "its costs are not known"
    assert crt.over_all is not None
    assert f"1.10x | {100 * crt.over_all.mean / 1.1:+.1f}" in documents.study(found)


def test_a_study_of_every_method_leaves_none_out(measured: Collected) -> None:
    """The listed ones first, then the others by their rank; variants and failed rows are not among them."""
    for seed in range(3):
        store(measured.records[0][0].parents[1] / "flip", "crt", seed, [0.9] * 10, variant="flip")
    tables = ranked_sections(collect(measured.records[0][0].parents[1]))
    asked = made(every="ce", contrasts=STUDY["contrasts"][1:], findings=[])
    found = carry_out(asked, tables.sections, titles={"crt": "cRT"}).measured
    added = [(one.contrast.label, one.contrast.row, one.contrast.against) for one in found[3:]]
    assert added == [("balanced_softmax", "balanced_softmax", "ce"), ("cRT", "crt", "ce")]
    assert all(one.over_all for one in found[3:])


def test_a_list_that_is_not_of_all_methods_says_so(measured: Collected, tmp_path: Path) -> None:
    folder = tmp_path / "methods" / "ours"
    folder.mkdir(parents=True)
    for every, said in (("", True), ("ce", False)):
        study = STUDY | {"every": every, "contrasts": STUDY["contrasts"][:1], "findings": []}
        (folder / "studies.yaml").write_text(yaml.safe_dump({"studies": [study]}))
        page = build_report(measured, tmp_path / f"out{every}", replace(sources(), folders={"ours": folder}))
        assert ("1 of 2 methods; the others in Compare" in page.read_text()) == said


def test_findings_stand_only_where_their_verdicts_hold(measured: Collected) -> None:
    found = result(measured)
    assert found.withdrawn == 2
    (text,) = found.findings
    assert re.fullmatch(r"It gains \+26\.2 \(\+\d.* to \+.*\) and \+40\.0 \(.*\)\.", text)


def test_two_seeds_support_no_finding(tmp_path: Path) -> None:
    for seed in range(2):
        store(tmp_path, "balanced_softmax", seed, [0.9] * 10)
        store(tmp_path, "ce", seed, [0.5] * 10)
    found = result(collect(tmp_path))
    assert found.measured[0].n == 2
    assert not found.findings
    assert ranked([found]) == ([], [])


def test_one_seed_is_shown_without_an_interval_and_supports_nothing(tmp_path: Path) -> None:
    store(tmp_path, "balanced_softmax", 0, [0.9] * 10)
    store(tmp_path, "ce", 0, [0.5] * 10)
    found = result(collect(tmp_path))
    over_all = found.measured[0].over_all
    assert over_all is not None
    assert (number(over_all), over_all.verdict, found.measured[0].n) == ("+40.0, one seed", "observed", 1)
    assert not found.findings
    assert ranked([found]) == ([], [])
    assert "| **" not in documents.study(found)
    assert "difference in points, one seed" in next(pictures(found))[2]


def test_two_tracks_stand_above_each_other_with_how_far_they_agree(tmp_path: Path) -> None:
    """Balanced Softmax gains on both tracks, cRT on the short one alone; LWS was run on one of them."""
    accuracies = {"short": {"ce": 0.5, "balanced_softmax": 0.6, "crt": 0.8, "lws": 0.7}}
    accuracies["paper"] = {"ce": 0.6, "balanced_softmax": 0.8, "crt": 0.5}
    for track, methods in accuracies.items():
        for method, accuracy in methods.items():
            for seed in range(3 if track == "short" else 1):
                store(tmp_path / track, method, seed, [accuracy] * 10, track=track)
    rows = [{"label": row, "row": row, "against": "ce"} for row in ("balanced_softmax", "crt", "lws")]
    changes = {"contrasts": rows, "findings": []}
    measured = replace(collect(tmp_path), unchecked=[])  # as if their split were here
    both = [result(measured, id=track, track=track, **changes) for track in accuracies]
    text = refresh("<!-- tiers short paper -->\n<!-- /tiers -->", [], both, "STUDIES.md")
    lines = text.splitlines()
    assert lines[3].startswith("| short | balanced\\_softmax | balanced\\_softmax against ce | **+10.0 (")
    assert lines[4].startswith("| paper | balanced\\_softmax | balanced\\_softmax against ce | +20.0, one seed |")
    assert lines[4].endswith("| 1 (too few) |")
    assert "| paper | lws | lws against ce | not run: lws has not been measured |" in text
    assert "| All | 2 | 1 of 2 | 0 of 1 | 25.0 |" in lines
    with pytest.raises(UserError, match="no study is named 'gone'"):
        refresh("<!-- tiers short gone -->\n<!-- /tiers -->", [], both, "STUDIES.md")


@pytest.mark.parametrize(("claim", "stands"), [("above 20", True), ("above 30", False), ("below 40", True)])
def test_a_finding_may_rest_on_how_large_a_difference_is(measured: Collected, claim: str, stands: bool) -> None:
    finding = {"text": "So it is.", "holds": {"balanced_softmax": claim}}
    assert result(measured, findings=[finding]).findings == (("So it is.",) if stands else ())


def test_findings_do_not_rest_on_the_seeds_that_survived(tmp_path: Path) -> None:
    for seed in range(4):
        store(tmp_path, "balanced_softmax", seed, [0.9] * 10)
        store(tmp_path, "ce", seed, [0.5] * 10)
    write_record(
        tmp_path / "ce" / "seed3.json",
        make_record("ce", 3, failure="loss is NaN", test_images=TEST_IMAGES, val_images=0),
    )
    (tmp_path / "ce" / "seed3.npz").unlink()
    found = result(collect(tmp_path))
    assert found.measured[0].n == 3
    assert not found.findings


def test_rows_of_other_networks_are_not_compared(tmp_path: Path) -> None:
    for seed in range(3):
        store(tmp_path, "balanced_softmax", seed, [0.9] * 10)
        store(
            tmp_path,
            "ce",
            seed,
            [0.5] * 10,
            recipe={"backbone": "resnet20_cifar", "params": {}, "train": {}},
            backbone="resnet20_cifar",
        )
    assert result(collect(tmp_path)).measured[0].missing.startswith("not comparable: backbone is ")


def test_another_start_is_compared_only_where_the_study_says_so(tmp_path: Path) -> None:
    """Such rows have a table of their own; a condition that differs has to be named."""
    plain = {"backbone": "lenet", "params": {}, "train": {"epochs": 20}}
    tuned = plain | {"pretrained": "file.th sha256:0", "train": {"epochs": 1}}
    for seed in range(3):
        store(tmp_path, "balanced_softmax", seed, [0.9] * 10, recipe=tuned)
        store(tmp_path, "ce", seed, [0.5] * 10, recipe=plain)
    contrast = STUDY["contrasts"][0]
    parts: dict[str, Any] = {"findings": [], "quantity_rows": []}
    for changes, missing in (
        ({}, "not run: balanced_softmax has not been measured"),
        ({"starts": True}, "not comparable: train.epochs is 1 in balanced_softmax, 20 in ce"),
    ):
        assert result(collect(tmp_path), contrasts=[contrast], **parts, **changes).measured[0].missing == missing
    named = [contrast | {"differ": ["train.epochs"]}]
    values = STUDY | parts | {"contrasts": named, "starts": True}
    found = result(collect(tmp_path), **values)
    assert found.measured[0].over_all is not None
    assert found.measured[0].over_all.mean == pytest.approx(0.4)
    (slug,) = found.also
    folder = tmp_path / "methods/ours"
    folder.mkdir(parents=True)
    (folder / "studies.yaml").write_text(yaml.safe_dump({"studies": [values]}))
    page = build_report(collect(tmp_path), tmp_path / "out", replace(sources(), folders={"ours": folder})).read_text()
    own = page.partition(f'id="findings-{slug}"')[2].partition("</section>")[0]
    assert 'Rows of this table stand in <a href="#study-made">' in own
    assert "No study is of this data set yet" not in own


def test_ranking_is_by_size_and_splits_off_what_is_not_resolved(measured: Collected) -> None:
    resolved, others = ranked([result(measured)])
    assert [one.contrast.key for _, one in resolved] == ["balanced_softmax"]
    assert [one.contrast.key for _, one in others] == ["crt"]


def test_two_rows_are_ranked_once_whichever_comes_first(measured: Collected) -> None:
    turned = {"label": "Turned", "row": "ce", "against": "balanced_softmax", "name": "turned"}
    resolved, _ = ranked([result(measured, contrasts=[*STUDY["contrasts"], turned])])
    assert [one.contrast.key for _, one in resolved] == ["balanced_softmax"]


def test_what_is_to_be_known_of_all_contrasts_is_said_once() -> None:
    contrast = Contrast("x", "a", "b")
    lines = [
        MeasuredContrast(contrast, marks=("one", "both")),
        MeasuredContrast(contrast, marks=("both",)),
        MeasuredContrast(contrast, missing="!"),
    ]
    assert common_marks(lines) == ["both"]
    assert common_marks([]) == []


def test_the_study_of_most_contrasts_is_named_once() -> None:
    one, other = (made(id=name, title=name, findings=[]) for name in ("one", "other"))
    line = MeasuredContrast(Contrast("x", "a", "b"))
    assert usual_study([(one, line), (one, line), (other, line)]) is one
    assert usual_study([(one, line), (other, line)]) is None  # no more of one than of the other
    assert usual_study([(one, line)]) is None  # nothing to tell apart
    assert usual_study([]) is None


def test_another_split_is_not_run(measured: Collected) -> None:
    found = result(measured, split="mnist5k-lt-if10")
    assert not found.started
    assert {one.missing for one in found.measured} == {"not run: nothing of this table"}
    assert list(pictures(found)) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": "A b"}, "id must be of small letters"),
        ({"contrasts": [STUDY["contrasts"][0]] * 2}, "two contrasts have one name"),
        ({"contrasts": [{"label": "x", "row": "ce", "against": "ce"}]}, "'ce' is held against itself"),
        ({"findings": [{"text": "{lws}", "holds": {"lws": "better"}}]}, "no contrast is named 'lws'"),
        ({"findings": [{"text": "x", "holds": {"lws few": "better"}}]}, "no contrast is named 'lws'"),
        ({"findings": [{"text": "x", "holds": {"gcl": "good"}}]}, "holds.gcl must be one of better, worse"),
        ({"findings": [{"text": "x", "holds": {"gcl": "above all"}}]}, "holds.gcl must be one of better, worse"),
        ({"findings": [{"text": "x", "holds": {"gcl fw": "better"}}]}, "no group is named 'fw'"),
        (
            {"findings": [{"text": "{gcl few}", "holds": {"gcl": "better"}}]},
            "shows {gcl few}, which 'holds' does not name",
        ),
        ({"findings": [{"text": "x", "holds": {}}]}, "names at least one contrast"),
        ({"contrasts": [STUDY["contrasts"][0] | {"differ": ["epoch"]}]}, "no condition is named 'epoch'"),
        ({"quantum": 1}, "unknown key 'quantum'"),
    ],
)
def test_mistakes_name_the_file_and_the_key(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        made(**changes)
    assert "studies.yaml: studies[0]" in str(caught.value)


def test_one_id_twice_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "methods" / "ours"
    folder.mkdir(parents=True)
    text = "studies:\n- {id: selection, title: T, question: Q, split: s, track: short, contrasts: []}\n"
    (folder / "studies.yaml").write_text(text)
    with pytest.raises(UserError, match="another of the studies has the id 'selection'"):
        load_studies({"ours": folder})


def test_pictures_are_well_formed_and_show_text_as_it_stands(measured: Collected, tmp_path: Path) -> None:
    write_figures([result(measured)], tmp_path)
    assert sorted(path.name for path in tmp_path.glob("*.svg")) == ["study-made.quantity.svg", "study-made.svg"]
    root = ET.fromstring((tmp_path / "study-made.svg").read_text())
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"A <made> study", "cRT & co", "Balanced", "At its best", "Few"} <= set(texts)
    assert "Not there" not in texts
    assert len(list(root.iter("{http://www.w3.org/2000/svg}circle"))) == 3 * 4


def test_pictures_of_studies_that_are_gone_are_removed_and_those_of_others_are_not(
    measured: Collected, tmp_path: Path
) -> None:
    for name in ("study-gone.svg", "logo.svg"):
        (tmp_path / name).write_text("old")
    write_figures([result(measured)], tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.svg")}
    assert set(before) == {"logo.svg", "study-made.quantity.svg", "study-made.svg"}
    write_figures([result(measured)], tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.svg")} == before


def test_blocks_of_documents(measured: Collected) -> None:
    text = "<!-- findings -->\n<!-- /findings -->\n\n<!-- study made -->\nold\n<!-- /study -->\n"
    fresh = refresh(text, [], [result(measured)], "STUDIES.md")
    assert "| A &lt;made&gt; study | Balanced | balanced\\_softmax against ce | **+26.2 (" in fresh
    assert "| At its best | ce at best\\_test against ce | " in fresh
    assert "No clear difference, over all images" in fresh
    assert "![A <made> study](reports/figures/study-made.svg)" in fresh
    assert "| Not there | gcl against ce | not run: gcl has not been measured | - | - | - | - |" in fresh
    assert "- It gains +26.2" in fresh
    assert "2 of its findings are left out" in fresh
    assert refresh(fresh, [], [result(measured)], "STUDIES.md") == fresh
    for wrong, message in (("study gone", "no study is named 'gone'"), ("findings x", "found <!-- findings x -->")):
        with pytest.raises(UserError, match=message):
            refresh(f"<!-- {wrong} -->\n<!-- /{wrong.split()[0]} -->\n", [], [], "STUDIES.md")


def test_the_page_shows_findings_and_what_is_not_run(measured: Collected, tmp_path: Path) -> None:
    folder = tmp_path / "methods" / "ours"
    folder.mkdir(parents=True)
    (folder / "studies.yaml").write_text(yaml.safe_dump({"studies": [STUDY]}))
    page = build_report(measured, tmp_path / "out", replace(sources(), folders={"ours": folder})).read_text()
    assert 'id="study-made"' in page
    assert "A &lt;made&gt; study" in page
    assert "<made>" not in page
    assert "It gains +26.2" in page
    assert "2 of the findings written for this study are left out" in page
    assert "not run: gcl has not been measured" in page


def test_every_row_of_the_shipped_studies_is_an_entry_with_a_recipe() -> None:
    """A study of a variant that does not exist would be `not run` for ever."""
    for study in load_studies({name: plugin.folder for name, plugin in find_plugins().items()}):
        for contrast in study.contrasts:
            for row in (contrast.row, contrast.against):
                resolve(parse_entry(f"{row}@{study.track}"), parse_split_name(study.split).dataset)
        assert set(study.quantity_rows) == set() or study.quantity
