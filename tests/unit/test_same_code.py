"""Code versions that measured the same are written down; what differs in one number is not."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.files import write_json
from harness.records import same_code
from harness.records.collect import collect
from harness.records.same_code import SAME_CODE, Compared, measured_the_same, note_same_code, read_same_code
from harness.records.schema import Record, costs_path, write_record
from harness.reporting.report import ranked_sections
from tests.factories import make_record

METHODS = ("ce", "crt", "gcl", "lws")


def git(*arguments: str) -> None:
    subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments], check=True, capture_output=True)


def write(*records: Record) -> None:
    for record in records:
        path = Path(f"results/records/{record.method}/seed{record.seed}.json")
        write_record(path, record)
        write_json(costs_path(path), {"processor": "one, AVX2"})


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Record]:
    """A commit with records of four methods; then all but parts of two were measured again with other code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(same_code, "current_versions", lambda: {method: "new-" + method for method in METHODS})
    then = [make_record(method, seed, code_version="old-" + method) for method in METHODS for seed in (0, 1)]
    write(*then)
    git("init", "-q")
    git("add", "-A")
    git("commit", "-qm", "then")
    now = [replace(record, code_version="new-" + record.method, run_key="f" * 16) for record in then]
    scores = now[3].results["last"]
    assert scores is not None
    now[3] = replace(now[3], results=now[3].results | {"last": replace(scores, ece=scores.ece + 1e-6)})
    write(*now[:5], now[6])
    write(replace(now[7], code_version="old-lws"))
    Path("results/records/gcl/seed1.json").unlink()
    return then


def test_only_equal_numbers_of_every_record_count(repository: list[Record]) -> None:
    found = note_same_code("HEAD")
    assert found == Compared(["ce"], ["crt"], [], ["gcl", "lws"])
    known = read_same_code()
    assert known == {"old-ce": {"method": "ce", "now": "new-ce", "on": "mnist5k-lt-if100 (paper)"}}
    assert note_same_code("HEAD") == found
    for nowhere in ("nowhere", "--output=stray"):
        with pytest.raises(UserError, match="git rev-parse"):
            note_same_code(nowhere)
    assert not Path("stray").exists()


@pytest.mark.parametrize("costs", [{"processor": "one, AVX512"}, {}])
def test_other_numbers_of_another_processor_say_nothing(repository: list[Record], costs: dict[str, str]) -> None:
    write_json(costs_path(Path("results/records/crt/seed1.json")), costs)
    assert note_same_code("HEAD") == Compared(["ce"], [], ["crt"], ["gcl", "lws"])


def test_records_that_nobody_measured_again_are_not_called_the_same(
    repository: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They lie there as they did at the commit, so their numbers are equal, and that means nothing."""
    write(*repository)
    assert note_same_code("HEAD") == Compared(not_measured_again=list(METHODS))
    monkeypatch.setattr(same_code, "current_versions", lambda: {method: "old-" + method for method in METHODS})
    assert note_same_code("HEAD").same == list(METHODS)
    assert not read_same_code(), "a version is not written down as the same as itself"


def test_steps_are_followed_and_never_in_a_circle() -> None:
    known = {
        "a": {"method": "ce", "now": "b", "on": "digits"},
        "b": {"method": "ce", "now": "c", "on": "digits"},
        "x": {"method": "ce", "now": "y", "on": "digits"},
        "y": {"method": "ce", "now": "x", "on": "digits"},
    }
    assert measured_the_same("a", "c", known) == "digits"
    assert measured_the_same("c", "a", known) is None
    assert measured_the_same("x", "c", known) is None


def test_the_report_says_which_older_code_is_known_to_give_the_same(repository: list[Record]) -> None:
    note_same_code("HEAD")
    write(*repository)
    current = {method: f"new-{method}" for method in ("ce", "crt", "gcl")}
    (section,) = ranked_sections(collect(Path("results/records")), current).sections
    marks = {row.first.method: row.marks for row in section.rows}
    assert marks["ce"] == ("earlier code, same on the default suite",)
    assert marks["crt"] == ("measured with code old-crt, which is now new-crt",)
    SAME_CODE.write_text('{"old-ce": {"now": 1}}')
    with pytest.raises(UserError, match="damaged"):
        ranked_sections(collect(Path("results/records")), current)
