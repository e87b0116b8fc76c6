"""Which values an artifact type can have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ctsd.artifacts import SHAPES
from ctsd.matching import keys
from ctsd.model import FILE, JSON, PASSWORD
from ctsd.plausible import expected

GOOD: Mapping[str, Sequence[JSON]] = {
    "hash.md5": ["D41D8CD98F00B204E9800998ECF8427E", " d41d8cd98f00b204e9800998ecf8427e "],
    "hash.sha1": ["da39a3ee5e6b4b0d3255bfef95601890afd80709"],
    "hash.sha256": ["e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"],
    "net.cidr": ["192.0.2.0/24", "192.0.2.0/255.255.255.0", "2001:db8::/32", "192.0.2.7"],
    "net.ip": [
        *("192.0.2.7", "192.168.1", "2001:db8::1", "[2001:db8::1]", "::ffff:192.0.2.7"),
        *("192[.]0[.]2[.]7", "192.0.2.7:443", "fe80::1%eth0", " 192.0.2.7 "),
    ],
    "net.mac": ["00:1a:2b:3c:4d:5e", "001A.2B3C.4D5E", "00-1A-2B-3C-4D-5E", "001a2b3c4d5e"],
    "net.name": [
        *("evil.example", "localhost", "_dmarc.example.com", "*.evil.example", "evil [.] example"),
        *("b\u00fccher.example", "evil.example.", "evil.example:8080", "192.0.2.7", "::1"),
    ],
    "net.port": [0, 443, 65535],
    "threat.report.cve": ["CVE-2021-44228", "cve-2021-44228", "CVE 2021 44228"],
}

WRONG: Mapping[str, Sequence[JSON]] = {
    "hash.md5": ["x", "d41d8cd98f00b204e9800998ecf8427", "z" * 32, "a" * 40],
    "hash.sha1": ["a" * 39, "a" * 64],
    "hash.sha256": ["a" * 40, "sha256"],
    "net.cidr": ["not a range", "192.0.2.0/33", "192.0.2", "example.com/24"],
    "net.ip": [
        *("not an ip", "192.0.2.256", "192.0.2.0/24", "010.1.1.1", "evil.example", "1.2.3.4.5"),
        *("2001:db8::g", "http://192.0.2.7/"),
    ],
    "net.mac": ["00:1a:2b:3c:4d", "00:1a:2b:3c:4d:5g", "x"],
    "net.name": ["not a name", "http://evil.example/", "evil.example/x", "ann@evil.example"],
    "net.port": [-1, 65536, 1.5],
    "threat.report.cve": ["CVE", "CVE-21-1", "MS17-010"],
}


class ExpectedTests(SynchronousTestCase):
    """What is expected of a type's value."""

    def test_good(self) -> None:
        """Every spelling that is found is taken."""
        for type, values in GOOD.items():
            for value in values:
                self.assertEqual(expected(type, value), "", (type, value))

    def test_wrong(self) -> None:
        """Of what can't be of its type it is told what was expected."""
        self.assertEqual(WRONG.keys(), GOOD.keys())
        for type, values in WRONG.items():
            for value in values:
                self.assertNotEqual(expected(type, value), "", (type, value))

    def test_texts(self) -> None:
        """Types whose values may be any text take any."""
        for type in SHAPES.keys() - GOOD.keys() - {FILE, PASSWORD}:
            self.assertEqual(expected(type, "not an ip"), "", type)

    @given(st.ip_addresses().map(str))
    def test_addresses(self, address: str) -> None:
        """An address is one, and a range, and can be found."""
        for type in ("net.ip", "net.cidr"):
            self.assertEqual(expected(type, address), "")
            self.assertNotEqual(keys(type, address), ())

    @given(st.sampled_from(sorted(SHAPES)), st.text() | st.integers() | st.floats())
    def test_any(self, type: str, value: str | int | float) -> None:
        """Whatever a value is, there is an answer."""
        self.assertIsInstance(expected(type, value), str)
