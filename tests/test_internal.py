"""Tests of the local database as a searcher."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ctsd.answering import Found
from ctsd.artifacts import SHAPES
from ctsd.errors import SearchLater
from ctsd.feeds.contents import QUICK_CHARS, Limits
from ctsd.feeds.looking import Contents
from ctsd.internal import InternalArtifactSearch, InternalTextArtifactSearch
from ctsd.model import FILE, PASSWORD, Artifact, Ended, File, Hit, Outcome, Property
from ctsd.properties import string
from ctsd.records import LookupLimits, Matches, Record
from ctsd.scanning.asking import ask_local, ask_waiting
from ctsd.scanning.live import questions_for
from ctsd.scanning.source import Ask, Source
from ctsd.search_context import SearchContext
from ctsd.searcher_setup import SearcherSetup
from ctsd.testing import MemoryRecords, MemoryThreats
from ctsd.wire import encode_hit
from tests.feeding import at_once

PROPS = (Property("string", "campaign", "X"), Property("number", "score", 7))


def entered(name: str, value: str = "192.168.1.1", **more: Any) -> Record:
    """A record of the local database."""
    more.setdefault("threat_id", zlib.crc32(name.encode()) + 1)
    return Record(type="net.ip", value=value, name=name, properties=PROPS, **more)


class InternalTests(SynchronousTestCase):
    """What one has entered, and what searchers found, is found."""

    def setUp(self) -> None:
        """A searcher on records that a test fills."""
        self.records = MemoryThreats()
        self.searcher = InternalArtifactSearch()
        self.setup = SearcherSetup(
            settings={},
            data_dir=Path(),
            base_dir=Path(),
            clock=Clock(),
            records=self.no_records,
            threats=lambda: self.records,
        )
        self.searcher.start(self.setup)

    def no_records(self, *given: Any) -> Any:
        """It asks for no file."""
        raise AssertionError

    def search(
        self,
        value: Any,
        *,
        asked: str = "",
        source: bytes = b"",
        scope: str = "",
        type: str = "net.ip",
    ) -> Any:
        """What it finds."""
        context = SearchContext(
            id="1",
            type=type,
            value=value,
            searcher="internal",
            source=source,
            asked=frozenset(asked.split()),
            scope=scope,
            setup=self.setup,
        )
        searching: Coroutine[Any, Any, Found | None] = self.searcher.search(
            type, value, context=context
        )
        return self.successResultOf(Deferred.fromCoroutine(searching))

    def names(self, *given: Any, **more: Any) -> list[Any]:
        """The names of the threats that it finds."""
        found = self.search(*given, **more)
        return [] if found is None else [json.loads(hit)["props"][0]["value"] for hit in found.hits]

    def test_a_hit_is_name_then_properties(self) -> None:
        """A hit shows the threat's name first, then what is known about it."""
        self.records.records = [entered("Botnet")]
        hit = encode_hit(Hit((string("Threat", "Botnet"), *PROPS)))
        self.assertEqual(self.search("192.168.1"), Found((hit,), 0, False))

    def test_nothing(self) -> None:
        """Nothing is told as nothing."""
        self.assertIsNone(self.search("192.168.1.1"))

    def test_ten_hits_and_how_many_more(self) -> None:
        """More than ten are counted."""
        self.records.records = [entered(f"{number}", threat_id=number) for number in range(1, 14)]
        found = self.search("192.168.1.1")
        self.assertEqual((len(found.hits), found.more, found.at_least), (10, 3, False))

    def test_leaves_a_searchers_find_to_the_searcher(self) -> None:
        """What a searcher stored for this artifact is its own in a scan in which it is asked."""
        self.records.records = [
            entered("by hand", source=b"", threat_id=1),
            entered("other artifact", searcher="s", source=b"other", threat_id=2),
            entered("this artifact", searcher="s", source=b"this", threat_id=3),
        ]
        every = ["by hand", "other artifact", "this artifact"]
        ask = "192.168.1.1"
        self.assertEqual(self.names(ask, asked="internal s", source=b"this"), every[:2])
        self.assertEqual(self.names(ask, asked="internal", source=b"this"), every)
        self.assertEqual(self.names(ask, asked="internal s", source=b"another"), every)
        self.assertEqual(self.names(ask, asked="internal s"), every)

    def test_a_services_own_finds(self) -> None:
        """What a service keeps to itself is found by no other."""
        self.records.records = [entered("own", searcher="phish/s", source=b"this")]
        ask = "192.168.1.1"
        self.assertEqual(self.names(ask, source=b"other", scope="phish"), ["own"])
        self.assertEqual(self.names(ask, asked="s", source=b"this", scope="phish"), [])
        self.assertEqual(self.names(ask, source=b"other", scope="another"), [])
        self.assertEqual(self.names(ask, source=b"other"), [])

    def test_not_all_looked_at(self) -> None:
        """Where so much is left out that not all was looked at, a hit says so, if anybody wants."""
        self.patch(MemoryThreats, "find", lambda self, **more: Matches(at_least=True))
        told = "not looked at: what is known beyond the threats that were left out"
        self.assertEqual(self.search("192.168.1.1").hits, (Hit((string("Incomplete", told),)),))
        self.records.limits = LookupLimits(tells_cut=False)
        self.assertIsNone(self.search("192.168.1.1"))

    def test_recipients(self) -> None:
        """Of too many recipients the first are looked for, and the hit says that there are more."""
        self.records.limits = LookupLimits(max_recipients=2)
        self.records.records = [
            Record(type="email.header.sender_address", value=f"{n}@x.example", name=n, threat_id=at)
            for at, n in enumerate("abc", 1)
        ]
        boxes = [f"{n}@x.example" for n in "abc"]
        found = self.search(boxes[:2], type="email.header.to")
        self.assertEqual([b"Incomplete" in hit for hit in found.hits], [False, False])
        found = self.search(boxes, type="email.header.to")
        self.assertEqual(len(found.hits), 2)
        self.assertIn(b"not looked at: recipients beyond 2", found.hits[1])

    def test_a_find_that_is_left_out_is_not_counted(self) -> None:
        """Not as one more, either."""
        self.records.records = [
            entered(f"{number}", searcher="s", source=b"this") for number in range(14)
        ]
        self.assertIsNone(self.search("192.168.1.1", asked="s", source=b"this"))

    def test_supports_what_can_be_stored(self) -> None:
        """Every type but passwords, and the bytes of files, which are found by their hashes."""
        supported = {kind for kind in SHAPES if self.searcher.supports(kind)}
        self.assertEqual(supported, set(SHAPES) - {PASSWORD, FILE})
        self.assertFalse(self.searcher.supports("no.such.type"))

    def test_not_there_yet(self) -> None:
        """Before the index is loaded the answer is "later", and operators see why."""
        self.records.later = "being indexed"
        failure = self.failureResultOf(
            Deferred.fromCoroutine(
                self.searcher.search(
                    "net.ip",
                    "1.1.1.1",
                    context=SearchContext(
                        id="1", type="net.ip", value="", searcher="internal", setup=self.setup
                    ),
                )
            ),
            SearchLater,
        )
        self.assertIn("being indexed", str(failure.value.reason))
        self.assertTrue(self.searcher.loading())
        self.records.wrong = "the disk is full"
        self.assertEqual(self.searcher.trouble(), "the disk is full")
        self.assertIn("records", self.searcher.describe())

    def test_is_local(self) -> None:
        """It answers from memory, so it is asked without a thread or a lease."""
        self.assertTrue(InternalArtifactSearch.local)
        self.assertEqual(InternalArtifactSearch.name, "internal")


