"""The store on PostgreSQL: the suite of all stores, and what is PostgreSQL's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial import unittest

from ctsd.store.postgres import PostgresStore
from ctsd.store.postgres_target import Target
from tests.postgres import MISSING, Server, Shared
from tests.store_suite import (
    RETENTION,
    START,
    AgeSuite,
    BrokenSuite,
    ClockJumpSuite,
    GroupSuite,
    ScanSuite,
    SharedSuite,
    StoreFixture,
    ThreatSuite,
    pause,
)
from tests.test_store import TABLES


class PostgresFixture:
    """L{PostgresStore} on a real server, with dates that the test moves."""

    def __init__(
        self, server: Server | None = None, database: str = "", url: str = "", **options: Any
    ) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.server = server or Shared.server()
        self.made = not database
        self.database = database or self.server.new_database()
        self._monotonic = 0.0
        self._wall = START
        self.store = PostgresStore(
            reactor=reactor,
            target=Target.parse(url or self.server.url(self.database), self.server.password),
            retention_secs=RETENTION,
            **(
                {
                    "max_bytes": 2**40,
                    "wall_clock": lambda: self._wall,
                    "monotonic": lambda: self._monotonic,
                }
                | options
            ),
        )
        self.store.open()
        self.store.startService()

    def advance(self, secs: float) -> None:
        """Let time pass."""
        self._monotonic += secs
        self._wall += secs

    def set_wall(self, wall: float) -> None:
        """Set the wall clock alone."""
        self._wall = wall

    async def written(self) -> None:
        """Wait until nothing is left of what was remembered."""
        queue = self.store._queue
        while queue._remembered or queue._in_hand:
            await pause(0.002)

    def ruin(self) -> None:
        """Take the tables away."""
        for table in TABLES:
            self.server.run(self.database, f"DROP TABLE {table}")

    def other(self) -> PostgresFixture:
        """Another store on the same database, as in another process."""
        return PostgresFixture(self.server, self.database)

    def lock(self) -> Callable[[], None]:
        """Another process in the middle of a write; called, it ends."""
        connection = self.server.connect(self.database)
        connection.cursor().execute(
            "BEGIN; SELECT value FROM numbers WHERE name = 'writer' FOR UPDATE"
        )
        ended: Callable[[], None] = connection.close
        return ended

    async def limit_reads(self) -> int:
        """Let only so many reads wait."""
        pool = self.store._pool
        while len(pool._idle) < pool.size:
            await pause(0.002)
        pool.max_waiting = 2
        return 2 + pool.size

    async def close(self) -> None:
        """Stop, and remove the database."""
        await self.store.stopService()
        if self.made:
            self.server.drop_database(self.database)


class _OnPostgres:
    skip = MISSING or None

    def setUp(self) -> None:
        """A fresh store."""
        self.fixture: StoreFixture = PostgresFixture()

    def tearDown(self) -> Deferred[None]:
        """Give it back."""
        return Deferred.fromCoroutine(self.fixture.close())


class PostgresScanTests(_OnPostgres, ScanSuite, unittest.TestCase):
    """Scans on PostgreSQL."""


class PostgresThreatTests(_OnPostgres, ThreatSuite, unittest.TestCase):
    """Threats on PostgreSQL."""


class PostgresAgeTests(_OnPostgres, AgeSuite, ClockJumpSuite, unittest.TestCase):
    """What goes with time, on PostgreSQL."""


class PostgresSharedTests(_OnPostgres, SharedSuite, unittest.TestCase):
    """What is shared, on PostgreSQL."""


class PostgresGroupTests(_OnPostgres, GroupSuite, unittest.TestCase):
    """Writes in groups, and beside other processes, on PostgreSQL."""


class PostgresBrokenTests(_OnPostgres, BrokenSuite, unittest.TestCase):
    """PostgreSQL without its tables."""
