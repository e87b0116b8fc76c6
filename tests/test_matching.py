"""
Tests for L{ctsd.matching}: which stored indicator a value finds.

Beside examples there is a second, slow statement of the same rules, written from protocol.md alone,
with which keys and patterns have to agree.
"""

from __future__ import annotations

import hashlib
import ipaddress
from string import ascii_lowercase, ascii_uppercase
from typing import Any

import ada_url
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ctsd.artifacts import SHAPES, keys, matches, patterns
from ctsd.model import FILE, JSON, PASSWORD
from tests import strategies

_LOWER = str.maketrans(ascii_uppercase, ascii_lowercase)
_BLANKS = "".join(map(chr, range(33)))
_BIG = 65_536


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _contains(term: str, *stored: str) -> bool:
    """From 4 characters as a substring, else as equals; ASCII letters without case."""
    small = [one.translate(_LOWER) for one in stored]
    term = term.translate(_LOWER)
    if len(term) < 4 or _size(term) > _BIG:
        return term in small
    return any(term in one for one in small if _size(one) <= _BIG)


def _parsed_url(text: str) -> Any:
    try:
        parsed = ada_url.URL(text)
    except ValueError:
        return None
    return [parsed.protocol, parsed.host, parsed.pathname, parsed.search, parsed.hash]


def _href(text: str) -> list[str]:
    try:
        return [ada_url.replace_url(text, username="", password="")]
    except ValueError:
        return []


def _says_scheme(text: str) -> bool:
    scheme, sign, _ = text.partition("://")
    return bool(
        sign
        and scheme.isascii()
        and scheme[:1].isalpha()
        and all(char.isalnum() or char in "+-." for char in scheme)
    )


def _url_matches(term: str, stored: str) -> bool:
    term, stored = term.strip(_BLANKS), stored.strip(_BLANKS)
    if not term or not stored:
        return False
    small = _size(term) <= _BIG and _size(stored) <= _BIG
    if _says_scheme(term):
        if term == stored:
            return True
        if not small or not _says_scheme(stored):
            return False
        asked = _parsed_url(term)
        return asked is not None and asked == _parsed_url(stored)
    return _contains(term, stored, *(_href(stored) if small and _says_scheme(stored) else []))


def _octets(text: str) -> list[str] | None:
    parts = text.strip().removesuffix(".").split(".")
    octets = {str(number) for number in range(256)}
    return parts if len(parts) <= 4 and octets.issuperset(parts) else None


def _ip_matches(term: str, stored: str) -> bool:
    term, stored = _one_address(term), _one_address(stored)
    asked, kept = _octets(term), _octets(stored)
    if asked is None or kept is None:
        return term == stored
    if len(asked) == 4 or len(".".join(asked)) < 4:
        return asked == kept
    return any(kept[at : at + len(asked)] == asked for at in range(len(kept)))


