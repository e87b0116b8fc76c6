"""
What a STIX pattern looks for (U{https://docs.oasis-open.org/cti/stix/v2.1/}, section 9), as far as
each of its comparisons alone makes an indicator.
"""

from __future__ import annotations

import re
from typing import Final

_TOKEN: Final = re.compile(
    r"""\s*(?:
        (?P<text>'(?:[^'\\]|\\.)*')
      | (?P<path>[a-z0-9-]+:(?:[A-Za-z0-9_.\-\[\]*]|'[^'\\]*'|"[^"\\]*")+)
      | (?P<other>[tbh]'[^']*'|[+-]?[0-9.]+|true|false)
      | (?P<word>[A-Za-z]+)
      | (?P<mark>!=|<=|>=|[=<>()\[\],])
    )\s*""",
    re.VERBOSE,
)

_HASHES: Final = {"SHA1": "SHA-1", "SHA256": "SHA-256"}

#: A longer pattern is no list of indicators.
_MAX_CHARS: Final = 1 << 20


class NotSimple(ValueError):
    """No comparison of the pattern makes an indicator on its own; the message says why."""


class Several(NotSimple):
    """A pattern that several values together match."""


def observed(pattern: str) -> list[tuple[str, str]]:
    """
    What a pattern compares with what: C{("file:hashes.SHA-256", "...")}.

    Alternatives are indicators each. Where several things have to come together, only the hashes
    of one file are.

    :raises NotSimple: it is no pattern, or one that no single value matches.
    """
    tokens = _tokens(pattern)
    found: list[tuple[str, str]] = []
    inside: list[tuple[str, str | None]] = []
    together = False
    depth = at = 0
    while at < len(tokens):
        kind, text = tokens[at]
        at += 1
        if text in ("(", ")") and kind == "mark":
            continue
        if text in ("[", "]") and kind == "mark":
            if (text == "[") == bool(depth):
                raise NotSimple("its pattern can't be read")
            depth = int(text == "[")
            if not depth:
                found += _alone(inside) if together else _texts(inside)
                inside, together = [], False
        elif kind == "path" and depth:
            values, at = _compared(tokens, at)
            inside += [(_path(text), value) for value in values]
        elif kind == "word" and text == "OR":
            continue
        elif kind == "word" and text == "AND" and depth:
            together = True
        elif kind == "word":
            raise Several(f"its pattern has {_known(text)}, which takes more than one value")
        else:
            raise NotSimple("its pattern can't be read")
    if depth or not found:
        raise NotSimple("its pattern can't be read")
    return found


def _tokens(pattern: str) -> list[tuple[str, str]]:
    if len(pattern) > _MAX_CHARS:
        raise NotSimple("its pattern is too long")
    tokens = []
    at = 0
    while at < len(pattern):
        found = _TOKEN.match(pattern, at)
        if found is None:
            raise NotSimple("its pattern can't be read")
        tokens.append((found.lastgroup or "", found[found.lastgroup or 0]))
        at = found.end()
    return tokens


def _compared(tokens: list[tuple[str, str]], at: int) -> tuple[list[str | None], int]:
    """The values after a path, None for what is no text, and where it goes on."""
    (_, operator), at = _at(tokens, at), at + 1
    if operator in ("=", "ISSUBSET"):
        return [_text(_at(tokens, at))], at + 1
    if operator != "IN":
        raise NotSimple("its pattern compares otherwise than with =, IN and ISSUBSET")
    if _at(tokens, at)[1] != "(":
        raise NotSimple("its pattern can't be read")
    values: list[str | None] = []
    while True:
        values.append(_text(_at(tokens, at + 1)))
        end = _at(tokens, at + 2)[1]
        at += 2
        if end == ")":
            return values, at + 1
        if end != ",":
            raise NotSimple("its pattern can't be read")


def _at(tokens: list[tuple[str, str]], at: int) -> tuple[str, str]:
    if at >= len(tokens):
        raise NotSimple("its pattern can't be read")
    return tokens[at]


def _text(token: tuple[str, str]) -> str | None:
    kind, text = token
    if kind == "other":
        return None
    if kind != "text":
        raise NotSimple("its pattern can't be read")
    return re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL)


def _path(path: str) -> str:
    """A path without quotes, hashes as STIX 2.1 writes their names."""
    bare = path.replace("'", "").replace('"', "")
    front, hashes, name = bare.partition(":hashes.")
    return f"{front}{hashes}{_HASHES.get(name.upper(), name.upper())}" if hashes else bare


def _texts(compared: list[tuple[str, str | None]]) -> list[tuple[str, str]]:
    texts = [(path, value) for path, value in compared if value is not None]
    if len(texts) != len(compared):
        raise NotSimple("its pattern compares with what is no text")
    return texts


def _alone(compared: list[tuple[str, str | None]]) -> list[tuple[str, str]]:
    if any(not path.startswith("file:") for path, _ in compared):
        raise Several("its pattern has AND, which takes more than one value")
    hashes = [each for each in compared if each[0].startswith("file:hashes.")]
    if not hashes:
        raise Several("its pattern has AND, which takes more than one value")
    return _texts(hashes)


def _known(word: str) -> str:
    """A word of the pattern language; what stands in a feed is not repeated in a reason."""
    words = ("AND", "FOLLOWEDBY", "NOT", "WITHIN", "REPEATS", "START", "STOP")
    return word if word in words else "a word"
