"""What every implementation of L{IRecords} does, shown on all of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from attrs import evolve
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from ctsd.errors import SearchLater
from ctsd.feeds.delta import records_of
from ctsd.feeds.file import RecordsFile
from ctsd.feeds.threat_base import ThreatBase
from ctsd.feeds.threats import ThreatIndex
from ctsd.interfaces.feeds import IRecords, IThreats
from ctsd.model import Artifact, Threat
from ctsd.records import NO_MATCHES, Derived, LookupLimits, Matches, Record
from ctsd.store.memory import MemoryStore
from ctsd.stored import indexed
from ctsd.testing import MemoryRecords, MemoryThreats
from tests import feeding
from tests.feeding import Builder, at_once, dump, threat, write_source

#: What every fixture is filled with: ids count up from 1.
THREATS = (
    threat("login", ("net.uri", "http://www.megastore.lu/login")),
    threat("both", ("net.uri", "http://www.megastore.lu/"), ("net.ip", "192.168.1.1")),
    threat("twice", ("net.uri", "https://a.example/1"), ("net.uri", "https://a.example/2")),
    threat("short", ("net.uri", "https://a.example/short"), expires=50.0),
    threat("found", ("net.uri", "https://found.example/"), searcher="s", source=b"0123456789"),
    threat("name", ("file.name", "badprogram.exe"), ("hash.md5", "0123456789ABCDEF" * 2)),
    threat("numbers", ("net.port", 4444), ("email.header.to", ["a@x.example", "b@x.example"])),
)


class RecordsSuite:
    """
    The suite: a subclass says how to C{fill} its records, and how to make empty ones.
    """

    def fill(self, threats: Sequence[Threat]) -> IRecords:
        """Records of these threats."""
        raise NotImplementedError

    def never_loaded(self) -> IRecords:
        """Records that were never loaded, but may soon be."""
        raise NotImplementedError

    def names(self, kind: str, value: Any, **more: Any) -> list[str]:
        """What is found."""
        case = cast(Any, self)
        if not hasattr(self, "_records"):
            self.clock = Clock()
            self._records = case.fill(THREATS)
        found = self._records.find(type=kind, value=value, limit=10, **more)
        return [record.name for record in found.records]

    def test_provides_the_interface(self) -> None:
        """It is what the searchers ask for."""
        case = cast(Any, self)
        case.names("net.ip", "1")
        case.assertTrue(verifyObject(IRecords, self._records))
        case.assertEqual(self._records.trouble(), "")
        case.assertFalse(self._records.loading())
        case.assertTrue(self._records.describe())

    def test_finds(self) -> None:
        """Matching is protocol.md's, whatever holds the records."""
        case = cast(Any, self)
        for kind, value, names in (
            ("net.uri", "www.megastore.lu", ["login", "both"]),
            ("net.uri", "http://WWW.megastore.lu:80/login", ["login"]),
            ("net.uri", "http://www.megastore.lu", ["both"]),
            ("net.uri", "http://www.megastore.lu/LOGIN", []),
            ("net.ip", "192.168.1", ["both"]),
            ("net.ip", "92.168.1", []),
            ("file.name", "BADprogram", ["name"]),
            ("hash.md5", "0123456789abcdef" * 2, ["name"]),
            ("hash.md5", "0123456789abcdef", []),
            ("net.port", 4444, ["numbers"]),
            ("email.header.to", ["c@x.example", "B@X.example"], ["numbers"]),
            ("net.name", "megastore.lu", []),
            ("no.such.type", "www.megastore.lu", []),
            ("net.uri", "", []),
        ):
            case.assertEqual(case.names(kind, value), names, (kind, value))

    def test_nothing_is_one_value(self) -> None:
        """A miss makes nothing."""
        case = cast(Any, self)
        case.names("net.ip", "1")
        found = self._records.find(type="net.uri", value="no.such.example", limit=10)
        case.assertIs(found, NO_MATCHES)

    def test_a_threat_counts_once(self) -> None:
        """However many of its artifacts match; the first that does is told."""
        case = cast(Any, self)
        case.assertEqual(case.names("net.uri", "a.example"), ["twice", "short"])
        found = self._records.find(type="net.uri", value="a.example", limit=1)
        case.assertEqual((len(found.records), found.more, found.at_least), (1, 1, False))
        case.assertEqual(found.records[0].value, "https://a.example/1")
        found = self._records.find(type="net.uri", value="https://a.example/2", limit=1)
        case.assertEqual((found.records[0].value, found.more), ("https://a.example/2", 0))

    def test_wanted(self) -> None:
        """What is not wanted is not even counted."""
        case = cast(Any, self)

        def wanted(record: Record) -> bool:
            return record.searcher != "s" and record.name != "twice"

        case.assertEqual(case.names("net.uri", "found.example", wanted=wanted), [])
        case.assertEqual(case.names("net.uri", "a.example", wanted=wanted), ["short"])
        found = self._records.find(type="net.uri", value="a.example", limit=0, wanted=wanted)
        case.assertEqual(found.more, 1)

    def test_expiry(self) -> None:
        """A threat is found until it expires."""
        case = cast(Any, self)
        case.assertEqual(case.names("net.uri", "/short"), ["short"])
        self.clock.advance(50.0)
        case.assertEqual(case.names("net.uri", "/short"), [])

    def test_tells_all(self) -> None:
        """A record has all that the threat has."""
        case = cast(Any, self)
        case.names("net.ip", "1")
        found = self._records.find(type="net.uri", value="found.example", limit=10)
        record = found.records[0]
        case.assertEqual((record.searcher, record.source), ("s", b"0123456789"))
        case.assertEqual(record, indexed(next(records_of(evolve(THREATS[4], id=5)))))

    def test_never_loaded(self) -> None:
        """Before anything is loaded the answer is "later", never "nothing"."""
        case = cast(Any, self)
        self.clock = Clock()
        records = case.never_loaded()
        case.assertTrue(records.loading())
        error = case.assertRaises(
            SearchLater, records.find, type="net.uri", value="a.example", limit=1
        )
        case.assertGreater(error.after_secs, 0)