def _one_address(text: str) -> str:
    text = text.strip()
    bare = text[1:-1] if text[:1] == "[" and text[-1:] == "]" and len(text) > 1 else text
    bare = bare.split("%")[0] if ":" in bare else text
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        return text
    if address.version == 6 and int(address) >> 32 == 0xFFFF:
        return str(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return str(address)


def _name_matches(term: str, stored: str) -> bool:
    def forms(text: str) -> list[str]:
        text = text.strip()
        if text.isascii():
            return [text.removesuffix(".") or text]
        try:
            ascii_form = ada_url.idna_to_ascii(text).decode()
        except ValueError:
            ascii_form = ""
        if not ascii_form or len(text) > 1024:
            return [text, text.removesuffix(".")]
        return [text, ascii_form.removesuffix(".") or ascii_form]

    # The value's own length decides, not that of its Punycode.
    kept = [form.translate(_LOWER) for form in forms(stored)]
    asked = [form.translate(_LOWER) for form in forms(term)]
    if len(term.strip()) < 4:
        return bool(set(asked) & set(kept))
    return any(
        one == other if _size(one) > _BIG else one in other and _size(other) <= _BIG
        for one in asked
        for other in kept
    )


def slowly(type: str, term: JSON, stored: JSON) -> bool:
    """The rules, once more."""
    if type in (FILE, PASSWORD) or not isinstance(term, str) or not isinstance(stored, str):
        raise AssertionError("not for this")
    if not term.strip() or not stored.strip():
        return False
    if type == "net.uri":
        return _url_matches(term, stored)
    if type == "net.ip":
        return _ip_matches(term, stored)
    if type == "net.name":
        return _name_matches(term, stored)
    return _contains(term.strip(), stored.strip())


def by_patterns(type: str, term: JSON, stored: JSON) -> bool:
    """As an index does it: all keys in one text, all patterns searched in it."""
    text = b"\xff" + b"".join(key + b"\xff" for key in keys(type, stored))
    return any(pattern in text for pattern in patterns(type, term))


SLOW_TYPES = (
    "net.uri",
    "net.uri.path",
    "net.name",
    "net.ip",
    "file.name",
    "file.path",
    "process.name",
    "system.name",
    "system.service.name",
    "system.user.name",
    "email.header.sender_name",
    "string",
)


@st.composite
def _pairs(draw: st.DrawFn) -> tuple[str, str, str]:
    """A type, a stored value and a term that has a chance to find it."""
    type = draw(st.sampled_from(SLOW_TYPES))
    stored = draw(strategies.values_of(type))
    assert isinstance(stored, str)
    how = draw(st.integers(0, 6))
    if how == 0:
        return type, draw(strategies.values_of(type)), stored  # type: ignore[return-value]
    start = draw(st.integers(0, max(len(stored) - 1, 0)))
    end = draw(st.integers(start, len(stored)))
    term = {
        1: stored,
        2: stored.swapcase(),
        3: stored[start:end],
        4: stored[start:end].upper(),
        5: stored.partition("://")[2] or stored[:-1],
        6: ".".join(stored.split(".")[start % 3 : start % 3 + 3]),
    }[how]
    return type, term, stored


class ReferenceTests(SynchronousTestCase):
    """Keys and patterns say what protocol.md says."""

    @given(_pairs())
    @settings(deadline=None, max_examples=1500, suppress_health_check=list(HealthCheck))
    @example(("net.ip", "92.168.1", "192.168.1.1"))
    @example(("net.ip", "192.168.1", "192.168.11.1"))
    @example(("net.ip", "1.1.1", "010.1.1.1"))
    @example(("net.uri", "http://a.example/X", "HTTP://a.example/x"))
    @example(("net.uri", "http://a.example/X", "http://u@A.example/X"))
    @example(("net.name", "\u00e4.d", "x\u00e4.de"))
    @example(("string", "\xff", "\u00ff"))
    @example(("string", "x" * 65_537, "X" * 65_537))
    @example(("string", "x" * 65_536, "x" * 65_537))
    @example(("net.uri", "x" * 65_537, "x" * 65_537))
    @example(("net.uri", "http://" + "x" * 65_537, "http://" + "X" * 65_537))
    def test_agree(self, pair: tuple[str, str, str]) -> None:
        """
        What patterns find in keys is what the slow rules find; only for URLs it is more, and then
        L{matches} says no.
        """
        type, term, stored = pair
        expected = slowly(type, term, stored)
        self.assertEqual(matches(type, term, stored), expected)
        found = by_patterns(type, term, stored)
        self.assertTrue(found or not expected)
        if type != "net.uri":
            self.assertEqual(found, expected)

    @given(st.data())
    @settings(deadline=None, max_examples=300)
    def test_equality(self, data: st.DataObject) -> None:
        """Everything else finds its equal, and nothing that differs."""
        others = sorted(set(SHAPES) - {*SLOW_TYPES, FILE, PASSWORD, "email.header.to"})
        type = data.draw(st.sampled_from(others))
        value = data.draw(strategies.values_of(type))
        self.assertTrue(matches(type, value, value))
        self.assertTrue(by_patterns(type, value, value))
        if isinstance(value, str):
            self.assertTrue(matches(type, f" {value}\n", value))
            self.assertFalse(matches(type, value, f"{value}x"))
            self.assertFalse(matches(type, f"{value}x", value))
        for key in keys(type, value):
            self.assertNotIn(b"\xff", key)

    @given(strategies.artifact_types, strategies.json_values, strategies.json_values)
    @settings(deadline=None)
    def test_any_value(self, type: str, term: JSON, stored: JSON) -> None:
        """Values of any shape are taken; what can't be found is under no key."""
        self.assertEqual(by_patterns(type, term, stored), matches(type, term, stored))
        self.assertEqual(bool(keys(type, term)), bool(patterns(type, term)))

    @given(st.lists(st.tuples(st.just("string"), strategies.names), max_size=5), strategies.names)
    @settings(deadline=None)
    def test_all_in_one_text(self, stored: list[tuple[str, str]], term: str) -> None:
        """Nothing is found across the border of two stored values."""
        text = b"\xff" + b"".join(key + b"\xff" for each in stored for key in keys(*each))
        found = any(pattern in text for pattern in patterns("string", term))
        self.assertEqual(found, any(matches("string", term, value) for _, value in stored))


class ExampleTests(SynchronousTestCase):
    """The examples of protocol.md, and what people would stumble over."""

    def _finds(self, type: str, term: JSON, *stored: JSON) -> None:
        for each in stored:
            self.assertTrue(matches(type, term, each), (term, each))
            self.assertTrue(by_patterns(type, term, each), (term, each))

    def _misses(self, type: str, term: JSON, *stored: JSON) -> None:
        for each in stored:
            self.assertFalse(matches(type, term, each), (term, each))
            if type != "net.uri":
                self.assertFalse(by_patterns(type, term, each), (term, each))

    def test_url_parts(self) -> None:
        """A host or another part finds the URLs that contain it, as written or normalised."""
        url = "http://www.megastore.lu/login"
        self._finds("net.uri", "www.megastore.lu", url)
        self._finds("net.uri", "MEGASTORE.lu/LOG", url)
        self._finds("net.uri", "xn--mnchen-3ya.de", "http://m\u00fcnchen.de/")
        self._finds("net.uri", "m\u00fcnchen.de", "http://m\u00fcnchen.de/")
        self._misses("net.uri", "www.megastore.lu.evil.example", url)
        self._misses("net.uri", "%", url)
        self._misses("net.uri", "www_megastore_lu", url)

    def test_url_equality(self) -> None:
        """A whole URL finds itself in any spelling, and no other URL of its host."""
        url = "http://www.megastore.lu/login"
        self._finds("net.uri", url, url, "HTTP://www.MEGASTORE.lu:80/login", " " + url)
        self._finds("net.uri", "http://u:p@www.megastore.lu/login", url)
        self._finds("net.uri", url + "#victim@example.com", url, url + "#other")
        self._misses(
            "net.uri",
            url,
            url + "/",
            url + "?x",
            url.upper(),
            "https://www.megastore.lu/login",
            "www.megastore.lu/login",
        )
        self._misses("net.uri", "http://www.megastore.lu", url)
        self._finds("net.uri", "http://a b/", "http://a b/")
        self._misses("net.uri", "http://a b/", "http://A b/")

    def test_addresses(self) -> None:
        """Whole octets find addresses; octets are not taken apart."""
        self._finds("net.ip", "192.168.1", "192.168.1.1", "192.168.1.255", "192.168.1")
        self._misses("net.ip", "192.168.1", "192.168.11.1", "192.168.10.1", "192.16.81.1")
        self._misses("net.ip", "192.168.1.1", "192.168.1.11", "192.168.1", "1.192.168.1")
        self._misses("net.ip", "192", "192.168.1.1")
        self._misses("net.ip", "1.1", "1.1.1.1")
        self._finds("net.ip", "::ffff:10.0.0.1", "10.0.0.1")
        self._finds("net.ip", "2001:DB8::0:1", "2001:db8::1")
        self._misses("net.ip", "2001:db8::1", "2001:db8::11")
        self._finds("net.ip", "010.1.1.1", "010.1.1.1")
        self._misses("net.ip", "010.1.1.1", "10.1.1.1", "8.1.1.1")
        self._misses("net.ip", "10.1.1.1", "010.1.1.1")
        self._misses("net.ip", "1.1.1", "010.1.1.1")
        self._misses("net.ip", "2.3.4", "1.2.3.4.5", "x.2.3.4.x")

    def test_names(self) -> None:
        """Names are found by what they contain, from 4 characters; shorter ones are equal."""
        self._finds("file.name", "badprogram", "badprogram.exe", "MyBadProgram.exe")
        self._misses("file.name", "bad%exe", "badprogram.exe")
        self._misses("file.name", "bad", "badprogram.exe")
        self._finds("file.name", "bad", "BAD")
        self._misses("file.name", "badprogram.exe", "badprogram")
        self._finds("net.name", "example.com.", "www.EXAMPLE.com")
        self._finds("net.name", "M\u00dcNCHEN.de", "www.xn--mnchen-3ya.de")
        self._misses("string", "\u00c4bcd", "\u00e4bcd")

    def test_equality_types(self) -> None:
        """Hashes, CVE ids, addresses of people, ports, ranges are equal in their normal forms."""
        self._finds("hash.sha1", "AB" * 20, "ab" * 20)
        self._misses("hash.sha1", "ab" * 19, "ab" * 20)
        self._misses("hash.fuzzy", "3:AX", "3:ax")
        self._finds("threat.report.cve", "cve-2014-0160", "CVE-2014-0160")
        self._misses("threat.report.cve", "CVE-2014-016", "CVE-2014-0160")
        self._finds("net.port", 443, 443)
        self._misses("net.port", 44, 443)
        self._finds("net.cidr", "10.0.0.1/8", "10.0.0.0/8")
        self._misses("net.cidr", "10.0.0.0/16", "10.0.0.0/8")
        self._finds("email.header.sender_address", "A@Example.com", "a@example.com")
        self._misses("email.header.sender_address", "example.com", "a@example.com")
        self._finds("system.registry", {"key": "HKLM\\Run"}, {"key": "hklm\\run\\"})
        self._misses("system.mutex", "Global", "Global\\X")

    def test_recipients(self) -> None:
        """One recipient in common is enough; no recipients find nothing."""
        self._finds("email.header.to", ["x@a.example", "Y@a.example"], ["y@a.example"])
        self._misses("email.header.to", ["x@a.example"], ["y@a.example"], [], [""])
        self._misses("email.header.to", ["x@a.example, y@a.example"], ["y@a.example"])

    def test_big(self) -> None:
        """A value above 64 KiB finds its equal alone, and parts of it do not find it."""
        big = "ab" * 40_000
        self._finds("string", big, big.upper())
        self._misses("string", big, big + "c", big[:-1])
        self._misses("string", big[: 2**16], big)
        digest = hashlib.blake2b(big.encode(), digest_size=16).hexdigest()
        for at in range(29):
            self._misses("string", digest[at : at + 4], big)
        self._finds("email", big, big)
        self._misses("email", big, big.upper())
        self._finds("net.name", big, big)

    def test_password(self) -> None:
        """Passwords are under no key, and look for nothing; nor do names of uploaded files."""
        for type in (PASSWORD, FILE):
            self.assertEqual(keys(type, "hunter2"), ())
            self.assertEqual(patterns(type, "hunter2"), ())
            self._misses(type, "hunter2", "hunter2")

    def test_nothing(self) -> None:
        """A blank value finds nothing, and is found by nothing."""
        for type in sorted(SHAPES):
            for value in ("", "  ", [], {}, None, {"name": "", "value": ""}, {"key": ""}):
                self.assertEqual(keys(type, value), (), (type, value))
                self.assertEqual(patterns(type, value), (), (type, value))
