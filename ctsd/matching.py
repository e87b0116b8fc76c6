"""
Which stored indicator a value finds. Pure.

An indicator is stored under its L{keys}; a value looks for its L{patterns}. A stored key C{K}
matches a pattern C{P} when C{P in b"\\xff" + K + b"\\xff"}: so one index of all keys, joined by
C{\\xff}, answers substrings and, by a pattern that is framed with C{\\xff}, equality. Neither holds
a C{\\xff} of its own: both are UTF-8 (lone surrogates included), apart from frames of digests.

The rules, by type:
    - Texts and names are found by what they contain, whatever the case of their ASCII letters,
      from 4 characters; a shorter value finds its equal alone.
    - A URL with a scheme finds its equal, as written or in normal form; one without finds what
      contains it in either.
    - C{net.ip} by whole octets (C{192.168.1} finds C{192.168.1.1}), from 4 characters.
    - C{email.header.to} by any of its recipients.
    - Everything else by equality of normal forms; a value above L{MAX_COMPARED_BYTES} by its
      digest.
    - A password or the name of an uploaded file finds nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

from ctsd.model import FILE, JSON, PASSWORD
from ctsd.normal_forms import (
    MAX_COMPARED_BYTES,
    bare_url,
    has_scheme,
    normal,
    octets,
    whole_url,
)

#: A shorter value is only equal, never a part of another.
MIN_PART_CHARS: Final = 4

#: Between stored keys; in no key.
FRAME: Final = b"\xff"

#: The types that are found by what they contain; C{net.uri} has rules of its own.
PART_TYPES: Final = frozenset(
    {
        "email.header.sender_name",
        "file.name",
        "file.path",
        "net.name",
        "net.uri.path",
        "process.name",
        "string",
        "system.name",
        "system.service.name",
        "system.user.name",
    }
)
_NEVER: Final = frozenset({FILE, PASSWORD})


def _apart(data: bytes) -> bytes:
    """A key that no part of a text can match: C{\\xfe} is in no UTF-8."""
    return b"\xfe" + b"\xfe".join(data[i : i + 1] for i in range(len(data)))


def _key(text: str) -> bytes:
    data = text.encode("utf-8", "surrogatepass")
    if len(data) <= MAX_COMPARED_BYTES:
        return data
    return _apart(hashlib.blake2b(data, digest_size=16).hexdigest().encode("ascii"))


def _lower_key(text: str) -> bytes:
    """With the ASCII letters, and only these, in lower case."""
    data = text.encode("utf-8", "surrogatepass").lower()
    if len(data) <= MAX_COMPARED_BYTES:
        return data
    return _apart(hashlib.blake2b(data, digest_size=16).hexdigest().encode("ascii"))


def _address_key(value: JSON) -> bytes:
    text = normal("net.ip", value)
    parts = octets(text)
    if parts is not None:
        return f".{parts}.".encode("ascii")
    # What is no address must not be found by octets that happen to be in it.
    return _key(text).replace(b".", b"\xfe")


def _recipient_keys(value: JSON) -> tuple[bytes, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        return ()
    each = {_key(one.strip().lower()) for one in value if isinstance(one, str)}
    return tuple(sorted(each - {b""}))


def _small(text: str) -> bool:
    return len(text) <= MAX_COMPARED_BYTES and (
        len(text) * 4 <= MAX_COMPARED_BYTES
        or len(text.encode("utf-8", "surrogatepass")) <= MAX_COMPARED_BYTES
    )


def _url_keys(bare: str) -> tuple[bytes, ...]:
    raw = _lower_key(bare)
    if not has_scheme(bare) or not _small(bare):
        return (raw,)
    whole = whole_url(bare)
    if whole is None or not _small(whole):
        return (raw,)
    normal_key = _lower_key(whole)
    return (raw,) if normal_key == raw else (raw, normal_key)


def _name_keys(value: str) -> tuple[bytes, ...]:
    form = _lower_key(normal("net.name", value))
    if value.isascii():
        return (form,) if form else ()
    raw = _lower_key(value.strip())
    return tuple(key for key in dict.fromkeys((form, raw)) if key)


def keys(type: str, value: JSON) -> tuple[bytes, ...]:
    """
    What a stored indicator is found under; nothing when it can't be found: a value of another
    shape than its type's, an empty one, a password.
    """
    if type in _NEVER:
        return ()
    if type == "email.header.to":
        return _recipient_keys(value)
    if type == "net.name":
        return _name_keys(value) if isinstance(value, str) else ()
    if type == "net.uri":
        bare = bare_url(value) if isinstance(value, str) else ""
        return _url_keys(bare) if bare else ()
    if type == "net.ip":
        key = _address_key(value)
    elif type in PART_TYPES:
        key = _lower_key(value.strip()) if isinstance(value, str) else b""
    else:
        key = _key(normal(type, value))
    return (key,) if key else ()


def patterns(type: str, value: JSON) -> tuple[bytes, ...]:
    """What to look for in the stored keys; nothing when nothing can be found."""
    found = keys(type, value)
    if not found:
        return ()
    if type == "net.uri":
        whole = isinstance(value, str) and has_scheme(bare_url(value))
        parts = not whole
    elif type == "net.ip":
        parts = found[0].startswith(b".") and found[0].count(b".") < 5
    else:
        parts = type in PART_TYPES
    if parts and isinstance(value, str):
        if type == "net.ip":
            parts = len(found[0]) - 2 >= MIN_PART_CHARS
        return tuple(key if parts and _long(key) else FRAME + key + FRAME for key in found)
    return tuple(FRAME + key + FRAME for key in found)


def _long(key: bytes) -> bool:
    return len(key) >= MIN_PART_CHARS


def matches(type: str, term: JSON, stored: JSON) -> bool:
    """
    Whether a value finds a stored one: what an index found by its patterns is so when this says
    so. (Only for URLs the patterns may find more: equality of URLs minds the case.)
    """
    wanted = patterns(type, term)
    if not any(one in FRAME + key + FRAME for key in keys(type, stored) for one in wanted):
        return False
    if type != "net.uri" or not isinstance(term, str) or not isinstance(stored, str):
        return True
    asked, kept = bare_url(term), bare_url(stored)
    if not has_scheme(asked) or asked == kept:
        return True
    if not (_small(asked) and _small(kept)):
        return False
    form = whole_url(asked)
    return form is not None and form == whole_url(kept)
