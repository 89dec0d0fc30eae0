"""Finds methods: folders `methods/<name>/` and entry points of installed packages. There is no list to edit."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.metadata
import importlib.util
import re
import sys
import traceback
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.base.errors import UserError, lookup
from harness.base.files import PACKAGE, shown

if TYPE_CHECKING:
    from harness.api import Method

ENTRY_POINTS = "ltbench.methods"
NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class Plugin:
    """Where a method lives; finding one does not import it."""

    name: str
    module: str  # holds the Method subclass
    folder: Path  # holds method.py and recipes.yaml; claims.yaml, tables.yaml and studies.yaml where it has its own


def find_plugins(name: str = "*") -> dict[str, Plugin]:
    """Every method that can be seen, by name, sorted; or only the one of that name.

    Folders on every `methods` path count (the project's own, and others on `sys.path`), and each entry point of the
    group `ltbench.methods` (`name = "package.module"`).

    Raises:
        UserError: two plugins have one name; both owners are named.
    """
    plugins: dict[str, Plugin] = {}
    installed = [plugin for plugin in _installed_on(tuple(sys.path)) if name in ("*", plugin.name)]
    for plugin in [*_folder_plugins(name), *installed]:
        other = plugins.setdefault(plugin.name, plugin)
        if other is not plugin and other.folder.resolve() != plugin.folder.resolve():
            owners = f"{shown(other.folder)} and {shown(plugin.folder)}"
            raise UserError(f"two methods are named '{plugin.name}': {owners}; rename one of them")
    return dict(sorted(plugins.items()))


def _folder_plugins(name: str) -> list[Plugin]:
    spec = importlib.util.find_spec("methods")  # a namespace package: every folder `methods` on sys.path
    paths = [Path(path) for path in spec.submodule_search_locations or []] if spec else []
    # A folder beside another checkout of the harness (an editable install of it, say) holds that checkout's methods.
    roots = [path for path in paths if not (path.parent / PACKAGE.name).is_dir() or path.parent == PACKAGE.parent]
    files = [file for root in roots for file in sorted(root.glob(f"{name}/method.py"))]
    return [
        Plugin(file.parent.name, f"methods.{file.parent.name}.method", file.parent)
        for file in files
        if NAME.fullmatch(file.parent.name)
    ]


@functools.cache  # reading what is installed takes longer than all else, and what is installed stays as it is
def _installed_on(_path: tuple[str, ...]) -> list[Plugin]:
    plugins = []
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        try:
            plugins.append(_installed(point))
        except (Exception, SystemExit) as error:  # looking for a module imports its package: foreign code
            print(f"left out: entry point '{point.name} = {point.value}': {_describe(error)}", file=sys.stderr)
    return plugins


def _installed(point: importlib.metadata.EntryPoint) -> Plugin:
    spec = importlib.util.find_spec(point.module) if "." in point.module else None
    if spec is None or spec.origin is None or not NAME.fullmatch(point.name):
        raise UserError("it must be name = package.module, in the package's own folder")
    return Plugin(point.name, point.module, Path(spec.origin).parent)


def available_methods() -> list[str]:
    """Names of all methods that can be seen, sorted; whether each one imports is not tried."""
    return list(find_plugins())


def get_plugin(name: str, *, where: str = "") -> Plugin:
    """The plugin named `name`.

    Raises:
        UserError: there is none; the message has the nearest known names.
    """
    found = find_plugins(name) if NAME.fullmatch(name) else {}
    return found[name] if found else lookup("method", name, find_plugins(), where=where)


def get_method(name: str) -> type[Method]:
    """The class of the method named `name`.

    Raises:
        UserError: no such method, or its module cannot be imported or holds no such class.
    """
    from harness.api import Method

    plugin = get_plugin(name)
    try:
        module = importlib.import_module(plugin.module)
    except (Exception, SystemExit) as error:  # foreign code: whatever it raises is its own failure, not ours
        raise UserError(f"{_place(plugin, error)}: method '{name}' cannot be imported: {_describe(error)}") from error
    for value in vars(module).values():
        if isinstance(value, type) and issubclass(value, Method) and getattr(value, "name", None) == name:
            _check_params(value, plugin)
            return value
    raise UserError(
        f"{shown(plugin.folder / 'method.py')}: holds no subclass of harness.api.Method with name = '{name}'"
    )


def _check_params(method: type[Method], plugin: Plugin) -> None:
    reason = "" if dataclasses.is_dataclass(method.Params) else "it lacks the decorator @dataclass(frozen=True)"
    try:
        typing.get_type_hints(method.Params)
    except NameError as error:
        reason = str(error)
    if reason:
        raise UserError(f"{shown(plugin.folder / 'method.py')}: Params of '{method.name}' cannot be read: {reason}")


def _place(plugin: Plugin, error: BaseException) -> str:
    """File and line inside the plugin where its import failed."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{shown(Path(error.filename))} line {error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if str(plugin.folder) in frame.filename]
    return f"{shown(Path(frames[-1].filename))} line {frames[-1].lineno}" if frames else shown(plugin.folder)


def _describe(error: BaseException) -> str:
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"it needs the module '{error.name}', which is not installed"
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
