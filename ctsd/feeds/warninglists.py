"""
Lists of what is no finding although feeds list it: C{8.8.8.8}, C{google.com}, the hash of an empty
file. In MISP's format (U{https://github.com/MISP/misp-warninglists}): an object with C{name},
C{type} (C{cidr}, C{hostname}, C{string}, C{substring} or C{regex}), C{list}, and perhaps
C{matching_attributes}.

What is listed is an indicator, not an artifact: C{http://google.com/x} is not listed because
C{google.com} is, for a feed that lists it means that page. C{http://google.com/} is.

Big lists are feeds of a kind of their own: their entries, as L{records_of} makes them, lie in an
index like those of feeds (L{ctsd.feeds.indicators}); regular expressions and substrings, which are
few, are searched one by one, and only for what a feed has found.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import re2
from attrs import field, frozen

from ctsd.errors import SearchLater
from ctsd.indicator_forms import Network, host_form, network, url_form
from ctsd.interfaces.feeds import IIndicators
from ctsd.model import JSON, Artifact
from ctsd.records import Record
from ctsd.refanged import seen

CIDR: Final = "cidr"
HOSTNAME: Final = "hostname"
STRING: Final = "string"
SUBSTRING: Final = "substring"
REGEX: Final = "regex"

_KINDS: Final = (CIDR, HOSTNAME, REGEX, STRING, SUBSTRING)

#: What a lookup in an index of lists finds that makes an indicator a listed one.
_COUNTS: Final = frozenset({"", "parent domain", "range that contains it"})

#: MISP's attribute types, as artifact types; composite ones are named by their parts.
_ATTRIBUTES: Final[Mapping[str, tuple[str, ...]]] = {
    "domain": ("net.name",),
    "hostname": ("net.name",),
    "ip": ("net.ip", "net.cidr"),
    "ip-dst": ("net.ip", "net.cidr"),
    "ip-src": ("net.ip", "net.cidr"),
    "url": ("net.uri",),
    "uri": ("net.uri",),
    "link": ("net.uri",),
    "md5": ("hash.md5",),
    "sha1": ("hash.sha1",),
    "sha256": ("hash.sha256",),
    "email": ("email.header.sender_address", "email.header.to"),
    "email-src": ("email.header.sender_address", "email.header.to"),
    "email-dst": ("email.header.sender_address", "email.header.to"),
    "filename": ("file.name",),
    "vulnerability": ("threat.report.cve",),
    "x509-fingerprint-sha1": ("cert.x509",),
}

#: A regular expression may take so much memory.
_MAX_REGEX_BYTES: Final = 1 << 20


@frozen
class Warninglist:
    """
    One list.

    :ivar kind: how its entries are compared, one of MISP's C{type}s.
    :ivar entries: as the list has them.
    :ivar types: the artifact types that it is about; empty: all. Only L{Patterns} need to know:
        what the others hold has its type by itself.
    """

    name: str
    kind: str
    entries: Sequence[str] = field(repr=False)
    types: frozenset[str] = frozenset()


def read_warninglist(data: bytes) -> Warninglist:
    """
    A list from its C{list.json}.

    :raises ValueError: it is none; the message says which key is wrong.
    """
    try:
        given = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError("it is no JSON") from error
    if not isinstance(given, dict):
        raise ValueError("it is no JSON object")
    name, kind, entries = (given.get(key) for key in ("name", "type", "list"))
    if not isinstance(name, str) or not name:
        raise ValueError("name: a text was expected")
    if kind not in _KINDS:
        raise ValueError(f"type: one of {', '.join(_KINDS)} was expected")
    if not isinstance(entries, list) or not all(isinstance(each, str) for each in entries):
        raise ValueError("list: an array of texts was expected")
    return Warninglist(name, str(kind), entries, _types_of(given.get("matching_attributes")))


def _types_of(attributes: Any) -> frozenset[str]:
    if not isinstance(attributes, list):
        return frozenset()
    found: set[str] = set()
    for attribute in attributes:
        for part in str(attribute).split("|"):
            found.update(_ATTRIBUTES.get(part, ()))
    return frozenset(found)


def is_indexed(listed: Warninglist) -> bool:
    """Whether a list's entries go into an index; L{Patterns} takes the others."""
    return listed.kind in (CIDR, HOSTNAME, STRING)


def records_of(listed: Warninglist) -> Iterator[Record | None]:
    """
    The entries of a list as records of an index; None for one that is malformed. Their names are
    the list's.
    """
    for entry in listed.entries:
        type, value = "string", _plain(entry)
        if listed.kind == CIDR:
            type, value = "net.cidr", entry if network(entry) else ""
        elif listed.kind == HOSTNAME:
            type, value = "net.name", host_form(entry)
        yield Record(type=type, value=value, name=listed.name) if value else None


def _plain(text: str) -> str:
    """One spelling of a value whose type nobody says."""
    found = network(text)
    if found is not None:
        return str(found)
    text = seen(text)
    url = url_form(text) if "/" in text else None
    if url is not None:
        return url.rest
    return (host_form(text) if "." in text else text).lower()


