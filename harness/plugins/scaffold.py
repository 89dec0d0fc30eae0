"""For those who write methods: a folder to start from, and the conformance suite on their methods."""

from __future__ import annotations

import ast
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from harness.base.errors import UserError
from harness.base.files import read_json, write_text
from harness.spec.registry import NAME, available_methods, get_method

SUITE = Path(__file__).parents[2] / "tests" / "conformance" / "suite.py"  # of a clone

TEMPLATE = Path(__file__).with_name("template")  # <file>.txt each, with CLASS, NAME and TITLE in it


def scaffold(name: str, root: Path = Path("methods")) -> list[Path]:
    """Writes `methods/<name>/` and returns its files.

    Raises:
        UserError: a name that is taken or is no module name.
    """
    if not NAME.fullmatch(name):
        raise UserError(f"'{name}' is not a method name; use lower-case letters, digits and _, a letter first")
    if name in available_methods() or (root / name).exists():
        raise UserError(f"a method named '{name}' exists already")
    title = name.replace("_", " ").capitalize()
    words = {"CLASS": title.title().replace(" ", ""), "NAME": name, "TITLE": title}
    paths = []
    for template in sorted(TEMPLATE.iterdir()):
        text = template.read_text(encoding="utf-8")
        for word, value in words.items():
            text = text.replace(word, value)
        paths.append(root / name / template.stem)
        write_text(paths[-1], text)
    return paths


def check(names: Sequence[str]) -> int:
    """Runs the conformance suite on these methods; returns the exit code.

    Raises:
        UserError: no such method, one does not import, or pytest or the suite is not here.
    """
    for name in names:
        get_method(name)
    if not SUITE.is_file():
        raise UserError(f"{SUITE}: no conformance suite here; run check-method in a clone of the repository")
    if not importlib.util.find_spec("pytest"):
        raise UserError("check-method needs pytest; install the extra 'dev'")
    with tempfile.TemporaryDirectory() as folder:
        options = ["-q", "--no-header", "--tb=short", "--show-capture=no", "-o", f"cache_dir={folder}", str(SUITE)]
        environment = os.environ | {"LTBENCH_CHECK_METHOD": ",".join(names)}
        code = subprocess.run([sys.executable, "-m", "pytest", *options], env=environment, check=False).returncode  # noqa: S603
        failures = Path(folder) / "v/cache/lastfailed"
        failed = read_json(failures, "list of failed tests") if failures.is_file() else []
    for name in names:
        its_own = [test for test in failed if "[" not in test or name in test.partition("[")[2].rstrip("]").split("-")]
        conforms = code == 0 or (code == 1 and failed and not its_own)  # 1: the suite went through, some tests failed
        lines = asked(its_own)
        fault = "does not conform: see above" + ("; what is asked:" if lines else "")
        print(f"method '{name}' {'conforms' if conforms else fault}")
        for line in lines:
            print(f"  {line}")
    return 0 if code == 0 else 1


def asked(failed: Iterable[str]) -> list[str]:
    """What the conformance suite asks, a line for each failed test: its name in words, and its docstring.

    Args:
        failed: pytest's ids, `<file>::<test>[<parameters>]`.
    """
    names = {test.rpartition("::")[2].partition("[")[0] for test in failed}
    tests = [node for node in ast.parse(SUITE.read_text(encoding="utf-8")).body if isinstance(node, ast.FunctionDef)]
    found = {test.name: " ".join((ast.get_docstring(test) or "").split()) for test in tests if test.name in names}
    return [f"{name.removeprefix('test_').replace('_', ' ')}. {text}".rstrip() for name, text in found.items()]
