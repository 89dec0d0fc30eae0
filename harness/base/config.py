"""Typed dataclasses from plain mappings: unknown keys and wrong types are refused with the file and key named."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import re
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from harness.base.errors import UserError

T = TypeVar("T")
Within = Callable[[type, Mapping[str, Any], str], Any]  # `build` or `check`: what becomes of a dataclass within
LONGEST = 200  # characters of a value in a message


def build(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """An instance of the dataclass `cls` from `values`.

    `where` says which file and key the values came from; it starts every message. A `ValueError` that
    `__post_init__` raises for a value out of its domain is passed on with `where` in front.

    Raises:
        UserError: unknown key (with the nearest known one), missing key, wrong type, value out of its domain.
    """
    arguments = _values(cls, values, where, build)
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and field.name not in arguments:
            raise UserError(f"{where}: key '{field.name}' is missing")
    try:
        return cls(**arguments)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None


def check(cls: type, values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The values of one layer of several, converted to the field types of `cls`.

    Keys may be missing, also of a dataclass within, and whether values go together only all layers can tell.

    Raises:
        UserError: unknown key, or wrong type.
    """
    return _values(cls, values, where, check)


def _values(cls: type, values: Mapping[str, Any], where: str, within: Within) -> dict[str, Any]:
    if not isinstance(values, Mapping):
        raise UserError(f"{where}: expected keys and values, found {_text(values)}")
    hints = _hints(cls)
    names = [field.name for field in dataclasses.fields(cls)]
    for key in values:
        if key not in names:
            near = difflib.get_close_matches(str(key), names, n=1)
            hint = f"closest is '{near[0]}'; " if near else ""
            raise UserError(f"{where}: unknown key {_text(key)} ({hint}known: {', '.join(names) or 'none'})")
    return {key: _convert(hints[key], value, _at(where, key), within) for key, value in values.items()}


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def later(default: Any, **metadata: Any) -> Any:
    """A field that a dataclass got after records were made with it: `as_dict` leaves it out while it has its default.

    So the hash of a recipe that does not use the new key stays what it was, and old records still fit.
    """
    return dataclasses.field(default=default, metadata={**metadata, "later": True})


def as_dict(value: Any) -> dict[str, Any]:
    """The plain mapping of a dataclass instance, for hashing and records; `later` fields only where they are set."""
    return {
        field.name: _plain(getattr(value, field.name))
        for field in dataclasses.fields(value)
        if not (field.metadata.get("later") and getattr(value, field.name) == field.default)
    }


def without_later(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values of an instance without the `later` fields that have their default, however they were written."""
    defaults = {field.name: field.default for field in dataclasses.fields(cls) if field.metadata.get("later")}
    return {key: value for key, value in values.items() if key not in defaults or value != defaults[key]}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return as_dict(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def merge(base: Mapping[str, Any], *updates: Mapping[str, Any]) -> dict[str, Any]:
    """Deep merge: later mappings win, nested mappings are merged key by key."""
    result = dict(base)
    for update in updates:
        for key, value in update.items():
            old = result.get(key)
            both = isinstance(old, Mapping) and isinstance(value, Mapping)
            result[key] = merge(old, value) if both else value  # type: ignore[arg-type]
    return result


def _convert(hint: Any, value: Any, where: str, within: Within) -> Any:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(hint, value, where, within)
    if origin is typing.Literal:
        return _convert_literal(hint, value, where)
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return within(typing.cast(type, hint), value, where)
    if origin is dict and isinstance(value, Mapping):
        return _convert_dict(hint, value, where, within)
    if origin in (tuple, list) and isinstance(value, (list, tuple)):
        item = typing.get_args(hint)[0]
        return origin(_convert(item, element, f"{where}[{i}]", within) for i, element in enumerate(value))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise UserError(f"{where}: {_text(value)[:20]}... is too large a number") from None
    if hint is Any or (isinstance(hint, type) and type(value) is hint):
        return value
    raise UserError(f"{where}: expected {_type_name(hint)}, found {_text(value)}")


def _convert_union(hint: Any, value: Any, where: str, within: Within) -> Any:
    members = typing.get_args(hint)
    if value is None and type(None) in members:
        return None
    for member in members:
        try:
            return _convert(member, value, where, within)
        except UserError:
            if dataclasses.is_dataclass(member) and isinstance(value, Mapping):
                raise  # its own message names the key
    raise UserError(f"{where}: expected {_type_name(hint)}, found {_text(value)}")


def _convert_dict(hint: Any, value: Mapping[Any, Any], where: str, within: Within) -> dict[Any, Any]:
    key_type, item = typing.get_args(hint)
    for key in value:
        if type(key) is not key_type:
            raise UserError(f"{where}: expected {_type_name(key_type)} as keys, found {_text(key)}")
    return {key: _convert(item, element, _at(where, _name(key)), within) for key, element in value.items()}


def _convert_literal(hint: Any, value: Any, where: str) -> Any:
    choices = typing.get_args(hint)
    if any(type(value) is type(choice) and value == choice for choice in choices):
        return value
    raise UserError(f"{where}: expected one of {', '.join(map(str, choices))}, found {_text(value)}")


def _text(value: Any) -> str:
    """A value for a message, cut to a readable length."""
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _at(where: str, key: str) -> str:
    """A key's place: in a file with a dot, and after what somebody typed (`--set lr=nan`) with a colon."""
    return f"{where}: {key}" if where.startswith("--") else f"{where}.{key}"


def _name(key: Any) -> str:
    """A key for a message, on one line whatever it holds."""
    return str(key) if str(key).isprintable() and len(str(key)) <= LONGEST else _text(key)


def _type_name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else re.sub(r"\w+\.", "", str(hint))
