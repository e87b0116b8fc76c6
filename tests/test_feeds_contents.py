"""Tests of the indicators within texts and messages."""

from __future__ import annotations

import base64
import hashlib
from email.message import EmailMessage
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ctsd.feeds.contents import QUICK_CHARS, Limits, has_contents, is_quick, within
from ctsd.model import FILE, Artifact, File
from ctsd.records import Within
from tests import strategies


def inside(text: str, **limits: int) -> list[tuple[str, object]]:
    """What is in a text."""
    found = within(Artifact("string", text), Limits(**limits))
    return [(each.artifact.type, each.artifact.value) for each in found.derived]


class TextTests(SynchronousTestCase):
    """What is found in a text."""

    def test_kinds(self) -> None:
        """Each kind, as reports write it."""
        md5, sha1, sha256 = "d" * 32, "e" * 40, "f" * 64
        for text, found in (
            ("see http://evil.example/a?b=c.", ("net.uri", "http://evil.example/a?b=c")),
            ("(https://evil.example/a(b))", ("net.uri", "https://evil.example/a(b)")),
            ("hxxps[:]//evil[.]example/x,", ("net.uri", "hxxps[:]//evil[.]example/x")),
            ('<a href="http://evil.example/x">', ("net.uri", "http://evil.example/x")),
            ("Bob <bob@evil.example>", ("email.header.sender_address", "bob@evil.example")),
            ("bob[@]evil[.]example", ("email.header.sender_address", "bob@evil.example")),
            (f"MD5: {md5}", ("hash.md5", md5)),
            (f"{sha1.upper()};", ("hash.sha1", sha1)),
            (sha256, ("hash.sha256", sha256)),
            ("(cve-2021-44228)", ("threat.report.cve", "CVE-2021-44228")),
            ("from 192[.]0[.]2[.]1:443", ("net.ip", "192.0.2.1")),
            ("in 192.0.2.7/24.", ("net.cidr", "192.0.2.0/24")),
            ("at 2001:DB8::1,", ("net.ip", "2001:db8::1")),
            ("[2001:db8::1]:443", ("net.ip", "2001:db8::1")),
            ("It was 2001:db8::1. Then", ("net.ip", "2001:db8::1")),
            ("::ffff:203.0.113.7.", ("net.ip", "203.0.113.7")),
            ("at www.Evil[.]example.", ("net.name", "www.Evil.example")),
        ):
            self.assertEqual(inside(text), [found], text)

    def test_nothing(self) -> None:
        """What only looks like one."""
        for text in (
            "1.2.3 and 1.2.3.4.5 and 256.1.1.1",
            "a" * 33,
            "12:30:45",
            "std::vector",
            "CVE-21-1",
            "e.g. this",
            "x" * 100_000,
            "",
        ):
            self.assertEqual(inside(text), [], text[:40])

    def test_each_once(self) -> None:
        """What is there twice is found once, and says how it follows from the artifact."""
        (found,) = within(Artifact("email.body", "evil.example, evil.example")).derived
        self.assertEqual(found.how, "host in the e-mail's body")

    def test_limits(self) -> None:
        """Beyond a limit nothing is looked at, and that is told."""
        text = " ".join(f"{number}.example" for number in range(10))
        self.assertEqual(within(Artifact("string", text)).cut, ())
        for limits in (Limits(found=5), Limits(text_chars=len(text) - 5)):
            self.assertTrue(within(Artifact("string", text), limits).cut)
        self.assertEqual(len(inside(text, found=5)), 5)

    def test_across_pieces(self) -> None:
        """What is in a long text is found wherever it is."""
        for filler in range(4080, 4110):
            text = "x" * filler + " http://evil.example/login " + "y" * 5000
            self.assertEqual(inside(text), [("net.uri", "http://evil.example/login")], filler)

    @settings(deadline=None)
    @given(st.one_of(strategies.texts, st.text("[](){}.:/@ahdotxp1:- \n", max_size=200)))
    @example("a@" * 3000)
    @example("1." * 3000)
    @example("::" * 3000)
    @example("http://" * 1000)
    def test_any(self, text: str) -> None:
        """No text is an error."""
        self.assertIsInstance(within(Artifact("string", text)), Within)

    def test_quick(self) -> None:
        """Only what takes no time may be done in the reactor."""
        self.assertTrue(is_quick(Artifact("net.ip", "192.0.2.1")))
        self.assertTrue(is_quick(Artifact("string", "x" * QUICK_CHARS)))
        self.assertFalse(is_quick(Artifact("string", "x" * (QUICK_CHARS + 1))))
        self.assertFalse(is_quick(Artifact("email", "x")))
        self.assertFalse(has_contents(Artifact("net.uri", "http://evil.example/")))


