"""Code versions that measured the same are written down; what differs in one bit is not."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest

from harness.base.errors import UserError
from harness.base.files import PACKAGE
from harness.records.collect import collect
from harness.records.same_code import SAME_CODE, measured_the_same, read_same_code
from harness.records.schema import write_record
from harness.reporting.report import Sources, ranked_sections
from harness.running import same_bits
from harness.running.same_bits import ROOT, Compared, Measured, note
from harness.spec.entries import parse_entry
from harness.spec.recipes import resolve
from harness.spec.suites import Suite
from tests.factories import make_record

RUNS = ("digits-lt-if10 ce@common 0", "cifar-lt-if10 ce@paper 0", "digits-lt-if10 crt-gcl@common 0")


def outcomes(code: str, **facts: object) -> dict[str, Measured]:
    return {run: Measured(code, {"scores": 1, **facts}) for run in RUNS}


def test_only_methods_without_any_difference_are_written_down(tmp_path: Path) -> None:
    before, now = outcomes("old"), outcomes("new")
    now[RUNS[2]] = dataclasses.replace(now[RUNS[2]], facts={"scores": 1, "weights of train": "other"})
    found = note(before, now, tmp_path / "known.json")
    assert found == Compared(["ce"], {"crt": f"{RUNS[2]}: weights of train differs"})
    known = read_same_code(tmp_path / "known.json")
    assert known == {"old": {"method": "ce", "now": "new", "on": "cifar-lt-if10 (paper), digits-lt-if10 (common)"}}


def test_what_one_version_alone_ran_is_not_the_same(tmp_path: Path) -> None:
    before, now = outcomes("old"), outcomes("new")
    del before[RUNS[0]], now[RUNS[2]]
    found = note(before, now, tmp_path / "known.json")
    assert found.same == []
    assert "only the newer code ran it" in found.other["ce"]
    assert "only the older code ran it" in found.other["crt"]


def test_what_failed_or_left_no_weights_proves_nothing(tmp_path: Path) -> None:
    several: list[dict[str, Any]] = [{"status": ("failed", "out of memory")}, {"weights of train": {}}]
    run = RUNS[0]
    for facts in several:
        found = note({run: Measured("old", facts)}, {run: Measured("new", facts)}, tmp_path / "known.json")
        assert "nothing to compare" in found.other["ce"]


def test_a_difference_takes_back_what_fewer_parts_had_shown(tmp_path: Path) -> None:
    path, run = tmp_path / "known.json", RUNS[0]
    note({run: Measured("old", {"scores": 1})}, {run: Measured("new", {"scores": 1})}, path)
    assert read_same_code(path)
    note({run: Measured("old", {"scores": 1})}, {run: Measured("new", {"scores": 2})}, path)
    assert not read_same_code(path)


def test_what_is_short_still_reaches_what_comes_late() -> None:
    """Warm-up, both milestones' first factor, the last fifth of LDAM-DRW; post-hoc rules stay without epochs."""
    for part in same_bits.PARTS:
        for name, suite in same_bits._suites(part, ROOT).items():
            for text in suite["entries"]:
                second = () if name.endswith(same_bits.POST_HOC) else same_bits.SECOND
                dataset = suite["splits"][0].partition("-lt-if")[0]
                recipe = resolve(parse_entry(text), dataset, [*part.overrides, *second]).recipe
                assert recipe.train.epochs >= 5
                assert 0 < recipe.train.warmup_epochs < 4
                assert recipe.finetune is None or recipe.finetune.epochs == (2 if second else 0)


def test_weights_that_are_not_here_leave_their_runs_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LTBENCH_DATA", str(tmp_path))
    monkeypatch.delenv("LTBENCH_MIRROR", raising=False)
    part = next(part for part in same_bits.PARTS if part.suite == "tuned-cifar100")
    assert same_bits._suites(part, ROOT) == {}
    assert "left out: pretrained: akamaster_resnet20-12fca82f.th: missing" in capsys.readouterr().err


def test_a_version_is_not_written_down_as_the_same_as_itself(tmp_path: Path) -> None:
    assert note(outcomes("one"), outcomes("one"), tmp_path / "known.json").same == ["ce", "crt"]
    assert not read_same_code(tmp_path / "known.json")


def copy_of_the_code(tree: Path) -> Path:
    """A version of its own, to be edited."""
    for part in (PACKAGE.name, "methods"):
        shutil.copytree(ROOT / part, tree / part, ignore=shutil.ignore_patterns("__pycache__"))
    return tree


