"""
What an indicator of a feed is stored under. Pure.

A key is a kind, one byte, and a form (L{ctsd.indicator_forms}). An address or a CIDR range has no
key: it is a L{Network}, for ranges are found by containment. What an artifact looks for is in
L{ctsd.feeds.lookups}.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from ctsd.indicator_forms import (
    Network,
    certificate_form,
    cve_form,
    email_form,
    family_form,
    hash_form,
    host_form,
    network,
    network_form,
    url_form,
)
from ctsd.model import FILE, JSON, PASSWORD
from ctsd.normal_forms import MAX_COMPARED_BYTES, normal
from ctsd.refanged import seen

#: The kinds of keys.
URL: Final = b"u"
HOST: Final = b"n"
ON_HOST: Final = b"a"
HASH: Final = b"h"
EMAIL: Final = b"m"
CVE: Final = b"v"
FAMILY: Final = b"w"
CERTIFICATE: Final = b"c"
TEXT: Final = b"t"
_BEHIND_HOST: Final = (b"/", b":")

_NAME_TYPES: Final = frozenset({"file.name", "file.path", "process.name"})
#: No indicator has one of these types, and what is within such an artifact is looked for instead.
NEVER: Final = frozenset({FILE, PASSWORD, "email", "email.body"})


def digest_of(key: bytes) -> bytes:
    """L{hash_of}, as bytes: the lowest first."""
    return hashlib.blake2b(key, digest_size=8).digest()


def hash_of(key: bytes) -> int:
    """
    The 64 bits that stand for a key in an index. Nobody can make many keys of the same: a feed
    can't hide somebody else's indicator behind its own.
    """
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little")


def domain_of(host: bytes) -> bytes:
    """
    What hosts have in common that find each other: the last two labels.
    """
    return host[host.rfind(b".", 0, host.rfind(b".")) + 1 :]


#: The 32 bits that stand for a domain (L{domain_of}). Who makes many of the same makes lookups
#: slower, and hides nothing.
domain_mark: Final = zlib.crc32


def domains_of(keys: Sequence[bytes]) -> frozenset[bytes]:
    """
    The domains (L{domain_of}) of an indicator's keys. All that finds one by a key of a host, of a
    URL or of what is on a host is, or is on, a host of the same domain.
    """
    return frozenset(domain_of(host) for host in map(_host_in, keys) if host is not None)


def usual_host(keys: Sequence[bytes]) -> bytes | None:
    """
    The host that is the only one in an indicator's keys: that of a URL, behind which its port or
    its path begins. None for unusual URLs, and for what is none.
    """
    if len(keys) != 2 or keys[1][:1] != ON_HOST or keys[0][:1] != URL:
        return None
    url, host = keys[0], keys[1][1:]
    end = len(host) + 1
    return host if url.startswith(host, 1) and url[end : end + 1] in _BEHIND_HOST else None


def _host_in(key: bytes) -> bytes | None:
    kind = key[:1]
    if kind == URL:
        host = key[1:].partition(b"/")[0]
        if b":" in host and host[-1:] != b"]":
            host = host.rpartition(b":")[0]
        return host
    return key[1:] if kind in (HOST, ON_HOST) else None


def address_in(keys: Sequence[bytes]) -> int | None:
    """The IPv4 address on which the URL of these keys is; None when it is on none."""
    for key in keys:
        if key[:1] == ON_HOST and key[-1:].isdigit():
            found = network(key[1:].decode("utf-8", "surrogatepass"))
            if found is not None and found.version == 4 and found.is_single:
                return found.first
    return None


def text_key(type: str, value: JSON) -> bytes | None:
    """The key of a value without a form of its own; None for an empty one."""
    if isinstance(value, str):
        form = seen(value)
        if type in _NAME_TYPES:
            form = form.casefold()
        form = normal(type, form)
    else:
        form = normal(type, value)
    if not form:
        return None
    data = form.encode("utf-8", "surrogatepass")
    if len(data) > MAX_COMPARED_BYTES:
        data = b"\0" + hashlib.blake2b(data, digest_size=16).digest()
    return TEXT + type.encode() + b"\0" + data


#: The types whose values have one form: its kind, and what makes it (empty: there is none).
WORDS: Final[Mapping[str, tuple[bytes, Callable[[str], str]]]] = {
    "cert.x509": (CERTIFICATE, certificate_form),
    "hash.md5": (HASH, hash_form),
    "hash.sha1": (HASH, hash_form),
    "hash.sha256": (HASH, hash_form),
    "threat.malware.family": (FAMILY, family_form),
    "threat.report.cve": (CVE, cve_form),
}


def encoded(kind: bytes, form: str) -> bytes:
    """A form as a key."""
    return kind + form.encode("utf-8", "surrogatepass")


def is_too_long(value: str) -> bool:
    """Whether a value is compared by its digest alone."""
    return len(value) > MAX_COMPARED_BYTES // 4 and (
        len(value.encode("utf-8", "surrogatepass")) > MAX_COMPARED_BYTES
    )


def stored(type: str, value: JSON) -> tuple[tuple[bytes, ...], Network | None]:
    """
    The keys under which an indicator is stored, and the network that it is. Nothing at all: it
    can't be found.

    An address in C{net.name}, a range in C{net.ip} and the like, which feeds have, are taken for
    what they are.
    """
    if type in NEVER:
        return (), None
    if isinstance(value, str) and not is_too_long(value):
        found = _stored_form(type, value)
        if found is not None:
            return found
    elif type == "email.header.to" and isinstance(value, Sequence) and not isinstance(value, str):
        forms = [email_form(each) for each in value if isinstance(each, str)]
        boxes = {encoded(EMAIL, form[0]): None for form in forms if form is not None}
        return tuple(boxes), None
    key = text_key(type, value)
    return ((key,) if key else ()), None


def _stored_form(type: str, value: str) -> tuple[tuple[bytes, ...], Network | None] | None:
    if type == "net.uri":
        url = url_form(value)
        if url is None:
            return None
        whole = encoded(URL, url.rest)
        return ((whole, encoded(ON_HOST, url.host)) if url.host else (whole,)), None
    if type == "net.ip" or type == "net.cidr":
        found = network_form(value)
        return None if found is None else ((), found)
    if type == "net.name":
        host = host_form(value)
        if ":" in host or host[-1:].isdigit():
            found = network(host)
            if found is not None:
                return (), found
        return ((encoded(HOST, host),), None) if host else None
    if type == "email.header.sender_address":
        box = email_form(value)
        return None if box is None else ((encoded(EMAIL, box[0]),), None)
    if type in WORDS:
        kind, form_of = WORDS[type]
        form = form_of(value)
        return ((encoded(kind, form),), None) if form else None
    return None
