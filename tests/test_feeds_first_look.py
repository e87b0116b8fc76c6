"""Tests of what settles most lookups: sets of bits, and what is looked up in them."""

from __future__ import annotations

import os
from ipaddress import IPv6Address
from pathlib import Path
from socket import AF_INET6, inet_ntop
from tempfile import TemporaryDirectory

import numpy
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ctsd.feeds import marks
from ctsd.feeds.key_index import KeyIndex
from ctsd.feeds.keys import domain_of, domains_of, stored
from ctsd.feeds.marks import Marks, is_marked, marked, none_marked, power_of, spans_marked
from ctsd.records import Record
from tests.test_feeds_matching import opened, put

_POWER = 12
_PLACES = st.integers(0, (1 << _POWER) - 1)
_SPANS = st.tuples(_PLACES, _PLACES).map(sorted)


class MarksTests(SynchronousTestCase):
    """Sets as bits."""

    def setUp(self) -> None:
        """Several parts, as big sets have."""
        self.patch(marks, "_PART", 1 << 10)

    @given(st.lists(_PLACES))
    def test_marked(self, places: list[int]) -> None:
        """What was marked is, and nothing else."""
        bits = marked(numpy.array(places, dtype=numpy.uint64), _POWER).data
        self.assertEqual(
            {place for place in range(1 << _POWER) if is_marked(bits, place)}, set(places)
        )

    @given(st.lists(st.integers(0, (1 << 64) - 1)), st.integers(0, (1 << 64) - 1))
    def test_pieces(self, numbers: list[int], cut: int) -> None:
        """Numbers are marked by their upper bits, whatever pieces they come in."""
        marks = Marks(_POWER)
        for piece in ([n for n in numbers if n < cut], [n for n in numbers if n >= cut]):
            marks.add(numpy.array(sorted(piece), dtype=numpy.uint64))
        places = numpy.array([n >> 64 - _POWER for n in numbers], dtype=numpy.uint64)
        self.assertEqual(marks.bits.tolist(), marked(places, _POWER).tolist())

    @given(st.lists(_SPANS), st.lists(_SPANS))
    def test_spans(self, spans: list[list[int]], asked: list[list[int]]) -> None:
        """Spans may lie in each other, and go over the ends of parts."""
        first = numpy.array([each[0] for each in spans], dtype=numpy.uint64)
        last = numpy.array([each[1] for each in spans], dtype=numpy.uint64)
        bits = spans_marked(first, last, _POWER).data
        for low, high in [*asked, *spans]:
            touched = any(begin <= high and low <= end for begin, end in spans)
            self.assertEqual(none_marked(bits, low, high), not touched)

    def test_power(self) -> None:
        """Some room for each member; neither without a limit."""
        self.assertEqual(power_of(0), 10)
        self.assertEqual(power_of(1_000_000), 24)
        self.assertEqual(power_of(1 << 40), 28)
        self.assertEqual(power_of(1 << 40, most=26), 26)


class DomainTests(SynchronousTestCase):
    """What hosts and URLs that find each other have in common."""

    def test_domain(self) -> None:
        """The last two labels, as far as there are any."""
        for host, domain in (
            (b"a.b.evil.example", b"evil.example"),
            (b"evil.example", b"evil.example"),
            (b"localhost", b"localhost"),
            (b".a", b".a"),
            (b"a..", b"."),
            (b"", b""),
        ):
            self.assertEqual(domain_of(host), domain)

    def test_keys(self) -> None:
        """A URL's whole is on the host that it names, with a port or without."""
        for type, value in (
            ("net.uri", "https://www.evil.example:8443/a:b/c"),
            ("net.uri", "www.evil.example"),
            ("net.name", "EVIL.example."),
        ):
            keys, _ = stored(type, value)
            self.assertEqual(domains_of(keys), {b"evil.example"}, value)
        self.assertEqual(domains_of(stored("hash.md5", "ab" * 16)[0]), frozenset())


