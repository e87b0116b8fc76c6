"""
The platform's JSON to our values and back. Pure; the only room that knows its key names.

The shapes are those of the I{Custom Threat Service Guide} V36: ThreatServiceArtifactDTO,
ResponseDTO, ArtifactHitDTO, ArtifactPropertyDTO. What a hit's properties may hold is in
L{ctsd.shown}.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from itertools import islice
from typing import Any, Final

import msgspec

from ctsd.errors import BadArtifact
from ctsd.model import FILE, JSON, Artifact, EncodedHit, File, Hit, ScanView
from ctsd.shown import encoded, more_notice, noted, safe_text, shown

#: How many hits beyond those that are shown are counted; then it is "at least".
_MAX_COUNTED: Final = 10_000

_MAX_TYPE_CHARS: Final = 100
_MAX_ERROR_CHARS: Final = 1000

#: A value above this size is looked at before it becomes objects ...
_BIG_BYTES: Final = 1024 * 1024
#: ... for a list of millions of lists would take gigabytes, and no type's value is one.
_MAX_ELEMENTS: Final = 200_000

_STRING: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)

#: Python reads no longer integer (C{sys.set_int_max_str_digits}).
_MAX_DIGITS: Final = 4000


class _Text(msgspec.Struct):
    """What big artifacts are: a text, such as an e-mail."""

    type: str
    value: str


_decoder: Final = msgspec.json.Decoder()
_text_decoder: Final = msgspec.json.Decoder(_Text)
_encode: Final = msgspec.json.Encoder().encode


def _integer(digits: str) -> int | str:
    return int(digits) if len(digits) <= _MAX_DIGITS else digits


def _decoded(body: bytes | bytearray) -> Any:
    try:
        return _decoder.decode(body)
    except (ValueError, RecursionError):
        # msgspec is stricter than need be about a byte order mark, lone surrogates and huge
        # numbers: what Python's own parser takes is taken.
        pass
    try:
        return json.loads(body, parse_int=_integer)
    except ValueError:
        raise BadArtifact("the artifact is not JSON") from None
    except RecursionError:
        raise BadArtifact("the artifact is nested too deep") from None


def decode_artifact(body: bytes | bytearray, *, with_file: bool = False) -> Artifact:
    """
    The artifact in a JSON body, or in the part C{artifact} of a multipart one.

    Its type may be unknown and its value of any shape: see L{ctsd.artifacts.shaped}.

    :param with_file: a part C{file} came along, so that the value may be missing; it is then
        None, for L{file_artifact}.
    :raises BadArtifact: the body is no JSON object with a C{type} and a C{value}. Only for
        C{file.content} the value may be missing without a file, too: then it is empty.
    """
    given = _decoded(body) if len(body) <= _BIG_BYTES else _decoded_big(body)
    if type(given) is not dict:
        raise BadArtifact("the artifact is not a JSON object")
    kind = given.get("type")
    if type(kind) is not str or not kind:
        raise BadArtifact("the artifact has no type" if not kind else "its type is not a string")
    value = given.get("value")
    if value is None and not with_file:
        if kind != FILE:
            raise BadArtifact("the artifact has no value")
        value = ""
    return Artifact(kind[:_MAX_TYPE_CHARS], value)


def _decoded_big(body: bytes | bytearray) -> Any:
    try:
        text = _text_decoder.decode(body)
    except (ValueError, RecursionError):
        # Commas inside of strings are no elements.
        if _elements(body) > _MAX_ELEMENTS and _elements(_STRING.sub(b"", body)) > _MAX_ELEMENTS:
            raise BadArtifact("the artifact has too many elements") from None
        return _decoded(body)
    return {"type": text.type, "value": text.value}


def _elements(body: bytes | bytearray) -> int:
    return body.count(b",") + body.count(b"[") + body.count(b"{")


def file_artifact(declared: Artifact, file: File) -> Artifact:
    """
    The artifact of a multipart body with a part C{file}: any type may have one; a missing or
    empty value is the file's name.
    """
    value: JSON = declared.value
    if value is None or value == "":
        value = file.name
    return Artifact(declared.type, value, file)


def encode_hit(hit: Hit) -> EncodedHit:
    """A hit as the bytes that go out; the same hit always gives the same bytes."""
    return EncodedHit(encoded(shown(hit)))


def encode_hits(
    hits: Iterable[Hit | EncodedHit],
    *,
    more: int = 0,
    at_least: bool = False,
    how: str = "",
    limit: int = 10,
) -> tuple[EncodedHit, ...]:
    """
    Hits as the bytes that go out: the first C{limit}, the last of which says how many more there
    are.

    :param hits: those that are encoded already stay as they are.
    :param more: how many more there are that are not among C{hits}.
    :param at_least: C{more} is a lower bound.
    :param how: how they were matched, which each says; empty when that need not be said.
    """
    rest = iter(hits)
    first = [encode_hit(hit) if isinstance(hit, Hit) else hit for hit in islice(rest, limit)]
    if not first:
        return ()
    if len(first) == limit:
        counted = sum(1 for _ in islice(rest, _MAX_COUNTED))
        more += counted
        at_least = at_least or counted == _MAX_COUNTED
    if how:
        first = [EncodedHit(noted(hit, "Matched", how)) for hit in first]
    notice = more_notice(more, at_least)
    if notice:
        first[-1] = EncodedHit(noted(first[-1], "more hits", notice))
    return tuple(first)


def is_encoded_hit(data: bytes) -> bool:
    """Whether these bytes are one ArtifactHitDTO; for bytes that another process has made."""
    try:
        hit = _decoder.decode(data)
    except (ValueError, RecursionError):
        return False
    return isinstance(hit, dict) and isinstance(hit.get("props"), list)


def encode_view(view: ScanView) -> bytes:
    """The ResponseDTO of a scan; C{retry_secs} only while it is not finished."""
    if view.finished:
        return b'{"id":%b,"hits":[%b]}' % (_encode(view.id), b",".join(view.hits))
    return b'{"id":%b,"retry_secs":%d,"hits":[%b]}' % (
        _encode(view.id),
        max(1, view.retry_secs),
        b",".join(view.hits),
    )


def encode_error(message: str) -> bytes:
    """What goes with a status of 400 and above."""
    return b'{"error":%b}' % _encode(safe_text(message, _MAX_ERROR_CHARS))


def encode_options(upload_file: bool) -> bytes:
    """The answer to C{OPTIONS}: whether files may be uploaded."""
    return b'{"upload_file": true}' if upload_file else b'{"upload_file": false}'
