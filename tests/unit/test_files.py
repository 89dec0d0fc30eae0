"""Files: atomic, canonical, and a damaged one is always one clear line."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from harness.base.errors import UserError
from harness.base.files import (
    atomic_path,
    canonical_json,
    parse_yaml,
    read_json,
    read_yaml,
    sha256_json,
    write_bytes,
    write_json,
    write_text,
)
from harness.records.runs import read_run_info
from harness.records.schema import read_record
from harness.splits.splits import read_split
from tests.factories import make_record

# ---- writing -------------------------------------------------------------------------------------------------------


def test_a_failure_inside_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_target_changes_only_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file.json"
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
        assert temporary.parent == path.parent
        assert temporary.suffix == ".tmp"
        assert temporary.name.startswith(".")
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_a_temporary_name_matches_no_reader(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "seed0.json") as temporary:
        assert temporary not in list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize("name", ["folder", "x" * 300])
def test_what_cannot_be_written_is_named_as_it_was_asked_for(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by the temporary name: a folder in its place, a name that is too long."""
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    with pytest.raises(OSError, match=r"Is a directory|File name too long") as caught:
        write_text(Path(name), "text")
    assert caught.value.filename == name
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_bytes(tmp_path / "file", b"x")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_line_ends_and_encoding(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "é\n")
    assert (tmp_path / "file").read_bytes() == b"\xc3\xa9\n"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": [float("-inf")]}])
def test_nan_is_never_written(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "file.json"
    path.write_text("old")
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, value)
    with pytest.raises(ValueError, match="JSON"):
        canonical_json(value)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_canonical_json_is_one_string_for_one_value() -> None:
    assert canonical_json({"b": 1, "a": ["é", None, 0.1]}) == '{"a":["\\u00e9",null,0.1],"b":1}'
    assert sha256_json({"a": 1, "b": 2}) == sha256_json({"b": 2, "a": 1})
    assert sha256_json({"a": 1}) != sha256_json({"a": 1.0})


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=8,
)  # fmt: skip


@given(values)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
def test_json_round_trip(tmp_path: Path, value: Any) -> None:
    write_json(tmp_path / "x.json", value)
    assert read_json(tmp_path / "x.json", "thing") == value
    assert json.loads(canonical_json(value)) == value


# ---- YAML as people write it ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5e-4", 5e-4), ("1e3", 1e3), ("+2E+5", 2e5), (".5e1", 5.0), ("1.5e-3", 1.5e-3), ("-1e-1", -0.1),
        ("16", 16), ("16.0", 16.0), ("true", True), ("1e", "1e"), ("e5", "e5"), ("v5e-4", "v5e-4"), ("", None),
    ],
)  # fmt: skip
def test_scalars(text: str, expected: Any) -> None:
    found = parse_yaml(text, "w")
    assert found == expected
    assert type(found) is type(expected)


def test_a_key_that_stands_twice_is_a_mistake() -> None:
    with pytest.raises(UserError, match=r"w: not valid YAML: key 'a' stands twice.*line 3"):
        parse_yaml("a: 1\nb: 2\na: 3\n", "w")
    with pytest.raises(UserError, match="'x' stands twice"):
        parse_yaml("a: {x: 1, x: 1}", "w")
    assert parse_yaml("a: {x: 1}\nb: {x: 1}", "w") == {"a": {"x": 1}, "b": {"x": 1}}


def test_merge_keys_may_be_overridden() -> None:
    text = "base: &base {x: 1, y: 2}\nown: {<<: *base, x: 3}\n"
    assert parse_yaml(text, "w")["own"] == {"x": 3, "y": 2}


