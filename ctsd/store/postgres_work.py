"""What a store has to read and to write, as transactions on PostgreSQL, again where that helps."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import psycopg2
from attrs import define
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from ctsd.errors import StoreError
from ctsd.store.postgres_errors import again, as_store_error, is_hopeless, is_lost
from ctsd.store.postgres_pool import Pool
from ctsd.store.postgres_runner import (
    Limits,
    Transaction,
    begin_read,
    begin_write,
    run_group,
    run_one_by_one,
    run_read,
)
from ctsd.store.postgres_session import Session
from ctsd.store.steps import MakeSteps
from ctsd.store.writes import Result, Write

T = TypeVar("T")

#: How often a transaction is tried that was in another's way. One whose session was lost before
#: it could have been committed is tried as often and once more for each session: a server that
#: starts anew ends all of them.
_TRIES = 3


@define(kw_only=True, eq=False)
class Work:
    """
    Does transactions on a pool's sessions. Every Deferred may fail with L{StoreError}; who cancels
    one cancels the wait alone.

    :ivar limits: how long a transaction may take.
    :ivar answer_secs: how long the server may take to answer a statement.
    """

    pool: Pool
    clock: IReactorTime
    limits: Limits
    answer_secs: float

    def read(self, make: MakeSteps[T]) -> Deferred[T]:
        """What steps return that only read, on one state of the database."""

        async def read(transaction: Transaction) -> T:
            return await run_read(transaction, make)

        return self._detached(self._do(begin_read(self.limits), read))

    def read_on(self, session: Session, make: MakeSteps[T]) -> Deferred[T]:
        """The same on a session that is not in the pool yet; fails with the driver's own errors."""
        transaction = self._transaction(session, begin_read(self.limits))
        return Deferred.fromCoroutine(run_read(transaction, make))

    def write(self, make: MakeSteps[T]) -> Deferred[T]:
        """What steps return that write, by themselves and durably."""

        async def write(transaction: Transaction) -> T:
            [(_, value, _)] = await run_group(transaction, [Write(make)])
            result: T = value
            return result

        return self._detached(self._do(begin_write(self.limits, durable=True), write, first=True))

    def write_group(self, group: Sequence[Write]) -> Deferred[list[Result]]:
        """See L{ctsd.store.writes.WriteQueue.run}."""
        return self._detached(self._write_group(group))

    async def _write_group(self, group: Sequence[Write]) -> list[Result]:
        begin = begin_write(
            self.limits,
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
            return await self._do(begin, whole, first=True)
        except StoreError:
            raise
        except Exception as error:
            pieces = [piece for write in group for piece in write.pieces or (write,)]
            if len(pieces) == 1 or committing or is_hopeless(error):
                raise

        async def one_by_one(transaction: Transaction) -> list[Result]:
            return await run_one_by_one(transaction, pieces)

        return await self._do(begin, one_by_one, first=True)

    def _detached(self, doing: Awaitable[T]) -> Deferred[T]:
        done: Deferred[T] = Deferred()
        running: Deferred[T] = Deferred.fromCoroutine(doing)  # type: ignore[arg-type]
        running.addErrback(_as_store_error)
        running.addCallbacks(done.callback, done.errback)
        return done

    def _transaction(self, session: Session, begin: str) -> Transaction:
        return Transaction(session, begin, clock=self.clock, answer_secs=self.answer_secs)

    async def _do(
        self, begin: str, work: Callable[[Transaction], Awaitable[T]], *, first: bool = False
    ) -> T:
        tries = 0
        while True:
            tries += 1
            session = await self.pool.acquire(first=first)
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
                if lost and _is_harmless(transaction) and tries <= _TRIES + self.pool.size:
                    continue
                if not again(error) or tries >= _TRIES:
                    raise
            finally:
                silent = transaction is not None and transaction.silent
                self.pool.release(session, broken=broken, silent=silent)


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
