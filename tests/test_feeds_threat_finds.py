"""Tests of what an artifact finds in the local database by normal forms and derived keys."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from publicsuffixlist import PublicSuffixList
from twisted.trial.unittest import SynchronousTestCase

from ctsd import artifacts
from ctsd.feeds.delta import MAX_GONE, Delta, records_of
from ctsd.feeds.index import About, Index
from ctsd.feeds.lookups import hashed
from ctsd.feeds.threat_finds import ThreatFinds
from ctsd.feeds.writer import IndexWriter
from ctsd.model import Artifact, Threat
from ctsd.records import NO_MATCHES, Changes, Indexed, IndexLimits, Matches, Record
from ctsd.shown import noted
from ctsd.stored import indexed
from tests import indicator_strategies
from tests.feeding import threat
from tests.reference_matching import asked, found_in

NOW = 100.0
SHARED = frozenset({"mine.github.io", "192.0.3.1"})
SUFFIXES = PublicSuffixList()


def build(
    path: Path,
    threats: Sequence[Threat],
    limits: IndexLimits = IndexLimits(),  # noqa: B008 - it is frozen
) -> Index:
    """An index file of threats, open."""
    with IndexWriter(path, now=lambda: NOW) as writer:
        for each in threats:
            for record in records_of(each):
                writer.add(record)
        writer.publish(About())
    return Index.open(path, now=lambda: NOW, limits=limits)


def finds(
    base: Index | None,
    changed: Sequence[Threat],
    limits: IndexLimits = IndexLimits(),  # noqa: B008 - it is frozen
) -> ThreatFinds:
    """A search of a base and what has changed since."""
    delta = Delta()
    delta.apply(Changes(version=1, threats=tuple(changed), deleted=()))
    return ThreatFinds(
        base=base,
        delta=delta,
        now=NOW,
        registered=SUFFIXES.privatesuffix,
        is_shared=SHARED.__contains__,
        limits=limits,
    )


def told(found: Matches) -> list[tuple[str, str]]:
    """The names of what was found, and how."""
    every = []
    for record in found.records:
        props = {each["name"]: each["value"] for each in json.loads(record.hit)["props"]}
        every.append((record.name, props.get("Matched", "")))
    return every


class FindTests(SynchronousTestCase):
    """The same in the base and among the changes."""

    def find(
        self, threats: Sequence[Threat], type: str, value: Any, limit: int = 10
    ) -> list[Matches]:
        """What is found in a base, among changes, and with half of it in either."""
        numbered = [evolve(one, id=at) for at, one in enumerate(threats, 1)]
        found = []
        for cut in (len(threats), 0, len(threats) // 2):
            base = build(Path(self.mktemp()), numbered[:cut])
            self.addCleanup(base.close)
            found.append(finds(base, numbered[cut:]).find(type, value, limit, None))
        return found

    def check(
        self, threats: Sequence[Threat], type: str, value: Any, *wanted: tuple[str, str]
    ) -> None:
        """These are found, in this order."""
        for found in self.find(threats, type, value):
            self.assertEqual(told(found), list(wanted))
            self.assertEqual((found.more, found.at_least), (0, False))

    def test_parent_domain(self) -> None:
        """A URL finds the domain above its host, never a public suffix."""
        threats = [
            threat("above", ("net.name", "evil.example")),
            threat("suffix", ("net.name", "example")),
            threat("page", ("net.uri", "http://www.evil.example/other")),
        ]
        how = "parent domain of the URL's host"
        self.check(threats, "net.uri", "http://www.evil.example/x", ("above", how))

    def test_public_suffix(self) -> None:
        """What nobody has registered finds nobody's domain."""
        threats = [threat("suffix", ("net.name", "co.uk"))]
        self.check(threats, "net.name", "shop.evil.co.uk")

    def test_range(self) -> None:
        """An address finds the ranges around it; a range what is in it."""
        threats = [
            threat("range", ("net.cidr", "192.0.2.0/24")),
            threat("six", ("net.cidr", "2001:db8::/32")),
            threat("one", ("net.ip", "192.0.2.9")),
        ]
        self.check(threats, "net.ip", "192.0.2.7", ("range", "range that contains it"))
        self.check(threats, "net.ip", "2001:db8::7", ("six", "range that contains it"))
        how = "range of the address in the URL"
        self.check(threats, "net.uri", "http://192.0.2.7/x", ("range", how))
        inside = [("range", "part of the range"), ("one", "part of the range")]
        self.check(threats, "net.cidr", "192.0.0.0/16", *inside)

    def test_defanged(self) -> None:
        """A defanged URL equals the one that it stands for, on either side."""
        self.check(
            [
                threat("a", ("net.uri", "http://evil.example/")),
                threat("b", ("net.uri", "hxxp://evil[.]example/")),
            ],
            "net.uri",
            "hxxp://evil[.]example",
            ("a", ""),
            ("b", ""),
        )

    def test_closest(self) -> None:
        """Of what a threat has, the one counts that equals the artifact."""
        links = [("net.uri", f"{scheme}://evil.example/x") for scheme in ("http", "https")]
        for each in (links, links[::-1]):
            self.check([threat("both", *each)], "net.uri", "hxxps://evil[.]example/x", ("both", ""))
            self.check([threat("both", *each)], "net.uri", "hxxp://evil[.]example/x", ("both", ""))

    def test_order(self) -> None:
        """What equals comes first, then what contains, then what derives; each by id, once."""
        self.check(
            [
                threat("derived", ("net.uri", "http://evil.example/")),
                threat("contains", ("net.name", "www.evil.example")),
                threat(
                    "equals", ("net.uri", "http://evil.example/x"), ("net.name", "evil.example")
                ),
                threat("contains too", ("net.name", "a.evil.example"), ("net.uri", "evil.example")),
            ],
            "net.name",
            "evil.example",
            ("equals", ""),
            ("contains", ""),
            ("contains too", ""),
            ("derived", "URL on the host"),
        )

    def test_shared_host(self) -> None:
        """URLs on a host that many share say nothing of that host."""
        threats = [threat("page", ("net.uri", "http://mine.github.io/x"))]
        self.check(threats, "net.name", "mine.github.io")

    def test_more(self) -> None:
        """What is not shown is counted; what may have been counted already is only told."""
        pages = [threat(f"{n}", ("net.uri", f"http://evil.example/{n}")) for n in range(5)]
        for found in self.find(pages, "net.name", "evil.example", limit=2):
            self.assertEqual((len(found.records), found.more, found.at_least), (2, 3, False))
        names = [threat(f"n{n}", ("net.name", f"{n}.evil.example")) for n in range(3)]
        for found in self.find([*names, *pages], "net.name", "evil.example", limit=2):
            self.assertEqual([name for name, _ in told(found)], ["n0", "n1"])
            self.assertEqual((found.more, found.at_least), (1, True))

    def test_looks_on_while_all_is_unwanted(self) -> None:
        """What is wanted is found behind many others; then there may be more."""
        pages = [
            evolve(threat(f"{n}", ("net.uri", f"http://evil.example/{n}")), id=n + 1)
            for n in range(20)
        ]
        wanted: Callable[[Indexed], bool] = lambda each: int(each.name) % 7 == 6  # noqa: E731
        base = build(Path(self.mktemp()), pages)
        self.addCleanup(base.close)
        for where in ((None, pages), (base, [])):
            for passed_over, names in ((7, ["6"]), (6, [])):
                search = finds(*where, IndexLimits(derived=3, passed_over=passed_over))
                found = search.find("net.name", "evil.example", 5, wanted)
                self.assertEqual([name for name, _ in told(found)], names)
                self.assertTrue(found.at_least)
            search = finds(*where, IndexLimits(passed_over=20))
            nothing = search.find("net.name", "evil.example", 5, lambda each: False)
            self.assertIs(nothing, NO_MATCHES)

    def test_unknown_texts(self) -> None:
        """That not all was looked at that contains the artifact is told beside what derives."""
        names = [
            evolve(threat(f"{n}", ("net.name", f"{n}.evil.example")), id=n + 1) for n in range(20)
        ]
        page = evolve(threat("page", ("net.uri", "http://evil.example/")), id=30)
        limits = IndexLimits(occurrences=3, passed_over=6)
        found = finds(None, [*names, page], limits).find(
            "net.name", "evil.example", 5, lambda each: each.threat_id == 30
        )
        self.assertEqual((told(found), found.at_least), ([("page", "URL on the host")], True))
        base = build(Path(self.mktemp()), names, limits)
        self.addCleanup(base.close)
        found = finds(base, [page], limits).find("net.name", "evil.example", 5, lambda each: False)
        self.assertEqual(found, Matches(at_least=True))

    def test_hidden_and_over(self) -> None:
        """What has changed hides what the base has; what is over is not found."""
        before = evolve(threat("before", ("net.name", "evil.example")), id=1)
        over = evolve(threat("over", ("net.name", "evil.example"), expires=NOW), id=2)
        base = build(Path(self.mktemp()), [before, over])
        self.addCleanup(base.close)
        after = [evolve(threat("after", ("net.name", "good.example")), id=1), evolve(over, id=3)]
        found = finds(base, after).find("net.uri", "http://evil.example/", 5, None)
        self.assertEqual(told(found), [])

    def test_changed_again(self) -> None:
        """What was changed again, or deleted, is found by what it is now alone."""
        search = finds(None, [])
        delta = search.delta

        def change(version: int, threats: Sequence[Threat], deleted: Sequence[int] = ()) -> None:
            delta.apply(Changes(version=version, threats=tuple(threats), deleted=tuple(deleted)))

        def found(value: str) -> list[tuple[str, str]]:
            return told(search.find("net.uri", value, 10, None))

        old, new = threat("T", ("net.cidr", "192.0.2.0/24")), threat("T", ("net.name", "a.example"))
        change(1, [evolve(old, id=1), evolve(new, id=2)])
        self.assertEqual(found("http://192.0.2.7/"), [("T", "range of the address in the URL")])
        change(2, [evolve(new, id=1)])
        self.assertEqual(found("http://192.0.2.7/"), [])
        self.assertEqual(found("http://a.example/"), [("T", "host of the URL")] * 2)
        change(3, [], [2])
        self.assertEqual(found("http://a.example/"), [("T", "host of the URL")])
        delta.forget(2)
        self.assertEqual(found("http://a.example/"), [])
        change(4, [evolve(old, id=3)])
        self.assertEqual(found("http://192.0.2.7/"), [("T", "range of the address in the URL")])

    def test_changed_all_the_time(self) -> None:
        """A threat that is changed again and again leaves no rows without end."""
        search = finds(None, [])
        one = evolve(threat("T", ("net.name", "a.example")), id=1)
        for version in range(3 * MAX_GONE):
            search.delta.apply(Changes(version=version, threats=(one,), deleted=()))
        artifact = Artifact("net.uri", "http://a.example/")
        spans = search.delta.keys.find(hashed(artifact), SUFFIXES.privatesuffix, bool)
        self.assertLessEqual(sum(len(span.rows) for span in spans), 2 * MAX_GONE)
        found = search.find(artifact.type, artifact.value, 10, None)
        self.assertEqual(told(found), [("T", "host of the URL")])


