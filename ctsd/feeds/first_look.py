"""
The first look at what an artifact may find in the feeds: most that nothing has are told so here.

Hosts are told by the domain of their last two labels, C{evil.example} of C{www.evil.example}: a
host, all that is above it that is looked for, and all URLs on it have the same one. So a URL or a
host whose domain no feed has any indicator of finds nothing. Addresses are told by blocks of
addresses in which no feed has anything. What shares a domain or a block with something listed, and
all else, is told by the keys that it looks for (L{ctsd.feeds.lookups}), of which hardly any
artifact has more than a few.

Nearly all values are written in one of the few ways that are known here. All others are left to
the whole search: there a false alarm costs time, here an indicator could be missed.

Arrays: C{keys}, a set (L{ctsd.feeds.marks}) of the hashes of all keys; C{domains}, one of the
domains' marks; C{blocks}, one of IPv4's addresses.

What is here is little code, for a lookup costs what it takes to bring that into the processor's
caches, and what it drives from there: a regular expression or a good hash costs a whole POST
one to three microseconds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from socket import AF_INET6, inet_aton, inet_ntoa, inet_ntop, inet_pton
from typing import Any, Final

import numpy
from attrs import frozen

from ctsd.artifacts import SHAPES
from ctsd.feeds.array_file import ArrayWriter
from ctsd.feeds.keys import (
    EMAIL,
    HASH,
    HOST,
    ON_HOST,
    URL,
    WORDS,
    domain_mark,
    domain_of,
    hash_of,
    text_key,
)
from ctsd.feeds.lookups import WIDEST_V4, is_plain, parents_of
from ctsd.feeds.marks import marked, none_marked, power_of, spans_marked
from ctsd.indicator_forms import Network, url_form
from ctsd.normal_forms import whole_url

#: How many bits the blocks have, as a power of two: a block is at most a /24, at least a /26.
_LEAST_BLOCKS: Final = 24
_MOST_BLOCKS: Final = 26

#: Domains have more room: what seems to be on a listed one costs more than one more look.
_DOMAIN_ROOM: Final = 2

#: Longer values are not to be looked at here.
MAX_CHARS: Final = 2048

#: A host as it is stored, without a digit at its end, which may be an address.
_NAME: Final = re.compile(r"(?:[a-z0-9_-]+\.)*[a-z0-9_-]*[a-z]")

#: An e-mail address as it is stored: what is before the C{@}, and its domain.
_BOX: Final = re.compile(r"[a-z0-9_.+=-]+@((?:[a-z0-9_-]+\.)*[a-z0-9_-]*[a-z])")

_HTTP: Final = ("http://", "https://")

#: Schemes whose URLs are on hosts, and in one form; empty: none was said.
_SCHEMES: Final = ("", "http", "https")

_PREFIXES: Final = {str(prefix): prefix for prefix in range(129)}

_Array = numpy.ndarray[Any, Any]


def write_domains(out: ArrayWriter, marks: _Array) -> int:
    """
    Write the domains.

    :param marks: L{domain_mark} of each, perhaps several times.
    :return: what a L{FirstLook} wants to know of them.
    """
    marks = numpy.unique(marks).astype(numpy.uint64)
    power = power_of(_DOMAIN_ROOM * len(marks))
    out.put("domains", marked(marks >> numpy.uint64(32 - power), power).data, "B")
    return power


def write_blocks(out: ArrayWriter, *, points: _Array, starts: _Array, prefixes: _Array) -> int:
    """
    Write the blocks.

    :param points: listed addresses, and those on which URLs are.
    :param starts: the first addresses of listed ranges.
    :param prefixes: the ranges' lengths in bits.
    :return: what a L{FirstLook} wants to know of them.
    """
    points, first = points.astype(numpy.uint64), starts.astype(numpy.uint64)
    last = first + (numpy.uint64(1) << (numpy.uint64(32) - prefixes.astype(numpy.uint64)))
    power = power_of(len(points) + len(first), least=_LEAST_BLOCKS, most=_MOST_BLOCKS)
    shift = numpy.uint64(32 - power)
    begin = numpy.concatenate((points, first)) >> shift
    end = numpy.concatenate((points, last - numpy.uint64(1))) >> shift
    out.put("blocks", spans_marked(begin, end, power).data, "B")
    return power


#: Whether certainly nothing of a value can be found.
Look = Callable[[str], bool]


@frozen(eq=False)
class FirstLook:
    """
    Tells of an artifact that nothing of it can be found.

    :ivar _has_hash: whether the index has a key, by its hash.
    :ivar _has_near: whether it has a network that another one finds.
    """

    _keys: memoryview
    _keys_power: int
    _domains: memoryview
    _domains_power: int
    _blocks: memoryview
    _blocks_power: int
    _has_hash: Callable[[int], bool]
    _has_near: Callable[[Network], bool]

    def looks(self) -> Iterator[tuple[str, Look]]:
        """
        For each artifact type that something is known of: what says of a value, of at most
        L{MAX_CHARS}, whether it certainly finds nothing. False: it has to be looked for, it may
        be there, or be written in a way that is not known here.
        """
        yield "net.cidr", self._no_address
        yield "net.ip", self._no_address
        yield "net.name", self._no_name
        yield "net.uri", self._no_url
        yield "email.header.sender_address", self._no_box
        for type, (kind, form_of) in WORDS.items():
            yield type, self._no_hash if kind == HASH else partial(self._no_word, kind, form_of)
        for type in filter(is_plain, SHAPES):
            yield type, partial(self._no_text, type)

    def _has(self, key: bytes) -> bool:
        """Whether there is a key."""
        hashed = hash_of(key)
        place = hashed >> 64 - self._keys_power
        # As L{ctsd.feeds.marks.is_marked}, for with this nearly all lookups end.
        return bool(self._keys[place >> 3] >> (place & 7) & 1) and self._has_hash(hashed)

    def _is_alone(self, host: bytes) -> bool:
        """Whether there is nothing on the domain of a host."""
        place = domain_mark(domain_of(host)) >> 32 - self._domains_power
        return not self._domains[place >> 3] >> (place & 7) & 1

    def _is_unlisted(self, host: bytes) -> bool:
        """Whether there is neither a host nor what is above it."""
        return not self._has(HOST + host) and not any(
            self._has(HOST + parent) for parent in parents_of(host)
        )

    def _no_name(self, value: str) -> bool:
        if _NAME.fullmatch(value) is None:
            return False
        host = value.encode()
        return self._is_alone(host) or (not self._has(ON_HOST + host) and self._is_unlisted(host))

    def _no_url(self, value: str) -> bool:
        if (
            value.startswith(_HTTP)
            and value.isascii()
            and "[" not in value
            and "(" not in value
            and "{" not in value
            and "\\" not in value
        ):
            # Its normal form was made for the scan already.
            whole = whole_url(value)
            if whole is None:
                return False
            name = whole.split("/", 3)[2].partition(":")[0]
            if name[-1:].isalpha() and self._is_alone(name.encode()):
                return True
            # As it is stored, but for its scheme and for a query without anything in it.
            return whole[-1] != "?" and self._no_url_on(name, whole.partition("//")[2])
        # It may be defanged (L{ctsd.refanged}), or is read in a way of its own.
        form = url_form(value)
        return (
            form is not None and form.scheme in _SCHEMES and self._no_url_on(form.host, form.rest)
        )

    def _no_url_on(self, name: str, rest: str) -> bool:
        """The same, of a URL whose host and form without its scheme are known."""
        if name[-1:].isdigit() or ":" in name:
            return self._no_address(name) and not self._has(URL + rest.encode())
        if _NAME.fullmatch(name) is None:
            return False
        host = name.encode()
        return self._is_alone(host) or (
            not self._has(URL + rest.encode()) and self._is_unlisted(host)
        )

    def _no_box(self, value: str) -> bool:
        found = _BOX.fullmatch(value)
        if found is None or self._has(EMAIL + value.encode()):
            return False
        host = found[1].encode()
        return self._is_alone(host) or self._is_unlisted(host)

    def _no_address(self, value: str) -> bool:
        base, slash, length = value.partition("/")
        prefix = _PREFIXES.get(length, -1) if slash else 32
        try:
            if ":" in base:
                return self._no_long_address(inet_pton(AF_INET6, base), prefix if slash else 128)
            packed = inet_aton(base)
        except (OSError, ValueError):
            return False
        if not 0 <= prefix <= 32 or inet_ntoa(packed) != base:
            # What it takes for an address, too: 1.2, 010.1.1.1, 1.2.3.4 and a comment.
            return False
        address, shift = int.from_bytes(packed, "big"), 32 - self._blocks_power
        if prefix == 32:
            place = address >> shift
            return not self._blocks[place >> 3] >> (place & 7) & 1 or not (
                self._has_near(Network(4, address, 32)) or self._has(ON_HOST + base.encode())
            )
        others = 0xFFFFFFFF >> prefix
        first, last = address & ~others, address | others
        if prefix >= WIDEST_V4 and none_marked(self._blocks, first >> shift, last >> shift):
            return True
        return not self._has_near(Network(4, first, prefix))

    def _no_long_address(self, packed: bytes, prefix: int) -> bool:
        """The same, of IPv6."""
        address = int.from_bytes(packed, "big")
        if prefix < 0 or not address >> 64:
            # Among these are those of IPv4, and those that are shown as such.
            return False
        first = address >> (128 - prefix) << (128 - prefix)
        if self._has_near(Network(6, first, prefix)):
            return False
        return prefix < 128 or not self._has(ON_HOST + inet_ntop(AF_INET6, packed).encode())

    def _no_hash(self, value: str) -> bool:
        return value.isascii() and value.isalnum() and not self._has(HASH + value.lower().encode())

    def _no_word(self, kind: bytes, form_of: Callable[[str], str], value: str) -> bool:
        form = form_of(value)
        return form != "" and not self._has(kind + form.encode("utf-8", "surrogatepass"))

    def _no_text(self, type: str, value: str) -> bool:
        key = text_key(type, value)
        return key is None or not self._has(key)