def _numbered(threats: Sequence[Threat]) -> list[Record]:
    """Their records, with ids as a store would give them."""
    from attrs import evolve

    return [
        record
        for number, each in enumerate(threats, 1)
        for record in records_of(evolve(each, id=number))
    ]


class MemoryRecordsTests(RecordsSuite, SynchronousTestCase):
    """The shipped fake."""

    def fill(self, threats: Sequence[Threat]) -> IRecords:
        """As a list."""
        return MemoryRecords(records=_numbered(threats), now=self.clock.seconds)

    def never_loaded(self) -> IRecords:
        """With its switch."""
        return MemoryRecords(later="not yet")


class ThreatsSuite(RecordsSuite):
    """What every implementation of L{IThreats} does beside."""

    def found(self, found: Matches) -> list[tuple[str, str]]:
        """The names of what was found, and how."""
        return [
            (each.name, {one["name"]: one["value"] for one in props}.get("Matched", ""))
            for each in found.records
            for props in [json.loads(each.hit)["props"]]
        ]

    def test_threats(self) -> None:
        """It is what the local searchers ask for."""
        case = cast(Any, self)
        case.names("net.ip", "1")
        case.assertTrue(verifyObject(IThreats, self._records))
        case.assertFalse(self._records.is_empty())
        case.assertEqual(self._records.limits, LookupLimits())

    def test_derived(self) -> None:
        """What equals comes first, then what contains, then what derives; each threat once."""
        case = cast(Any, self)
        case.names("net.ip", "1")
        for kind, value, wanted in (
            (
                "net.name",
                "www.megastore.lu",
                [("login", "URL on the host"), ("both", "URL on the host")],
            ),
            ("net.uri", "hxxp://www[.]megastore[.]lu/login", [("login", "")]),
            ("net.uri", "https://www.megastore.lu/login", [("login", "URL but for its scheme")]),
            ("net.cidr", "192.168.0.0/16", [("both", "part of the range")]),
            ("net.uri", "http://192.168.1.1/x", [("both", "address in the URL")]),
            ("net.name", "nothing.example", []),
        ):
            found = self._records.find(type=kind, value=value, limit=10)
            case.assertEqual(self.found(found), wanted, (kind, value))
        found = self._records.find(type="net.name", value="www.megastore.lu", limit=1)
        case.assertEqual((len(found.records), found.more, found.at_least), (1, 1, False))

    def test_within(self) -> None:
        """What is within an artifact finds threats, the older first, each once, and says how."""
        case = cast(Any, self)
        case.names("net.ip", "1")

        def find(*given: tuple[str, str], **more: Any) -> Matches:
            derived = [Derived(Artifact(type, value), f"{value[:1]}") for type, value in given]
            found: Matches = self._records.find_within(derived=derived, **{"limit": 10, **more})
            return found

        address, page = ("net.ip", "192.168.1.1"), ("net.uri", "http://www.megastore.lu/login")
        case.assertEqual(self.found(find(address, page)), [("login", "h"), ("both", "1")])
        on_it = ("net.uri", "http://192.168.1.1/")
        case.assertEqual(self.found(find(on_it)), [("both", "address in the URL (h)")])
        # Only a whole artifact finds what contains it, or what is on a host.
        case.assertIs(find(("net.name", "www.megastore.lu"), ("net.ip", "192.168.1")), NO_MATCHES)
        case.assertIs(find(), NO_MATCHES)
        found = find(address, page, limit=1)
        case.assertEqual((self.found(found), found.more), ([("login", "h")], 1))
        found = find(address, page, wanted=lambda each: each.name != "login")
        case.assertEqual((self.found(found), found.more), ([("both", "1")], 0))
        short = ("net.uri", "https://a.example/short")
        case.assertEqual(self.found(find(short)), [("short", "h")])
        self.clock.advance(50.0)
        case.assertIs(find(short), NO_MATCHES)

    def test_within_never_loaded(self) -> None:
        """Before anything is loaded the answer is "later", and it is not known to be empty."""
        case = cast(Any, self)
        self.clock = Clock()
        records = case.never_loaded()
        case.assertFalse(records.is_empty())
        case.assertRaises(SearchLater, records.find_within, derived=(), limit=1)

    def test_empty(self) -> None:
        """Without a threat it is empty, and finds nothing."""
        case = cast(Any, self)
        self.clock = Clock()
        records = case.fill(())
        case.assertTrue(records.is_empty())
        derived = (Derived(Artifact("net.ip", "192.168.1.1"), "x"),)
        case.assertIs(records.find_within(derived=derived, limit=1), NO_MATCHES)
        case.assertIs(records.find(type="net.ip", value="192.168.1.1", limit=1), NO_MATCHES)


