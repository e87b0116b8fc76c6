"""
What the hit of a row shows, made into bytes at once: what L{ctsd.wire.encode_hit} makes of the
row's properties, in a fraction of the time. What is the same in all rows is made once.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from typing import Final

import msgspec

from ctsd.feeds.parsers.tables import Row
from ctsd.model import EncodedHit, Hit, Property
from ctsd.normal_forms import is_address
from ctsd.records import Indexed
from ctsd.shown import MAX_NAME_CHARS, MAX_PROPERTIES, MAX_VALUE_CHARS
from ctsd.stored import encode_indexed
from ctsd.wire import encode_hit

#: Gives a property of a row (L{part_of}); empty when there is none.
Part = Callable[[Row], bytes]

encode: Final = msgspec.json.Encoder().encode

_BEGIN: Final = b'{"props":['
_END: Final = b"}]}"
#: What a hit shows that has no property.
_NOTHING: Final = encode_hit(Hit(()))
_PLACEHOLDER: Final = "finding"


def part_of(prop: Property | None) -> bytes:
    """A property as it goes out, but for the brace at its end; empty when it can't be shown."""
    if prop is None:
        return b""
    hit = encode_hit(Hit((prop,)))
    return b"" if hit == _NOTHING else hit[len(_BEGIN) : -len(_END)]


def hit_of(parts: Sequence[bytes]) -> bytes:
    """A hit of such properties, all of which can be shown."""
    return _BEGIN + b"},".join(parts) + _END if parts else _NOTHING


def can_stand_alone(names: Sequence[str]) -> bool:
    """
    Whether properties of these names can be made into bytes each by itself: no one's name changes
    because of another one, and none is left out because there are too many.
    """
    return (
        len(set(names)) == len(names) <= MAX_PROPERTIES
        and _PLACEHOLDER not in names
        and all(0 < len(name) <= MAX_NAME_CHARS and _is_plain(name) for name in names)
    )


def _is_plain(text: str) -> bool:
    return text.isascii() and text.isprintable()


def head_of(kind: str, name: str) -> bytes:
    """A property, up to its value."""
    return b'{"type":%b,"name":%b,"value":' % (encode(kind), encode(name))


def text_part(kind: str, name: str, read: Callable[[Row], str], rest: Part) -> Part:
    """
    A field as a property.

    :param kind: C{string}, C{number} or C{ip}.
    :param read: the field.
    :param rest: makes the property of a value that is unusual.
    """
    string, number, ip = (head_of(each, name) for each in ("string", "number", "ip"))

    def as_string(row: Row) -> bytes:
        text = read(row)
        if len(text) <= MAX_VALUE_CHARS and text.isascii() and text.isprintable():
            return string + encode(text) if text else b""
        return rest(row)

    def as_number(row: Row) -> bytes:
        text = read(row)
        if len(text) <= 15 and text.isascii() and text.isdecimal():
            return b"%b%d" % (number, int(text))
        return rest(row)

    def as_address(row: Row) -> bytes:
        text = read(row)
        return ip + encode(text) if text and is_address(text) else rest(row)

    return {"string": as_string, "number": as_number, "ip": as_address}[kind]


def plain_part(name: str, field: str, empty: Container[str], rest: Part) -> Part:
    """L{text_part} of a string that is a field of the row as it is; most properties are."""
    head = head_of("string", name)

    def as_string(row: Row) -> bytes:
        value = row.get(field)
        if not value:
            return b""
        text: str = value.strip()
        if text in empty:
            return b""
        if len(text) <= MAX_VALUE_CHARS and text.isascii() and text.isprintable():
            return head + encode(text) if text else b""
        return rest(row)

    return as_string


def link_part(name: str, link: Callable[[Row], str], example: Property, rest: Part) -> Part:
    """
    A link whose fields are quoted, as a property.

    :param link: makes it.
    :param example: with one character in place of each field. What shows as a link there does so
        with any other fields: quoted, they have only what may stand in a path.
    :param rest: makes the property of one that is unusual.
    """
    head = head_of("uri", name)
    if part_of(example) != head + encode(example.value):
        return rest

    def linked(row: Row) -> bytes:
        target = link(row)
        if len(target) <= MAX_VALUE_CHARS:
            return head + encode(target) if target else b""
        return rest(row)

    return linked


def line_of(type: str, value: str, name: str, hit: bytes) -> bytes:
    """
    What an index keeps of a record (L{ctsd.records.Line}).

    :raises ValueError: there is a lone surrogate in it.
    """
    return b"".join((type.encode(), b"\n[", encode(value), b",", encode(name), b"]\t", hit))


def unusual_line(type: str, value: str, name: str, hit: bytes) -> bytes:
    """L{line_of} anything."""
    line = encode_indexed(Indexed(type, value, name, EncodedHit(hit)))
    return b"%b\n%b" % (type.encode(), line)
