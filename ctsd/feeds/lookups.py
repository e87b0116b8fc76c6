"""
What an artifact looks for in the index of feeds. Pure.

What is found through something else than the whole value says so: C{host of the URL}; an exact one
says nothing.

Rules:
    - A URL never finds another URL because their hosts are equal: it looks for listed hosts.
    - A host as artifact finds the URLs on it (L{ON_HOST}), but for shared hosts, which the index
      asks the warninglists about. A host that only derives from an artifact does not.
    - A host finds its parent domains, never a public suffix or what is above one: the index asks
      when it has found one, for hardly any lookup does.
    - An address finds the ranges that contain it; a range those that contain it and, unless it is
      very wide, all that is in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Final

from ctsd.feeds.keys import (
    CERTIFICATE,
    EMAIL,
    HOST,
    NEVER,
    ON_HOST,
    URL,
    WORDS,
    encoded,
    hash_of,
    is_too_long,
    text_key,
)
from ctsd.indicator_forms import (
    Network,
    email_form,
    host_form,
    network,
    url_form,
)
from ctsd.model import FILE, JSON, Artifact
from ctsd.records import Derived
from ctsd.refanged import seen

#: The whole value.
EXACT: Final = ""
#: Scheme apart, the whole URL.
SCHEME: Final = "URL but for its scheme"
URL_ON_HOST: Final = "URL on the host"
URL_ON_ADDRESS: Final = "URL on the address"
PARENT: Final = "parent domain"
HOST_OF_URL: Final = "host of the URL"
PARENT_OF_URL: Final = "parent domain of the URL's host"
ADDRESS_OF_URL: Final = "address in the URL"
RANGE_OF_URL: Final = "range of the address in the URL"
DOMAIN_OF_EMAIL: Final = "domain of the e-mail address"
PARENT_OF_EMAIL: Final = "parent domain of the e-mail address' domain"
ADDRESS_OF_EMAIL: Final = "address in the e-mail address"
RANGE_OF_EMAIL: Final = "range of the address in the e-mail address"
NAME_OF_FILE: Final = "name of the file"
RANGE: Final = "range that contains it"
_INSIDE: Final = "part of the range"

#: A wider CIDR range finds what contains it alone.
WIDEST_V4: Final = 16
WIDEST_V6: Final = 32

#: Of a host's parent domains, so many from the right are looked for.
MAX_PARENTS: Final = 8

#: One thing to look for: a key or a network; how it follows from the artifact, if something equals
#: it; and of a URL's key the scheme, of a parent domain's the host below it, of a network how
#: something follows that contains it. Else the third is empty.
Lookup = tuple[bytes, str, str] | tuple[Network, str, str]

#: The domain that somebody has registered, of a host; whether many share a host.
Registered = Callable[[str], str | None]
IsShared = Callable[[str], bool]

#: With the hash of its key.
Hashed = tuple[int, Lookup]

#: What a network has instead of a hash.
NO_HASH: Final = -1

#: What a longer value looks for is not kept for the next who looks it up.
MAX_SHARED_CHARS: Final = 4096

#: Makes of how something follows from a value how it follows from the artifact.
_Told = Callable[[str], str]

#: Adds what a value looks for; false when the value has no form of its type.
_Adder = Callable[[list[Lookup], str, _Told], bool]


def how_found(how: str, scheme: str, value: JSON) -> str:
    """How a URL indicator was found whose key, which is without the scheme, was looked for."""
    url = url_form(value) if isinstance(value, str) else None
    if url is None or url.scheme == scheme:
        return how
    return f"{SCHEME} ({how})" if how else SCHEME


def looks_inside(asked: Network) -> bool:
    """Whether a range finds what is in it: not when it is very wide."""
    if asked.version == 4:
        return WIDEST_V4 <= asked.prefix < 32
    return WIDEST_V6 <= asked.prefix < 128


def inside_of(how: str) -> str:
    """
    How something is found that is in a range.

    :param how: how the range follows from the artifact; empty: it is that.
    """
    return f"{_INSIDE} ({how})" if how else _INSIDE


def may_show(key: bytes, note: str, registered: Registered, is_shared: IsShared) -> bool:
    """
    Whether what was found by a key says something of what was asked: a public suffix does not, nor
    a URL on a host that many share.

    :param note: the third of the L{Lookup}.
    """
    if key[:1] == HOST and note:
        domain = registered(note)
        return domain is not None and f".{_host(key)}".endswith(f".{domain}")
    return key[:1] != ON_HOST or not is_shared(_host(key))


def _host(key: bytes) -> str:
    return key[1:].decode("utf-8", "surrogatepass")


def lookups(artifact: Artifact, derived: Iterable[Derived] = ()) -> list[Lookup]:
    """
    What an artifact looks for: first what equals it.

    :param artifact: of at most as many recipients as shall be looked for.
    :param derived: what else derives from it (L{ctsd.artifacts.derived}, L{ctsd.feeds.contents}),
        in the order in which it shall be found.
    """
    found: list[Lookup] = []
    file = artifact.file
    if file is None or artifact.type != FILE:
        _add(found, artifact.type, artifact.value, None)
    if file is not None and artifact.type == "cert.x509":
        found.append((CERTIFICATE + file.sha1.encode(), "SHA-1 of the certificate", ""))
    if file is not None and file.name:
        _add(found, "file.name", file.name, NAME_OF_FILE)
    if file is None and artifact.type == FILE:
        _add(found, "file.name", artifact.value, NAME_OF_FILE)
    for each in derived:
        _add(found, each.artifact.type, each.artifact.value, each.how)
    return found


def hashed(artifact: Artifact, derived: Iterable[Derived] = ()) -> tuple[Hashed, ...]:
    """
    What L{lookups} says, each with the hash that its key has in an index; C{NO_HASH} with a
    network. All who look up the same artifact share the work.
    """
    if derived == () and artifact.file is None and isinstance(artifact.value, str):
        return hashed_value(artifact.type, artifact.value)
    return _hashed(lookups(artifact, derived))


def hashed_value(type: str, value: str) -> tuple[Hashed, ...]:
    """L{hashed}, of an artifact that is but a text."""
    if len(value) <= MAX_SHARED_CHARS:
        return _shared(type, value)
    return _hashed(lookups(Artifact(type, value)))


def _hashed(found: Iterable[Lookup]) -> tuple[Hashed, ...]:
    return tuple(
        [(hash_of(one[0]) if isinstance(one[0], bytes) else NO_HASH, one) for one in found]
    )


# One for the local database and the feeds, and for a second searcher of one feed.
@lru_cache(maxsize=64)
def _shared(type: str, value: str) -> tuple[Hashed, ...]:
    return _hashed(lookups(Artifact(type, value)))


def is_plain(type: str) -> bool:
    """Whether a text of this type looks for itself alone (L{text_key})."""
    return type not in _ADDERS and type not in _HEADER_TYPES and type not in NEVER


def _add(found: list[Lookup], type: str, value: JSON, outer: str | None) -> None:
    """Add what a value looks for; C{outer} says how it follows from the artifact."""
    adder = _ADDERS.get(type)
    if adder is not None and isinstance(value, str) and not is_too_long(value):
        told: _Told = _same if outer is None else _told_within(outer)
        if adder(found, value, told):
            return
    elif type in _HEADER_TYPES and outer is None:
        _add_header(found, type, value)
    elif type == "email.header.to" and isinstance(value, Sequence) and not isinstance(value, str):
        boxes = [email_form(each) for each in value if isinstance(each, str)]
        given = [box for box in dict.fromkeys(boxes) if box is not None]
        for whole, _ in given:
            found.append((encoded(EMAIL, whole), EXACT, ""))
        for domain in dict.fromkeys(domain for _, domain in given):
            _add_domain(found, domain, _same)
        return
    if type in NEVER:
        return
    key = text_key(type, value)
    if key is not None:
        found.append((key, outer or EXACT, ""))


def parents_of(host: bytes) -> list[bytes]:
    """The parent domains of a host that are looked for."""
    labels = host.split(b".")
    if len(labels) < 3 or labels[-1].isdigit():
        return []
    first = max(1, len(labels) - MAX_PARENTS)
    return [b".".join(labels[at:]) for at in range(first, len(labels) - 1)]


def _same(how: str) -> str:
    return how


def _told_within(outer: str) -> _Told:
    return lambda how: f"{how} ({outer})" if how else outer


def _add_host(
    found: list[Lookup], host: str, how: str, parent_how: str, told: _Told, on_host: str = ""
) -> None:
    """A host that is no address."""
    data = host.encode("utf-8", "surrogatepass")
    found.append((HOST + data, told(how), ""))
    parents = parents_of(data)
    if parents:
        above = told(parent_how)
        found += [(HOST + parent, above, host) for parent in parents]
    if on_host and told is _same:
        found.append((ON_HOST + data, on_host, ""))


def _add_uri(found: list[Lookup], value: str, told: _Told) -> bool:
    url = url_form(value)
    if url is None:
        return False
    found.append((encoded(URL, url.rest), told(EXACT), url.scheme))
    host = url.host
    if not host:
        return True
    if ":" in host or host[-1].isdigit():
        address = network(host)
        if address is not None:
            found.append((address, told(ADDRESS_OF_URL), told(RANGE_OF_URL)))
            return True
    _add_host(found, host, HOST_OF_URL, PARENT_OF_URL, told)
    return True


def _add_network(found: list[Lookup], value: str, told: _Told) -> bool:
    asked = network(value)
    if asked is None:
        return False
    found.append((asked, told(EXACT), told(RANGE)))
    if asked.is_single and told is _same:
        found.append((encoded(ON_HOST, str(asked)), URL_ON_ADDRESS, ""))
    return True


def _add_name(found: list[Lookup], value: str, told: _Told) -> bool:
    host = host_form(value)
    if not host:
        return False
    if (":" in host or host[-1].isdigit()) and _add_network(found, host, told):
        return True
    _add_host(found, host, EXACT, PARENT, told, URL_ON_HOST)
    return True


def _add_email(found: list[Lookup], value: str, told: _Told) -> bool:
    box = email_form(value)
    if box is None:
        return False
    found.append((encoded(EMAIL, box[0]), told(EXACT), ""))
    _add_domain(found, box[1], told)
    return True


def _add_domain(found: list[Lookup], domain: str, told: _Told) -> None:
    literal = network(domain.strip("[]")) if domain[-1:] == "]" or domain[-1:].isdigit() else None
    if literal is not None:
        found.append((literal, told(ADDRESS_OF_EMAIL), told(RANGE_OF_EMAIL)))
    elif domain:
        _add_host(found, domain, DOMAIN_OF_EMAIL, PARENT_OF_EMAIL, told)


def _adder_of_word(kind: bytes, form_of: Callable[[str], str]) -> _Adder:
    def add(found: list[Lookup], value: str, told: _Told) -> bool:
        form = form_of(value)
        if form:
            found.append((encoded(kind, form), told(EXACT), ""))
        return bool(form)

    return add


_HEADER_TYPES: Final = frozenset(
    {"email.header", "net.http.request.header", "net.http.response.header"}
)
#: The headers that hold something else to look for: its type, and what it is.
_HEADERS: Final = {
    ("email.header", "from"): ("email.header.sender_address", "address in From"),
    ("email.header", "sender"): ("email.header.sender_address", "address in Sender"),
    ("email.header", "reply-to"): ("email.header.sender_address", "address in Reply-To"),
    ("email.header", "return-path"): ("email.header.sender_address", "address in Return-Path"),
    ("net.http.request.header", "referer"): ("net.uri", "URL in Referer"),
    ("net.http.request.header", "host"): ("net.name", "host in Host"),
}


def _add_header(found: list[Lookup], type: str, value: JSON) -> None:
    name = value.get("name") if isinstance(value, dict) else None
    inner = value.get("value") if isinstance(value, dict) else None
    if isinstance(name, str) and isinstance(inner, str):
        held = _HEADERS.get((type, seen(name).lower()))
        if held is not None:
            _add(found, held[0], inner, held[1])


_ADDERS: Final[Mapping[str, _Adder]] = {
    "net.uri": _add_uri,
    "net.ip": _add_network,
    "net.cidr": _add_network,
    "net.name": _add_name,
    "email.header.sender_address": _add_email,
    **{type: _adder_of_word(*given) for type, given in WORDS.items()},
}
