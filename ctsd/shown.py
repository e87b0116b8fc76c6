"""
How a hit is shown: each property made safe for the platform and for the people who read it. Pure.

What is in a hit came from feeds and replies, so it may be anything. The rules are protocol.md's
"ctsd on hits"; the same hit always becomes the same bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from ctsd.model import Hit, Property
from ctsd.normal_forms import is_address

MAX_PROPERTIES: Final = 30
MAX_NAME_CHARS: Final = 80
MAX_VALUE_CHARS: Final = 1000

_CUT: Final = "\u2026"
_MAX_NUMBER: Final = 2**53

_LEFT_OUT_NAME: Final = "more properties"
_LEFT_OUT: Final = re.compile("([0-9]{1,9}) not shown")

# Written out, and not asked of unicodedata: the same text must give the same bytes on every Python.
# All controls (Cc), formats (Cf: bidi, zero-width, tags ...), lone surrogates (Cs), separators of
# lines and paragraphs, and what else shows as nothing: fillers, variation selectors.
_HIDDEN: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2"
    "\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\u3164\ud800-\udfff\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U000110bd\U000110cd"
    "\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_SHORT_ESCAPES: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}

_LINK: Final = re.compile(
    r"https?://[^\s/?#@\"<>\\^`{|}]+(?:[/?#][^\s\"<>\\^`{|}]*)?", re.IGNORECASE
)
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,15})(?:\.[0-9]{1,15})?")


class Shown(msgspec.Struct):
    """An ArtifactPropertyDTO as it goes out."""

    type: str
    name: str
    value: Any


class ShownHit(msgspec.Struct):
    """An ArtifactHitDTO as it goes out."""

    props: list[Shown]


def _escaped(found: re.Match[str]) -> str:
    char = found[0]
    short = _SHORT_ESCAPES.get(char)
    if short is not None:
        return short
    code = ord(char)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def safe_text(text: str, limit: int) -> str:
    """
    Text of at most C{limit} characters, a cut one ends in an ellipsis, in which nothing hides:
    control, bidi and zero-width characters and lone surrogates are escaped (C{\\\\u202e}).
    """
    if len(text) <= limit and text.isascii() and text.isprintable():
        return text
    # No more than is needed is looked at: a value may have megabytes.
    text = _HIDDEN.sub(_escaped, text[: limit + 1])
    return text if len(text) <= limit else text[: limit - 1] + _CUT


def _as_text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool | Mapping | list | tuple):
        try:
            return json.dumps(value, ensure_ascii=False, default=str)
        except (ValueError, RecursionError):
            return type(value).__name__
    try:
        return str(value)
    except ValueError:
        # An integer of more digits than Python prints.
        return "a very large number"


def _number(value: object) -> int | float | None:
    if type(value) is int:
        return value if -_MAX_NUMBER <= value <= _MAX_NUMBER else None
    if isinstance(value, str):
        value = value.strip()
        if not _NUMBER.fullmatch(value):
            return None
        value = float(value) if "." in value else int(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if -_MAX_NUMBER <= value <= _MAX_NUMBER else None


def _degrees(value: object, most: int) -> int | float | None:
    number = _number(value)
    return number if number is not None and -most <= number <= most else None


def _lat_lng(value: object) -> dict[str, int | float] | None:
    if not isinstance(value, Mapping):
        return None
    lat, lng = _degrees(value.get("lat"), 90), _degrees(value.get("lng"), 180)
    return None if lat is None or lng is None else {"lat": lat, "lng": lng}


def _shown(prop: Property, name: str) -> Shown | None:
    """One property under a name that is safe already; None when it can't be shown."""
    kind, value = prop.type, prop.value
    if value is None:
        return None
    if kind == "lat_lng" or kind == "latlng":
        place = _lat_lng(value)
        return None if place is None else Shown("lat_lng", name, place)
    if kind == "number":
        number = _number(value)
        if number is not None:
            return Shown("number", name, number)
    text = safe_text(_as_text(value), MAX_VALUE_CHARS)
    if (kind == "uri" and text == value and _LINK.fullmatch(text)) or (
        kind == "ip" and is_address(text)
    ):
        return Shown(kind, name, text)
    return Shown("string", name, text)


def _unique(name: str, taken: set[str]) -> str:
    safe = safe_text(name, MAX_NAME_CHARS) or "(no name)"
    count = 1
    one = safe
    while one in taken:
        count += 1
        one = safe_text(safe, MAX_NAME_CHARS - len(f" ({count})")) + f" ({count})"
    return one


def shown(hit: Hit) -> ShownHit:
    """A hit as it goes out: at least one and at most L{MAX_PROPERTIES} properties."""
    props: list[Shown] = []
    taken: set[str] = set()
    for prop in hit.props:
        name = prop.name
        if (
            name in taken
            or not name
            or len(name) > MAX_NAME_CHARS
            or not name.isascii()
            or (not name.isprintable())
        ):
            name = _unique(name, taken)
        value = prop.value
        one: Shown | None
        if (
            prop.type == "string"
            and type(value) is str
            and len(value) <= MAX_VALUE_CHARS
            and value.isascii()
            and value.isprintable()
        ):
            # Nearly all of them; here, for a call costs as much as the rest.
            one = Shown("string", name, value)
        else:
            one = _shown(prop, name)
        if one is not None:
            taken.add(name)
            props.append(one)
    if not props:
        props.append(Shown("string", "finding", "without details"))
    _cut(props, MAX_PROPERTIES)
    return ShownHit(props)


def _cut(props: list[Shown], room: int) -> None:
    """Leave out as many as there is no room for, and say how many."""
    if len(props) <= room:
        return
    left_out = 0
    counted = _LEFT_OUT.fullmatch(str(props[-1].value))
    if counted is not None and props[-1].name.startswith(_LEFT_OUT_NAME):
        left_out = int(counted[1])
        props.pop()
    left_out += len(props) - room + 1
    del props[room - 1 :]
    name = _unique(_LEFT_OUT_NAME, {prop.name for prop in props})
    props.append(Shown("string", name, f"{left_out} not shown"))


def noted(hit: bytes, name: str, note: str) -> bytes:
    """A hit that goes out, with a note of ours as one more property at its end."""
    given = _decode(hit)
    _cut(given.props, MAX_PROPERTIES - 1)
    name = _unique(name, {prop.name for prop in given.props})
    given.props.append(Shown("string", name, safe_text(note, MAX_VALUE_CHARS)))
    return encoded(given)


def more_notice(more: int, at_least: bool) -> str:
    """What the last shown hit says about those that are not; empty when there are none."""
    if more <= 0 and not at_least:
        return ""
    if not more:
        return "there may be more"
    return f"at least {more} not shown" if at_least else f"{more} not shown"


encoded: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(ShownHit).decode