class MessageTests(SynchronousTestCase):
    """What is found in a message."""

    def message(self) -> EmailMessage:
        """One with all there is."""
        message = EmailMessage()
        message["From"] = "Bob <bob@evil.example>"
        message["Reply-To"] = "eve@other.example"
        message["To"] = "Alice <alice@ours.example>, carol@ours.example"
        message["Subject"] = "http://subject.example/"
        message.set_content("Go to http://plain.example/x now")
        message.add_alternative('<a href="http://html.example/?a=1&amp;b=2">x</a>', subtype="html")
        message.add_attachment(
            b"bad", maintype="application", subtype="octet-stream", filename="bad.exe"
        )
        return message

    def check(self, found: Within) -> None:
        """All of it was found."""
        values = {(each.artifact.value, each.how) for each in found.derived}
        self.assertEqual(found.cut, ())
        for wanted in (
            ("bob@evil.example", "address in From"),
            ("eve@other.example", "address in Reply-To"),
            ("alice@ours.example", "address in To"),
            ("carol@ours.example", "address in To"),
            ("http://plain.example/x", "URL in the e-mail"),
            ("http://html.example/?a=1&b=2", "URL in the e-mail"),
            ("bad.exe", "name of an attachment"),
            (hashlib.md5(b"bad", usedforsecurity=False).hexdigest(), "MD5 of an attachment"),
            (hashlib.sha256(b"bad").hexdigest(), "SHA-256 of an attachment"),
        ):
            self.assertIn(wanted, values)

    def test_text(self) -> None:
        """As a text."""
        self.check(within(Artifact("email", self.message().as_string())))

    def test_file(self) -> None:
        """As a file, of either type; a file that is no message is not read."""
        path = Path(self.mktemp())
        path.write_bytes(self.message().as_bytes())
        file = File(path=path, name="x.eml", size=1, md5="", sha1="", sha256="")
        self.check(within(Artifact(FILE, "x.eml", file)))
        self.check(within(Artifact("email", "", file)))

    def test_other_file(self) -> None:
        """Of a file that is no message, which is not even read, its hashes and its name."""
        file = File(
            path=Path("gone"), name="x.exe", size=1, md5="d" * 32, sha1="e" * 40, sha256="f" * 64
        )
        artifact = Artifact(FILE, "x.exe", file)
        self.assertTrue(is_quick(artifact))
        self.assertEqual(
            [(each.artifact, each.how) for each in within(artifact).derived],
            [
                (Artifact("hash.md5", "d" * 32), "MD5 of the file"),
                (Artifact("hash.sha1", "e" * 40), "SHA-1 of the file"),
                (Artifact("hash.sha256", "f" * 64), "SHA-256 of the file"),
                (Artifact("file.name", "x.exe"), "name of the file"),
            ],
        )

    def test_certificate(self) -> None:
        """A certificate's file has its fingerprint, in PEM as in DER."""
        der = b"0\x82\x01\x00" + bytes(range(256))
        pem = f"-----BEGIN CERTIFICATE-----\n{base64.encodebytes(der).decode()}-----END"
        sha1 = hashlib.sha1(der, usedforsecurity=False).hexdigest()
        for data, wanted in ((der, [sha1]), (pem.encode(), [sha1]), (b"none", [])):
            path = Path(self.mktemp())
            path.write_bytes(data)
            file = File(path=path, name="x.crt", size=1, md5="", sha1="", sha256="")
            artifact = Artifact("cert.x509", "x.crt", file)
            prints = [
                each.artifact.value
                for each in within(artifact).derived
                if each.artifact.type == "cert.x509"
            ]
            self.assertEqual(prints, wanted)
            self.assertFalse(is_quick(artifact))

    def test_gone(self) -> None:
        """A file that can't be read is an error, and not nothing."""
        file = File(path=Path("gone"), name="x.eml", size=1, md5="", sha1="", sha256="")
        self.assertRaises(OSError, within, Artifact(FILE, "x.eml", file))

    def test_nested(self) -> None:
        """A message in a message is read, too."""
        outer = EmailMessage()
        outer["From"] = "carrier@ours.example"
        outer.set_content("see below")
        outer.add_attachment(self.message())
        self.check(within(Artifact("email", outer.as_string())))

    def test_limits(self) -> None:
        """Beyond a limit nothing is looked at, and that is told."""
        text = self.message().as_string()
        for limits in (Limits(parts=2), Limits(message_bytes=100), Limits(found=2)):
            self.assertTrue(within(Artifact("email", text), limits).cut)

    @settings(deadline=None)
    @given(st.binary(max_size=300))
    @example(b"Content-Type: text/plain; charset=nonsense\n\nhttp://evil.example/")
    @example(b"Content-Type: multipart/mixed; boundary=x\n\n--x\n--x\n--x--")
    @example(b"Content-Transfer-Encoding: base64\nContent-Type: text/plain\n\n!!!")
    @example(b"From: =?utf-8?b?////?= <a@b.c>\nTo: =?x?q?=20?=")
    def test_any(self, data: bytes) -> None:
        """No message is an error."""
        path = Path(self.mktemp())
        path.write_bytes(data)
        file = File(path=path, name="x.eml", size=1, md5="", sha1="", sha256="")
        self.assertIsInstance(within(Artifact(FILE, "x.eml", file)), Within)
        text = data.decode("latin-1")
        self.assertIsInstance(within(Artifact("email", text)), Within)