class MemoryThreatsTests(ThreatsSuite, SynchronousTestCase):
    """The shipped fake of the local database."""

    def fill(self, threats: Sequence[Threat]) -> IRecords:
        """As a list."""
        return MemoryThreats(records=_numbered(threats), now=self.clock.seconds)

    def never_loaded(self) -> IRecords:
        """With its switch."""
        return MemoryThreats(later="not yet")


class RecordsFileTests(RecordsSuite, SynchronousTestCase):
    """A file."""

    def _make(self, builder: Builder) -> RecordsFile:
        directory = Path(self.mktemp())
        directory.mkdir()
        records = RecordsFile(
            path=directory / "source",
            parse=feeding.records,
            index=directory / "kept" / "index",
            clock=self.clock,
            build=builder,
            in_thread=at_once,
            # By this clock the source's date is far in the future.
            now=self.clock.seconds,
        )
        self.source = directory / "source"
        self.addCleanup(records.stopService)
        return records

    def fill(self, threats: Sequence[Threat]) -> IRecords:
        """Taken when it has kept still."""
        records = self._make(Builder())
        write_source(self.source, _numbered(threats))
        records.startService()
        self.clock.advance(2)
        self.successResultOf(records.ready())
        return records

    def never_loaded(self) -> IRecords:
        """While the first index is being built."""
        builder = Builder()
        builder.held = []
        records = self._make(builder)
        write_source(self.source, _numbered(THREATS))
        records.startService()
        self.clock.advance(2)
        self.assertNoResult(records.ready())
        return records


class ThreatIndexTests(ThreatsSuite, SynchronousTestCase):
    """The local database, all of it changed since its index was built."""

    rebuild_at = 2000
    said = "7 changed threats"

    def _make(self, builder: Builder | None = None) -> ThreatIndex:
        directory = Path(self.mktemp())
        directory.mkdir()
        self.store = MemoryStore(clock=self.clock)
        database = directory / "dump"
        index = ThreatIndex(
            store=self.store,
            identity=self.store.secret,
            base=ThreatBase(
                path=directory / "kept" / "threats",
                database=database,
                reader="tests.feeding",
                clock=self.clock,
                now=self.store.now,
                build=builder
                or Builder(before=lambda: dump(self.store, database, self.successResultOf)),
                in_thread=at_once,
            ),
            clock=self.clock,
            in_thread=at_once,
            rebuild_at=self.rebuild_at,
        )
        self.addCleanup(index.stopService)
        return index

    def fill(self, threats: Sequence[Threat]) -> IRecords:
        """Seen by its poll."""
        records = self._make()
        ids = self.successResultOf(self.store.add(threats=threats[:5]))
        self.assertEqual(ids, list(range(1, len(threats[:5]) + 1)))
        records.startService()
        self.successResultOf(self.store.add(threats=threats[5:]))
        self.clock.advance(0.1)
        if threats:
            self.assertIn(self.said, records.describe())
        return records

    def never_loaded(self) -> IRecords:
        """Not started."""
        return self._make()


class BaseAndDeltaTests(ThreatIndexTests):
    """The local database, with most of it in an index."""

    rebuild_at = 3
    said = "; 2 changed threats since"


class OldBaseTests(ThreatIndexTests):
    """The local database, all of it in an index."""

    rebuild_at = 1
    said = "; 0 changed threats since"