class Patterns:
    """
    Lists of substrings and regular expressions (on RE2, whose time is linear).

    :ivar refused: how many entries are no regular expressions.
    """

    def __init__(self, lists: Iterable[Warninglist]) -> None:
        self.refused = 0
        self._parts: list[tuple[Warninglist, tuple[str, ...]]] = []
        self._regexes: list[tuple[Warninglist, list[Any]]] = []
        options = re2.Options()
        options.max_mem = _MAX_REGEX_BYTES
        options.log_errors = False
        for listed in lists:
            if listed.kind == SUBSTRING:
                parts = tuple(entry.lower() for entry in listed.entries if entry)
                self._parts.append((listed, parts))
            elif listed.kind == REGEX:
                self._regexes.append((listed, list(self._compiled(listed.entries, options))))

    def _compiled(self, entries: Iterable[str], options: Any) -> Iterator[Any]:
        for entry in entries:
            try:
                yield re2.compile(_bare_regex(entry), options=options)
            except (re2.error, UnicodeEncodeError):
                self.refused += 1

    def listed(self, type: str, text: str) -> str:
        """The name of the first list that has a value; empty when none has."""
        small = text.lower()
        for listed, parts in self._parts:
            if _is_about(listed, type) and any(part in small for part in parts):
                return listed.name
        for listed, regexes in self._regexes:
            if _is_about(listed, type) and any(regex.search(text) for regex in regexes):
                return listed.name
        return ""


def _is_about(listed: Warninglist, type: str) -> bool:
    return not listed.types or type in listed.types


def _bare_regex(text: str) -> str:
    """A regular expression without the slashes that some lists put around it, and their flags."""
    start, _, rest = text.partition("/")
    pattern, slash, flags = rest.rpartition("/")
    if start or not slash or not all(flag in "ims" for flag in flags):
        return text
    return f"(?{flags}){pattern}" if flags else pattern


class SmallLists:
    """Lists that are small enough to be kept in Python's sets: the built-in ones."""

    def __init__(self, lists: Iterable[Warninglist]) -> None:
        self._networks: list[tuple[Network, str]] = []
        self._hosts: dict[str, str] = {}
        self._texts: dict[str, str] = {}
        for listed in lists:
            for entry in listed.entries:
                found = network(entry) if listed.kind == CIDR else None
                if found is not None:
                    self._networks.append((found, listed.name))
                elif listed.kind == HOSTNAME:
                    self._hosts.setdefault(host_form(entry), listed.name)
                else:
                    self._texts.setdefault(_plain(entry), listed.name)

    def listed(self, type: str, text: str) -> str:
        """The name of the first list that has a value; empty when none has."""
        found = self._texts.get(_plain(text), "")
        if found:
            return found
        asked = network(text)
        if asked is not None:
            return next((name for each, name in self._networks if each.covers(asked)), "")
        if type != "net.name":
            return ""
        host = host_form(text)
        while host:
            if host in self._hosts:
                return self._hosts[host]
            host = host.partition(".")[2]
        return ""


class Warninglists:
    """All lists together."""

    def __init__(
        self,
        *,
        small: SmallLists,
        patterns: Patterns,
        index: IIndicators | None = None,
    ) -> None:
        """
        :param index: an index of L{records_of} lists; its C{registered} has to call every domain
            a registered one (L{every_domain}), for a list may have C{github.io}.
        """
        self._small = small
        self._patterns = patterns
        self._index = index

    def listed(self, type: str, value: JSON) -> str:
        """The name of a list that an indicator is on; empty when it is on none."""
        if not isinstance(value, str):
            return ""
        text = value
        if type == "net.uri":
            url = url_form(value)
            if url is not None and url.host and url.rest.partition("/")[2] == "":
                type = "net.ip" if network(url.host) else "net.name"
                text = url.host
        return (
            self._small.listed(type, text)
            or self._in_index(type, text)
            or self._patterns.listed(type, text)
        )

    def is_shared_host(self, host: str) -> bool:
        """Whether a URL on a host says nothing of others there: it is on a list."""
        return bool(self.listed("net.ip" if network(host) else "net.name", host))

    def _in_index(self, type: str, text: str) -> str:
        if self._index is None:
            return ""
        asked = [Artifact("string", _plain(text))]
        if type in ("net.ip", "net.cidr", "net.name"):
            asked.append(Artifact(type, text))
        if type == "net.name" and "." in text:
            # C{.test} and the like are listed, too, but nobody's feed lists them.
            asked.append(Artifact(type, host_form(text).rpartition(".")[2]))
        for artifact in asked:
            try:
                found = self._index.find(artifact=artifact, limit=1)
            except SearchLater:
                return ""
            for each in found:
                for matched in each.matched:
                    if matched.how in _COUNTS:
                        return matched.record.name
        return ""


def every_domain(host: str) -> str:
    """Calls every domain above a host one that somebody has registered: see L{Warninglists}."""
    return host.rpartition(".")[2]
