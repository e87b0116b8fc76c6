"""
Which stored indicator a value finds. Pure.

An indicator is stored under its L{keys}; a value looks for its L{patterns}. A stored key C{K}
matches a pattern C{P} when C{P in b"\\xff" + K + b"\\xff"}: so one index of all keys, joined by
C{\\xff}, answers substrings and, by a pattern that is framed with C{\\xff}, equality. No key holds
a C{\\xff}: keys are UTF-8 (lone surrogates included), but for C{\\xfe} in those that must be found
whole.

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
from typing import Final

from ctsd.model import FILE, JSON, PASSWORD
from ctsd.normal_forms import (
    MAX_COMPARED_BYTES,
    address,
    bare_url,
    has_scheme,
    name,
    normal,
    octets,
    recipients,
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
_OWN_TYPES: Final = frozenset({"net.ip", "net.uri"})
_NEVER: Final = frozenset({FILE, PASSWORD})


def _apart(data: bytes) -> bytes:
    """A key of which no text is a part: C{\\xfe} is in no UTF-8."""
    return b"\xfe" + b"\xfe".join(data[at : at + 1] for at in range(len(data)))


def _key(data: bytes) -> bytes:
    if len(data) <= MAX_COMPARED_BYTES:
        return data
    return _apart(hashlib.blake2b(data, digest_size=16).hexdigest().encode("ascii"))


def _exact(text: str) -> bytes:
    return _key(text.encode("utf-8", "surrogatepass"))


def _caseless(text: str) -> bytes:
    # Of bytes, Python lowers the ASCII letters alone.
    return _key(text.encode("utf-8", "surrogatepass").lower())


def _is_small(text: str) -> bool:
    return len(text) * 4 <= MAX_COMPARED_BYTES or (
        len(text.encode("utf-8", "surrogatepass")) <= MAX_COMPARED_BYTES
    )


def _url_keys(bare: str) -> tuple[bytes, ...]:
    raw = _caseless(bare)
    whole = whole_url(bare) if has_scheme(bare) and _is_small(bare) else None
    if whole is None:
        return (raw,)
    form = _caseless(whole)
    return (raw,) if form == raw else (raw, form)


def _name_keys(value: str) -> tuple[bytes, ...]:
    form = _caseless(name(value))
    if value.isascii():
        return (form,)
    raw = _caseless(value.strip())
    return (raw,) if form == raw else (raw, form)


def _address_key(text: str) -> bytes:
    form = address(text)
    if octets(form) is not None:
        return f".{form}.".encode("ascii")
    # What is no address must not be found by octets that happen to be in it.
    return _exact(form).replace(b".", b"\xfe")


def keys(type: str, value: JSON) -> tuple[bytes, ...]:
    """
    What a stored indicator is found under; nothing when it can't be found: a value of another
    shape than its type's, an empty one, a password.
    """
    if type in _NEVER:
        return ()
    if type == "email.header.to":
        return tuple({_exact(each): None for each in recipients(value) if each})
    if type not in PART_TYPES and type not in _OWN_TYPES:
        form = normal(type, value)
        return (_exact(form),) if form else ()
    if not isinstance(value, str) or not value.strip():
        return ()
    if type == "net.uri":
        bare = bare_url(value)
        return _url_keys(bare) if bare else ()
    if type == "net.ip":
        return (_address_key(value),)
    if type == "net.name":
        return _name_keys(value)
    return (_caseless(value.strip()),)


def _finds_parts(type: str, value: JSON) -> bool:
    """Whether this value finds what it is a part of, and not only its equal."""
    if not isinstance(value, str):
        return False
    if type == "net.uri":
        bare = bare_url(value)
        return len(bare) >= MIN_PART_CHARS and not has_scheme(bare)
    if type == "net.ip":
        parts = octets(value.strip())
        return parts is not None and len(parts) >= MIN_PART_CHARS and parts.count(".") < 3
    return type in PART_TYPES and len(value.strip()) >= MIN_PART_CHARS


def patterns(type: str, value: JSON) -> tuple[bytes, ...]:
    """What to look for in the stored keys; nothing when nothing can be found."""
    found = keys(type, value)
    if _finds_parts(type, value):
        return found
    return tuple([FRAME + key + FRAME for key in found])


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
    if not (has_scheme(kept) and _is_small(asked) and _is_small(kept)):
        return False
    form = whole_url(asked)
    return form is not None and form == whole_url(kept)
