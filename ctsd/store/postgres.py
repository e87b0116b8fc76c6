"""The store on PostgreSQL: in the reactor, through txpostgres, with group commits."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import psycopg2
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from ctsd.errors import StoreError
from ctsd.store.aging import Aging
from ctsd.store.news import News
from ctsd.store.postgres_clock import ServerClock
from ctsd.store.postgres_listener import Listener
from ctsd.store.postgres_pool import Pool
from ctsd.store.postgres_runner import Limits, run_now
from ctsd.store.postgres_schema import (
    check_server,
    connected,
    lax_settings,
    make_schema,
    read_secret,
    scripts,
)
from ctsd.store.postgres_session import Session
from ctsd.store.postgres_steps import server_time, used_bytes, write_something
from ctsd.store.postgres_target import Target
from ctsd.store.postgres_work import Work
from ctsd.store.queued import QueuedVerbs
from ctsd.store.steps import MakeSteps, bound
from ctsd.store.writes import Result, Write

T = TypeVar("T")


class PostgresStore(QueuedVerbs):
    """
    L{ctsd.interfaces.store.IStore} in a PostgreSQL database, which other processes may use, too.

    Open it, then start it as a service. Store time is the server's. A write whose connection is
    lost while it is committed fails, although it may be in the database.
    """

    _log = Logger()

    def __init__(
        self,
        *,
        reactor: Any,
        target: Target,
        max_bytes: int,
        retention_secs: float,
        warn: bool = False,
        listen: Target | None = None,
        wall_clock: Callable[[], float] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        threat_secs: float = 7 * 86400.0,
        group_secs: float = 0.005,
        max_group: int = 256,
        max_queued: int = 10_000,
        sessions: int = 4,
        max_reads: int = 1000,
        wait_secs: float = 3.0,
        connect_secs: float = 3.0,
        limits: Limits = Limits(statement_secs=5.0, idle_secs=5.0),  # noqa: B008 - it is frozen
        answer_secs: float = 6.0,
        probe_secs: float = 5.0,
        measure_secs: float = 60.0,
        stop_secs: float = 3.0,
    ) -> None:
        """
        :param warn: whether the log shall have what is lax about the server.
        :param listen: where to listen to what other processes tell; without it they are asked.
        :param wall_clock: store time instead of the server's, for tests.
        :param monotonic: the clock that nobody can set.
        :param sessions: how many connections.
        :param max_reads: how many reads may wait for one.
        :param wait_secs: how long to wait for one, above all while the server is away.
        :param connect_secs: how long connecting may take.
        :param limits: how long a transaction may take.
        :param answer_secs: how long the server may take to answer a statement before it is taken
            for dead; longer than a statement may take.
        :param measure_secs: how often the server is asked what time it is.
        :param stop_secs: how long what waits may take at the end.

        For the others see L{ctsd.store.sqlite.SQLiteStore}.
        """
        self._target = target
        self._warn = warn
        self._monotonic = monotonic
        self._clock = ServerClock(monotonic=monotonic)
        self._wall_clock = wall_clock or self._clock.now
        self.threat_secs = threat_secs
        self._limits = limits
        self._stop_secs = stop_secs
        self._secret = b""
        self._news = News(monotonic=monotonic)
        self._listener = (
            None
            if listen is None
            else Listener(
                reactor=reactor, target=listen, news=self._news, connect_secs=connect_secs
            )
        )
        self._pool = Pool(
            reactor=reactor,
            target=target,
            size=sessions,
            wait_secs=wait_secs,
            connect_secs=connect_secs,
            max_waiting=max_reads,
            opened=self._opened,
        )
        self._work = Work(pool=self._pool, clock=reactor, limits=limits, answer_secs=answer_secs)
        self.aging = Aging(
            write=self._write,
            used_bytes=lambda: self._read(bound(used_bytes, self.aging.max_bytes)),
            monotonic=monotonic,
            retention_secs=retention_secs,
            max_bytes=max_bytes,
        )
        self._set_up_queue(
            reactor=reactor,
            group_secs=group_secs,
            max_group=max_group,
            max_queued=max_queued,
            probe_secs=probe_secs,
            probe=write_something,
        )
        self._measure_secs = measure_secs
        self._measuring = LoopingCall(self._measure)
        self._measuring.clock = reactor

    def open(self) -> None:
        """
        Make the tables, if there are none. Blocks; for the start only.

        :raises StoreError: the database can't be used, and why: also, because it has to be
            brought up first.
        """
        with connected(self._target) as connection, connection.cursor() as cursor:
            check_server(connection.server_version)
            make_schema(cursor, scripts(), self._limits)
            self._secret = read_secret(cursor)
            sent = self._monotonic()
            now = run_now(cursor, server_time)
            self._clock.measured(now, sent=sent, received=self._monotonic())
            lax = lax_settings(cursor)
        for setting in lax if self._warn else ():
            self._log.warn(
                "PostgreSQL has {setting}: what was promised may not survive its power loss",
                setting=setting,
            )

    def startService(self) -> None:
        """Connect."""
        super().startService()
        self._pool.start()
        self._measuring.start(self._measure_secs, now=False)
        if self._listener is not None:
            self._listener.start()

    def stopService(self) -> Deferred[None]:
        """Write what waits, then close; fires when that is done."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self._measuring.running:
            self._measuring.stop()
        if self._listener is not None:
            self._listener.stop()
        limit = self._reactor.callLater(self._stop_secs, self._pool.stop)
        await self._end_queue()
        if limit.active():
            limit.cancel()
        await self._pool.stop()

    def secret(self) -> bytes:
        """See L{ctsd.interfaces.store.IScanStore.secret}; known after L{open}."""
        return self._secret

    def changed(self, *, what: str) -> Deferred[None]:
        """See L{ctsd.interfaces.store.INews.changed}."""
        return self._news.wait(what)

    def hears(self) -> bool:
        """See L{ctsd.interfaces.store.INews.hears}."""
        return self._news.hears()

    # The server's clock

    def _opened(self, session: Session) -> Deferred[None]:
        return self._take_time(self._work.read_on(session, server_time))

    def _take_time(self, asking: Deferred[float]) -> Deferred[None]:
        sent = self._monotonic()

        def measured(now: float) -> None:
            self._clock.measured(now, sent=sent, received=self._monotonic())

        return asking.addCallback(measured)

    def _measure(self) -> Deferred[None]:
        # When it does not answer, others say so.
        return self._take_time(self._read(server_time)).addErrback(lambda failure: None)

    # Reads and writes

    def _run(self, group: Sequence[Write]) -> Deferred[list[Result]]:
        return self._work.write_group(group)

    def _read(self, make: MakeSteps[T]) -> Deferred[T]:
        if not self.running:
            return fail(StoreError("the store is not open"))
        return self._work.read(make)

    def _is_full(self, error: BaseException) -> bool:
        return isinstance(error.__cause__, psycopg2.errors.DiskFull)
