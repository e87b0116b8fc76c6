"""
The JSON that we keep ourselves: values to bytes and back, without loss. Pure.

Any JSON value is kept, NUL and lone surrogates included: the bytes are UTF-8 in which a lone
surrogate is encoded like any other character. A password is never turned into bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from ctsd.model import (
    JSON,
    NOTHING,
    PASSWORD,
    Artifact,
    EncodedHit,
    Ended,
    File,
    Outcome,
    Property,
    Suppressed,
    Threat,
)
from ctsd.records import Indexed, Record, hit_of
from ctsd.wire import encode_hit

_fast_encode: Final = msgspec.json.Encoder().encode
_fast_decode: Final = msgspec.json.Decoder().decode
# What a searcher hands over is not always JSON; what isn't is kept as text.
_exact_encode: Final = json.JSONEncoder(
    ensure_ascii=False, separators=(",", ":"), default=str
).encode


def _encode(value: object, plain: bool) -> bytes:
    """
    :param plain: no float and no container that may hold one is in C{value}: msgspec writes
        NaN as null.
    :return: without a line's end in it.
    :raises ValueError: it is nested too deep to be written, or no JSON at all.
    """
    if plain:
        try:
            return _fast_encode(value)
        except ValueError:
            # It holds a lone surrogate.
            pass
    try:
        return _exact_encode(value).encode("utf-8", "surrogatepass")
    except (RecursionError, TypeError):
        raise ValueError("the value is no JSON, or nested too deep") from None


def _decode(data: bytes) -> Any:
    try:
        return _fast_decode(data)
    except (ValueError, RecursionError):
        return json.loads(data)


def _is_plain(value: object) -> bool:
    return type(value) is str or type(value) is int


def encode_value(value: JSON) -> bytes:
    """
    A JSON value as bytes.

    :raises ValueError: it is nested too deep.
    """
    return _encode(value, _is_plain(value))


# What most outcomes are.
_NOTHING: Final = b'{"ended":"nothing"}\n'


def encode_outcome(outcome: Outcome) -> bytes:
    """One line about the outcome, then the bytes of its hits as they are."""
    if outcome is NOTHING:
        return _NOTHING
    head: dict[str, object] = {"ended": outcome.ended.value}
    if outcome.hits:
        head["hits"] = [len(hit) for hit in outcome.hits]
    if outcome.reason:
        head["reason"] = outcome.reason
    if outcome.after_secs is not None:
        head["after_secs"] = outcome.after_secs
    if outcome.final:
        head["final"] = True
    if outcome.missing:
        head["missing"] = list(outcome.missing)
    if outcome.suppressed:
        head["suppressed"] = [[one.feed, one.type, one.by] for one in outcome.suppressed]
    if outcome.suppressed_more:
        head["suppressed_more"] = outcome.suppressed_more
    return b"\n".join((_encode(head, outcome.after_secs is None), b"".join(outcome.hits)))


def decode_outcome(data: bytes) -> Outcome:
    """What L{encode_outcome} was given."""
    line, _, rest = data.partition(b"\n")
    head = _decode(line)
    hits = []
    for size in head.get("hits", ()):
        hits.append(EncodedHit(rest[:size]))
        rest = rest[size:]
    outcome = Outcome(
        Ended(head["ended"]),
        tuple(hits),
        head.get("reason", ""),
        head.get("after_secs"),
        head.get("final", False),
        tuple(head.get("missing", ())),
        tuple([Suppressed(*one) for one in head.get("suppressed", ())]),
        head.get("suppressed_more", 0),
    )
    return NOTHING if outcome == NOTHING else outcome


def _no_password(type: str) -> None:
    if type == PASSWORD:
        raise ValueError("a password is never stored")


def _from_file(file: File) -> dict[str, object]:
    return {
        "path": str(file.path),
        "name": file.name,
        "size": file.size,
        "md5": file.md5,
        "sha1": file.sha1,
        "sha256": file.sha256,
        "content_type": file.content_type,
    }


def _to_file(given: Mapping[str, Any]) -> File:
    return File(
        path=Path(given["path"]),
        name=given["name"],
        size=given["size"],
        md5=given["md5"],
        sha1=given["sha1"],
        sha256=given["sha256"],
        content_type=given["content_type"],
    )


def _from_artifact(artifact: Artifact) -> dict[str, object]:
    _no_password(artifact.type)
    given: dict[str, object] = {"type": artifact.type, "value": artifact.value}
    if artifact.file is not None:
        given["file"] = _from_file(artifact.file)
    return given


def _to_artifact(given: Mapping[str, Any]) -> Artifact:
    file = given.get("file")
    return Artifact(given["type"], given["value"], None if file is None else _to_file(file))


def encode_artifact(artifact: Artifact) -> bytes:
    """
    An artifact with its file's metadata.

    :raises ValueError: it is a password, or nested too deep.
    """
    return _encode(_from_artifact(artifact), _is_plain(artifact.value))


def decode_artifact(data: bytes) -> Artifact:
    """What L{encode_artifact} was given."""
    return _to_artifact(_decode(data))


def _from_properties(properties: Iterable[Property]) -> list[list[object]]:
    return [[prop.type, prop.name, prop.value] for prop in properties]


def _to_properties(given: Iterable[Any]) -> tuple[Property, ...]:
    return tuple([Property(*each) for each in given])


def indexed(record: Record) -> Indexed:
    """A record as an index finds it."""
    return Indexed(
        record.type,
        record.value,
        record.name,
        encode_hit(hit_of(record)),
        record.threat_id,
        record.searcher,
        record.source,
    )


def encode_indexed(record: Indexed) -> bytes:
    """
    What an index keeps of a record, on one line: its value and name, whose it is in the local
    database, and the bytes of its hit as they are.

    :raises ValueError: it is a password, or its value is nested too deep.
    """
    return _index_line(record, record.hit)


def encode_record(record: Record) -> bytes:
    """
    What L{encode_indexed} makes of L{indexed} a record, in less time.

    :raises ValueError: it is a password, or its value is nested too deep.
    """
    return _index_line(record, encode_hit(hit_of(record)))


def _index_line(record: Record | Indexed, hit: bytes) -> bytes:
    _no_password(record.type)
    head: list[object] = [record.value, record.name]
    if record.threat_id:
        head += [record.threat_id, record.searcher, record.source.hex()]
    return b"%b\t%b" % (_encode(head, _is_plain(record.value)), hit)


def decode_indexed(type: str, line: bytes) -> Indexed:
    """What L{encode_indexed} was given, of a record of this type."""
    head, _, hit = line.partition(b"\t")
    value, name, *rest = _decode(head)
    if not rest:
        return Indexed(type, value, name, EncodedHit(hit))
    threat_id, searcher, source = rest
    return Indexed(type, value, name, EncodedHit(hit), threat_id, searcher, bytes.fromhex(source))


def encode_threat(threat: Threat) -> bytes:
    """
    A threat, all of it.

    :raises ValueError: one of its artifacts is a password, or a value is nested too deep.
    """
    return _encode(
        {
            "name": threat.name,
            "artifacts": [_from_artifact(each) for each in threat.artifacts],
            "properties": _from_properties(threat.properties),
            "id": threat.id,
            "searcher": threat.searcher,
            "source": threat.source.hex(),
            "note": threat.note,
            "expires": threat.expires,
            "created": threat.created,
        },
        plain=False,
    )


def decode_threat(data: bytes) -> Threat:
    """What L{encode_threat} was given."""
    given = _decode(data)
    return Threat(
        name=given["name"],
        artifacts=tuple([_to_artifact(each) for each in given["artifacts"]]),
        properties=_to_properties(given["properties"]),
        id=given["id"],
        searcher=given["searcher"],
        source=bytes.fromhex(given["source"]),
        note=given["note"],
        expires=given["expires"],
        created=given["created"],
    )
