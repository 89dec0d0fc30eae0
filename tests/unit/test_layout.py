"""The house: which folder may import which. Imports go down only, so a reader can stop at any floor."""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
HARNESS = ROOT / "harness"

# Each floor imports floors above it in this list, never below. Folders on one floor do not know each other.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("base",),  # errors, files, typed configuration, progress, processes
    ("metrics", "reading", "toolbox"),  # scores; images from bytes; what methods share
    ("api", "datasets"),  # the plugin contract; one module a data set
    ("splits",),  # which images
    ("spec",),  # what is run: entries, recipes, suites, plugins found, code versions
    ("feed", "records"),  # batches; what runs leave
    ("engine",),  # the loop
    ("bench", "weights"),
    ("reporting",),
    ("plugins", "running"),  # for authors of methods; stages, cells, campaigns, sweeps
    ("cli",),
)
LOOSE = {"__init__.py", "__main__.py", "api.py"}  # besides the YAML that users edit


def floor_of() -> dict[str, int]:
    return {name: number for number, names in enumerate(FLOORS) for name in names}


def place(parts: tuple[str, ...]) -> str:
    """The folder of a module, or the module itself where it stands in `harness/`."""
    return "cli" if parts[0] == "__main__" else parts[0]


def imported(file: Path) -> Iterator[str]:
    """Folders of `harness` that a file imports from, also within functions and for types only."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative imports hide where things come from"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "harness" and len(parts) > 1 and parts[1] != "__version__":
                yield place(tuple(parts[1:]))


def test_imports_go_down_only() -> None:
    floors, upward = floor_of(), []
    for file in HARNESS.rglob("*.py"):
        parts = file.relative_to(HARNESS).with_suffix("").parts
        here = place(parts)
        if here == "__init__":
            continue
        assert here in floors, f"harness/{here}: which floor is it on? Say so in {Path(__file__).name}"
        upward += [
            f"{file.relative_to(ROOT)} imports harness.{there}"
            for there in imported(file)
            if there != here and floors[there] >= floors[here]
        ]
    assert not upward, "arrows upwards, or between folders of one floor:\n" + "\n".join(upward)


def test_there_are_at_most_eleven_floors_and_each_folder_is_there() -> None:
    assert len(FLOORS) <= 11
    for name in floor_of():
        assert (HARNESS / name).is_dir() or (HARNESS / f"{name}.py").is_file(), name


def test_nothing_stands_loose_in_the_hall() -> None:
    found = {path.name for path in HARNESS.iterdir() if path.is_file() and path.suffix != ".yaml"}
    assert found == LOOSE


def code_lines(file: Path) -> set[int]:
    """Lines that hold code: no blank ones, comments or docstrings."""
    text = file.read_text(encoding="utf-8")
    skipped = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines = {
        line
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type not in skipped
        for line in range(token.start[0], token.end[0] + 1)
    }
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return lines


def test_no_function_is_longer_than_a_screen() -> None:
    long = []
    for file in [*HARNESS.rglob("*.py"), *(ROOT / "methods").rglob("*.py")]:
        lines = code_lines(file)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = sum(node.lineno <= line <= (node.end_lineno or 0) for line in lines)
                long += [f"{file.relative_to(ROOT)}: {node.name} has {length} lines"] if length > 40 else []
    assert not long, "\n".join(long)


def test_methods_know_the_contract_and_the_toolbox_only() -> None:
    wrong = [
        f"{file.relative_to(ROOT)} imports harness.{there}"
        for file in (ROOT / "methods").rglob("*.py")
        for there in imported(file)
        if there not in ("api", "toolbox")
    ]
    assert not wrong, "\n".join(wrong)


def test_the_harness_names_no_method() -> None:
    """It finds them: `from methods...` stands nowhere in it."""
    for file in HARNESS.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            module = node.module if isinstance(node, ast.ImportFrom) else ""
            assert not (module or "").startswith("methods"), file
