"""For those who write methods: a folder to start from, and the conformance suite on one method."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from harness.base.errors import UserError
from harness.base.files import read_json, write_text
from harness.spec.registry import NAME, available_methods, get_method

SUITE = Path(__file__).with_name("conformance.py")

FILES = {
    "method.py": '''"""TITLE: Authors, Paper, Venue Year."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from harness.api import Method, StepContext


class CLASS(Method):
    """One sentence: what it changes, with the paper's equation."""

    name = "NAME"

    # Hyper-parameters: recipes.yaml is checked against these fields. Delete the class when there are none.
    @dataclass(frozen=True)
    class Params:
        """margin: lowers the target's logit in training, at least 0."""

        margin: float = 0.0

        def __post_init__(self) -> None:
            if self.margin < 0:
                raise ValueError(f"margin must be at least 0, found {self.margin}")

    # Other hooks: head, sampler, param_groups, step_loss, after_step, inference, ... (see harness/api.py).
    # self.task has num_classes, feature_dim and class_counts; step has epoch, generator, features.
    def loss(self, logits: Tensor, target: Tensor, step: StepContext) -> Tensor:
        """Mean loss of a batch; logits (B, C), target (B,)."""
        at_target = F.one_hot(target, logits.shape[1]).to(logits)
        return F.cross_entropy(logits - self.params.margin * at_target, target)
''',
    "recipes.yaml": """title: TITLE
summary: One sentence for the report.
params:
  margin: 0.0 # each number with its source
variants: {} # e.g. wide: {params: {margin: 1.0}}
tracks:
  common: {} # the common recipe as it is: what makes the comparison fair
  # paper: {cifar10: {backbone: resnet32_cifar, epochs: 200, ...}}
""",
}


def scaffold(name: str, root: Path = Path("methods")) -> list[Path]:
    """Writes `methods/<name>/` and returns its files.

    Raises:
        UserError: a name that is taken or is no module name.
    """
    if not NAME.fullmatch(name):
        raise UserError(f"'{name}' is no method name; use lower-case letters, digits and _, a letter first")
    if name in available_methods() or (root / name).exists():
        raise UserError(f"a method named '{name}' is there already")
    title = name.replace("_", " ").capitalize()
    words = {"CLASS": title.title().replace(" ", ""), "NAME": name, "TITLE": title}
    paths = []
    for file, text in FILES.items():
        for word, value in words.items():
            text = text.replace(word, value)
        write_text(root / name / file, text)
        paths.append(root / name / file)
    return paths


def check(name: str) -> int:
    """Runs the conformance suite on one method; returns the exit code.

    Raises:
        UserError: no such method, it does not import, or pytest is not installed.
    """
    get_method(name)
    try:
        import pytest  # noqa: F401
    except ImportError:
        raise UserError("check-method needs pytest; install the extra 'dev'") from None
    with tempfile.TemporaryDirectory() as folder:
        options = ["-q", "--no-header", "--tb=short", "--show-capture=no", "-o", f"cache_dir={folder}", str(SUITE)]
        environment = os.environ | {"LTBENCH_CHECK_METHOD": name}
        ok = subprocess.run([sys.executable, "-m", "pytest", *options], env=environment, check=False).returncode == 0  # noqa: S603
        failures = Path(folder) / "v/cache/lastfailed"
        failed = read_json(failures, "list of failed tests") if failures.is_file() else []
    print(f"method '{name}' {'conforms' if ok else 'does not conform: see above; what is asked:'}")
    for line in asked(failed):
        print(f"  {line}")
    return 0 if ok else 1


def asked(failed: Iterable[str]) -> list[str]:
    """What the conformance suite asks, a line for each failed test: its name in words, and its docstring.

    Args:
        failed: pytest's ids, `<file>::<test>[<parameters>]`.
    """
    names = {test.rpartition("::")[2].partition("[")[0] for test in failed}
    tests = [node for node in ast.parse(SUITE.read_text(encoding="utf-8")).body if isinstance(node, ast.FunctionDef)]
    found = {test.name: " ".join((ast.get_docstring(test) or "").split()) for test in tests if test.name in names}
    return [f"{name.removeprefix('test_').replace('_', ' ')}. {text}".rstrip() for name, text in found.items()]
