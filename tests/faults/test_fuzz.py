"""A few inputs for every reader (`make fuzz` feeds a hundred thousand), and those that once did harm."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness.base.errors import UserError
from harness.base.files import parse_yaml, read_json
from harness.reading.lists import read_list
from tests.data.pictures import KINDS
from tests.faults import fuzz, fuzz_images


@pytest.mark.parametrize("name", fuzz.TARGETS)
def test_every_input_is_read_or_refused(name: str, plugins: Path) -> None:
    fuzz.prepare(plugins)
    assert fuzz.fuzz(name, 15 if name == "recipe" else 60, 0, plugins).total() > 10


@pytest.mark.filterwarnings("ignore")  # Pillow's, of damage
def test_every_image_is_read_as_it_is_or_refused(tmp_path: Path) -> None:
    outcomes, kinds, failures = fuzz_images.fuzz(150, 0, tmp_path, print)
    assert not failures
    assert kinds.keys() == KINDS.keys()
    assert {"whole, read", "whole, refused", "cut off, refused"} <= outcomes.keys()


BOMBS = {
    "aliases": "\n".join(["a0: &a0 [x, x]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9))]),
    "merges": "\n".join(
        ["a0: &a0 {x: 1}", *(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}" for i in range(1, 9))]
    ),
    "itself": "a: &a [*a]",
    "itself, merged": "a: &a {<<: *a}",
    "deep lists": "[" * 100_000 + "]" * 100_000,
    "deep maps": "{a: " * 50_000 + "1" + "}" * 50_000,
    "deep blocks": "- " * 5_000 + "x",
}
CODE = """
import resource, sys
from harness.base.errors import UserError
from harness.base.files import parse_yaml
resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
try:
    parse_yaml(sys.stdin.read(), "bomb.yaml")
except UserError as error:
    print(error, end="")
"""


@pytest.mark.parametrize("name", BOMBS)
def test_yaml_bombs_are_refused(name: str) -> None:
    """In a process of its own: before they were refused, they ended it with a segmentation fault, or never."""
    done = subprocess.run(
        [sys.executable, "-c", CODE], input=BOMBS[name], capture_output=True, text=True, timeout=20, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("bomb.yaml: not valid YAML: ")


def test_aliases_of_a_person_are_read() -> None:
    text = "base: &base {lr: 0.1, steps: &steps [1, 2]}\none: {<<: *base, lr: 0.2}\ntwo: [*steps, *steps]\n"
    expected = {"base": {"lr": 0.1, "steps": [1, 2]}, "one": {"lr": 0.2, "steps": [1, 2]}, "two": [[1, 2], [1, 2]]}
    assert parse_yaml(text, "w") == expected


@pytest.mark.parametrize("text", ["[" * 65 + "]" * 65, '{"a":' * 65 + "1" + "}" * 65, "[1e999]", "[-1e400]"])
def test_json_that_could_not_be_written_again_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(UserError, match="not a readable thing"):
        read_json(tmp_path / "x.json", "thing")


def test_what_a_message_quotes_is_not_obeyed() -> None:
    assert str(UserError("--seeds 1\n2\x1b[2J\ud800")) == r"--seeds 1\n2\x1b[2J\ud800"


@pytest.mark.parametrize("line", ["a.jpg " + "1" * 5000, "a\0.jpg 0"])
def test_a_list_with_a_label_or_a_name_that_python_refuses(line: str, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(line)
    with pytest.raises(UserError, match="line 1"):
        read_list(tmp_path / "list.txt", 10)
