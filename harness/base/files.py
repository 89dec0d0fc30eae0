"""Reading and writing files: atomic, canonical, checked."""

from __future__ import annotations

import contextlib
import copy
import fcntl
import functools
import hashlib
import itertools
import json
import math
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from harness.base.errors import UserError, reason

PACKAGE = Path(__file__).parents[1]  # holds the YAML that users edit
MAX_DEPTH = 64  # levels of nesting in a file; beyond a few hundred, Python and libyaml's binding run out of stack
MAX_VALUES = 200_000  # values of a YAML file with its aliases written out; the largest file here has 5,000


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; on success it replaces `path` in one step.

    A kill at any moment leaves either the old file or the new one. The temporary name starts with "." and ends
    with ".tmp", which no reader looks for.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.absolute().with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.touch(exist_ok=False)
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())  # a rename must not reach the disk before the bytes do
        os.replace(temporary, path)
    except OSError as error:
        # A disk that fills up says nowhere what was written, and nobody knows the temporary name.
        if error.errno is not None and error.filename in (None, temporary, str(temporary)):
            error.filename = str(path)
        raise
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def shown(path: Path) -> str:
    """The path as a message names it: relative to the working folder where it lies inside."""
    try:
        return path.resolve().relative_to(Path.cwd()).as_posix()
    except ValueError:
        return str(path)


def write_bytes(path: Path, data: bytes) -> None:
    """Writes `data` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


@contextlib.contextmanager
def locked(folder: Path, name: str = ".lock", *, wait: bool = False) -> Iterator[None]:
    """Keeps other processes that ask for it out of a folder.

    Raises:
        UserError: one is in it, and there is to be no `wait`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / name, "w", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{shown(folder)}: another command is at work there; wait for it, or take another folder"
            ) from None
        yield


def is_locked(folder: Path) -> bool:
    """Whether a process is in a folder that `locked` keeps."""
    if not (folder / ".lock").is_file():
        return False
    with open(folder / ".lock", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text atomically, with Unix line ends on every platform."""
    write_bytes(path, text.encode())


def canonical_json(value: Any) -> str:
    """One byte string for one value: sorted keys, no spaces. What hashes are taken over."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def write_json(path: Path, value: Any) -> None:
    """Writes JSON with sorted keys, atomically: the same value gives the same bytes. NaN is refused."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """The text that `write_json` writes."""
    return json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def read_json(path: Path, what: str) -> Any:
    """Reads JSON; a missing or damaged file is one clear line that names `what` it should have been."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"), parse_constant=_finite, parse_float=_finite)
        _check_depth(value)
    except FileNotFoundError:
        raise UserError(f"{path}: missing ({what})") from None
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(f"{path}: not a readable {what}: {error}") from None
    return value


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        inner = [item for item in level if isinstance(item, (dict, list))]
        level = [child for item in inner for child in (item.values() if isinstance(item, dict) else item)]
        if not level:
            return
    raise ValueError(f"nested more than {MAX_DEPTH} levels deep")


def stamped(value: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping with the sha256 of its content, as it is written to a file."""
    return {**value, "sha256": sha256_json(value)}


def unstamped(value: Any, path: Path) -> dict[str, Any]:
    """The content of a file that was written `stamped`; one written by an earlier version has no stamp.

    Raises:
        UserError: the content is not what was written.
    """
    if not isinstance(value, dict):
        raise UserError(f"{path}: damaged: expected keys and values; make it anew")
    content = {key: item for key, item in value.items() if key != "sha256"}
    if "sha256" in value and value["sha256"] != sha256_json(content):
        raise UserError(f"{path}: content does not have its sha256: damaged, or edited by hand; make it anew")
    return content


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text[:20]} is not a number that a file may hold")
    return value


def sha256_bytes(data: bytes) -> str:
    """Hex sha256 of bytes."""
    return hashlib.sha256(data).hexdigest()


def sha256_json(value: Any) -> str:
    """Hex sha256 of a value's canonical JSON."""
    return sha256_bytes(canonical_json(value).encode())


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc] # the same, ten times as fast
    """YAML as people expect it: 5e-4 is a number, and a key that stands twice is a mistake."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\d[\d_]*\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def _mapping_without_duplicates(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen = set()
    for key_node, _ in node.value:  # before merge keys (<<) bring in what may be overridden
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, (str, int, float)):
            raise yaml.constructor.ConstructorError(None, None, f"a key must be plain text, not {key!r}")
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key '{key}' stands twice", key_node.start_mark)
        seen.add(key)
    loader.flatten_mapping(node)
    return {loader.construct_object(k, deep=True): loader.construct_object(v, deep=True) for k, v in node.value}


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping_without_duplicates)


def parse_yaml(text: str, where: str) -> Any:
    """Parses YAML text; a syntax error is one line that names `where` it stands.

    Aliases that multiply and deep nesting are refused before they take memory or stack: no file written by hand needs
    them.
    """
    try:
        _check_nesting(text)
        loader = _Loader(text)
        root = loader.get_single_node()
        if root is None:
            return None
        if _size(root, {}) > MAX_VALUES:
            raise yaml.YAMLError(f"more than {MAX_VALUES} values, with aliases written out")
        return loader.construct_document(root)
    except Exception as error:  # bad tags, dates and numbers leave PyYAML as whatever Python raised on them
        raise UserError(f"{where}: not valid YAML: {reason(error)}") from None


def _check_nesting(text: str) -> None:
    """Follows the parser's events, which need no stack, however deep the text."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise yaml.YAMLError(f"nested more than {MAX_DEPTH} levels deep")


def _size(node: yaml.Node, known: dict[yaml.Node, int]) -> int:
    """Number of values in a node, with its aliases written out."""
    if node not in known:
        items = node.value if isinstance(node, yaml.CollectionNode) else []
        inner = itertools.chain(*items) if isinstance(node, yaml.MappingNode) else items
        known[node] = 1 + sum(_size(item, known) for item in inner)
    return known[node]


def read_yaml(path: Path) -> dict[str, Any]:
    """Reads a YAML file whose top level is a mapping. Recipes are asked for often: the same text is parsed once."""
    try:
        value = _parsed(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected keys and values at the top level, found {type(value).__name__}")
    return copy.deepcopy(value)  # whoever gets it may change it


_parsed = functools.lru_cache(maxsize=256)(parse_yaml)
