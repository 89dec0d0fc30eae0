"""Finding methods: whatever is wrong with one plugin is said of that plugin and hurts no other."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest

from harness.base.errors import UserError
from harness.spec import registry
from harness.spec.registry import available_methods, find_plugins, get_method
from tests.unit import toys

OWN = {"balanced_softmax", "ce", "tvmf"}


def test_own_methods_are_found_and_work() -> None:
    assert set(available_methods()) >= OWN
    assert available_methods() == sorted(available_methods())
    assert [get_method(name).name for name in available_methods()] == available_methods()


@pytest.mark.parametrize(("name", "near"), [("cee", "ce"), ("tvfm", "tvmf"), ("balanced", "balanced_softmax")])
def test_near_misses(name: str, near: str) -> None:
    with pytest.raises(UserError, match=f"no method is named '{name}' \\(closest: {near}"):
        get_method(name)


def test_a_folder_on_any_methods_path_is_a_plugin(plugins: Path) -> None:
    folder = toys.write_plugin(plugins, "mine")
    assert find_plugins()["mine"].folder == folder
    assert get_method("mine").name == "mine"
    assert set(available_methods()) >= OWN


@pytest.mark.parametrize("name", ["_hidden", "Upper", "with-dash", "__pycache__", "1st"])
def test_folders_with_other_names_are_no_plugins(plugins: Path, name: str) -> None:
    toys.write_plugin(plugins, name)
    assert name not in available_methods()


BROKEN = {
    "syntax": ("x = 1\ndef f(:\n    pass\n", ["method.py line 2", "SyntaxError"]),
    "missing": (
        "import no_such_module_at_all\n",
        ["method.py line 1", "'no_such_module_at_all', which is not installed"],
    ),
    "raising": ("\n\nraise RuntimeError('two\\nlines')\n", ["method.py line 3", "RuntimeError: two lines"]),
    "noclass": ("x = 1\n", ["method.py", "holds no subclass"]),
    "misnamed": (toys.plugin_code("other_name"), ["method.py", "name = 'misnamed'"]),
    "nobase": ("class M:\n    name = 'nobase'\n", ["method.py", "holds no subclass"]),
    "leaving": ("import sys\nsys.exit(0)\n", ["method.py"]),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_plugin_is_reported_with_its_place(plugins: Path, name: str) -> None:
    code, parts = BROKEN[name]
    toys.write_plugin(plugins, name, code)
    toys.write_plugin(plugins, "sound")
    with pytest.raises(UserError) as caught:
        get_method(name)
    message = str(caught.value)
    assert "\n" not in message
    assert all(part in message for part in [*parts, name])
    for other in set(available_methods()) - {name}:
        assert get_method(other).name == other


def test_an_error_deeper_in_the_plugin_names_the_plugins_line(plugins: Path) -> None:
    folder = toys.write_plugin(plugins, "deep", "from methods.deep import helper\n")
    (folder / "helper.py").write_text("import json\n\njson.loads('{')\n")
    with pytest.raises(UserError, match=r"helper\.py line 3.*JSONDecodeError"):
        get_method("deep")


def test_a_plugin_may_be_mended_while_running(plugins: Path) -> None:
    toys.write_plugin(plugins, "mended", "raise RuntimeError\n")
    with pytest.raises(UserError):
        get_method("mended")
    toys.write_plugin(plugins, "mended")
    importlib.invalidate_caches()
    assert get_method("mended").name == "mended"


def test_the_base_class_that_a_plugin_imports_is_not_taken_for_it(plugins: Path) -> None:
    code = "from methods.ce.method import CrossEntropy\n\nclass Own(CrossEntropy):\n    name = 'derived'\n"
    toys.write_plugin(plugins, "derived", code)
    assert get_method("derived").__name__ == "Own"


def test_two_plugins_of_one_name_are_both_named(plugins: Path) -> None:
    folder = toys.write_plugin(plugins, "ce")
    with pytest.raises(UserError) as caught:
        find_plugins()
    assert str(folder) in str(caught.value)
    assert "methods/ce" in str(caught.value).replace(str(folder), "")


# ---- installed packages --------------------------------------------------------------------------------------------


def install(root: Path, name: str, value: str) -> None:
    """A made distribution with one entry point."""
    info = root / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{registry.ENTRY_POINTS}]\n{name} = {value}\n")


def package(root: Path, name: str, code: str, init: str = "") -> Path:
    folder = root / f"{name}_package"
    folder.mkdir()
    (folder / "__init__.py").write_text(init)
    (folder / "method.py").write_text(code)
    (folder / "recipes.yaml").write_text(f"title: {name}\ntracks: {{common: {{}}}}\n")
    return folder


def test_what_is_installed_is_looked_for_once_and_folders_always(
    plugins: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package(plugins, "outside", toys.plugin_code("outside"))
    install(plugins, "outside", "outside_package.method")
    assert "outside" in find_plugins()
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: pytest.fail("looked for again"))
    toys.write_plugin(plugins, "later")
    assert {"outside", "later"} <= set(find_plugins())


def test_an_installed_plugin_is_found_and_works(plugins: Path) -> None:
    folder = package(plugins, "outside", toys.plugin_code("outside"))
    install(plugins, "outside", "outside_package.method")
    assert find_plugins()["outside"].folder == folder
    method = get_method("outside")
    assert method.name == "outside"
    assert method.__module__ == "outside_package.method"

    from harness.spec.entries import parse_entry
    from harness.spec.recipes import resolve

    assert resolve(parse_entry("outside@common"), "mnist5k").method is method


@pytest.mark.parametrize(
    "value", ["no_such_package.method", "outside_package.no_such_module", "outside_package.method.deeper", "not valid!"]
)
def test_an_entry_point_that_leads_nowhere_is_left_out(
    plugins: Path, capsys: pytest.CaptureFixture[str], value: str
) -> None:
    package(plugins, "outside", toys.plugin_code("outside"))
    install(plugins, "outside", value)
    assert set(available_methods()) >= OWN
    assert "outside" not in available_methods()
    assert "outside" in capsys.readouterr().err


@pytest.mark.parametrize("init", ["raise RuntimeError('broken package')", "def f(:", "import no_such_module_at_all"])
def test_an_installed_package_that_does_not_import_takes_nobody_down(
    plugins: Path, capsys: pytest.CaptureFixture[str], init: str
) -> None:
    package(plugins, "outside", toys.plugin_code("outside"), init)
    install(plugins, "outside", "outside_package.method")
    assert set(available_methods()) >= OWN
    assert get_method("ce").name == "ce"
    assert "outside" in capsys.readouterr().err


def test_an_installed_plugin_with_a_taken_name(plugins: Path) -> None:
    package(plugins, "ce", toys.plugin_code("ce"))
    install(plugins, "ce", "ce_package.method")
    with pytest.raises(UserError, match="two methods are named 'ce'"):
        find_plugins()
