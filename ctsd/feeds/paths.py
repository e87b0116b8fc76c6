"""
Ways into JSON: to the rows of a document, and to the fields of a row.

A way is keys with dots between them. C{*} is every element of an array, or every value of an
object; C{external_references[source_name=mitre-attack].url} are those elements (or that object) in
which a key has this text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

_STEP: Final = re.compile(r"(?P<key>[^.\[\]=]+)(?:\[(?P<where>[^\[\]=]+)=(?P<is>[^\[\]]*)\])?")

#: The deepest way that is worth writing.
_MAX_STEPS: Final = 16

ANY: Final = "*"

#: What a path that is no key has.
_SIGNS: Final = frozenset(".[]=")

#: Gives what a path leads to: no values, one, or several.
Path = Callable[[Any], list[Any]]

_Step = tuple[str, str, str]


def _steps(path: str) -> list[_Step]:
    steps: list[_Step] = []
    at = 0
    while True:
        found = _STEP.match(path, at)
        if found is None:
            raise ValueError(f"nothing that can be read at character {at + 1}")
        steps.append((found["key"], found["where"] or "", found["is"] or ""))
        at = found.end()
        if at == len(path):
            break
        if path[at] != ".":
            raise ValueError(f"a dot is missing at character {at + 1}")
        at += 1
    if len(steps) > _MAX_STEPS:
        raise ValueError(f"more than {_MAX_STEPS} steps")
    return steps


def rows_of(path: str) -> tuple[str, ...]:
    """
    The keys on the way to the rows of a document.

    :raises ValueError: it is no such way.
    """
    steps = _steps(path)
    if any(where for _, where, _ in steps):
        raise ValueError("no [ ] on the way to rows")
    return tuple(name for name, _, _ in steps)


def is_key(path: str) -> bool:
    """Whether a path is one key, whose value is the field."""
    return path != ANY and not _SIGNS.intersection(path)


def path_of(path: str) -> Path:
    """
    What gives the field of a row. A list at its end is no value: say C{labels.*}.

    :raises ValueError: it is no such way.
    """
    steps = _steps(path)
    if len(steps) == 1 and steps[0][0] != ANY and not steps[0][1]:
        only = steps[0][0]

        def plain(row: Any) -> list[Any]:
            value = row.get(only) if isinstance(row, Mapping) else None
            return [] if value is None else [value]

        return plain

    def walk(row: Any) -> list[Any]:
        values = [row]
        for name, where, text in steps:
            values = [inner for value in values for inner in _inner(value, name)]
            if where:
                values = [
                    one for value in values for one in _elements(value) if _is(one, where, text)
                ]
        return values

    return walk


def _inner(value: Any, name: str) -> Iterator[Any]:
    if name == ANY:
        yield from _elements(value) if not isinstance(value, Mapping) else value.values()
    elif isinstance(value, Mapping):
        found = value.get(name)
        if found is not None:
            yield found


def _elements(value: Any) -> Sequence[Any]:
    if isinstance(value, Mapping):
        return [value]
    return value if isinstance(value, list) else ()


def _is(value: Any, where: str, text: str) -> bool:
    return isinstance(value, Mapping) and value.get(where) == text
