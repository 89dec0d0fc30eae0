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


def check(folder: Path, name: str) -> tuple[int, str]:
    """`ltbench check-method` on a method in `folder`."""
    command = [sys.executable, "-m", "harness", "check-method", name]
    environment = {"PYTHONPATH": f"{folder}:{Path(__file__).parents[2]}", "PATH": "/usr/bin:/bin"}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    return result.returncode, result.stdout + result.stderr


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_method_fails_with_a_useful_message(name: str, tmp_path: Path) -> None:
    """It shows the test that failed, the value it saw, and what was asked."""
    body, expected = BROKEN[name]
    write_method(tmp_path, name, body)
    code, output = check(tmp_path, name)
    assert code == 1
    for part in expected:
        assert part in output
    assert f"method '{name}' does not conform" in output


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
