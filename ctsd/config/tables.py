"""
Tables of TOML as frozen values: a field that a key of the table sets was made by L{key}, with its
check and with one line of documentation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import attrs
from attrs import field

from ctsd.config import checks
from ctsd.config.checks import Check, Surroundings, Wrong
from ctsd.config.document import Document, KeyPath

_T = TypeVar("_T")


def key(
    check: Check,
    about: str,
    *,
    default: Any = attrs.NOTHING,
    shown: str = "",
    hidden: bool = False,
) -> Any:
    """
    A field that a key of the file sets.

    :param shown: the default in words, where the value itself says little.
    :param hidden: whether the value is a secret.
    """
    meta = {"check": check, "about": about, "shown": shown}
    return field(default=default, metadata=meta, repr=not hidden)


def keys_of(cls: type) -> dict[str, attrs.Attribute[Any]]:
    """The fields of a table that keys of the file set, by key."""
    # `async` is a word of Python, hence `async_`.
    return {one.name.rstrip("_"): one for one in attrs.fields(cls) if "check" in one.metadata}


def default_of(attribute: attrs.Attribute[Any]) -> str:
    """The default of a L{key} for its documentation: as TOML writes it, or in words."""
    return attribute.metadata["shown"] or f"`{_as_toml(attribute.default)}`"


def _as_toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_as_toml, value)) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name} = {_as_toml(one)}" for name, one in value.items()) + "}"
    return f'"{value}"' if isinstance(value, str) else f"{value:.15g}"


def table(cls: type[_T], **more: Any) -> Check:
    """
    The check of a table that becomes a value.

    :param cls: an attrs class with fields made by L{key}.
    :param more: fields that no key sets.
    """
    keys = keys_of(cls)

    def check(value: object, around: Surroundings) -> _T:
        if not isinstance(value, dict):
            raise Wrong(f"expected a table, not {checks.kind(value)}")
        values = dict(more)
        for name in value:
            if name not in keys:
                raise Wrong(checks.unknown(name, keys), name)
        for name, attribute in keys.items():
            if name in value:
                try:
                    values[attribute.name] = attribute.metadata["check"](value[name], around)
                except Wrong as wrong:
                    raise Wrong(wrong.expected, name, *wrong.at) from None
            elif attribute.default is attrs.NOTHING and attribute.name not in values:
                raise Wrong("is missing", name)
        return cls(**values)

    return check


def read_table(
    cls: type[_T], given: object, doc: Document, at: KeyPath, around: Surroundings, **more: Any
) -> _T:
    """
    One table as a value; see L{table}.

    :raises ConfigError: a key is unknown, missing, or has a wrong value.
    """
    value: _T = checked(table(cls, **more), given, doc, at, around)
    return value


def checked(check: Check, value: object, doc: Document, at: KeyPath, around: Surroundings) -> Any:
    """
    One value, checked.

    :raises ConfigError: it is wrong; the error names file, line and key.
    """
    try:
        return check(value, around)
    except Wrong as wrong:
        raise doc.error((*at, *wrong.at), wrong.expected) from None
