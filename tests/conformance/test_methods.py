"""The conformance suite over every registered method, and on methods that are broken on purpose."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from harness.base.errors import UserError
from harness.plugins.scaffold import scaffold
from tests.conformance.suite import *  # noqa: F403 - pytest collects the suite from here

BROKEN = {
    "nan_on_large_logits": (
        """
        def loss(self, logits, target, step):
            return -(logits.exp() / logits.exp().sum(1, keepdim=True)).log()[range(len(target)), target].mean()
        """,
        ["finite[nan_on_large_logits-train-1000]", "tensor(inf", "Large features, a batch that misses most classes"],
    ),
    "gradient_of_another_loss": (
        """
        def loss(self, logits, target, step):
            loss = super().loss(logits, target, step)
            return loss + (loss**2).detach()
        """,
        ["test_gradient_is_the_derivative", "Jacobian mismatch", "By finite differences in float64"],
    ),
    "forgets_its_state": (
        """
        def loss(self, logits, target, step):
            self.seen = getattr(self, "seen", 0) + 1
            return super().loss(logits * (1 + 0.1 * self.seen), target, step)
        """,
        ["same_bits_also_after_a_kill", "At index", "same seed same bits also after a kill in the middle of an epoch."],
    ),
    "wrong_number_of_logits": (
        """
        def inference(self, logits, stage):
            return logits[:, :-1]
        """,
        ["torch.Size([5, 2]) == (5, 3)", "inference logits have a column for each class."],
    ),
}


def write_method(folder: Path, name: str, body: str) -> None:
    plugin = folder / "methods" / name
    plugin.mkdir(parents=True)
    code = f"from harness.api import Method\n\n\nclass Broken(Method):\n    name = {name!r}\n"
    (plugin / "method.py").write_text(code + textwrap.indent(textwrap.dedent(body), "    "))
    (plugin / "recipes.yaml").write_text("title: Broken\ntracks: {common: {}}\n")


def check(folder: Path, *names: str) -> tuple[int, str]:
    """`ltbench check-method` on methods in `folder`."""
    command = [sys.executable, "-m", "harness", "check-method", *names]
    environment = {"PYTHONPATH": f"{folder}:{Path(__file__).parents[2]}", "PATH": "/usr/bin:/bin"}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    return result.returncode, result.stdout + result.stderr


def test_broken_methods_fail_with_useful_messages_and_take_no_sound_one_along(tmp_path: Path) -> None:
    """They show the tests that failed, the values they saw, and what was asked of each."""
    for name, (body, _) in BROKEN.items():
        write_method(tmp_path, name, body)
    code, output = check(tmp_path, *BROKEN, "ce")
    assert code == 1
    for name, (_, expected) in BROKEN.items():
        assert f"method '{name}' does not conform" in output
        for part in expected:
            assert part in output
    *_, last_asked = output.partition("method 'wrong_number_of_logits' does not conform")
    assert "have a column for each class" in last_asked
    assert "By finite differences" not in last_asked, "of another method"
    assert "method 'ce' conforms" in last_asked


def test_where_the_suite_cannot_be_collected_no_method_conforms(tmp_path: Path) -> None:
    write_method(tmp_path, "asks_for_a_value", "@dataclass(frozen=True)\nclass Params:\n    kappa: float\n")
    method = tmp_path / "methods/asks_for_a_value/method.py"
    method.write_text("from dataclasses import dataclass\n" + method.read_text())
    code, output = check(tmp_path, "asks_for_a_value", "ce")
    assert code == 1
    assert "missing 1 required positional argument: 'kappa'" in output
    for name in ("asks_for_a_value", "ce"):
        assert f"method '{name}' does not conform: see above\n" in output


def test_a_scaffolded_method_passes(tmp_path: Path) -> None:
    files = scaffold("fresh_idea", tmp_path / "methods")
    assert [file.name for file in files] == ["method.py", "recipes.yaml"]
    code, output = check(tmp_path, "fresh_idea")
    assert code == 0, output
    assert "method 'fresh_idea' conforms" in output


@pytest.mark.parametrize("name", ["ce", "Fresh", "a/b", "9lives"])
def test_a_taken_or_impossible_name_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        scaffold(name, tmp_path / "methods")
    assert not (tmp_path / "methods").exists()
