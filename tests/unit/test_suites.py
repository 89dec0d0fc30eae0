"""The suites of `harness/suites.yaml`."""

from __future__ import annotations

from harness.spec.registry import available_methods
from harness.spec.suites import Suite, entries_for, read_suites


def test_without_leaves_methods_out_of_the_star_alone() -> None:
    suite = Suite(["mnist5k-lt-if100"], ["*@common", "crt@common"], without=["crt", "gcl"])
    found = [entry.method for entry in entries_for(suite, "mnist5k")]
    assert sorted(found) == sorted(set(available_methods()) - {"gcl"})
    assert found[-1] == "crt"  # by its own name it is meant


def test_every_method_is_in_the_suite_of_all_and_what_is_left_out_exists() -> None:
    suites = read_suites()
    assert {entry.method for entry in entries_for(suites["mnist5k-all"], "mnist5k")} == set(available_methods())
    for suite in suites.values():
        assert set(suite.without) <= set(available_methods())
