"""
Indicators in their usual spelling, many of one type at a time: one look tells that each is one, and
what it is found under. It is the same that L{ctsd.feeds.keys.stored} says of it, and L{fits
<ctsd.feeds.parsers.fitting.fits>} takes every one; other spellings are for these alone.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from socket import inet_aton
from typing import Final

from attrs import field, frozen

from ctsd.feeds.keys import HASH, HOST, ON_HOST, URL, domain_of
from ctsd.indicator_forms import DOTTED, USUAL_URL
from ctsd.records import Line


@frozen(kw_only=True)
class Found:
    """
    What some indicators are found under, row by row.

    :ivar keys: each has as many.
    :ivar domains: see L{ctsd.feeds.keys.domains_of}.
    :ivar hosts: the IPv4 addresses that they are on, as numbers.
    :ivar addresses: they are IPv4 addresses: these.
    :ivar ranges: they are ranges of IPv4: the lowest addresses and the prefixes.
    """

    keys: Sequence[bytes] = ()
    domains: Sequence[bytes] = ()
    hosts: Sequence[int] = ()
    addresses: Sequence[int] = ()
    ranges: Sequence[tuple[int, int]] = ()


@frozen(eq=False)
class UsualLines:
    """
    Lines (L{Line}) of usual indicators, which never expire.

    :ivar type: of all.
    :ivar data: what an index keeps of each.
    """

    type: str
    values: Sequence[str] = field(repr=False)
    data: Sequence[bytes] = field(repr=False)
    found: Found = field(repr=False)

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Iterator[Line]:
        for value, data in zip(self.values, self.data, strict=True):
            yield self.type, value, data, None


def _numbers(addresses: Sequence[str]) -> Sequence[int]:
    """IPv4 addresses as numbers."""
    return struct.unpack(f">{len(addresses)}I", b"".join(map(inet_aton, addresses)))


def _urls(matches: Sequence[re.Match[str]]) -> Found:
    both = [(URL + match[1].encode(), match[2].encode()) for match in matches]
    return Found(
        keys=[key for url, host in both for key in (url, ON_HOST + host)],
        domains=[domain_of(host) for _, host in both],
        hosts=_numbers([match[2] for match in matches if match[2][-1].isdigit()]),
    )


def _hosts(matches: Sequence[re.Match[str]]) -> Found:
    hosts = [match[0].encode() for match in matches]
    return Found(keys=[HOST + host for host in hosts], domains=[*map(domain_of, hosts)])


def _hashes(matches: Sequence[re.Match[str]]) -> Found:
    return Found(keys=[HASH + match[0].lower().encode() for match in matches])


def _addresses(matches: Sequence[re.Match[str]]) -> Found:
    return Found(addresses=_numbers([match[0] for match in matches]))


def _ranges(matches: Sequence[re.Match[str]]) -> Found:
    firsts = _numbers([match[1] for match in matches])
    prefixes = [int(match[2]) for match in matches]
    return Found(
        ranges=[
            (first >> (32 - prefix) << (32 - prefix), prefix)
            for first, prefix in zip(firsts, prefixes, strict=True)
        ]
    )


#: By artifact type: the usual spellings, and what is found in some of them.
_USUAL: Final[Mapping[str, tuple[re.Pattern[str], Callable[[Sequence[re.Match[str]]], Found]]]] = {
    "hash.md5": (re.compile("[0-9A-Fa-f]{32}"), _hashes),
    "hash.sha1": (re.compile("[0-9A-Fa-f]{40}"), _hashes),
    "hash.sha256": (re.compile("[0-9A-Fa-f]{64}"), _hashes),
    "net.cidr": (re.compile(rf"({DOTTED})/(3[01]|[12]?[0-9])"), _ranges),
    "net.ip": (re.compile(DOTTED), _addresses),
    # Labels of more than 63 characters are none (RFC 1035, 2.3.4); longer names are few.
    "net.name": (
        re.compile(r"(?=.{4,63}\Z)(?:[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?\.)+[a-z]+"),
        _hosts,
    ),
    "net.uri": (USUAL_URL, _urls),
}

#: The types that have usual spellings.
USUAL_TYPES: Final = frozenset(_USUAL)


class Looked:
    """
    Some values that were looked at, none of which has more characters than a hit shows.

    :ivar odd: the numbers of those that are not usual.
    """

    def __init__(self, type: str, values: Sequence[str]) -> None:
        """
        :param type: one of L{USUAL_TYPES}.
        """
        pattern, self._found = _USUAL[type]
        look = pattern.fullmatch
        self._matches = [look(value) for value in values]
        self.odd: Sequence[int] = ()
        if None in self._matches:
            self.odd = [number for number, match in enumerate(self._matches) if match is None]

    def found(self, begin: int, end: int) -> Found:
        """What some of them are found under, all of which are usual."""
        return self._found([match for match in self._matches[begin:end] if match is not None])
