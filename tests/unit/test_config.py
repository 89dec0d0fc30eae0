"""Typed values from plain mappings: every mistake is one line that names the file and the key."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.base import config
from harness.base.errors import UserError


@dataclass(frozen=True)
class Inner:
    size: int = 1
    ratio: float = 0.5

    def __post_init__(self) -> None:
        if self.size < 0:
            raise ValueError(f"size must be at least 0, found {self.size}")


@dataclass(frozen=True)
class Outer:
    name: str
    count: int = 3
    rate: float = 0.1
    on: bool = False
    mode: Literal["fast", "exact"] = "fast"
    limit: float | None = None
    inner: Inner = field(default_factory=Inner)
    maybe: Inner | None = None
    numbers: list[float] = field(default_factory=list)
    pair: tuple[int, ...] = ()
    free: dict[str, Any] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    either: int | str = 0


@dataclass(frozen=True)
class Nested:
    inner: Inner = field(default_factory=Inner)
    maybe: Inner | None = None
    needy: Outer | str = ""
    all: list[Outer] = field(default_factory=list)


def refused(values: Any, cls: type = Outer) -> str:
    with pytest.raises(UserError) as caught:
        config.build(cls, values, "file.yaml: top")
    message = str(caught.value)
    assert message.startswith("file.yaml: top")
    assert "\n" not in message
    return message


def test_defaults_and_conversions() -> None:
    made = config.build(
        Outer,
        {
            "name": "x",
            "rate": 1,
            "limit": 2,
            "inner": {"size": 4},
            "maybe": {"ratio": 1},
            "numbers": [1, 2.5],
            "pair": [1, 2],
        },
        "w",
    )
    assert made == Outer("x", rate=1.0, limit=2.0, inner=Inner(4), maybe=Inner(1, 1.0), numbers=[1.0, 2.5], pair=(1, 2))
    for value in (made.rate, made.limit, made.numbers[0], made.maybe and made.maybe.ratio):
        assert type(value) is float
    assert type(made.pair) is tuple
    assert config.build(Outer, {"name": "x", "maybe": None, "either": "a"}, "w").either == "a"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", 3), ("name", None), ("count", 2.0), ("count", "2"), ("count", True), ("rate", "0.1"), ("rate", True),
        ("rate", None), ("on", 1), ("on", "yes"), ("limit", "x"), ("limit", False), ("inner", 3), ("inner", [1]),
        ("numbers", 3), ("numbers", "12"), ("numbers", ["x"]), ("pair", [1.5]), ("free", [1]), ("free", None),
        ("sizes", {"a": "b"}), ("either", 1.5), ("mode", "slow"), ("mode", None), ("mode", ["fast"]),
    ],
)  # fmt: skip
def test_wrong_types_name_the_key(key: str, value: Any) -> None:
    message = refused({"name": "x"} | {key: value})
    assert f"top.{key}" in message
    assert "expected" in message


@pytest.mark.parametrize("value", ["x", [1], {"a": 1}])
def test_an_optional_says_what_it_takes_not_that_it_wants_nothing(value: Any) -> None:
    assert "float" in refused({"name": "x", "limit": value})


def test_unknown_key_has_the_nearest_one() -> None:
    message = refused({"name": "x", "cuont": 1})
    assert "unknown key 'cuont'" in message
    assert "closest is 'count'" in message
    assert "closest is 'ratio'" in refused({"name": "x", "inner": {"ration": 1}})


@pytest.mark.parametrize("key", [3, True, 1.5, "two\nlines", ""])
def test_strange_keys(key: Any) -> None:
    refused({"name": "x", key: 1})


def test_missing_key() -> None:
    assert "key 'name' is missing" in refused({})


def test_values_out_of_their_domain() -> None:
    assert "size must be at least 0, found -1" in refused({"name": "x", "inner": {"size": -1}})
    assert "top.maybe: size" in refused({"name": "x", "maybe": {"size": -1}})


def test_literal_lists_its_choices() -> None:
    assert "expected one of fast, exact, found 'slow'" in refused({"name": "x", "mode": "slow"})


def test_an_integer_beyond_floats() -> None:
    assert "rate" in refused({"name": "x", "rate": 10**400})


def test_a_layer_may_leave_keys_out() -> None:
    assert config.check(Outer, {"count": 1}, "w") == {"count": 1}
    with pytest.raises(UserError, match=r"w\.count: expected int"):
        config.check(Outer, {"count": "1"}, "w")


def test_a_layer_is_not_checked_as_if_it_were_complete() -> None:
    """What a dataclass within needs may stand in another layer; keys and types are checked at every depth."""
    for values in (
        {"inner": {"size": -1}},
        {"maybe": {"ratio": 2.0}},
        {"needy": {"count": 1}},
        {"all": [{"count": 1}]},
    ):
        assert config.check(Nested, values, "w") == values
    mistakes: dict[str, Any] = {
        r"w\.needy: unknown key 'cuont' \(closest is 'count'": {"needy": {"cuont": 1}},
        r"w\.needy\.count: expected int, found '1'": {"needy": {"count": "1"}},
        r"w\.maybe\.ratio: expected float, found 'x'": {"maybe": {"ratio": "x"}},
        r"w\.all\[0\]\.count: expected int, found '1'": {"all": [{"count": "1"}]},
    }
    for message, mistake in mistakes.items():
        with pytest.raises(UserError, match=message):
            config.check(Nested, mistake, "w")
    with pytest.raises(UserError, match=r"w\.needy: key 'name' is missing"):
        config.build(Nested, {"needy": {"count": 1}}, "w")


def test_merge_is_deep_and_leaves_its_arguments_alone() -> None:
    base = {"a": {"x": 1, "y": 2}, "b": 1}
    update = {"a": {"y": 3}, "b": {"z": 1}}
    assert config.merge(base, update, {"a": {"w": 4}}) == {"a": {"x": 1, "y": 3, "w": 4}, "b": {"z": 1}}
    assert base == {"a": {"x": 1, "y": 2}, "b": 1}
    assert update == {"a": {"y": 3}, "b": {"z": 1}}


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
keys = st.sampled_from([*Outer.__dataclass_fields__, "size", "ratio"])


@given(st.dictionaries(keys, plain | st.dictionaries(keys, plain, max_size=2), max_size=5))
def test_whatever_comes_it_is_built_or_refused(values: dict[str, Any]) -> None:
    try:
        made = config.build(Outer, values, "w")
    except UserError:
        return
    assert type(made.count) is int
    assert type(made.rate) is float
    assert made.mode in ("fast", "exact")
    assert config.build(Outer, config.as_dict(made), "w") == made or made != made  # NaN


def test_a_later_field_is_left_out_while_it_has_its_default() -> None:
    """So recipes keep their hash when a key is added that they do not use."""

    @dataclass(frozen=True)
    class Inner:
        old: int = 1

    @dataclass(frozen=True)
    class Outer:
        inner: Inner = field(default_factory=Inner)
        several: tuple[Inner, ...] = (Inner(),)
        named: dict[str, Any] = field(default_factory=lambda: {"a": [1, Inner()]})
        new: float = config.later(0.5, stage="finetune")

    assert config.as_dict(Outer()) == {"inner": {"old": 1}, "several": [{"old": 1}], "named": {"a": [1, {"old": 1}]}}
    assert config.as_dict(Outer(new=0.6))["new"] == 0.6