@pytest.mark.pipeline
def test_a_run_over_two_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LTBENCH_DATA", str(tmp_path / "data"))
    tree = copy_of_the_code(tmp_path / "a")
    common = tree / "harness/recipes.yaml"
    assert "epochs: 15\n" in common.read_text()
    common.write_text(common.read_text().replace("epochs: 15\n", "epochs: 2\n"))
    same_bits._ltbench(tree, "fetch", "mnist5k")
    ((run, measured),) = same_bits._in_two(tree, "mnist5k-lt-if100", "ce@common").items()
    assert run == "mnist5k-lt-if100 ce@common 0 in-two"
    assert len(measured.facts["weights of train"]) > 10
    assert measured.facts["status"] == ("ok", None)


def test_a_commit_that_is_none() -> None:
    for nowhere in ("nowhere", "--output=stray"):
        with pytest.raises(UserError, match="git rev-parse"):
            same_bits.compare_with(nowhere)
    with pytest.raises(UserError, match="no part of the comparison is named 'nothing'"):
        same_bits.compare_with("HEAD", "nothing")


@pytest.mark.pipeline
def test_two_versions_are_run_and_one_changed_constant_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three copies of the code: as it is, with a constant that nothing uses, and with a schedule a thousandth lower.

    The second one is stopped once, which changes nothing either.
    """
    monkeypatch.setattr(same_bits, "IN_TWO", ())
    suite = Suite(["mnist5k-lt-if100"], ["ce@common", ["crt@common"]])
    monkeypatch.setattr(same_bits, "get_suite", lambda _name: suite)
    monkeypatch.setenv("LTBENCH_DATA", str(tmp_path / "data"))
    found = []
    for name, old, new, stop in (
        ("a", "", "", 0.0),
        ("b", "import math\n", "import math\n\nUNUSED = 1\n", 8.0),
        ("c", "0.5 *", "0.4995 *", 0.0),
    ):
        tree = copy_of_the_code(tmp_path / name)
        file = tree / "harness/toolbox/schedules.py"
        file.write_text(file.read_text().replace(old, new) if old else file.read_text())
        trial = same_bits.Trial("default", (*same_bits.SHORT, "image_size=8"), stopped_after=stop)
        found.append(same_bits._measure(tree, (trial,)))
    first, unused, constant = found
    assert set(first) == {"mnist5k-lt-if100 ce@common 0", "mnist5k-lt-if100 crt@common 0"}
    facts = first["mnist5k-lt-if100 crt@common 0"].facts
    assert {"scores", "predictions", "loss", "weights of train", "weights of finetune"} <= set(facts)
    assert all(len(facts[f"weights of {stage}"]) > 10 for stage in ("train", "finetune"))
    path = tmp_path / "known.json"
    assert note(first, unused, path) == Compared(["ce", "crt"])
    assert len(read_same_code(path)) == 2
    other = note(first, constant, path)
    assert (other.same, list(other.other)) == ([], ["ce", "crt"])


def test_steps_are_followed_and_never_in_a_circle() -> None:
    known = {
        "a": {"method": "ce", "now": "b", "on": "digits"},
        "b": {"method": "ce", "now": "c", "on": "digits"},
        "x": {"method": "ce", "now": "y", "on": "digits"},
        "y": {"method": "ce", "now": "x", "on": "digits"},
    }
    assert measured_the_same("a", "c", known)
    assert not measured_the_same("c", "a", known)
    assert not measured_the_same("x", "c", known)


def test_the_report_says_which_older_code_is_known_to_give_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = "mnist5k-lt-if100 ce@paper 0"
    note({run: Measured("old-ce", {})}, {run: Measured("new-ce", {})}, SAME_CODE)
    for method in ("ce", "crt"):
        record = make_record(method, code_version=f"old-{method}")
        write_record(Path(f"results/records/{method}/seed0.json"), record)
    current = {method: f"new-{method}" for method in ("ce", "crt")}
    (section,) = ranked_sections(collect(Path("results/records")), Sources(current=current)).sections
    marks = {row.first.method: row.marks for row in section.rows}
    (mark,) = marks["ce"]
    lacking = "not fully checked: its evidence is missing, so no score could be computed anew"
    assert mark == f"{lacking}; earlier code, same bits on a small suite"
    assert "measured with code old-crt, which is now new-crt" in marks["crt"][0]
    SAME_CODE.write_text('{"old-ce": {"now": 1}}')
    with pytest.raises(UserError, match="damaged"):
        ranked_sections(collect(Path("results/records")), Sources(current=current))