class FirstLookTests(SynchronousTestCase):
    """An index that is looked at first."""

    def setUp(self) -> None:
        """Something of each kind."""
        self.patch(os, "fsync", lambda descriptor: None)
        self.home = TemporaryDirectory()
        self.addCleanup(self.home.cleanup)
        values = (
            ("net.uri", "http://www.evil.example/x"),
            ("net.uri", "http://203.0.113.7:8080/x"),
            ("net.uri", "http://[2001:db8:0:7::7]/x"),
            ("net.uri", "odd:other.example/x"),
            ("net.name", "bad.test"),
            ("net.ip", "198.51.100.9"),
            ("net.ip", "2001:db8::9"),
            ("net.cidr", "192.0.2.64/26"),
            ("net.cidr", "2001:db8:1::/48"),
            ("hash.md5", "ab" * 16),
            ("cert.x509", "ab" * 20),
            ("email.header.sender_address", "bob@mail.example"),
            ("email.header.sender_name", "Bob Bad"),
            ("file.name", "Bad.exe"),
            ("threat.malware.family", "Agent Tesla"),
            ("threat.report.cve", "CVE-2021-44228"),
        )
        records = [Record(type=type, value=value) for type, value in values]
        put(Path(self.home.name), {"feed": records}, ["feed"])
        self.index: KeyIndex = opened(Path(self.home.name))
        self.addCleanup(self.index.close)

    def is_nothing(self, type: str, value: str) -> bool:
        """What the first look says."""
        look = self.index._looks.get(type)
        return look is not None and look(value)

    def test_nothing(self) -> None:
        """Usual spellings of what is in no feed are told without looking further."""
        for type, value in (
            ("net.uri", "https://www.good.example:444/x?y=http://evil.example/"),
            ("net.uri", "http://good.example/ x "),
            ("net.uri", "good.example/x"),
            ("net.uri", "HTTP://good.example"),
            ("net.uri", "hxxp://good[.]example/x"),
            ("net.uri", "http://[2001:db8:9::a]:81/x"),
            ("net.uri", "http://192.0.3.1/x"),
            ("net.uri", "http://198.51.100.8/x"),
            ("net.uri", "http://other.evil.example/x"),
            ("net.uri", "http://www.evil.example/x/y"),
            ("net.name", "www.good.example"),
            ("net.name", "localhost"),
            ("net.name", "other.evil.example"),
            ("net.ip", "198.51.101.9"),
            ("net.ip", "198.51.100.10"),
            ("net.ip", "0.0.0.0"),
            ("net.ip", "2001:db8::8"),
            ("net.ip", "2001:DB8:2::"),
            ("net.cidr", "203.0.112.9/24"),
            ("net.cidr", "255.255.255.255/32"),
            ("net.cidr", "10.1.0.0/16"),
            ("net.cidr", "10.0.0.0/8"),
            ("net.cidr", "192.0.2.128/27"),
            ("net.cidr", "2001:db8:2::/48"),
            ("hash.md5", "cd" * 16),
            ("hash.md5", "CD" * 16),
            ("cert.x509", "cd" * 20),
            ("email.header.sender_address", "al.ice+x@mail.example"),
            ("email.header.sender_address", "bob@www.evil.example"),
            ("email.header.sender_address", "bob@good.example"),
            ("email.header.sender_name", "Bob Good"),
            ("file.name", "good.exe"),
            ("threat.malware.family", "elf.mirai"),
            ("threat.report.cve", "cve-2021-44229"),
        ):
            self.assertTrue(self.is_nothing(type, value), value)
            self.assertTrue(self.index.has_nothing(type=type, value=value), value)

    def test_something(self) -> None:
        """Whatever may find one of them is looked for."""
        for type, value in (
            ("net.uri", "https://www.evil.example/x"),
            ("net.uri", "www.evil.example/x"),
            ("net.uri", "https://other.example/x"),
            ("net.uri", "http://deep.bad.test:81/x"),
            ("net.uri", "http://u:p@www.evil.example/x"),
            ("net.uri", "http://198.51.100.9/x"),
            ("net.uri", "http://192.0.2.65/x"),
            ("net.uri", "http://[2001:db8:0:7::7]/x"),
            ("net.name", "www.evil.example"),
            ("net.name", "a.b.bad.test"),
            ("net.ip", "203.0.113.7"),
            ("net.ip", "198.51.100.9"),
            ("net.ip", "192.0.2.100"),
            ("net.ip", "2001:db8::9"),
            ("net.ip", "2001:DB8:0:0::9/128"),
            ("net.ip", "2001:db8:1::1"),
            ("net.ip", "2001:db8:0:7::7"),
            ("net.cidr", "198.51.100.0/24"),
            ("net.cidr", "192.0.2.96/28"),
            ("net.cidr", "192.0.2.0/24"),
            ("net.cidr", "2001:db8::/32"),
            ("net.cidr", "2001:db8:1:2::/64"),
            ("hash.md5", "ab" * 16),
            ("hash.md5", "Ab" * 16),
            ("cert.x509", ":".join(["AB"] * 20)),
            ("email.header.sender_address", "bob@mail.example"),
            ("email.header.sender_address", "bob@sub.bad.test"),
            ("email.header.sender_name", "Bob Bad"),
            ("file.name", "BAD.exe"),
            ("threat.malware.family", "win.agent_tesla"),
            ("threat.report.cve", "cve-2021-44228"),
        ):
            self.assertFalse(self.is_nothing(type, value), value)
            self.assertFalse(self.index.has_nothing(type=type, value=value), value)

    def test_unusual(self) -> None:
        """What is written in another way is left to the whole search."""
        for type, value in (
            ("net.uri", "http:good.example/x"),
            ("net.uri", "http://other.evil.example/x?"),
            ("net.uri", "ftp://good.example/x"),
            ("net.uri", "http://good.example./x"),
            ("net.uri", "http://[::1]/x"),
            ("net.uri", "http://[::1/x"),
            ("net.uri", ""),
            ("net.name", "GOOD.example"),
            ("net.name", "good.example:80"),
            ("net.name", "198.51.100.1"),
            ("net.ip", "::1"),
            ("net.ip", "::ffff:198.51.100.1"),
            ("net.ip", "2001:db8::8%eth0"),
            ("net.ip", "[2001:db8::8]"),
            ("net.ip", "2001:db8::8\0"),
            ("net.ip", "010.1.1.1"),
            ("net.ip", "203.0.112.7:443"),
            ("net.ip", "203.0.112.7 x"),
            ("net.ip", "10.1"),
            ("net.ip", "\0"),
            ("net.ip", "\ud800"),
            ("net.ip", ""),
            ("net.cidr", "10.0.0.0/33"),
            ("net.cidr", "10.0.0.0/"),
            ("net.cidr", "2001:db8::/129"),
            ("email.header.sender_address", "Bob <bob@good.example>"),
            ("email.header.sender_address", "bob@[192.0.2.1]"),
            ("email.header.sender_address", "bob@192.0.3.1"),
            ("email.header.sender_address", "no box"),
            ("hash.md5", "cd " * 16),
            ("threat.malware.family", "--"),
            ("email", "good.example"),
        ):
            self.assertFalse(self.is_nothing(type, value), value)

    def test_long(self) -> None:
        """A long value is not looked at first; what is in no feed is told in both ways."""
        long = "http://good.example/" + "x" * 4096
        self.patch(self.index, "_looks", {"net.uri": self.fail})
        self.assertTrue(self.index.has_nothing(type="net.uri", value=long))
        listed = "http://www.evil.example/x#" + "x" * 4096
        self.assertFalse(self.index.has_nothing(type="net.uri", value=listed))

    @given(st.integers(1 << 64, (1 << 128) - 1))
    def test_shown(self, address: int) -> None:
        """Addresses of IPv6 are written as those that URLs are on are stored."""
        packed = address.to_bytes(16, "big")
        self.assertEqual(inet_ntop(AF_INET6, packed), str(IPv6Address(address)))
