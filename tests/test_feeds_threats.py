"""Tests of the local database's index: it is current, or says that it is not."""

from __future__ import annotations

import contextlib
import os
from functools import partial
from pathlib import Path
from typing import Any

from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.task import Clock, deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from ctsd.errors import SearchLater
from ctsd.feeds.builds import Builds
from ctsd.feeds.delta import Delta
from ctsd.feeds.index import About
from ctsd.feeds.job import BuildFailed, Job
from ctsd.feeds.threat_base import ThreatBase
from ctsd.feeds.threats import ThreatIndex
from ctsd.model import Threat
from ctsd.records import NO_MATCHES, Changes, Finds, IndexLimits, Matches
from ctsd.store.memory import MemoryStore
from ctsd.store.sqlite import SQLiteStore
from ctsd.store.threat_steps import keep_finds
from tests.feeding import Builder, at_once, dump, threat

reactor: Any = installed


def of_host(name: str, host: str = "host.example") -> Threat:
    """A threat with a URL on that host."""
    return threat(name, ("net.uri", f"http://{host}/{name}"))


class Fixture:
    """A store and its index, on a clock."""

    def __init__(self, case: SynchronousTestCase, **more: Any) -> None:
        self.case = case
        self.clock = Clock()
        self.store = MemoryStore(clock=self.clock)
        self.directory = Path(case.mktemp())
        self.directory.mkdir()
        self.builder = Builder(before=self.dump)
        self.more = more
        self.index = self.make(self.store)

    def make(self, store: MemoryStore) -> ThreatIndex:
        """As at a start of the daemon."""
        index = ThreatIndex(
            store=store,
            identity=store.secret,
            base=ThreatBase(
                path=self.directory / "threats",
                database=self.directory / "dump",
                reader="tests.feeding",
                clock=self.clock,
                now=store.now,
                build=self.builder,
                in_thread=at_once,
            ),
            clock=self.clock,
            in_thread=at_once,
            **{"rebuild_at": 5, "max_delta": 10, "batch": 3, **self.more},
        )
        self.case.addCleanup(index.stopService)
        return index

    def dump(self) -> None:
        """What a build reads."""
        dump(self.store, self.directory / "dump", self.case.successResultOf)

    def start(self) -> None:
        """Start it."""
        self.index.startService()

    def restart(self, store: MemoryStore | None = None) -> None:
        """As a restart of the daemon, perhaps with another database."""
        self.case.successResultOf(self.index.stopService())
        self.store = store or self.store
        self.index = self.make(self.store)
        self.start()

    def add(self, *threats: Threat) -> list[int]:
        """Enter threats."""
        ids: list[int] = self.case.successResultOf(self.store.add(threats=threats))
        return ids

    def add_many(self, prefix: str, count: int) -> list[int]:
        """Enter so many."""
        return self.add(*(of_host(f"{prefix}{number}") for number in range(count)))

    def names(self, value: str = "host.example", limit: int = 100) -> list[str]:
        """What is found."""
        found = self.index.find(type="net.uri", value=value, limit=limit)
        return [record.name for record in found.records]