class TextTests(SynchronousTestCase):
    """What stands within texts and messages is found, too."""

    def setUp(self) -> None:
        """Both searchers on records that a test fills."""
        self.records = MemoryThreats()
        self.contents = Contents(in_thread=at_once)
        self.setup = SearcherSetup(
            settings={},
            data_dir=Path(),
            base_dir=Path(),
            clock=Clock(),
            records=lambda *given: MemoryRecords(),
            threats=lambda: self.records,
            contents=lambda: self.contents,
        )
        self.fill(
            ("page", "net.uri", "http://evil.example/login"),
            ("domain", "net.name", "bad.example"),
            ("range", "net.cidr", "192.0.2.0/24"),
            ("sender", "email.header.sender_address", "bob@x.example"),
            ("hash", "hash.md5", hashlib.md5(b"payload").hexdigest()),
            ("hole", "threat.report.cve", "CVE-2021-44228"),
        )

    def fill(self, *given: tuple[str, str, Any], **more: Any) -> None:
        """These are threats."""
        self.records.records = [
            Record(type=type, value=value, name=name, threat_id=at, **more)
            for at, (name, type, value) in enumerate(given, 1)
        ]

    def ask(
        self,
        artifact: Artifact,
        *,
        asked: str = "internal internal_text",
        scope: str = "",
        only: str = "internal_text",
    ) -> Outcome:
        """What a searcher answers in a scan."""
        kinds = (InternalArtifactSearch, InternalTextArtifactSearch)
        searcher = {one.name: one for one in kinds}[only]()
        searcher.start(self.setup)
        source = Source(searcher=searcher, setup=self.setup, name=searcher.name, scope=scope)
        questions = questions_for(artifact, b"this", [source]).get(only, ())
        ask = Ask(scan_id="1" * 32, questions=questions, asked=frozenset(asked.split()))
        if source.local:
            return ask_local(source, ask).outcome
        return self.successResultOf(Deferred.fromCoroutine(ask_waiting(source, ask))).outcome

    def found(self, artifact: Artifact, **more: Any) -> list[tuple[str, str]]:
        """The names of what is found, and how."""
        every = []
        for hit in self.ask(artifact, **more).hits:
            props = {one["name"]: one["value"] for one in json.loads(hit)["props"]}
            every.append((props.get("Threat", ""), props.get("Matched", "")))
        return every

    def file(self, data: bytes, name: str) -> File:
        """An uploaded one."""
        path = Path(self.mktemp())
        path.write_bytes(data)
        md5, sha1, sha256 = (hashlib.new(n, data).hexdigest() for n in ("md5", "sha1", "sha256"))
        return File(path=path, name=name, size=len(data), md5=md5, sha1=sha1, sha256=sha256)

    def test_texts(self) -> None:
        """In a text, an e-mail's body and a whole e-mail, short or long."""
        text = "see hxxp://evil[.]example/login and www.bad.example, 192.0.2.7, cve-2021-44228"
        for type, where in (("string", "the text"), ("email.body", "the e-mail's body")):
            wanted = [
                ("page", f"URL in {where}"),
                ("domain", f"parent domain (host in {where})"),
                ("range", f"range that contains it (address in {where})"),
                ("hole", f"CVE in {where}"),
            ]
            for value in (text, text + " " * QUICK_CHARS):
                self.assertEqual(self.found(Artifact(type, value)), wanted)
        message = f"From: Bob <bob@x.example>\nTo: al@y.example\n\n{text}"
        found = self.found(Artifact("email", message))
        self.assertIn(("sender", "address in From"), found)
        self.assertEqual(len(found), 5)

    def test_uploaded(self) -> None:
        """In a message that comes as a file, with its attachments; also beside the type e-mail."""
        data = (
            b"From: bob@x.example\nContent-Type: application/octet-stream; name=a.bin\n"
            b"Content-Disposition: attachment\n\npayload"
        )
        wanted = [("sender", "address in From"), ("hash", "MD5 of an attachment")]
        for artifact in (
            Artifact(FILE, "a.eml", self.file(data, "a.eml")),
            Artifact("email", "a.eml", self.file(data, "x")),
        ):
            self.assertEqual(self.found(artifact), wanted)

    def test_certificate(self) -> None:
        """The certificate in a file; one without a file is for the other searcher."""
        der = b"0\x82\x01\x04" + bytes(260)
        self.fill(("cert", "cert.x509", hashlib.sha1(der).hexdigest()))
        pem = b"-----BEGIN CERTIFICATE-----\n%b-----END CERTIFICATE-----\n"
        pem %= base64.encodebytes(der)
        artifact = Artifact("cert.x509", "c.pem", self.file(pem, "c.pem"))
        self.assertEqual(self.found(artifact), [("cert", "certificate in the file")])
        bare = Artifact("cert.x509", hashlib.sha1(der).hexdigest())
        self.assertEqual(self.found(bare), [])
        self.assertEqual(self.found(bare, only="internal"), [("cert", "")])

    def test_file(self) -> None:
        """A file's hashes are told by the other searcher, its name by this one."""
        artifact = Artifact(FILE, "bad.exe", self.file(b"payload", "bad.exe"))
        self.assertEqual(self.found(artifact, only="internal"), [("hash", "MD5 of the file")])
        self.assertEqual(self.found(artifact), [])
        self.assertEqual(self.found(artifact, asked="internal_text"), [("hash", "MD5 of the file")])
        self.fill(("name", "file.name", "bad.exe"))
        self.assertEqual(self.found(artifact), [("name", "name of the file")])

    def test_not_twice(self) -> None:
        """What the other searcher shows of the same scan is not told again."""
        self.fill(("text", "string", "go to bad.example"), ("domain", "net.name", "bad.example"))
        self.records.records.append(
            Record(type="net.name", value="bad.example", name="text", threat_id=1)
        )
        text = Artifact("string", "go to bad.example")
        self.assertEqual(self.found(text, only="internal"), [("text", "")])
        self.assertEqual(self.found(text), [("domain", "host in the text")])
        both = [("text", "host in the text"), ("domain", "host in the text")]
        self.assertEqual(self.found(text, asked="internal_text"), both)

    def test_whose(self) -> None:
        """What a searcher found for this artifact, and what a service keeps, are left as ever."""
        self.fill(("found", "net.name", "bad.example"), searcher="s", source=b"this")
        text = Artifact("string", "go to bad.example")
        self.assertEqual(self.found(text), [("found", "host in the text")])
        self.assertEqual(self.found(text, asked="internal internal_text s"), [])
        self.fill(("kept", "net.name", "bad.example"), searcher="mine/s", source=b"other")
        self.assertEqual(self.found(text), [])
        self.assertEqual(self.found(text, scope="mine"), [("kept", "host in the text")])

    def test_too_long(self) -> None:
        """What was cut is told by the last hit, or by one of its own."""
        self.contents = Contents(in_thread=at_once, limits=Limits(text_chars=20))
        cut = "not looked at: text beyond 20 characters"
        (hit,) = self.ask(Artifact("string", "bad.example now " + "x" * 20)).hits
        props = {one["name"]: one["value"] for one in json.loads(hit)["props"]}
        self.assertEqual((props["Threat"], props["Incomplete"]), ("domain", cut))
        nothing = Artifact("string", "x" * 21)
        self.assertEqual(self.ask(nothing).hits, (encode_hit(Hit((string("Incomplete", cut),))),))
        self.records.limits = LookupLimits(tells_cut=False)
        self.assertEqual(self.ask(nothing).hits, ())

    def test_more(self) -> None:
        """Ten are shown, the others counted."""
        self.fill(*[(f"{n}", "net.name", "bad.example") for n in range(13)])
        hits = self.ask(Artifact("string", "bad.example")).hits
        self.assertEqual(len(hits), 10)
        self.assertIn(b"3 not shown", hits[-1])

    def test_looks_first(self) -> None:
        """It is not asked about what is short and finds nothing, nor when there is no threat."""
        searcher = InternalTextArtifactSearch()
        searcher.start(self.setup)
        long = "bad.example " * QUICK_CHARS
        other, message = self.file(b"x", "a.exe"), self.file(b"x", "a.eml")
        nothing: Any
        for type, nothing in (
            ("string", "good.example"),
            ("string", "hello"),
            ("cert.x509", "0" * 40),
            (FILE, other),
        ):
            self.assertTrue(searcher.finds_nothing(type, nothing), type)
        something: Any
        for type, something in (
            ("string", "bad.example"),
            ("string", long),
            ("email", "hello"),
            ("email", other),
            (FILE, message),
            (FILE, self.file(b"payload", "a.exe")),
        ):
            self.assertFalse(searcher.finds_nothing(type, something), type)
        self.records.later = "being read"
        self.assertRaises(SearchLater, searcher.finds_nothing, "string", "bad.example")
        self.assertTrue(searcher.finds_nothing("string", "hello"))
        self.records.later, self.records.records = "", []
        for type, something in (("string", long), ("email", "hello"), (FILE, message)):
            self.assertTrue(searcher.finds_nothing(type, something), type)

    def test_not_there_yet(self) -> None:
        """Before the index is loaded the answer is "later"."""
        self.records.later = "being indexed"
        outcome = self.ask(Artifact("string", "bad.example"))
        self.assertEqual((outcome.ended, outcome.reason), (Ended.LATER, "being indexed"))

    def test_loading(self) -> None:
        """It is loading while the index is."""
        searcher = InternalTextArtifactSearch()
        searcher.start(self.setup)
        self.assertFalse(searcher.loading())
        self.records.later = "being indexed"
        self.assertTrue(searcher.loading())
