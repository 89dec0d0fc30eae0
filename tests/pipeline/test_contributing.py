"""CONTRIBUTING.md's walk-through as files and commands. `test_pipeline` makes the method of them, to the letter."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[2]
HEADING = "## Add a method in one folder"


def walk_through() -> list[str]:
    """The numbered items under the heading, without their numbers."""
    text = (ROOT / "CONTRIBUTING.md").read_text().partition(HEADING)[2].partition("\n## ")[0]
    return re.split(r"^\d+\. ", text, flags=re.MULTILINE)[1:]


def files() -> dict[str, str]:
    """File name -> content: of each item that starts with a file, its first code block, else its first inline code."""
    found = {}
    for item in walk_through():
        named = re.match(r"\*\*`(methods/[\w./]+)`\*\*", item)
        if not named:
            continue
        block = re.search(r"^ *```\w+\n(.*?)^ *```$", item, flags=re.MULTILINE | re.DOTALL)
        inline = re.search(r"`([^`]+)`", item[named.end() :])
        code = block or inline
        assert code, f"{named[1]}: the walk-through does not say what it holds"
        found[named[1]] = textwrap.dedent(code[1]).rstrip() + "\n"
    return found


def commands() -> list[str]:
    """What the last item says to run, in its order."""
    inline = re.findall(r"`([^`]+)`", walk_through()[-1])
    return [" ".join(code.split()) for code in inline if code.startswith("ltbench ")]


def test_the_walk_through_names_what_it_needs() -> None:
    assert [Path(name).name for name in files()] == ["method.py", "recipes.yaml"]
    starts = [command.split()[1] for command in commands()]
    assert starts == ["run", "grid", "check-method"]
