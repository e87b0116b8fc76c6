"""
Tests for L{ctsd.artifacts} and L{ctsd.normal_forms}: shapes, equality, what derives.
"""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ctsd import normal_forms
from ctsd.artifacts import SHAPES, Shape, derived, digest, is_empty, shaped
from ctsd.errors import UnknownArtifact
from ctsd.model import FILE, JSON, PASSWORD, Artifact, File
from tests import strategies


def uploaded(name: str = "mail.eml", sha256: str = "c" * 64) -> File:
    """A file that came along."""
    return File(
        path=Path("/nowhere"), name=name, size=3, md5="a" * 32, sha1="b" * 40, sha256=sha256
    )


class ShapedTests(SynchronousTestCase):
    """L{shaped} brings a value into its type's shape, or says that it has another one."""

    def _shape(self, type: str, value: JSON) -> JSON:
        return shaped(Artifact(type, value)).value

    def test_unknown_type(self) -> None:
        """A type that is not in the table is unknown, whatever its value."""
        for type in ("", "net.IP", "custom.thing", "\ud800", "x" * 10_000):
            with self.assertRaises(UnknownArtifact):
                shaped(Artifact(type, "x"))

    def test_other_shape(self) -> None:
        """A value of another shape is told as such, and the message does not contain it."""
        for type, value in (
            ("net.ip", None),
            ("net.ip", True),
            ("net.ip", {"value": "s3cret"}),
            ("net.ip", ["s3cret", "1.2.3.4"]),
            ("net.ip", [["s3cret"]]),
            ("net.ip", []),
            ("string", float("nan")),
            ("string", float("inf")),
            ("net.port", "s3cret"),
            ("net.port", False),
            ("net.port", "nan"),
            ("net.port", "1e999"),
            ("net.port", [1, 2]),
            ("net.port", {}),
            ("email.header", "From: s3cret"),
            ("email.header", {"name": "s3cret"}),
            ("email.header", {"name": "s3cret", "value": None}),
            ("email.header", {"name": "s3cret", "value": ["x"]}),
            ("email.header", {"name": "s3cret", "value": True}),
            ("email.header.to", {"a": "s3cret"}),
            ("email.header.to", ["a@example.com", {"b": "s3cret"}]),
            ("email.header.to", None),
            ("system.registry", {"entry_name": "s3cret"}),
            ("system.registry", {"key": "x", "entry_value": ["s3cret"]}),
            (FILE, {"name": "s3cret"}),
            (PASSWORD, {"password": "s3cret"}),
        ):
            with self.assertRaises(UnknownArtifact, msg=f"{type} {value!r}") as caught:
                shaped(Artifact(type, value))
            self.assertNotIn("s3cret", str(caught.exception))

    def test_numbers_and_strings(self) -> None:
        """Numbers and strings become each other."""
        self.assertEqual(self._shape("string", 17), "17")
        self.assertEqual(self._shape("string", 1.5), "1.5")
        self.assertEqual(self._shape("net.port", "443"), 443)
        self.assertEqual(self._shape("net.port", " 443 "), 443)
        self.assertEqual(self._shape("net.port", 443.0), 443)
        self.assertIs(type(self._shape("net.port", 443.0)), int)
        self.assertEqual(self._shape("net.port", "0.5"), 0.5)
        self.assertEqual(self._shape("string", 10**400), "1" + "0" * 400)

    def test_one_and_a_list_of_one(self) -> None:
        """One and a list of one become each other."""
        self.assertEqual(self._shape("net.ip", ["1.2.3.4"]), "1.2.3.4")
        self.assertEqual(self._shape("net.port", ["443"]), 443)
        self.assertEqual(self._shape("email.header.to", "a@example.com"), ["a@example.com"])
        self.assertEqual(self._shape("email.header.to", 5), ["5"])
        header: JSON = {"name": "Subject", "value": "x"}
        self.assertEqual(self._shape("email.header", [header]), header)

    def test_objects(self) -> None:
        """Keys that an object of this type does not have, and those that are null, are left out."""
        self.assertEqual(
            self._shape(
                "system.registry",
                {"key": "HKLM", "entry_name": None, "entry_value": 5, "newer": {"a": 1}},
            ),
            {"key": "HKLM", "entry_value": "5"},
        )
        self.assertEqual(
            self._shape("net.http.request.header", {"value": "", "name": "User-Agent"}),
            {"name": "User-Agent", "value": ""},
        )

    def test_file_stays(self) -> None:
        """The file that came along stays with the artifact."""
        file = uploaded()
        self.assertIs(shaped(Artifact("net.port", "1", file)).file, file)
        self.assertIs(shaped(Artifact(FILE, "a", file)).file, file)

    @given(strategies.artifacts(strategies.artifact_types, with_files=True))
    @settings(deadline=None)
    def test_what_has_its_shape_stays(self, artifact: Artifact) -> None:
        """A value that has its shape already is not changed."""
        self.assertEqual(shaped(artifact), artifact)

    @given(st.one_of(strategies.artifact_types, strategies.texts), strategies.json_values)
    @settings(deadline=None)
    def test_any_value(self, type: str, value: JSON) -> None:
        """Any value at all is either of a shape, and then stays so, or unknown."""
        try:
            once = shaped(Artifact(type, value))
        except UnknownArtifact:
            return
        self.assertEqual(shaped(once), once)
        kind = {
            Shape.STRING: str,
            Shape.STRINGS: list,
            Shape.NUMBER: (int, float),
            Shape.NAME_VALUE: dict,
            Shape.REGISTRY: dict,
        }[SHAPES[type]]
        self.assertIsInstance(once.value, kind)