class AgreementTests(SynchronousTestCase):
    """L{ThreatFinds} beside a slow, obvious search."""

    def setUp(self) -> None:
        """What is durable is not tested here."""
        self.patch(os, "fsync", lambda descriptor: None)

    @settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
    @given(
        st.lists(indicator_strategies.records(), max_size=12),
        st.integers(0, 12),
        st.lists(indicator_strategies.artifacts, min_size=1, max_size=10),
    )
    def test_agree(self, given: list[Record], cut: int, every: list[Artifact]) -> None:
        """Whatever is stored, wherever it is, and whatever is asked."""
        records = [
            evolve(record, threat_id=at, name=f"t{at}") for at, record in enumerate(given, 1)
        ]
        threats = [
            Threat(
                name=record.name,
                artifacts=(Artifact(record.type, record.value),),
                properties=record.properties,
                id=record.threat_id,
                expires=record.expires,
            )
            for record in records
        ]
        with TemporaryDirectory() as where:
            base = build(Path(where, "index"), threats[:cut])
            try:
                search = finds(base, threats[cut:])
                for artifact in every:
                    found = search.find(artifact.type, artifact.value, 1000, None)
                    self.assertEqual(found.records, self.expected(records, artifact), artifact)
                    self.assertEqual((found.more, found.at_least), (0, False))
            finally:
                base.close()

    def expected(self, records: Sequence[Record], artifact: Artifact) -> tuple[Indexed, ...]:
        """What is found, in its order."""
        ranked: list[tuple[int, int, Indexed]] = []
        for record in records:
            if record.expires is not None and record.expires <= NOW:
                continue
            how = found_in(record, asked(artifact, ()), SHARED)
            one = indexed(record)
            if how == "":
                ranked.append((0, record.threat_id, one))
            elif record.type == artifact.type and artifacts.matches(
                artifact.type, artifact.value, record.value
            ):
                ranked.append((1, record.threat_id, one))
            elif how:
                hit: Any = noted(one.hit, "Matched", how)
                ranked.append((2, record.threat_id, evolve(one, hit=hit)))
        return tuple(one for _, _, one in sorted(ranked, key=lambda each: each[:2]))
