"""
The artifact types: which shape their values have, when two are equal, what derives from one. Pure.

The types are those of the I{Custom Threat Service Guide} V36, chapter "ThreatServiceArtifactDTO",
and two more of its samples. Which stored indicator a value finds is in L{ctsd.matching}, whose
functions are here, too.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Final

from ctsd.errors import UnknownArtifact
from ctsd.matching import keys, matches, patterns
from ctsd.model import FILE, JSON, PASSWORD, Artifact, File
from ctsd.normal_forms import normal
from ctsd.records import Derived


class Shape(Enum):
    """What the value of an artifact looks like."""

    STRING = "a string"
    STRINGS = "an array of strings"
    NUMBER = "a number"
    NAME_VALUE = "an object with the strings name and value"
    REGISTRY = "an object with the string key, perhaps entry_name and entry_value"


#: Every artifact type that is known, with the shape of its values.
SHAPES: Final[Mapping[str, Shape]] = {
    "cert.x509": Shape.STRING,
    "email": Shape.STRING,
    "email.body": Shape.STRING,
    "email.header": Shape.NAME_VALUE,
    "email.header.sender_address": Shape.STRING,
    "email.header.sender_name": Shape.STRING,
    "email.header.to": Shape.STRINGS,
    FILE: Shape.STRING,
    "file.name": Shape.STRING,
    "file.path": Shape.STRING,
    "hash.fuzzy": Shape.STRING,
    "hash.md5": Shape.STRING,
    "hash.sha1": Shape.STRING,
    "hash.sha256": Shape.STRING,
    "net.cidr": Shape.STRING,
    "net.http.request.header": Shape.NAME_VALUE,
    "net.http.response.header": Shape.NAME_VALUE,
    "net.ip": Shape.STRING,
    "net.mac": Shape.STRING,
    "net.name": Shape.STRING,
    "net.port": Shape.NUMBER,
    "net.uri": Shape.STRING,
    "net.uri.path": Shape.STRING,
    "process.name": Shape.STRING,
    "string": Shape.STRING,
    "system.mutex": Shape.STRING,
    "system.name": Shape.STRING,
    "system.registry": Shape.REGISTRY,
    "system.service.name": Shape.STRING,
    "system.user.name": Shape.STRING,
    PASSWORD: Shape.STRING,
    "threat.malware.family": Shape.STRING,
    "threat.report.cve": Shape.STRING,
}

_STRING_TYPES: Final = frozenset(each for each in SHAPES if SHAPES[each] is Shape.STRING)


def _as_text(value: JSON) -> str | None:
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value)


def _as_number(value: JSON) -> int | float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        try:
            value = int(value) if value.strip().isdecimal() else float(value)
        except ValueError:
            return None
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return int(value) if value.is_integer() else value
    return value if isinstance(value, int) else None


def _as_texts(value: JSON) -> list[str] | None:
    each = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    texts = [_as_text(one) for one in each]
    return None if None in texts else [text for text in texts if text is not None]


def _as_object(
    value: JSON, required: tuple[str, ...], optional: tuple[str, ...] = ()
) -> dict[str, JSON] | None:
    if not isinstance(value, Mapping):
        return None
    shaped: dict[str, JSON] = {}
    for key in (*required, *optional):
        given = value.get(key)
        if given is None and key in optional:
            continue
        text = _as_text(given)
        if text is None:
            return None
        shaped[key] = text
    return shaped


def _in_shape(shape: Shape, value: JSON) -> JSON:
    """The value in this shape, or None."""
    if shape is Shape.STRINGS:
        return _as_texts(value)
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 1:
        value = value[0]
    if shape is Shape.STRING:
        return _as_text(value)
    if shape is Shape.NUMBER:
        return _as_number(value)
    if shape is Shape.NAME_VALUE:
        return _as_object(value, ("name", "value"))
    return _as_object(value, ("key",), ("entry_name", "entry_value"))


def shaped(artifact: Artifact) -> Artifact:
    """
    The artifact with its value in its type's shape: numbers and strings, one and a list of one
    are converted into each other; keys that an object of its type does not have are left out.

    :raises UnknownArtifact: the type is not known, or the value has another shape.
    """
    if type(artifact.value) is str and artifact.type in _STRING_TYPES:
        return artifact
    shape = SHAPES.get(artifact.type)
    if shape is None:
        raise UnknownArtifact(f"the artifact's type {artifact.type[:100]!a} is not known")
    value = _in_shape(shape, artifact.value)
    if value is None:
        raise UnknownArtifact(f"the value of {artifact.type} is not {shape.value}")
    return Artifact(artifact.type, value, artifact.file)


def _is_blank(value: JSON) -> bool:
    if isinstance(value, str):
        return not value or value.isspace()
    return value is None


def is_empty(artifact: Artifact) -> bool:
    """
    Whether there is nothing to ask: blank, no elements, or only such; a file is never empty.
    """
    value = artifact.value
    if artifact.file is not None:
        return False
    if isinstance(value, str):
        return _is_blank(value)
    if isinstance(value, Mapping):
        return all(map(_is_blank, value.values()))
    if isinstance(value, Sequence):
        return all(map(_is_blank, value))
    return value is None


def digest(type: str, value: JSON, file: File | None = None) -> bytes:
    """
    16 bytes that are equal for equal artifacts: of the type and the value's normal form, and of
    the bytes of the file; for C{file.content} of these alone, whatever the file is called. Empty
    for a password, of which not even a digest may be kept.
    """
    if type == PASSWORD:
        return b""
    if file is None:
        text = f"{type}\0value\0{normal(type, value)}"
    elif type == FILE:
        text = f"{type}\0file\0{file.sha256}"
    else:
        text = f"{type}\0both\0{file.sha256}\0{normal(type, value)}"
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def derived(artifact: Artifact) -> tuple[Derived, ...]:
    """What derives from an artifact: of a file, its three hashes."""
    file = artifact.file
    if file is None:
        return ()
    return (
        Derived(Artifact("hash.md5", file.md5), "MD5 of the file"),
        Derived(Artifact("hash.sha1", file.sha1), "SHA-1 of the file"),
        Derived(Artifact("hash.sha256", file.sha256), "SHA-256 of the file"),
    )


__all__ = [
    "SHAPES",
    "Derived",
    "Shape",
    "derived",
    "digest",
    "is_empty",
    "keys",
    "matches",
    "patterns",
    "shaped",
]
