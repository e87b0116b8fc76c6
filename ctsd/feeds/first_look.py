"""
The first look at what an artifact may find in the feeds: most that nothing has are told so here.

Hosts are told by the domain of their last two labels, C{evil.example} of C{www.evil.example}: a
host, all that is above it that is looked for, and all URLs on it have the same one. So a URL or a
host whose domain no feed has any indicator of finds nothing, and is looked for no further.
Addresses are told by blocks of addresses in which no feed has anything.

Arrays: C{domains}, a set (L{ctsd.feeds.marks}) of the domains' hashes, in which each is marked
twice; C{blocks}, one of IPv4's addresses.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from socket import inet_aton, inet_ntoa
from typing import Any, Final

import numpy
from attrs import define

from ctsd.feeds.array_file import ArrayWriter
from ctsd.feeds.keys import HASH, domain_of, hash_of
from ctsd.feeds.lookups import WIDEST_V4
from ctsd.feeds.marks import is_marked, marked, none_marked, power_of, spans_marked
from ctsd.normal_forms import whole_url

#: How many bits the blocks have, as a power of two: a block is at most a /24, at least a /26.
_LEAST_BLOCKS: Final = 24
_MOST_BLOCKS: Final = 26

#: Longer values are not looked at here.
_MAX_CHARS: Final = 2048

#: A host as it is stored, without a digit at its end, which may be an address.
_NAME: Final = re.compile(r"(?:[a-z0-9_-]+\.)*[a-z0-9_-]*[a-z]")

#: A hash as it is stored.
_HASH: Final = re.compile(r"[0-9a-f]+")

_HTTP: Final = ("http://", "https://")

_PREFIXES: Final = {str(prefix): prefix for prefix in range(33)}

_Array = numpy.ndarray[Any, Any]


def write_domains(out: ArrayWriter, hashes: _Array) -> int:
    """
    Write the domains.

    :param hashes: of them, each perhaps several times.
    :return: what a L{FirstLook} wants to know of them.
    """
    hashes = numpy.unique(hashes)
    power = power_of(2 * len(hashes))
    places = numpy.concatenate(_places(hashes, power))
    out.put("domains", marked(places, power).data, "B")
    return power


def _places(hashes: _Array, power: int) -> tuple[_Array, _Array]:
    upper = numpy.uint64(64 - power)
    return hashes >> upper, (hashes << numpy.uint64(32)) >> upper


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


@define(eq=False)
class FirstLook:
    """
    Tells of an artifact that nothing of it can be found.

    :ivar _has: whether the index has a key, by its hash.
    """

    _domains: memoryview
    _domains_power: int
    _blocks: memoryview
    _blocks_power: int
    _has: Callable[[int], bool]

    def finds_nothing(self, type: str, value: str) -> bool:
        """
        Whether an artifact certainly finds nothing. False says that it has to be looked for: it
        may be there, or be written in a way that is not known here.
        """
        look = _LOOKS.get(type)
        return look is not None and len(value) <= _MAX_CHARS and look(self, value)

    def _no_host(self, host: str) -> bool:
        hashed = hash_of(domain_of(host.encode()))
        shift = 64 - self._domains_power
        # As L{is_marked}, for this is what most lookups end with.
        place = hashed >> shift
        if not self._domains[place >> 3] >> (place & 7) & 1:
            return True
        return not is_marked(self._domains, (hashed & 0xFFFFFFFF) << 32 >> shift)

    def _no_name(self, value: str) -> bool:
        return _NAME.fullmatch(value) is not None and self._no_host(value)

    def _no_url(self, value: str) -> bool:
        if (
            not value.startswith(_HTTP)
            or not value.isascii()
            or "[" in value
            or "(" in value
            or "{" in value
            or "\\" in value
        ):
            # It may be defanged (L{ctsd.refanged}), or is read in a way of its own.
            return False
        # Its normal form was made for the scan already.
        whole = whole_url(value)
        return whole is not None and self._no_name(whole.split("/", 3)[2].partition(":")[0])

    def _no_address(self, value: str) -> bool:
        base, slash, length = value.partition("/")
        try:
            packed = inet_aton(base)
        except (OSError, ValueError):
            return False
        if inet_ntoa(packed) != base:
            # What it takes for an address, too: 1.2, 010.1.1.1, 1.2.3.4 and a comment.
            return False
        address, shift = int.from_bytes(packed, "big"), 32 - self._blocks_power
        if not slash:
            return not is_marked(self._blocks, address >> shift)
        prefix = _PREFIXES.get(length, 0)
        if prefix < WIDEST_V4:
            return False
        others = 0xFFFFFFFF >> prefix
        first, last = address & ~others, address | others
        return none_marked(self._blocks, first >> shift, last >> shift)

    def _no_hash(self, value: str) -> bool:
        return _HASH.fullmatch(value) is not None and not self._has(hash_of(HASH + value.encode()))


_LOOKS: Final[Mapping[str, Callable[[FirstLook, str], bool]]] = {
    "hash.md5": FirstLook._no_hash,
    "hash.sha1": FirstLook._no_hash,
    "hash.sha256": FirstLook._no_hash,
    "net.cidr": FirstLook._no_address,
    "net.ip": FirstLook._no_address,
    "net.name": FirstLook._no_name,
    "net.uri": FirstLook._no_url,
}