class EmptyTests(SynchronousTestCase):
    """L{is_empty} finds the artifacts about which there is nothing to ask."""

    def test_empty(self) -> None:
        """Blank texts, lists of such and objects of such are empty."""
        for value in ("", " \t\n", "\u2003", [], [""], [" ", ""], {}, {"name": "", "value": " "}):
            self.assertTrue(is_empty(Artifact("string", value)), repr(value))
        self.assertTrue(is_empty(Artifact("string", None)))

    def test_not_empty(self) -> None:
        """Everything else is not: neither the number 0, nor a file without a name."""
        for value in ("0", 0, 0.0, ["", "x"], {"name": "x", "value": ""}, "\u200b"):
            self.assertFalse(is_empty(Artifact("string", value)), repr(value))
        self.assertFalse(is_empty(Artifact(FILE, "", uploaded())))


class DigestTests(SynchronousTestCase):
    """L{digest} is equal for equal artifacts alone."""

    def test_password(self) -> None:
        """Of a password there is no digest, not even with a file."""
        self.assertEqual(digest(PASSWORD, "hunter2"), b"")
        self.assertEqual(digest(PASSWORD, "hunter2", uploaded()), b"")

    def test_length(self) -> None:
        """It has 16 bytes, always the same ones: it is stored."""
        self.assertEqual(digest("net.ip", "1.2.3.4").hex(), "a69bae038ffa63b9a53220dc7f338287")

    def test_file(self) -> None:
        """An uploaded file is its bytes: its name does not count."""
        one, other = uploaded("a.exe"), uploaded("b.exe")
        changed = uploaded("a.exe", "d" * 64)
        self.assertEqual(digest(FILE, "a.exe", one), digest(FILE, "b.exe", other))
        self.assertNotEqual(digest(FILE, "a.exe", one), digest(FILE, "a.exe", changed))
        self.assertNotEqual(digest(FILE, "a.exe", one), digest(FILE, "a.exe"))

    def test_value_and_file(self) -> None:
        """Of another type with a file, both the value and the file count."""
        one, changed = uploaded(), uploaded(sha256="d" * 64)
        known = digest("email", "x", one)
        self.assertNotEqual(known, digest("email", "y", one))
        self.assertNotEqual(known, digest("email", "x", changed))
        self.assertNotEqual(known, digest("email", "x"))

    def test_type(self) -> None:
        """The same value of another type is another artifact."""
        self.assertNotEqual(digest("file.name", "x"), digest("file.path", "x"))

    def test_equal(self) -> None:
        """Two spellings of the same thing are equal, two things are not."""
        for type, one, same, other in (
            ("net.ip", "::ffff:1.2.3.4", "1.2.3.4", "1.2.3.5"),
            ("net.uri", "HTTP://A.example", "http://a.example/", "http://a.example/A"),
            ("net.uri", "a.example/x ", "a.example/x", "A.example/x"),
            ("file.name", "Evil.exe", " Evil.exe", "evil.exe"),
            ("hash.sha256", "AB", "ab ", "ac"),
        ):
            self.assertEqual(digest(type, one), digest(type, same), type)
            self.assertNotEqual(digest(type, one), digest(type, other), type)

    @given(strategies.artifacts(with_files=True))
    @settings(deadline=None)
    def test_any(self, artifact: Artifact) -> None:
        """Every artifact has one, of 16 bytes."""
        self.assertEqual(len(digest(artifact.type, artifact.value, artifact.file)), 16)