class ThreatIndexTests(SynchronousTestCase):
    """A base in a file, the changes since in memory."""

    def setUp(self) -> None:
        """A store and its index."""
        self.fixture = Fixture(self)

    def later(self) -> SearchLater:
        """The search that is put off."""
        return self.assertRaises(SearchLater, self.fixture.names)

    def test_sees_a_change_within_a_tenth_of_a_second(self) -> None:
        """What is entered, changed or deleted is found, or not, at the next poll."""
        fixture = self.fixture
        fixture.start()
        self.assertEqual(fixture.names(), [])
        first, second = fixture.add(of_host("a"), of_host("b"))
        fixture.clock.advance(0.1)
        self.assertEqual(fixture.names(), ["a", "b"])
        self.successResultOf(fixture.store.delete(threat_ids=[first]))
        fixture.clock.advance(0.1)
        self.assertEqual(fixture.names(), ["b"])
        self.successResultOf(fixture.store.delete(threat_ids=[second]))
        self.successResultOf(fixture.index.refresh())
        self.assertEqual(fixture.names(), [])
        self.assertEqual(fixture.builder.jobs, [])

    def test_told(self) -> None:
        """A store that tells of changes is asked when it does, and now and then."""
        fixture = self.fixture
        told: list[Deferred[None]] = []
        reads: list[int] = []
        changes = fixture.store.changes

        def changed(*, what: str) -> Deferred[None]:
            told.append(Deferred())
            return told[-1]

        def read(*, since: int, limit: int) -> Deferred[Changes]:
            reads.append(since)
            return changes(since=since, limit=limit)

        fixture.store.changed = changed  # type: ignore[method-assign]
        fixture.store.hears = lambda: True  # type: ignore[method-assign]
        fixture.store.changes = read  # type: ignore[method-assign]
        fixture.start()
        fixture.clock.pump([0.1] * 10)
        self.assertEqual(len(reads), 1)
        fixture.add(of_host("a"))
        told[-1].callback(None)
        fixture.clock.advance(0.1)
        self.assertEqual(fixture.names(), ["a"])
        fixture.add(of_host("b"))
        fixture.clock.pump([0.1] * 18)
        self.assertEqual(fixture.names(), ["a"])
        fixture.clock.pump([0.1] * 3)
        self.assertEqual(fixture.names(), ["a", "b"])
        fixture.store.hears = lambda: False  # type: ignore[method-assign]
        fixture.add(of_host("c"))
        fixture.clock.advance(0.1)
        self.assertEqual(fixture.names(), ["a", "b", "c"])
        self.assertEqual(len(told), 2)

    def test_files_are_not_malformed(self) -> None:
        """A threat of an uploaded file is found by its hashes; the file itself is no fault."""
        fixture = self.fixture
        fixture.start()
        digest = "d" * 64
        fixture.add(
            *(
                threat(f"{n}", ("file.content", "bad.exe"), ("hash.sha256", digest))
                for n in range(6)
            )
        )
        fixture.clock.advance(0.1)
        self.assertIn("6 records, indexed", fixture.index.describe())
        found = fixture.index.find(type="hash.sha256", value=digest.upper(), limit=9)
        self.assertEqual(len(found.records), 6)

    def test_what_derives(self) -> None:
        """Domains above and URLs on a host are found, with the public suffixes and shared hosts."""
        fixture = self.fixture
        fixture.more["is_shared_host"] = "shared.example".__eq__
        fixture.index = fixture.make(fixture.store)
        fixture.start()
        fixture.add(
            threat("domain", ("net.name", "evil.co.uk"), ("net.name", "co.uk")),
            of_host("page"),
            of_host("shared", "shared.example"),
        )
        fixture.clock.advance(0.1)

        def names(type: str, value: str) -> list[str]:
            found = fixture.index.find(type=type, value=value, limit=9)
            return [record.name for record in found.records]

        self.assertEqual(names("net.uri", "http://www.evil.co.uk/x"), ["domain"])
        self.assertEqual(names("net.uri", "http://www.good.co.uk/x"), [])
        self.assertEqual(names("net.name", "host.example"), ["page"])
        self.assertEqual(names("net.name", "shared.example"), [])

    def test_later_before_it_was_read(self) -> None:
        """Before the store has answered once, nothing is told, least of all "nothing"."""
        fixture = self.fixture
        fixture.store.broken = True
        self.assertTrue(fixture.index.loading())
        fixture.start()
        self.assertIn("does not answer", self.later().reason)
        self.assertIn("does not answer", fixture.index.trouble())
        fixture.store.broken = False
        fixture.clock.advance(0.1)
        self.assertEqual((fixture.names(), fixture.index.trouble()), ([], ""))

    def test_store_goes_away(self) -> None:
        """What is known goes on for a minute, loudly; after that it may be outdated."""
        fixture = self.fixture
        fixture.add(of_host("a"))
        fixture.start()
        fixture.store.broken = True
        fixture.clock.pump([0.1] * 500)
        self.assertEqual(fixture.names(), ["a"])
        self.assertIn("does not answer", fixture.index.trouble())
        fixture.clock.pump([0.1] * 110)
        self.assertIn("does not answer", self.later().reason)
        fixture.store.broken = False
        fixture.clock.advance(0.1)
        self.assertEqual((fixture.names(), fixture.index.trouble()), (["a"], ""))

    def test_rebuilds_when_much_has_changed(self) -> None:
        """The base takes up what has changed; what changes meanwhile is kept apart."""
        fixture = self.fixture
        fixture.start()
        fixture.builder.held = []
        ids = fixture.add_many("a", 6)
        fixture.clock.advance(0.1)
        self.assertEqual(len(fixture.builder.jobs), 1)
        self.successResultOf(fixture.store.delete(threat_ids=ids[:1]))
        fixture.add(of_host("b"))
        fixture.clock.advance(0.1)
        self.assertEqual(fixture.names(), ["a1", "a2", "a3", "a4", "a5", "b"])
        fixture.builder.release()
        self.assertEqual(fixture.names(), ["a1", "a2", "a3", "a4", "a5", "b"])
        self.assertIn("0 changed threats", fixture.index.describe())
        fixture.clock.pump([0.1] * 30)
        self.assertEqual(len(fixture.builder.jobs), 1)

    def test_one_builds_for_all(self) -> None:
        """Of two processes that have to build at once one does, and both go on from its base."""
        fixture = self.fixture
        built: list[None] = []
        fixture.builder.before = lambda: built.append(None)
        other = fixture.make(fixture.store)
        fixture.start()
        other.startService()
        fixture.builder.held = []
        fixture.add_many("a", 6)
        fixture.dump()
        fixture.clock.advance(0.1)
        self.assertEqual(len(fixture.builder.jobs), 2)
        fixture.builder.release()
        self.assertEqual(len(built), 1)
        for index in (fixture.index, other):
            found = index.find(type="net.uri", value="host.example", limit=100)
            self.assertEqual(len(found.records), 6)
            self.assertIn("6 records", index.describe())
            self.assertIn("0 changed threats since", index.describe())
        fixture.clock.pump([0.1] * 10)
        self.assertEqual(len(fixture.builder.jobs), 2)

    def test_changes_during_a_build_stay(self) -> None:
        """What changed after the base was read is still known when it is swapped in."""
        fixture = self.fixture
        fixture.start()
        ids = fixture.add_many("a", 6)
        fixture.builder.before = lambda: (
            fixture.dump(),
            self.successResultOf(fixture.store.delete(threat_ids=ids[:5])),
            fixture.add(of_host("b")),
        )
        fixture.clock.advance(0.1)
        fixture.clock.advance(0.1)
        self.assertEqual(fixture.names(), ["a5", "b"])

    def test_big_import(self) -> None:
        """While more has changed than memory may hold the answer is "later"."""
        fixture = self.fixture
        fixture.start()
        fixture.builder.held = []
        fixture.add_many("a", 30)
        fixture.clock.advance(0.1)
        self.assertIn("being indexed", self.later().reason)
        self.assertTrue(fixture.index.loading())
        self.assertEqual(len(fixture.index._delta), 0)
        fixture.add(of_host("b"))
        fixture.clock.advance(0.1)
        fixture.builder.before = lambda: (fixture.dump(), fixture.add(of_host("c")))
        fixture.builder.release()
        fixture.builder.before = fixture.dump
        # What was added while the base was built is not known before the next look.
        self.later()
        fixture.clock.pump([0.1] * 3)
        self.assertEqual((len(fixture.names()), len(fixture.builder.jobs)), (32, 1))
        self.assertFalse(fixture.index.loading())

    def test_import_during_a_build(self) -> None:
        """An import that comes while an index is built is found after the next one."""
        fixture = self.fixture
        fixture.start()
        fixture.builder.held = []
        fixture.add_many("a", 6)
        fixture.clock.advance(0.1)
        fixture.builder.before = lambda: (fixture.dump(), fixture.add_many("b", 30))
        fixture.builder.release()
        fixture.builder.before = fixture.dump
        fixture.clock.advance(0.1)
        fixture.clock.advance(0.1)
        self.assertEqual(len(fixture.names()), 36)

    def test_a_restart_builds_nothing_anew(self) -> None:
        """The base serves at the next start, with what has changed while nobody looked."""
        fixture = self.fixture
        fixture.start()
        ids = fixture.add_many("a", 6)
        fixture.clock.advance(0.1)
        self.successResultOf(fixture.index.stopService())
        self.successResultOf(fixture.store.delete(threat_ids=ids[:5]))
        fixture.add(of_host("b"))
        fixture.restart()
        self.assertEqual((fixture.names(), len(fixture.builder.jobs)), (["a5", "b"], 2))

    def test_started_again(self) -> None:
        """The same service can be stopped and started."""
        fixture = self.fixture
        fixture.start()
        fixture.add_many("a", 6)
        fixture.clock.advance(0.1)
        self.successResultOf(fixture.index.stopService())
        self.later()
        fixture.start()
        self.assertEqual(len(fixture.names()), 6)

    def test_another_database(self) -> None:
        """The index of another database is not served, however far its versions have come."""
        fixture = self.fixture
        fixture.start()
        fixture.add_many("a", 6)
        fixture.clock.advance(0.1)
        other = MemoryStore(clock=fixture.clock)
        for number in range(9):
            self.successResultOf(other.add(threats=[of_host(f"other{number}")]))
        fixture.restart(other)
        self.assertEqual(len(fixture.names()), 9)
        self.assertTrue(all(name.startswith("other") for name in fixture.names()))

    def test_a_restored_database(self) -> None:
        """An index that is ahead of its database is not served."""
        fixture = self.fixture
        fixture.start()
        fixture.add_many("a", 6)
        fixture.clock.advance(0.1)
        older = MemoryStore(clock=fixture.clock)
        older._secret = fixture.store.secret()
        fixture.restart(older)
        self.assertEqual(fixture.names(), [])

    def test_a_damaged_base(self) -> None:
        """A base that was cut is read from the database again."""
        fixture = self.fixture
        fixture.start()
        fixture.add_many("a", 6)
        fixture.clock.advance(0.1)
        self.successResultOf(fixture.index.stopService())
        os.truncate(fixture.directory / "threats", 5000)
        fixture.restart()
        self.assertEqual(len(fixture.names()), 6)

    def test_other_code(self) -> None:
        """A base that other code has made serves until it is made again, which is at once."""
        fixture = self.fixture
        fixture.start()
        fixture.add_many("a", 6)
        fixture.clock.advance(0.1)
        fixture.builder.held = []
        self.successResultOf(fixture.index.stopService())
        fixture.index = fixture.make(fixture.store)
        fixture.index._base._code = "other"
        fixture.start()
        self.assertEqual((len(fixture.names()), len(fixture.builder.jobs)), (6, 2))
        self.assertTrue(fixture.builder.jobs[1].label.startswith("other "))

    def test_forgotten_deletions(self) -> None:
        """When the store has forgotten deletions since the base was built, it is built anew."""
        fixture = self.fixture
        fixture.start()
        ids = fixture.add_many("a", 6)
        fixture.clock.advance(0.1)
        self.successResultOf(fixture.store.delete(threat_ids=ids[:1]))
        changes = fixture.store.changes

        def forgetful(*, since: int, limit: int) -> Deferred[Changes]:
            gap = since < 7
            return changes(since=since, limit=limit).addCallback(
                lambda found: Changes(
                    version=found.version, threats=found.threats, deleted=(), gap=gap
                )
            )

        fixture.store.changes = forgetful  # type: ignore[method-assign]
        fixture.builder.held = []
        fixture.clock.advance(0.1)
        self.later()
        fixture.builder.release()
        fixture.clock.advance(0.1)
        self.assertEqual(fixture.names(), ["a1", "a2", "a3", "a4", "a5"])

    def test_a_failed_build(self) -> None:
        """A build that fails is told, and tried again after a minute; changes are still seen."""
        fixture = self.fixture
        fixture.start()
        fixture.builder.error = BuildFailed("no space left")
        fixture.add_many("a", 6)
        fixture.clock.pump([0.1] * 100)
        self.assertIn("no space left", fixture.index.trouble())
        self.assertEqual((len(fixture.names()), len(fixture.builder.jobs)), (6, 1))
        fixture.builder.error = None
        fixture.clock.pump([0.1] * 520)
        self.assertEqual(fixture.index.trouble(), "")
        self.assertIn("6 records", fixture.index.describe())

    def test_a_fault_of_ours_in_a_build(self) -> None:
        """Whatever a build raises, the changes are still followed."""
        fixture = self.fixture
        fixture.start()
        fixture.builder.error = ZeroDivisionError()
        fixture.add_many("a", 6)
        fixture.clock.advance(0.1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertIn("see the log", fixture.index.trouble())
        self.assertEqual(len(fixture.names()), 6)

    def test_builds_rest(self) -> None:
        """However much is written, builds take at most half of the time."""
        fixture = self.fixture
        fixture.start()
        fixture.builder.held = []
        fixture.add_many("a", 6)
        fixture.clock.advance(0.1)
        fixture.clock.pump([0.1] * 100)
        fixture.builder.release()
        fixture.add_many("b", 6)
        fixture.clock.pump([0.1] * 90)
        self.assertEqual(len(fixture.builder.jobs), 1)
        fixture.clock.pump([0.1] * 20)
        self.assertEqual(len(fixture.builder.jobs), 2)

    def test_stop_ends_a_build(self) -> None:
        """Stopping while an index is built ends that, and leaves nothing to happen."""
        fixture = self.fixture
        fixture.start()
        fixture.builder.held = []
        fixture.add_many("a", 6)
        fixture.clock.advance(0.1)
        self.successResultOf(fixture.index.stopService())
        self.assertEqual(fixture.clock.getDelayedCalls(), [])
        self.later()

    def test_no_secret_is_written(self) -> None:
        """The database's secret is not in its index."""
        fixture = self.fixture
        fixture.start()
        fixture.add_many("a", 6)
        fixture.clock.advance(0.1)
        written = (fixture.directory / "threats").read_bytes()
        self.assertNotIn(fixture.store.secret(), written)
        self.assertNotIn(fixture.store.secret().hex().encode(), written)

    def test_expired_in_the_base(self) -> None:
        """A threat expires by the store's clock, in the base and among the changes."""
        fixture = self.fixture
        fixture.start()
        fixture.add(*(threat(f"t{n}", ("net.ip", "10.0.0.1"), expires=50.0 + n) for n in range(6)))
        fixture.clock.advance(0.1)
        fixture.add(threat("late", ("net.ip", "10.0.0.1"), expires=50.0))
        fixture.clock.advance(0.1)
        self.assertIn("6 records", fixture.index.describe())
        found = fixture.index.find(type="net.ip", value="10.0.0.1", limit=9)
        self.assertEqual(len(found.records), 7)
        fixture.clock.advance(52)
        found = fixture.index.find(type="net.ip", value="10.0.0.1", limit=9)
        self.assertEqual([each.name for each in found.records], ["t3", "t4", "t5"])


class AgreementTests(SynchronousTestCase):
    """Base and delta find what one fresh index finds."""

    @settings(deadline=None, max_examples=60)
    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["add", "add", "add", "found", "delete", "poll"]),
                st.integers(0, 12),
                st.lists(st.sampled_from("abc"), min_size=1, max_size=3),
            ),
            max_size=25,
        ),
        st.integers(1, 4),
        st.integers(0, 3),
    )
    def test_agrees_with_a_fresh_index(
        self, steps: list[tuple[str, int, list[str]]], rebuild_at: int, limit: int
    ) -> None:
        """Whatever was entered, found, deleted, and whenever the base was built."""
        fixture = Fixture(self, rebuild_at=rebuild_at, max_delta=50)
        fixture.start()
        for number, (what, some, hosts) in enumerate(steps):
            urls = [("net.uri", f"http://{host * 4}.example/{some}") for host in hosts]
            if what == "add":
                fixture.add(threat(f"{number}", *urls))
            elif what == "found":
                source = bytes([some]) * 16
                finds = Finds(
                    searcher="s",
                    source=source,
                    threats=(threat(hosts[0], *urls, searcher="s", source=source),),
                )
                self.successResultOf(fixture.store._write(_keep(finds)))
            elif what == "delete":
                self.successResultOf(fixture.store.delete(threat_ids=[some]))
            else:
                fixture.clock.advance(0.1)
                with contextlib.suppress(SearchLater):
                    fixture.names("aaaa.example")
        self.successResultOf(fixture.index.refresh())
        fixture.clock.advance(0.1)
        fresh = Fixture(self, rebuild_at=1)
        fresh.store = fixture.store
        fresh.builder.before = fresh.dump
        fresh.index = fresh.make(fixture.store)
        fresh.start()
        fresh.clock.advance(0.1)
        for value in ("aaaa.example", "bbbb", "http://cccc.example/1", "example/1"):
            self.assertEqual(
                fixture.index.find(type="net.uri", value=value, limit=limit),
                fresh.index.find(type="net.uri", value=value, limit=limit),
            )