BAD_YAML = {
    "open list": "a: [1", "open map": "a: {", "tab": "a:\n\t- 1", "colon": "a: b: c", "alias": "a: *nowhere",
    "map as key": "? {a: 1}\n: 2", "object": "!!python/object:os.system x", "control": "a: \x00", "two": "a\n---\nb",
    "no such day": "a: 2001-99-99", "int tag": "!!int foo", "float tag": "!!float x", "bool tag": "!!bool foo",
    "timestamp tag": "!!timestamp foo", "binary": "a: 0b_", "hex": "a: 0x_", "map tag": "a: !!map [1]",
    "deep": "[" * 3000, "endless integer": "a: 1" + "0" * 5000,
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_YAML)
def test_bad_yaml_is_one_line(name: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_yaml(BAD_YAML[name], "recipes.yaml")
    assert str(caught.value).startswith("recipes.yaml: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"- 1\n", b"text", b"", b"\xff\xfe", b"a: [", b"3"])
def test_a_yaml_file_must_be_a_mapping(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.yaml").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.yaml"):
        read_yaml(tmp_path / "x.yaml")


def test_a_missing_yaml_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"x\.yaml"):
        read_yaml(tmp_path / "x.yaml")
    with pytest.raises(UserError):
        read_yaml(tmp_path)


# ---- reading what anything may have written ------------------------------------------------------------------------

tokens = st.sampled_from(
    ["a: ", "b: ", "- ", "\n", "  ", "{", "}", "[", "]", ", ", "&x ", "*x", "!!int ", "!!set ", "!!map ", "<<: ", "? ",
     "2001-01-01", "99", "0x", "0b", "_", "1e", "|", ">", "'", '"', "#", "---\n", "~", "=", "é", "\t", "%"]
)  # fmt: skip


@given(st.text(max_size=40) | st.lists(tokens, max_size=12).map("".join))
@settings(max_examples=300, deadline=None)
@example("!!bool x")
def test_any_text_is_yaml_or_refused(text: str) -> None:
    message = ""
    try:
        parse_yaml(text, "w")
    except UserError as error:
        message = str(error)
    assert "\n" not in message


Reader = Callable[[Path], Any]
each_reader = pytest.mark.parametrize("read", [read_split, read_record, read_run_info])


@each_reader
@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\x00", b"\x00" * 50, b"[" * 100_000, b'{"schema": 1', b"NaN", b"1e999"]
)
def test_garbage_is_one_line(tmp_path: Path, read: Reader, content: bytes) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@each_reader
def test_missing_and_folders(tmp_path: Path, read: Reader) -> None:
    for path in (tmp_path / "x.json", tmp_path):
        with pytest.raises(UserError):
            read(path)


KEYS = [
    "schema", "id", "dataset", "train", "val", "test", "mean", "class_counts", "status", "results", "failure", "recipe",
    "seed", "stages", "groups", "method", "imbalance_factor", "run_key", "sha256", "last", "many", "all", "reason",
]  # fmt: skip
scalars = st.none() | st.booleans() | st.integers(-3, 3) | st.just(10**400) | st.floats() | st.text(max_size=5)
documents = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=8,
)


@each_reader
@given(value=documents, base=st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=100)
def test_any_json_is_read_or_refused(tmp_path: Path, read: Reader, value: Any, base: bool) -> None:
    if isinstance(value, dict):
        value = {"schema": 1} | value
    (tmp_path / "x.json").write_text(json.dumps(value))
    try:
        read(tmp_path / "x.json")
    except UserError:
        return


@given(key=st.sampled_from(sorted(make_record().__dataclass_fields__)), value=documents)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=100)
@example(key="imbalance_factor", value=10**400)
def test_a_record_with_one_key_changed_is_read_or_refused(tmp_path: Path, key: str, value: Any) -> None:
    import dataclasses

    content = dataclasses.asdict(make_record())
    (tmp_path / "x.json").write_text(json.dumps(content | {key: value}))
    try:
        record = read_record(tmp_path / "x.json")
    except UserError:
        return
    write_json(tmp_path / "again.json", dataclasses.asdict(record))  # what was accepted can be written again


def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    """The system's error does not, as it comes from a write and not from a name."""
    with pytest.raises(OSError, match="No space left") as raised, atomic_path(tmp_path / "weights"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert raised.value.filename == str(tmp_path / "weights")


def test_a_yaml_file_is_read_as_it_is_now_and_belongs_to_its_reader(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("a: {b: [1, 2]}")
    found = read_yaml(path)
    found["a"]["b"].append(3)
    assert read_yaml(path) == {"a": {"b": [1, 2]}}
    path.write_text("a: {b: [1, 4]}")  # of the same length, within the same tick of the clock
    assert read_yaml(path) == {"a": {"b": [1, 4]}}
    path.write_text("a: [")
    for _ in range(2):
        with pytest.raises(UserError, match="not valid YAML"):
            read_yaml(path)
