"""
Normal forms: one spelling for all spellings of the same thing, type by type. Pure.

A value that a normal form can't be made of keeps its own spelling: it then equals itself alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv6Address, ip_network
from typing import Final

import can_ada

from ctsd.model import JSON

#: Above this many UTF-8 bytes a value is compared by its digest alone.
MAX_COMPARED_BYTES: Final = 64 * 1024

_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_OCTETS = re.compile(rf"({_OCTET}(?:\.{_OCTET}){{0,3}})\.?")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://")
_NOT_HEX = re.compile(r"[^0-9a-f]")
_MAC = re.compile(
    r"[0-9a-f]{2}(?:([:-]?)[0-9a-f]{2})(?:\1[0-9a-f]{2}){4}|(?:[0-9a-f]{4}\.){2}[0-9a-f]{4}"
)

#: What WHATWG's URL parser drops around a URL: C0 controls and space.
_URL_EDGES: Final = "".join(map(chr, range(0x21)))

#: What C{can_ada} raises for what is no URL or no name; C{TypeError} for a lone surrogate.
NO_URL: Final = (ValueError, TypeError)

#: Longer than any name of the DNS, and its IDNA form is not worth the time.
_NAME_CHARS: Final = 1024


def octets(text: str) -> str | None:
    """
    One to four whole octets, without a trailing dot: an IPv4 address or a part of one; else None.

    An octet with leading zeros is none: it is octal to some and decimal to others.
    """
    found = _OCTETS.fullmatch(text)
    return found[1] if found else None


def address(text: str) -> str:
    """
    An IP address in canonical form: no zone, no brackets, an IPv4-mapped one as IPv4. What is no
    address, and what is ambiguous (C{010.1.1.1}), stays as it is.
    """
    text = text.strip()
    whole = octets(text)
    if whole is not None:
        return whole
    if ":" not in text:
        return text
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        parsed = IPv6Address(bare.partition("%")[0])
    except ValueError:
        return text
    mapped = parsed.ipv4_mapped
    return str(parsed if mapped is None else mapped)


def is_address(text: str) -> bool:
    """Whether this is one whole IPv4 or IPv6 address: unambiguous, and without a zone."""
    whole = octets(text)
    if whole is not None:
        return whole == text and text.count(".") == 3
    if ":" not in text or "%" in text:
        return False
    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True


def has_scheme(url: str) -> bool:
    """Whether a URL says its scheme (C{https://...}); what says none is a part of a URL."""
    return _SCHEME.match(url) is not None


def bare_url(url: str) -> str:
    """A URL without the blanks and controls around it, which no URL parser minds."""
    return url.strip(_URL_EDGES)


# One scan asks for the form of its URL several times: for its digest, for every index.
@lru_cache(maxsize=16)
def whole_url(url: str) -> str | None:
    """
    The normal form of a URL by the WHATWG standard (U{https://url.spec.whatwg.org/}), without
    user name, password and fragment (no server ever sees that one); None for what is no URL.
    """
    try:
        parsed = can_ada.parse(url)
        if parsed.has_credentials():
            parsed.username = ""
            parsed.password = ""
    except NO_URL:
        return None
    return parsed.href.partition("#")[0]


def url(text: str) -> str:
    """The normal form of a URL with a scheme; anything else is only stripped."""
    bare = bare_url(text)
    if has_scheme(bare) and len(bare) <= MAX_COMPARED_BYTES:
        return whole_url(bare) or bare
    return bare


def name(text: str) -> str:
    """A name of the DNS, or a part of one: lower case, in Punycode, without the root's dot."""
    text = text.strip()
    if not text.isascii() and len(text) <= _NAME_CHARS:
        try:
            text = can_ada.idna_encode(text).decode("ascii") or text
        except NO_URL:
            return text
    if text.isascii():
        text = text.lower()
    return text[:-1] if text.endswith(".") and len(text) > 1 else text


def network(text: str) -> str:
    """A CIDR range with its host bits cleared; what is none stays as it is."""
    text = text.strip()
    try:
        return str(ip_network(text, strict=False))
    except ValueError:
        return text


def mac(text: str) -> str:
    """A MAC address as C{00:1a:2b:3c:4d:5e}; what is none stays as it is."""
    text = text.strip()
    lower = text.lower()
    if not _MAC.fullmatch(lower):
        return text
    digits = _NOT_HEX.sub("", lower)
    return ":".join(digits[i : i + 2] for i in range(0, 12, 2))


def joined(parts: Sequence[str]) -> str:
    """Several texts as one, so that different ones never give the same; empty when all are."""
    return "".join(f"{len(part)}:{part}" for part in parts) if any(parts) else ""


def _text(value: JSON, key: str) -> str:
    found = value.get(key) if isinstance(value, Mapping) else None
    return found if isinstance(found, str) else ""


def _header(value: JSON) -> str:
    """The names of headers don't differ by case (RFC 9110, 5.1; RFC 5322, 1.2.2)."""
    return joined((_text(value, "name").strip().lower(), _text(value, "value").strip()))


def _registry(value: JSON) -> str:
    """The names of keys and entries don't differ by case on Windows; their values do."""
    return joined(
        (
            _text(value, "key").strip().rstrip("\\").lower(),
            _text(value, "entry_name").strip().lower(),
            _text(value, "entry_value"),
        )
    )


def _of_text(form: Callable[[str], str]) -> Callable[[JSON], str]:
    return lambda value: form(value) if isinstance(value, str) else ""


def _lower(text: str) -> str:
    return text.strip().lower()


def _upper(text: str) -> str:
    return text.strip().upper()


def recipients(value: JSON) -> list[str]:
    """Each of several e-mail addresses in its normal form."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        return []
    return [_lower(each) for each in value if isinstance(each, str)]


def _port(value: JSON) -> str:
    return "" if isinstance(value, bool) or not isinstance(value, int | float) else str(value)


_FORMS: Final[Mapping[str, Callable[[JSON], str]]] = {
    "email.header": _header,
    "email.header.sender_address": _of_text(_lower),
    "email.header.to": lambda value: joined(recipients(value)),
    "hash.md5": _of_text(_lower),
    "hash.sha1": _of_text(_lower),
    "hash.sha256": _of_text(_lower),
    "net.cidr": _of_text(network),
    "net.http.request.header": _header,
    "net.http.response.header": _header,
    "net.ip": _of_text(address),
    "net.mac": _of_text(mac),
    "net.name": _of_text(name),
    "net.port": _port,
    "net.uri": _of_text(url),
    "system.registry": _registry,
    "threat.malware.family": _of_text(_lower),
    "threat.report.cve": _of_text(_upper),
}
_STRIPPED: Final = _of_text(str.strip)


def normal(type: str, value: JSON) -> str:
    """
    The normal form of a value that has its type's shape: equal values have equal ones. Empty for
    a value of another shape.

    A type without a rule of its own (texts, names) only loses the blanks around it.
    """
    return _FORMS.get(type, _STRIPPED)(value)
