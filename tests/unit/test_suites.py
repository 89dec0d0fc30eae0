"""The suites of `harness/suites.yaml`."""

from __future__ import annotations

from harness.spec.recipe_layers import read_method_file
from harness.spec.registry import available_methods, get_plugin
from harness.spec.suites import Suite, entries_for, read_suites


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