def _keep(finds: Finds) -> Any:
    return lambda: keep_finds([finds], now=0.0, threat_secs=1e6)


class DeltaTests(SynchronousTestCase):
    """What has changed, in memory."""

    def test_forgets_up_to_a_version(self) -> None:
        """What a base has is forgotten, what came after is not."""
        delta = Delta()
        one, two = of_host("one"), of_host("two")
        delta.apply(Changes(version=5, threats=(evolve(one, id=1),), deleted=(3,)))
        delta.apply(Changes(version=6, threats=(evolve(two, id=2),), deleted=()))
        delta.forget(5)
        self.assertEqual(delta.changed, {2: 6})
        found = delta.find(type="net.uri", value="host.example", limit=9, wanted=None, now=0.0)
        self.assertEqual([each.name for each in found.records], ["two"])

    def test_scan_limit(self) -> None:
        """A value that occurs very often is not looked at without end."""
        delta = Delta()
        threats = tuple(evolve(of_host(f"{number}"), id=number) for number in range(1, 40))
        delta.apply(Changes(version=1, threats=threats, deleted=()))
        limits = IndexLimits(occurrences=10, passed_over=39)
        found = delta.find(
            type="net.uri", value="host.example", limit=3, wanted=None, now=0.0, limits=limits
        )
        self.assertEqual((len(found.records), found.more, found.at_least), (3, 7, True))
        found = delta.find(
            type="net.uri",
            value="host.example",
            limit=3,
            wanted=lambda record: record.threat_id > 37,
            now=0.0,
            limits=limits,
        )
        self.assertEqual([record.threat_id for record in found.records], [38, 39])
        for passed_over, nothing in ((38, Matches(at_least=True)), (39, NO_MATCHES)):
            found = delta.find(
                type="net.uri",
                value="host.example",
                limit=3,
                wanted=lambda record: False,
                now=0.0,
                limits=IndexLimits(occurrences=10, passed_over=passed_over),
            )
            self.assertEqual(found, nothing)

    def test_a_threat_that_changes_again(self) -> None:
        """What it was found by before does not find it any more."""
        delta = Delta()
        before, after = of_host("a"), of_host("a", "other.example")
        find = partial(delta.find, type="net.uri", limit=3, wanted=None, now=0.0)
        delta.apply(Changes(version=1, threats=(evolve(before, id=1),), deleted=()))
        self.assertEqual(len(find(value="host.example").records), 1)
        delta.apply(Changes(version=2, threats=(evolve(of_host("b"), id=2),), deleted=()))
        self.assertEqual(len(find(value="host.example").records), 2)
        delta.apply(Changes(version=3, threats=(evolve(after, id=1),), deleted=(2,)))
        self.assertEqual(find(value="host.example"), NO_MATCHES)
        self.assertEqual(len(find(value="http://other.example/a").records), 1)


