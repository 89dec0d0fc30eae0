"""The suites of `harness/suites.yaml`."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.base.errors import UserError
from harness.spec import suites
from harness.spec.recipe_layers import read_method_file
from harness.spec.registry import available_methods, get_plugin
from harness.spec.suites import Suite, entries_for, read_suites
from harness.splits.split_names import parse_split_name


def test_without_leaves_methods_out_of_the_star_alone() -> None:
    suite = Suite(["mnist5k-lt-if100"], ["*@common", "crt@common"], without=["crt", "gcl"])
    found = [entry.method for entry in entries_for(suite, "mnist5k")]
    assert {"ce", "crt", "balms"} < set(found)
    assert "gcl" not in found
    assert found[-1] == "crt"  # by its own name it is meant


def test_every_method_with_a_common_recipe_is_in_the_suite_of_all_and_what_is_left_out_exists() -> None:
    suites = read_suites()
    there = {name for name in available_methods() if not read_method_file(get_plugin(name)).listed_only}
    assert {entry.method for entry in entries_for(suites["mnist5k-all"], "mnist5k")} == there
    assert set(available_methods()) - there == {"lift"}
    for suite in suites.values():
        assert set(suite.without) <= set(available_methods())


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ("seeds: [0, 0]", r"seeds: expected different whole numbers of at least 0, found \[0, 0\]"),
        ("seeds: [-1]", "seeds: expected different whole numbers"),
        ("seeds: []", "seeds: expected different whole numbers"),
        ("splits: [a-lt-if10, b-lt-if10, a-lt-if10]", "splits: 'a-lt-if10' stands twice"),
    ],
)
def test_what_would_be_run_twice_or_not_at_all_is_refused_with_its_file_and_key(
    change: str, match: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = "" if change.startswith("splits") else "splits: [a-lt-if10], "
    (tmp_path / "suites.yaml").write_text(f"one: {{{splits}entries: [ce@common], {change}}}")
    monkeypatch.setattr(suites, "SUITES_FILE", tmp_path / "suites.yaml")
    with pytest.raises(UserError, match=rf"suites\.yaml: one: {match}"):
        suites.get_suite("one")


def test_what_needs_weights_of_others_is_in_no_suite_but_by_its_own_name() -> None:
    for name, suite in read_suites().items():
        named = {text.partition("@")[0].partition("-")[0] for group in suite.groups for text in group}
        for split in suite.splits:
            found = {entry.method for entry in entries_for(suite, parse_split_name(split).dataset)}
            assert "lift" not in found - named, name
