"""What PostgreSQL tells, and what becomes of those who wait for it."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.trial import unittest

from ctsd.interfaces.store import THREATS
from ctsd.model import ScanState
from ctsd.store.news import News
from ctsd.store.postgres_target import Target
from tests.postgres import MISSING, POOLER_MISSING, Pooler, Shared
from tests.store_suite import pause, scan, threat
from tests.test_store_postgres import PostgresFixture


class NewsTests(unittest.SynchronousTestCase):
    """Those who wait, without a database."""

    def setUp(self) -> None:
        """Nobody has told anything."""
        self.clock = Clock()
        self.news = News(monotonic=self.clock.seconds)

    def test_told(self) -> None:
        """Who waits for what is told is woken, once; others are not."""
        first, second, other = (self.news.wait(what) for what in ("a", "a", "b"))
        self.news.tell("a")
        self.news.tell("a")
        self.successResultOf(first)
        self.successResultOf(second)
        self.assertNoResult(other)

    def test_cancelled(self) -> None:
        """Who does not want to wait any more is forgotten."""
        waiting, other = self.news.wait("a"), self.news.wait("a")
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.news.tell("a")
        self.successResultOf(other)
        last = self.news.wait("a")
        last.cancel()
        self.failureResultOf(last, CancelledError)
        self.assertEqual(self.news._waiting, {})

    def test_missed(self) -> None:
        """When something may have been missed, everybody looks again."""
        waiting = [self.news.wait(what) for what in ("a", "b")]
        self.news.tell("")
        self.news.missed()
        for each in waiting:
            self.successResultOf(each)
        self.assertFalse(self.news.hears())

    def test_hears(self) -> None:
        """Whether anything arrives shows by what arrives."""
        self.assertFalse(self.news.hears())
        self.news.tell("")
        self.clock.advance(9)
        self.assertTrue(self.news.hears())
        self.clock.advance(2)
        self.assertFalse(self.news.hears())


class TellingTests(unittest.TestCase):
    """Two stores on a real server."""

    skip = MISSING or None

    def setUp(self) -> None:
        """One that writes, one that listens."""
        self.server = Shared.server()
        self.writing: Any = PostgresFixture()
        self.listening = self.listener()

    def listener(self, port: int = 0) -> Any:
        """A store that listens."""
        url = self.server.url(self.writing.database, port=port)
        fixture: Any = PostgresFixture(
            self.server,
            self.writing.database,
            listen=Target.parse(url, self.server.password),
        )
        fixture.store._listener.look_secs = 0.3
        return fixture

    async def tearDown(self) -> None:
        """Give all back."""
        await self.listening.close()
        await self.writing.close()

    async def heard(self, fixture: Any) -> bool:
        """Whether it hears, after some time."""
        for _ in range(200):
            await self.writing.store.beat(holder="", secs=1)
            if fixture.store.hears():
                return True
            await pause(0.02)
        return False

    async def test_told(self) -> None:
        """What one records, ends or enters wakes those who wait at another one."""
        self.assertTrue(await self.heard(self.listening))
        store, other = self.writing.store, self.listening.store
        holder = await store.register(name="n", secs=10)
        await store.promise(scan=scan(1))
        await store.hold(scan_ids=[scan(1).id], holder=holder)
        for verb, arguments in (
            ("record", {"search": scan(1).searches[0], "state": ScanState.OPEN}),
            ("end", {"state": ScanState.COMPLETE}),
        ):
            waiting = other.changed(what=scan(1).id)
            done = await getattr(store, verb)(scan_id=scan(1).id, holder=holder, **arguments)
            self.assertTrue(done)
            await waiting
        waiting = other.changed(what=THREATS)
        await store.add(threats=[threat()])
        await waiting

    async def test_lost(self) -> None:
        """A lost connection is noticed, whoever waits looks again, and it is made anew."""
        self.assertTrue(await self.heard(self.listening))
        waiting = self.listening.store.changed(what="x")
        self.server.run(
            "postgres",
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = %s AND query LIKE 'LISTEN%%'",
            (self.writing.database,),
        )
        await waiting
        self.assertFalse(self.listening.store.hears())
        self.assertTrue(await self.heard(self.listening))

    async def test_not_told_when_undone(self) -> None:
        """What was not written is not told."""
        self.assertTrue(await self.heard(self.listening))
        waiting = self.listening.store.changed(what=scan(1).id)
        self.assertFalse(
            await self.writing.store.end(
                scan_id=scan(1).id, state=ScanState.COMPLETE, holder="nobody"
            )
        )
        last = self.listening.store.changed(what=THREATS)
        await self.writing.store.add(threats=[threat()])
        await last
        self.assertFalse(waiting.called)
        waiting.addErrback(lambda failure: failure.trap(CancelledError))
        waiting.cancel()

    async def test_pooler(self) -> None:
        """Through a pooler nothing arrives, which is noticed."""
        if POOLER_MISSING:
            raise unittest.SkipTest(POOLER_MISSING)
        pooler = Pooler(self.server)
        deaf = self.listener(pooler.port)
        try:
            for _ in range(100):
                await self.writing.store.beat(holder="", secs=1)
                if deaf.store._listener._told:
                    break
                await pause(0.05)
            self.assertTrue(deaf.store._listener._told)
            self.assertFalse(deaf.store.hears())
        finally:
            await deaf.close()
            pooler.stop()
