"""
What stands within texts and messages finds in the local database what a slow, obvious search says;
and so does the shipped fake.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from attrs import evolve, frozen
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ctsd.feeds.contents import within
from ctsd.feeds.delta import records_of
from ctsd.feeds.looking import Contents
from ctsd.internal import InternalArtifactSearch, InternalTextArtifactSearch
from ctsd.model import Artifact, Threat
from ctsd.records import Derived, Indexed, Record
from ctsd.search_context import SearchContext
from ctsd.searcher_setup import SearcherSetup
from ctsd.shown import noted
from ctsd.stored import indexed
from ctsd.testing import MemoryThreats
from tests import indicator_strategies
from tests.feeding import at_once
from tests.reference_matching import asked, found_in
from tests.test_feeds_threat_finds import NOW, SHARED, build, finds


@frozen
class Planted:
    """
    Something that stands in a text.

    :ivar text: as it is written there.
    :ivar means: the type and value that it has, and what it is called.
    """

    text: str
    means: tuple[str, str, str]


HOSTS = ["evil.example", "www.evil.example", "a.b.www.evil.example", "shop.evil.co.uk"]
HOSTS += ["mine.github.io", "bucket.s3.amazonaws.com", "xn--mnchen-3ya.example"]
ADDRESSES = ["192.0.2.1", "192.0.3.1", "2001:db8::1"]
RANGES = ["192.0.2.0/24", "192.0.0.0/16", "2001:db8::/48"]
URLS = [
    f"{scheme}://{host}{rest}"
    for scheme in ("http", "https", "ftp")
    for host in (*HOSTS[:3], "192.0.2.1", "[2001:db8::1]", "mine.github.io:8080")
    for rest in ("", "/", "/login", "/login?q=1", "/Login#part")
]

#: What stands around it: nothing that may belong to it.
AROUND = [("see ", " now"), ("(", ")"), ('"', '"'), ("it's\n", ".\n"), ("<", ">"), ("a, ", ", b")]


@st.composite
def planted(draw: st.DrawFn) -> Planted:
    """An indicator in a text."""
    kind = draw(st.sampled_from(["URL", "host", "address", "e-mail address", "hash", "CVE"]))
    dot = draw(st.sampled_from([".", ".", "[.]", "(.)", "[dot]"]))
    if kind == "URL":
        value = draw(st.sampled_from(URLS))
        scheme, _, rest = value.partition("://")
        host, sign, path = rest.partition("/")
        fanged = scheme.replace("tt", draw(st.sampled_from(["tt", "xx"])))
        text = f"{fanged}://{host.replace('.', dot)}{sign}{path}"
        return Planted(text, ("net.uri", value, kind))
    if kind == "host":
        value = draw(st.sampled_from(HOSTS))
        return Planted(value.replace(".", dot), ("net.name", value, kind))
    if kind == "address":
        value = draw(st.sampled_from(ADDRESSES + RANGES))
        type = "net.cidr" if "/" in value else "net.ip"
        return Planted(value.replace(".", dot), (type, value, kind))
    if kind == "e-mail address":
        value = f"bob@{draw(st.sampled_from(HOSTS))}"
        at = draw(st.sampled_from(["@", "[at]"]))
        return Planted(
            value.replace("@", at).replace(".", dot), ("email.header.sender_address", value, kind)
        )
    if kind == "hash":
        type, size = draw(st.sampled_from([("hash.md5", 32), ("hash.sha1", 40)]))
        return Planted(draw(st.sampled_from("dDeE")) * size, (type, "", kind))
    return Planted("cve-2021-44228", ("threat.report.cve", "CVE-2021-44228", kind))


@st.composite
def texts(draw: st.DrawFn) -> tuple[str, list[tuple[str, str, str]]]:
    """A text, and what stands in it."""
    parts, means = [], []
    for one in draw(st.lists(planted(), max_size=6)):
        before, after = draw(st.sampled_from(AROUND))
        parts.append(f"{before}{one.text}{after} ")
        type, value, word = one.means
        means.append((type, value or one.text.lower(), word))
    return "".join(parts), means


def message(text: str, sender: str, attached: bytes) -> str:
    """An e-mail with this text, and an attachment."""
    return (
        f"From: Somebody <{sender}>\nContent-Type: multipart/mixed; boundary=xx\n\n"
        f"--xx\nContent-Type: text/plain; charset=utf-8\n\n{text}\n"
        "--xx\nContent-Type: application/octet-stream\n"
        'Content-Disposition: attachment; filename="Bad.exe"\n\n'
        f"{attached.decode()}\n--xx--\n"
    )


#: A file that is attached, and its hashes among the threats.
ATTACHED = b"payload"
HASHES = [
    (f"hash.{name}", hashlib.new(name, ATTACHED).hexdigest()) for name in ("md5", "sha1", "sha256")
]


@st.composite
def threats(draw: st.DrawFn, most: int = 10) -> list[Threat]:
    """Threats with an artifact or two."""
    found = []
    records = draw(st.lists(st.lists(_records, min_size=1, max_size=2), max_size=most))
    for at, ours in enumerate(records, 1):
        found.append(
            Threat(
                name=f"t{at}",
                artifacts=tuple(Artifact(one.type, one.value) for one in ours),
                properties=ours[0].properties,
                id=at,
                expires=ours[0].expires,
            )
        )
    return found


_records = st.one_of(
    indicator_strategies.records(),
    st.sampled_from(HASHES).map(lambda one: Record(type=one[0], value=one[1])),
)


def listed(every: Sequence[Threat]) -> list[Record]:
    """The records of threats."""
    return [record for one in every for record in records_of(one)]


def expected(every: Sequence[Threat], derived: Sequence[Derived]) -> tuple[Indexed, ...]:
    """What is found: every record compared with everything that is looked for, in its order."""
    found: dict[int, Indexed] = {}
    for each in derived:
        asks = asked(Artifact("string", ""), [each])
        for record in listed(every):
            is_over = record.expires is not None and record.expires <= NOW
            how = found_in(record, asks, SHARED)
            if how and not is_over and record.threat_id not in found:
                one = indexed(record)
                hit: Any = noted(one.hit, "Matched", how)
                found[record.threat_id] = evolve(one, hit=hit)
    return tuple(found[key] for key in sorted(found))


def names(found: Sequence[Indexed]) -> list[str]:
    """Of threats."""
    return [one.name for one in found]


class AgreementTests(SynchronousTestCase):
    """The index, the fake and the slow search."""

    def setUp(self) -> None:
        """What is durable is not tested here."""
        self.patch(os, "fsync", lambda descriptor: None)

    def check(self, every: list[Threat], cut: int, artifact: Artifact, means: Any) -> None:
        """All of them find the same, and say the same of how."""
        looked_up = within(artifact).derived
        planned = dict.fromkeys((type, value, how) for type, value, how in means)
        reference = [Derived(Artifact(type, value), how) for type, value, how in planned]
        wanted = expected(every, reference)
        memory = MemoryThreats(
            records=listed(every), now=lambda: NOW, is_shared_host=SHARED.__contains__
        )
        with TemporaryDirectory() as where:
            base = build(Path(where, "index"), every[:cut])
            try:
                real = finds(base, every[cut:]).find_within(looked_up, 1000, None)
            finally:
                base.close()
        fake = memory.find_within(derived=looked_up, limit=1000)
        for found in (real, fake):
            self.assertEqual(names(found.records), names(wanted), (artifact.value, every))
            self.assertEqual((found.more, found.at_least), (0, False))
        # By which of several of a threat's artifacts a lookup finds it first is not ruled.
        single = {one.name for one in every if len(one.artifacts) == 1}
        for found in (real, fake):
            self.assertEqual(
                [one.hit for one in found.records if one.name in single],
                [one.hit for one in wanted if one.name in single],
                artifact.value,
            )

    @settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow], deadline=None)
    @given(threats(), st.integers(0, 10), texts(), st.sampled_from(["string", "email.body"]))
    def test_texts(self, every: list[Threat], cut: int, given: Any, type: str) -> None:
        """Whatever stands in a text, however it is written."""
        text, means = given
        where = "the text" if type == "string" else "the e-mail's body"
        told = [(kind, value, f"{word} in {where}") for kind, value, word in means]
        self.check(every, cut, Artifact(type, text), told)

    @settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow], deadline=None)
    @given(threats(), st.integers(0, 10), texts(), st.sampled_from(HOSTS))
    def test_messages(self, every: list[Threat], cut: int, given: Any, host: str) -> None:
        """In a message: its sender, its text, its attachments."""
        text, means = given
        told = [("email.header.sender_address", f"bob@{host}", "address in From")]
        told += [(kind, value, f"{word} in the e-mail") for kind, value, word in means]
        told.append(("file.name", "Bad.exe", "name of an attachment"))
        words = {"hash.md5": "MD5", "hash.sha1": "SHA-1", "hash.sha256": "SHA-256"}
        told += [(kind, value, f"{words[kind]} of an attachment") for kind, value in HASHES]
        artifact = Artifact("email", message(text, f"bob@{host}", ATTACHED))
        self.check(every, cut, artifact, told)

    @settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
    @given(threats(), st.integers(0, 10), st.lists(indicator_strategies.artifacts, max_size=8))
    def test_fake(self, every: list[Threat], cut: int, asks: list[Artifact]) -> None:
        """The shipped fake finds what the index finds by a whole artifact, in the same order."""
        memory = MemoryThreats(
            records=listed(every), now=lambda: NOW, is_shared_host=SHARED.__contains__
        )
        with TemporaryDirectory() as where:
            base = build(Path(where, "index"), every[:cut])
            try:
                search = finds(base, every[cut:])
                for one in asks:
                    real = search.find(one.type, one.value, 1000, None)
                    fake = memory.find(type=one.type, value=one.value, limit=1000)
                    self.assertEqual(names(fake.records), names(real.records), (one.value, every))
                    self.assertEqual(
                        [each.hit for each in fake.records], [each.hit for each in real.records]
                    )
            finally:
                base.close()


class SearchersTests(SynchronousTestCase):
    """Both local searchers in one scan."""

    @settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
    @given(threats(most=5), texts())
    def test_once(self, every: list[Threat], given: Any) -> None:
        """
        Together they show what each of them would show alone, each threat once; and who looks
        first is right.
        """
        every = [evolve(one, expires=None) for one in every]
        text = given[0]
        # A threat that both find.
        every.append(
            Threat(
                name="both",
                id=len(every) + 1,
                properties=(),
                artifacts=(Artifact("string", text or "-"), Artifact("net.name", "evil.example")),
            )
        )
        memory = MemoryThreats(records=listed(every))
        setup = SearcherSetup(
            settings={},
            data_dir=Path(),
            base_dir=Path(),
            clock=Clock(),
            records=lambda *given: memory,
            threats=lambda: memory,
            contents=lambda: Contents(in_thread=at_once),
        )
        whole, inside = InternalArtifactSearch(), InternalTextArtifactSearch()

        def ask(searcher: Any, asked: str) -> list[str]:
            searcher.start(setup)
            context = SearchContext(
                id="1",
                type="string",
                value=text,
                searcher=searcher.name,
                asked=frozenset(asked.split()),
                setup=setup,
            )
            search = searcher.search("string", text, context=context)
            found = self.successResultOf(Deferred.fromCoroutine(search))
            hits = [] if found is None else found.hits
            return [json.loads(hit)["props"][0]["value"] for hit in hits]

        alone = ask(whole, "internal"), ask(inside, "internal_text")
        both = "internal internal_text"
        first, second = ask(whole, both), ask(inside, both)
        self.assertEqual(first, alone[0])
        self.assertEqual(second, [name for name in alone[1] if name not in first])
        if inside.finds_nothing("string", text):
            self.assertEqual(alone[1], [])