class RealStoreTests(TestCase):
    """With the real store, real threads and a real child process."""

    timeout = 60

    async def test_follows_the_real_store(self) -> None:
        """What is entered is found; after a build and a restart, too."""
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        database = directory / "ctsd.sqlite"
        store = SQLiteStore(reactor=reactor, path=database, max_bytes=1 << 30, retention_secs=1e6)
        store.open()
        store.startService()
        self.addCleanup(store.stopService)
        built: list[Any] = []
        builds = Builds(reactor=reactor, clock=reactor, lock=DeferredLock())

        def build(job: Job) -> Deferred[About]:
            return builds(job).addCallback(lambda about: (built.append(about), about)[1])

        def make(rebuild_at: int) -> ThreatIndex:
            return ThreatIndex(
                store=store,
                identity=store.secret,
                base=ThreatBase(
                    path=directory / "threats",
                    database=database,
                    reader="ctsd.store.threat_rows",
                    clock=reactor,
                    now=store.now,
                    build=build,
                    in_thread=deferToThread,
                ),
                clock=reactor,
                in_thread=deferToThread,
                rebuild_at=rebuild_at,
            )

        index = make(2)
        index.startService()
        await store.add(threats=[of_host(f"{number}") for number in range(5)])
        await index.refresh()
        while not built or "5 records" not in index.describe():
            await deferLater(reactor, 0.02)
        await index.stopService()
        await store.add(threats=[of_host("late")])
        index = make(100)
        index.startService()
        self.addCleanup(index.stopService)
        await index.refresh()
        found = index.find(type="net.uri", value="host.example", limit=10)
        self.assertEqual([each.name for each in found.records], ["0", "1", "2", "3", "4", "late"])
        self.assertEqual(len(built), 1)
