"""The store on PostgreSQL: the suite of all stores, and what is PostgreSQL's own."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
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
    ScanSuite,
    SharedSuite,
    StoreFixture,
    ThreatSuite,
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
            await deferLater(self.reactor, 0.002, lambda: None)

    def ruin(self) -> None:
        """Take the tables away."""
        for table in TABLES:
            self.server.run(self.database, f"DROP TABLE {table}")

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


class PostgresBrokenTests(_OnPostgres, BrokenSuite, unittest.TestCase):
    """PostgreSQL without its tables."""
