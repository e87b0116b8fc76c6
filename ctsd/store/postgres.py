"""The store on PostgreSQL: in the reactor, through txpostgres, with group commits."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import psycopg2
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ctsd.errors import StoreError
from ctsd.store import shared_steps
from ctsd.store.aging import Aging
from ctsd.store.postgres_clock import ServerClock
from ctsd.store.postgres_lease import NAME, Lease, take
from ctsd.store.postgres_pool import Pool
from ctsd.store.postgres_runner import (
    Limits,
    Transaction,
    again,
    as_store_error,
    begin_read,
    begin_write,
    is_hopeless,
    is_lost,
    run_group,
    run_now,
    run_one_by_one,
    run_read,
)
from ctsd.store.postgres_schema import (
    bring_up,
    check_server,
    connected,
    lax_settings,
    read_secret,
    scripts,
)
from ctsd.store.postgres_session import Session
from ctsd.store.postgres_steps import server_time, used_bytes, write_something
from ctsd.store.postgres_target import Target
from ctsd.store.queued import QueuedVerbs
from ctsd.store.steps import MakeSteps, bound
from ctsd.store.writes import Result, Write

T = TypeVar("T")

#: How often a transaction is tried that was in another's way. One whose session was lost before
#: it could have been committed is tried as often and once more for each session: a server that
#: starts anew ends all of them.
_TRIES = 3


class PostgresStore(QueuedVerbs):
    """
    L{ctsd.interfaces.IStore} in a PostgreSQL database, which other processes may use, too.

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
        node: str = "",
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
        lease_secs: float = 15.0,
        stop_secs: float = 3.0,
    ) -> None:
        """
        :param node: who we are, for a daemon: it has the database for itself; empty for others.
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
        :param lease_secs: after how long without a word from a daemon another one may start.
        :param stop_secs: how long what waits may take at the end.

        For the others see L{ctsd.store.sqlite.SQLiteStore}.
        """
        self._target = target
        self._node = node
        self._monotonic = monotonic
        self._clock = ServerClock(monotonic=monotonic)
        self._wall_clock = wall_clock or self._clock.now
        self.threat_secs = threat_secs
        self._limits = limits
        self._answer_secs = answer_secs
        self._lease_secs = lease_secs
        self._stop_secs = stop_secs
        self._secret = b""
        self._lease: Lease | None = None
        self._pool = Pool(
            reactor=reactor,
            target=target,
            size=sessions,
            wait_secs=wait_secs,
            connect_secs=connect_secs,
            max_waiting=max_reads,
            opened=self._opened,
        )
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
        self._loops = [(measure_secs, LoopingCall(self._measure))]
        if node:
            self._loops.append((lease_secs / 3, LoopingCall(self._keep_lease)))

    def open(self) -> None:
        """
        Make the tables, or bring them to the newest schema. Blocks; for the start only.

        :raises StoreError: the database can't be used, and why: also, for a daemon, because another
            one uses it.
        """
        with connected(self._target) as connection, connection.cursor() as cursor:
            check_server(connection.server_version)
            bring_up(cursor, scripts(), self._limits)
            self._secret = read_secret(cursor)
            sent = self._monotonic()
            now = run_now(cursor, server_time)
            self._clock.measured(now, sent=sent, received=self._monotonic())
            lax = lax_settings(cursor)
        if self._node:
            for setting in lax:
                self._log.warn(
                    "PostgreSQL has {setting}: what was promised may not survive its power loss",
                    setting=setting,
                )
            take(self._target, node=self._node, secs=self._lease_secs, limits=self._limits)
            self._lease = Lease(
                renew=self._renew,
                monotonic=self._monotonic,
                secs=self._lease_secs,
                until=self._monotonic() + self._lease_secs / 2,
            )

    def startService(self) -> None:
        """Connect."""
        super().startService()
        self._pool.start()
        for secs, loop in self._loops:
            loop.clock = self._reactor
            loop.start(secs, now=False)

    def stopService(self) -> Deferred[None]:
        """Write what waits, then close; fires when that is done."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        for _, loop in self._loops:
            if loop.running:
                loop.stop()
        limit = self._reactor.callLater(self._stop_secs, self._pool.stop)
        await self._end_queue()
        if self._lease is not None and self._lease.held():
            given_back = self._at_once(bound(shared_steps.release, NAME, self._node, self.now()))
            await given_back.addErrback(lambda failure: None)
        if limit.active():
            limit.cancel()
        await self._pool.stop()

    def secret(self) -> bytes:
        """See L{ctsd.interfaces.IScanStore.secret}; known after L{open}."""
        return self._secret

    # The server's clock

    async def _opened_session(self, session: Session) -> None:
        transaction = self._transaction(session, begin_read(self._limits))
        sent = self._monotonic()
        now = await run_read(transaction, server_time)
        self._clock.measured(now, sent=sent, received=self._monotonic())

    def _opened(self, session: Session) -> Deferred[None]:
        return Deferred.fromCoroutine(self._opened_session(session))

    def _measure(self) -> Deferred[None]:
        sent = self._monotonic()

        def measured(now: float) -> None:
            self._clock.measured(now, sent=sent, received=self._monotonic())

        # When it does not answer, others say so.
        return self._read(server_time).addCallbacks(measured, lambda failure: None)

    # The daemon's lease

    def _renew(self) -> Deferred[int | None]:
        return self._at_once(
            bound(shared_steps.lease, NAME, self._node, self._lease_secs, self.now())
        )

    def _keep_lease(self) -> Deferred[None]:
        assert self._lease is not None
        return self._lease.keep().addErrback(lambda failure: None)

    def _at_once(self, make: MakeSteps[T]) -> Deferred[T]:
        # Past the queue, where what waits may need the lease.
        async def write(transaction: Transaction) -> T:
            [(_, value, _)] = await run_group(transaction, [Write(make)])
            result: T = value
            return result

        begin = begin_write(self._limits, durable=True)
        writing = Deferred.fromCoroutine(self._in_transaction(begin, write, first=True))
        return writing.addErrback(_as_store_error)

    # Transactions

    def _transaction(self, session: Session, begin: str) -> Transaction:
        return Transaction(session, begin, clock=self._reactor, answer_secs=self._answer_secs)

    async def _in_transaction(
        self, begin: str, work: Callable[[Transaction], Awaitable[T]], *, first: bool = False
    ) -> T:
        tries = 0
        while True:
            tries += 1
            session = await self._pool.acquire(first=first)
            transaction = None
            broken = True
            try:
                transaction = self._transaction(session, begin)
                result = await work(transaction)
                broken = False
                return result
            except Exception as error:
                lost = is_lost(error)
                if not lost and transaction is not None:
                    broken = not await _rolled_back(transaction)
                if lost and _is_harmless(transaction) and tries <= _TRIES + self._pool.size:
                    continue
                if not again(error) or tries >= _TRIES:
                    raise
            finally:
                silent = transaction is not None and transaction.silent
                self._pool.release(session, broken=broken, silent=silent)

    def _run(self, group: Sequence[Write]) -> Deferred[list[Result]]:
        return Deferred.fromCoroutine(self._write_group(group)).addErrback(_as_store_error)

    async def _write_group(self, group: Sequence[Write]) -> list[Result]:
        if self._lease is not None and not self._lease.held():
            # PostgreSQL was away for long, or we were.
            await self._lease.keep()
        begin = begin_write(
            self._limits,
            durable=any(write.durable for write in group),
            alone=any(write.alone for write in group),
        )
        committing = False

        async def whole(transaction: Transaction) -> list[Result]:
            nonlocal committing
            try:
                return await run_group(transaction, group)
            finally:
                committing = transaction.committing

        try:
            return await self._in_transaction(begin, whole, first=True)
        except StoreError:
            raise
        except Exception as error:
            pieces = [piece for write in group for piece in write.pieces or (write,)]
            if len(pieces) == 1 or committing or is_hopeless(error):
                raise

        async def one_by_one(transaction: Transaction) -> list[Result]:
            return await run_one_by_one(transaction, pieces)

        return await self._in_transaction(begin, one_by_one, first=True)

    def _is_full(self, error: BaseException) -> bool:
        return isinstance(error.__cause__, psycopg2.errors.DiskFull)

    def _read(self, make: MakeSteps[T]) -> Deferred[T]:
        if not self.running:
            return fail(StoreError("the store is not open"))

        async def read(transaction: Transaction) -> T:
            return await run_read(transaction, make)

        # Whoever cancels this cancels the wait alone.
        done: Deferred[T] = Deferred()
        running = Deferred.fromCoroutine(self._in_transaction(begin_read(self._limits), read))
        running.addErrback(_as_store_error)
        running.addCallbacks(done.callback, done.errback)
        return done


def _is_harmless(transaction: Transaction | None) -> bool:
    # What was not about to be committed can be done again; a server that is silent stays so.
    return transaction is None or not (transaction.committing or transaction.silent)


async def _rolled_back(transaction: Transaction) -> bool:
    try:
        await transaction.roll_back()
    except (psycopg2.Error, ConnectionDone, ConnectionLost):
        return False
    return True


def _as_store_error(failure: Failure) -> Failure:
    error = failure.value
    if isinstance(error, psycopg2.Error | ConnectionDone | ConnectionLost):
        return Failure(as_store_error(error))
    return failure
