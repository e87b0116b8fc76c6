"""Tests of what indicators are stored under, what is looked for, and the forms behind both."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ctsd.artifacts import SHAPES
from ctsd.feeds import feed_file
from ctsd.feeds.key_store import KEY_FORMS, key_label
from ctsd.feeds.keys import is_too_long, stored
from ctsd.feeds.lookups import lookups
from ctsd.indicator_forms import (
    Network,
    certificate_form,
    cve_form,
    email_form,
    family_form,
    host_form,
    network,
    url_form,
)
from ctsd.model import FILE, PASSWORD, Artifact, File
from ctsd.refanged import refanged
from tests import strategies
from tests.test_feeds_job import imports_of


class RefangedTests(SynchronousTestCase):
    """What was defanged is as it was."""

    def test_refanged(self) -> None:
        """Schemes and signs in brackets."""
        for text, plain in (
            ("hxxps[:]//evil[.]example/x[.]y", "https://evil.example/x.y"),
            ("hXXp://1.2.3[.]4", "http://1.2.3.4"),
            ("h**p://evil.example", "http://evil.example"),
            ("fxp://evil.example", "ftp://evil.example"),
            ("hxxp[://]evil.example", "http://evil.example"),
            ("evil(dot)example", "evil.example"),
            ("evil [ . ] example", "evil.example"),
            ("evil\\.example", "evil.example"),
            ("bob [at] evil {.} example", "bob@evil.example"),
            ("http://[2001[:]db8[:][:]1]/", "http://[2001:db8::1]/"),
        ):
            self.assertEqual(refanged(text), plain)

    def test_left_alone(self) -> None:
        """IPv6 literals, and what may be meant."""
        for text in (
            "[2001:db8::1]:443",
            "http://[::1]/",
            "http://[::]/[.]",
            "http://evil.example/a[.]b?c=(dot)",
            "evil.example",
            "hxxp",
        ):
            self.assertEqual(refanged(text), text)

    @given(st.text("[](){}.:/@ahdotxp\\ ", max_size=40))
    def test_any(self, text: str) -> None:
        """Whatever it is, it is a text in the end, and no longer than that."""
        self.assertLessEqual(len(refanged(text)), len(text) + 1)


class FormTests(SynchronousTestCase):
    """Forms of single values."""

    def test_networks(self) -> None:
        """Addresses and ranges in canonical form."""
        for text, form in (
            ("192.0.2.1", "192.0.2.1"),
            ("192.0.2.1:443", "192.0.2.1"),
            ("192.0.2.1.", "192.0.2.1"),
            ("192[.]0[.]2[.]1", "192.0.2.1"),
            ("\ufeff192.0.2.1\u200b", "192.0.2.1"),
            ("192.0.2.1/24", "192.0.2.0/24"),
            ("192.0.2.1/32", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("::ffff:c000:201", "192.0.2.1"),
            ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
            ("2001:DB8:0:0::1", "2001:db8::1"),
            ("fe80::1%eth0", "fe80::1"),
            ("[2001:db8::1]:443", "2001:db8::1"),
            ("[fe80::1%25eth0]:443", "fe80::1"),
            ("2001:db8::1/32", "2001:db8::/32"),
        ):
            self.assertEqual(str(network(text)), form, text)

    def test_no_networks(self) -> None:
        """What is ambiguous, or no address."""
        for text in (
            "010.1.1.1",
            "1.2.3",
            "1.2.3.4.5",
            "1.2.3.256",
            "1.2.3.4/33",
            "::1/129",
            "2001:db8:::1",
            "evil.example",
            "",
            "0x7f.1",
            "1.2.3.4:evil",
        ):
            self.assertIsNone(network(text), text)

    @given(st.text("0123456789abf.:/%[]", max_size=24))
    def test_as_ipaddress(self, text: str) -> None:
        """What is understood is what the standard library makes of it without port and zone."""
        found = network(text)
        if found is None:
            return
        bare = text.rpartition("]:")[0].lstrip("[") if "]:" in text else text.strip("[]")
        if ":" not in bare.partition(".")[0] and ":" in bare:
            bare = bare.partition(":")[0]
        address, _, rest = bare.partition("%")
        bare = f"{address.rstrip('.') if ':' not in address else address}" + (
            f"/{rest.partition('/')[2]}" if "/" in rest else ""
        )
        wanted = ipaddress.ip_network(bare.replace("./", "/"), strict=False)
        mapped = getattr(wanted.network_address, "ipv4_mapped", None)
        if mapped is not None and wanted.prefixlen >= 96:
            wanted = ipaddress.ip_network((mapped, wanted.prefixlen - 96))
        self.assertEqual(
            (found.version, found.first, found.prefix),
            (wanted.version, int(wanted.network_address), wanted.prefixlen),
        )

    @given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)), st.data())
    def test_contains(self, address: ipaddress.IPv4Address, data: st.DataObject) -> None:
        """Containment is that of the standard library."""
        wide = data.draw(st.integers(0, address.max_prefixlen))
        narrow = data.draw(st.integers(0, address.max_prefixlen))
        one = network(f"{address}/{wide}")
        other = network(f"{address}/{narrow}")
        assert one is not None
        assert other is not None
        if one.version == other.version:
            self.assertEqual(one.covers(other), narrow >= wide)
        self.assertFalse(one.covers(Network(4 if one.version == 6 else 6, 0, 0)))

    def test_urls(self) -> None:
        """Scheme, and the others without what makes no difference."""
        for text, form in (
            ("http://user:pw@Evil.example:80/a#x", ("http", "evil.example/a", "evil.example")),
            ("https://evil.example:443", ("https", "evil.example/", "evil.example")),
            ("evil.example:443/x", ("", "evil.example/x", "evil.example")),
            ("evil.example:80/x", ("", "evil.example/x", "evil.example")),
            ("//Evil.example./x", ("", "evil.example/x", "evil.example")),
            ("hxxp://evil[.]example", ("http", "evil.example/", "evil.example")),
            ("http://[::FFFF:1.2.3.4]:8080/", ("http", "1.2.3.4:8080/", "1.2.3.4")),
            ("http://[2001:DB8::1]/x?y", ("http", "[2001:db8::1]/x?y", "2001:db8::1")),
            ("http://0x7f.1/", ("http", "127.0.0.1/", "127.0.0.1")),
            ("tcp://Evil.example:80", ("tcp", "evil.example:80", "evil.example")),
            ("mailto:bob@evil.example", ("mailto", "bob@evil.example", "")),
            (
                "http://münchen.example/ä",
                ("http", "xn--mnchen-3ya.example/%C3%A4", "xn--mnchen-3ya.example"),
            ),
            ("http://evil.example/a@b:80", ("http", "evil.example/a@b:80", "evil.example")),
        ):
            self.assertEqual(tuple(url_form(text) or ()), form, text)
        for text in ("http://ex ample/", "http://[::1/", "http://\ud800/", "", " "):
            self.assertIsNone(url_form(text), repr(text))

    def test_hosts(self) -> None:
        """Names and addresses."""
        for text, form in (
            ("WWW.Evil.example.", "www.evil.example"),
            ("*.evil.example", "evil.example"),
            (".evil.example", "evil.example"),
            ("evil[.]example:8443", "evil.example"),
            ("MÜNCHEN.example", "xn--mnchen-3ya.example"),
            ("192.0.2.1:80", "192.0.2.1"),
            ("[2001:DB8::1]", "2001:db8::1"),
            ("010.1.1.1", "010.1.1.1"),
        ):
            self.assertEqual(host_form(text), form, text)

    def test_others(self) -> None:
        """E-mail addresses, CVEs, families."""
        self.assertEqual(
            email_form("Bob <Bob@Mail.Evil.example>"),
            ("bob@mail.evil.example", "mail.evil.example"),
        )
        self.assertEqual(email_form("bob[@]evil[.]example"), ("bob@evil.example", "evil.example"))
        for text in ("bob", "@evil.example", "bob@", ""):
            self.assertIsNone(email_form(text), text)
        for text in ("cve-2021-44228", "CVE\u20112021\u201144228", "CVE 2021 44228"):
            self.assertEqual(cve_form(text), "CVE-2021-44228", text)
        for text in ("Agent Tesla", "agent_tesla", "win.agent_tesla", "AgentTesla"):
            self.assertEqual(family_form(text), "agenttesla", text)

    def test_certificates(self) -> None:
        """PEM, base64, DER and fingerprints have one form."""
        der = b"0\x82\x01\x00" + bytes(range(256))
        sha1 = hashlib.sha1(der, usedforsecurity=False).hexdigest()
        text = base64.encodebytes(der).decode()
        parted = ":".join(sha1[at : at + 2] for at in range(0, 40, 2))
        for spelled in (
            f"Subject: x\n-----BEGIN CERTIFICATE-----\n{text}-----END CERTIFICATE-----\n",
            text,
            der.decode("latin-1"),
            sha1.upper(),
            f"SHA1 Fingerprint={parted.upper()}",
            f"sha1:{sha1}",
        ):
            self.assertEqual(certificate_form(spelled), sha1, spelled[:40])
        for none in ("", "abcd", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END", "x" * 40):
            self.assertEqual(certificate_form(none), "", none)


class KeyTests(SynchronousTestCase):
    """What is stored, and what is looked for."""

    def keys_of(self, type: str, value: object) -> list[tuple[object, str]]:
        """What an artifact looks for, and how it follows from it."""
        artifact = Artifact(type, value)  # type: ignore[arg-type]
        return [
            (str(key) if isinstance(key, Network) else key, how)
            for key, how, _ in lookups(artifact)
        ]

    def test_url(self) -> None:
        """A URL looks for itself, its host and the domains above, and for no URL on its host."""
        self.assertEqual(
            self.keys_of("net.uri", "http://www.a.evil.example/x"),
            [
                (b"uwww.a.evil.example/x", ""),
                (b"nwww.a.evil.example", "host of the URL"),
                (b"na.evil.example", "parent domain of the URL's host"),
                (b"nevil.example", "parent domain of the URL's host"),
            ],
        )
        self.assertEqual(
            self.keys_of("net.uri", "http://192.0.2.1:8080/"),
            [(b"u192.0.2.1:8080/", ""), ("192.0.2.1", "address in the URL")],
        )

    def test_headers(self) -> None:
        """What a header holds is looked for."""
        found = self.keys_of("net.http.request.header", {"name": "Referer", "value": "http://a.b/"})
        self.assertEqual(
            found[:2], [(b"ua.b/", "URL in Referer"), (b"na.b", "host of the URL (URL in Referer)")]
        )
        found = self.keys_of("email.header", {"name": "reply-to", "value": "Bob <bob@a.b>"})
        self.assertEqual(found[0], (b"mbob@a.b", "address in Reply-To"))
        found = self.keys_of("email.header", {"name": "Subject", "value": "bob@a.b"})
        self.assertEqual([how for _, how in found], [""])

    def test_recipients(self) -> None:
        """Each is looked for, all of them before their domains."""
        self.assertEqual(
            self.keys_of("email.header.to", ["bob@a.b", "eve@c.d", "nobody"]),
            [
                (b"mbob@a.b", ""),
                (b"meve@c.d", ""),
                (b"na.b", "domain of the e-mail address"),
                (b"nc.d", "domain of the e-mail address"),
            ],
        )

    def test_recipients_of_one_domain(self) -> None:
        """It is looked for once."""
        many = [f"{number}@a.b" for number in range(100)]
        self.assertEqual(len(self.keys_of("email.header.to", many)), 101)

    def test_files(self) -> None:
        """A file is looked for by its name; without one that came along, by what it is called."""
        file = File(
            path=Path("x"), name="bad.exe", size=1, md5="a" * 32, sha1="b" * 40, sha256="c" * 64
        )
        names = [(b"tfile.name\0bad.exe", "name of the file", "")]
        self.assertEqual(lookups(Artifact(FILE, "bad.exe", file)), names)
        self.assertEqual(lookups(Artifact(FILE, "bad.exe")), names)
        found = lookups(Artifact("cert.x509", "", file))
        self.assertIn((b"c" + b"b" * 40, "SHA-1 of the certificate", ""), found)

    def test_never(self) -> None:
        """A password is neither stored nor looked for."""
        self.assertEqual(stored(PASSWORD, "secret"), ((), None))
        self.assertEqual(lookups(Artifact(PASSWORD, "secret")), [])

    def test_big(self) -> None:
        """A big value is found by its digest, and by that alone."""
        big = "http://evil.example/" + "x" * 70_000
        self.assertTrue(is_too_long(big))
        (key,), _ = stored("net.uri", big)
        self.assertLess(len(key), 40)
        self.assertEqual(lookups(Artifact("net.uri", big)), [(key, "", "")])
        self.assertNotEqual(stored("net.uri", big + "y")[0], (key,))

    @given(
        strategies.artifact_types.flatmap(
            lambda type: st.tuples(
                st.just(type), st.one_of(strategies.values_of(type), strategies.json_values)
            )
        )
    )
    def test_found_by_itself(self, given: tuple[str, object]) -> None:
        """Whatever is stored is what the same value looks for first; nothing is an error."""
        type, value = given
        keys, its_network = stored(type, value)  # type: ignore[arg-type]
        found = [(key, how) for key, how, _ in lookups(Artifact(type, value))]  # type: ignore[arg-type]
        if its_network is not None:
            self.assertIn((its_network, ""), found)
        elif keys and type != "email.header.to":
            self.assertIn((keys[0], ""), found)
        self.assertIn(type, SHAPES)


class LabelTests(SynchronousTestCase):
    """A feed's file is written anew when the code that decides what stands in it has changed."""

    def test_all_that_decides(self) -> None:
        """All that a feed's file imports of ctsd counts."""
        self.assertEqual(set(KEY_FORMS), imports_of(Path(feed_file.__file__)))

    def test_stable(self) -> None:
        """The same code has the same label."""
        self.assertEqual(key_label(), key_label())
