"""
Threats as lines of JSON, for people: what C{ctsd threats export} writes and C{import} reads. Pure.

One object a line::

    {"name": "Botnet 7",
     "artifacts": [{"type": "net.ip", "value": "192.0.2.7"}],
     "properties": [{"type": "string", "name": "campaign", "value": "X"}],
     "note": "from the CERT", "expires": "2031-01-31T00:00:00Z"}

C{name} and at least one artifact are needed, the rest is optional; C{expires} is a date, or a date
with time, of ISO 8601, in UTC unless it says otherwise.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from ctsd.artifacts import SHAPES, is_empty, shaped
from ctsd.errors import UnknownArtifact
from ctsd.model import PASSWORD, Artifact, Property, Threat

_KEYS: Final = frozenset({"name", "artifacts", "properties", "note", "expires"})
_PROPERTY_TYPES: Final = frozenset({"string", "number", "uri", "ip", "lat_lng", "latlng"})


def _date(secs: float) -> str | float:
    try:
        return datetime.fromtimestamp(secs, UTC).isoformat().replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return secs


def threat_line(threat: Threat) -> bytes:
    """
    A threat as one line, without its end. What belongs to the store alone (ids, who found it) is
    left out.

    :raises ValueError: one of its artifacts is a password.
    """
    if any(each.type == PASSWORD for each in threat.artifacts):
        raise ValueError("a password is never written")
    given: dict[str, object] = {
        "name": threat.name,
        "artifacts": [{"type": each.type, "value": each.value} for each in threat.artifacts],
    }
    if threat.properties:
        given["properties"] = [
            {"type": each.type, "name": each.name, "value": each.value}
            for each in threat.properties
        ]
    if threat.note:
        given["note"] = threat.note
    if threat.expires is not None:
        given["expires"] = _date(threat.expires)
    try:
        return json.dumps(given, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        # A file for people is valid UTF-8, so lone surrogates are escaped.
        return json.dumps(given).encode("ascii")


def _string(given: Mapping[str, Any], key: str, where: str) -> str:
    value = given.get(key)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{where}{key}: expected a string that is not empty")
    return value


def _only(given: object, keys: frozenset[str], where: str) -> Mapping[str, Any]:
    if not isinstance(given, dict):
        raise ValueError(f"{where or 'the line'}: expected an object")
    for key in given:
        if key not in keys:
            raise ValueError(f"{where + '.' if where else ''}{key[:80]!r}: no such key")
    return given


def _list(given: Mapping[str, Any], key: str) -> list[Any]:
    value = given.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise ValueError(f"{key}: expected a list")
    return value


def _artifact(given: object, where: str) -> Artifact:
    found = _only(given, frozenset({"type", "value"}), where)
    type = _string(found, "type", f"{where}.")
    if type not in SHAPES:
        raise ValueError(f"{where}.type: {type[:80]!r} is no artifact type")
    if type == PASSWORD:
        raise ValueError(f"{where}.type: passwords are never stored")
    try:
        artifact = shaped(Artifact(type, found.get("value")))
    except UnknownArtifact:
        raise ValueError(f"{where}.value: expected {SHAPES[type].value}") from None
    if is_empty(artifact):
        raise ValueError(f"{where}.value: is empty")
    return artifact


def _property(given: object, where: str) -> Property:
    found = _only(given, frozenset({"type", "name", "value"}), where)
    type = _string(found, "type", f"{where}.")
    if type not in _PROPERTY_TYPES:
        raise ValueError(f"{where}.type: expected string, number, uri, ip or lat_lng")
    name = _string(found, "name", f"{where}.")
    value = found.get("value")
    if value is None or value == "":
        raise ValueError(f"{where}.value: is missing")
    if type in ("lat_lng", "latlng"):
        if not isinstance(value, dict):
            raise ValueError(f"{where}.value: expected an object with lat and lng")
    elif not isinstance(value, str | int | float):
        raise ValueError(f"{where}.value: expected a string or a number")
    return Property(type, name, value)


def _expires(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    if isinstance(value, str):
        try:
            date = datetime.fromisoformat(value)
            return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            pass
    raise ValueError("expires: expected a date like 2031-01-31 or 2031-01-31T12:00:00Z")


def threat_from_line(line: bytes | str) -> Threat:
    """
    The threat of one line, not stored yet.

    :raises ValueError: it is none; the message names the key and what was expected there, never
        a value.
    """
    try:
        decoded = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("the line is not JSON") from None
    given = _only(decoded, _KEYS, "")
    name = _string(given, "name", "")
    artifacts = _list(given, "artifacts")
    if not artifacts:
        raise ValueError("artifacts: expected at least one")
    note = given.get("note")
    if note is not None and not isinstance(note, str):
        raise ValueError("note: expected a string")
    return Threat(
        name=name,
        artifacts=tuple(_artifact(each, f"artifacts[{at}]") for at, each in enumerate(artifacts)),
        properties=tuple(
            _property(each, f"properties[{at}]")
            for at, each in enumerate(_list(given, "properties"))
        ),
        note=note or "",
        expires=_expires(given.get("expires")),
    )