class NormalFormTests(SynchronousTestCase):
    """Normal forms, type by type."""

    def _check(self, type: str, pairs: dict[str, str]) -> None:
        for text, form in pairs.items():
            self.assertEqual(normal_forms.normal(type, text), form, repr(text))

    def test_addresses(self) -> None:
        """
        Addresses are canonical, without zone and brackets; an ambiguous one stays as it is.
        """
        self._check(
            "net.ip",
            {
                " 192.168.1.1\n": "192.168.1.1",
                "010.1.1.1": "010.1.1.1",
                "0x7f.1": "0x7f.1",
                "256.1.1.1": "256.1.1.1",
                "1.2.3.4.5": "1.2.3.4.5",
                "192.168.1.": "192.168.1",
                "\u0661.2.3.4": "\u0661.2.3.4",
                "::FFFF:1.2.3.4": "1.2.3.4",
                "::ffff:102:304": "1.2.3.4",
                "2001:DB8:0:0:0:0:0:1": "2001:db8::1",
                "[2001:db8::1]": "2001:db8::1",
                "fe80::1%eth0": "fe80::1",
                "::": "::",
                "1::2::3": "1::2::3",
                "::\x00": "::\x00",
                "::\ud800": "::\ud800",
            },
        )

    def test_networks(self) -> None:
        """CIDR ranges lose their host bits; what is none stays as it is."""
        self._check(
            "net.cidr",
            {
                "10.1.2.3/8": "10.0.0.0/8",
                "10.0.0.0/255.0.0.0": "10.0.0.0/8",
                "2001:DB8::1/32": "2001:db8::/32",
                "10.0.0.0/33": "10.0.0.0/33",
                "010.0.0.0/8": "010.0.0.0/8",
                "x": "x",
            },
        )

    def test_names(self) -> None:
        """Names are lower-case Punycode without the root's dot."""
        self._check(
            "net.name",
            {
                "WWW.Example.COM.": "www.example.com",
                "M\u00dcNCHEN.de": "xn--mnchen-3ya.de",
                "stra\u00dfe.de": "xn--strae-oqa.de",
                ".": ".",
                "a_b": "a_b",
                "\ud800.de": "\ud800.de",
                "\u00e4" * 2000: "\u00e4" * 2000,
            },
        )

    def test_urls(self) -> None:
        """
        URLs are as the WHATWG standard has them, without user, password and fragment; what has no
        scheme, or is no URL, stays as it is.
        """
        self._check(
            "net.uri",
            {
                " HTTP://WWW.Example.COM:80/a/../b?x=1#f\n": "http://www.example.com/b?x=1",
                "https://user:pw@example.com/": "https://example.com/",
                "https://paypal.example@evil.example": "https://evil.example/",
                "https://example.com/@x": "https://example.com/@x",
                "http://m\u00fcnchen.de/\u00e4": "http://xn--mnchen-3ya.de/%C3%A4",
                "http://0x7f.1/": "http://127.0.0.1/",
                "http://a b/": "http://a b/",
                "http://x/\ud800": "http://x/\ud800",
                "WWW.Example.com/X": "WWW.Example.com/X",
                "mailto:A@B.example": "mailto:A@B.example",
                "http://" + "A" * 70_000: "http://" + "A" * 70_000,
            },
        )

    def test_others(self) -> None:
        """MAC addresses, hashes, CVE ids and e-mail addresses have one spelling."""
        self._check("net.mac", dict.fromkeys(MACS, "00:1a:2b:3c:4d:5e"))
        self._check("net.mac", {"00:1a-2b:3c:4d:5e": "00:1a-2b:3c:4d:5e", "X": "X"})
        self._check("hash.md5", {" ABC ": "abc"})
        self._check("hash.fuzzy", {" 3:AXGB:Ax ": "3:AXGB:Ax"})
        self._check("threat.report.cve", {"cve-2014-0160 ": "CVE-2014-0160"})
        self._check("email.header.sender_address", {"A@Example.COM": "a@example.com"})
        self._check("threat.malware.family", {"Emotet": "emotet"})
        self._check("system.mutex", {" Global\\X ": "Global\\X"})

    def test_objects(self) -> None:
        """
        The case of headers' and keys' names does not count, that of their values does; parts can
        not run into each other.
        """
        header = {"name": "User-Agent", "value": "X"}
        registry = {"key": "HKLM\\Software\\", "entry_name": "Run"}

        def same(type: str, one: JSON, other: JSON) -> bool:
            return normal_forms.normal(type, one) == normal_forms.normal(type, other)

        for type in ("email.header", "net.http.request.header", "net.http.response.header"):
            self.assertTrue(same(type, header, {"name": "user-agent", "value": " X"}))
            self.assertFalse(same(type, header, {"name": "user-agent", "value": "x"}))
            self.assertFalse(same(type, {"name": "a", "value": "bc"}, {"name": "ab", "value": "c"}))
        self.assertTrue(
            same(
                "system.registry",
                registry,
                {"key": "hklm\\software", "entry_name": "run", "entry_value": ""},
            )
        )
        self.assertFalse(
            same(
                "system.registry",
                {**registry, "entry_value": "a"},
                {**registry, "entry_value": "A"},
            )
        )
        self.assertTrue(same("email.header.to", ["A@x.example"], ["a@x.example "]))
        self.assertFalse(same("email.header.to", ["a", "b"], ["b", "a"]))

    @given(strategies.artifacts(strategies.artifact_types))
    @settings(deadline=None)
    def test_again(self, artifact: Artifact) -> None:
        """The normal form of a text's normal form is itself."""
        if isinstance(artifact.value, str):
            once = normal_forms.normal(artifact.type, artifact.value)
            self.assertEqual(normal_forms.normal(artifact.type, once), once)

    @given(strategies.artifact_types, strategies.json_values)
    @settings(deadline=None)
    def test_any_value(self, type: str, value: JSON) -> None:
        """A value of any shape has a normal form; an empty one, if it is not of its type's."""
        form = normal_forms.normal(type, value)
        self.assertIsInstance(form, str)
        if value is None or isinstance(value, bool):
            self.assertEqual(form, "")

    @given(st.one_of(strategies.addresses, strategies.texts))
    @settings(deadline=None)
    def test_is_address(self, text: str) -> None:
        """An address is one in any unambiguous spelling: its canonical form is one, too."""
        if normal_forms.is_address(text):
            self.assertTrue(normal_forms.is_address(normal_forms.address(text)))

    def test_is_no_address(self) -> None:
        """Parts, ambiguous spellings, zones, ports, ranges are no addresses."""
        for text in ("", "1.2.3", "1.2.3.4.", "01.2.3.4", "1.2.3.4:80", "1.2.3.0/24", "fe80::1%e",
                     "[::1]", " 1.2.3.4", "::g", "1.2.3.4\n"):  # fmt: skip
            self.assertFalse(normal_forms.is_address(text), text)


MACS = (
    "00:1A:2B:3C:4D:5E",
    "00-1a-2b-3c-4d-5e",
    "001a.2b3c.4d5e",
    " 001A2B3C4D5E",
)


class DerivedTests(SynchronousTestCase):
    """L{derived} says what else to ask."""

    def test_file(self) -> None:
        """A file, of any type of artifact, is asked by its hashes, too."""
        for type in (FILE, "email", "cert.x509"):
            self.assertEqual(
                [
                    (each.artifact.type, each.artifact.value, each.how)
                    for each in derived(Artifact(type, "mail.eml", uploaded()))
                ],
                [
                    ("hash.md5", "a" * 32, "MD5 of the file"),
                    ("hash.sha1", "b" * 40, "SHA-1 of the file"),
                    ("hash.sha256", "c" * 64, "SHA-256 of the file"),
                ],
            )

    def test_nothing(self) -> None:
        """From anything else nothing derives."""
        self.assertEqual(derived(Artifact("net.ip", "1.2.3.4")), ())
        self.assertEqual(derived(Artifact(FILE, "mail.eml")), ())
