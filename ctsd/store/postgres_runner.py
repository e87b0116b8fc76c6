"""
Steps on PostgreSQL: runs them in the reactor, on a connection of txpostgres.

Everything that a transaction depends on is set inside of it: behind a pooler two transactions may
be two sessions. It is READ COMMITTED, and who writes first locks one row: writers come one after
the other, as on SQLite, and each statement sees what those before it have committed. A client
that freezes in the middle is thrown out by the server after L{Limits.idle_secs}.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import psycopg2
from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from ctsd.store.postgres_errors import again, as_store_error, is_lost
from ctsd.store.postgres_steps import notify
from ctsd.store.steps import Change, MakeSteps, Many, Query, Step, Steps, Tell
from ctsd.store.writes import Result, Write

T = TypeVar("T")

#: So many values of statements may wait to be sent with the next one.
_MAX_UNSENT = 10_000

#: One VALUES tuple, as L{Many} promises it.
_TUPLE = re.compile(r"(?<=VALUES )\([?, ]+\)")


class Cursor(Protocol):
    """What we need of txpostgres' cursor, or of psycopg2's own."""

    rowcount: int

    def execute(self, sql: str, params: Any = None, /) -> Any:
        """Run statements; txpostgres' fires when that is done."""

    def fetchall(self) -> list[tuple[Any, ...]]:
        """The rows."""


@frozen(kw_only=True)
class Limits:
    """
    How long a transaction may take on the server, in seconds.

    :ivar statement_secs: one statement.
    :ivar idle_secs: the pause between two statements.
    """

    statement_secs: float
    idle_secs: float

    @property
    def local(self) -> str:
        """The statements that set them for one transaction."""
        return (
            f"SET LOCAL statement_timeout = {round(self.statement_secs * 1000)};"
            f" SET LOCAL idle_in_transaction_session_timeout = {round(self.idle_secs * 1000)}; "
        )


def begin_read(limits: Limits) -> str:
    """How a transaction begins that sees one state of the database."""
    return f"BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY; {limits.local}"


def begin_write(limits: Limits, *, durable: bool, alone: bool = True) -> str:
    """
    How a transaction begins that writes.

    :param durable: whether it has to survive a power loss of the server's.
    :param alone: whether no other may write at the same time.
    """
    lock = "SELECT value FROM numbers WHERE name = 'writer' FOR UPDATE; " if alone else ""
    commit = "" if durable else "SET LOCAL synchronous_commit = off; "
    return f"BEGIN ISOLATION LEVEL READ COMMITTED, READ WRITE; {limits.local}{commit}{lock}"


@functools.lru_cache(maxsize=256)
def _rendered(sql: str) -> str:
    return sql.replace("%", "%%").replace("?", "%s")


@functools.lru_cache(maxsize=32)
def _insert(sql: str) -> tuple[str, str, str] | None:
    found = _TUPLE.search(sql)
    if found is None:
        return None
    head, tail = sql[: found.start()], sql[found.end() :]
    return _rendered(head), _rendered(found[0]), _rendered(tail)


def render(step: Query | Change | Many) -> tuple[str, Sequence[Any]]:
    """A step as psycopg2 wants it: one text for all rows of a L{Many}, and its parameters."""
    if not isinstance(step, Many):
        return _rendered(step.sql), step.params
    params = [value for row in step.params for value in row]
    parts = _insert(step.sql)
    if parts is not None:
        head, one, tail = parts
        return f"{head}{', '.join([one] * len(step.params))}{tail}", params
    return "; ".join([_rendered(step.sql)] * len(step.params)), params


def answer(step: Step, cursor: Cursor) -> Any:
    """What a step yields, once it was executed."""
    if isinstance(step, Query):
        return cursor.fetchall()
    return cursor.rowcount if isinstance(step, Change) else None


class _Run:
    """Steps that stand at their first statement, which needs no transaction yet."""

    def __init__(self, make: MakeSteps[Any]) -> None:
        self._steps: Steps[Any] = make()
        self._step: Step | None = None
        self._value: Any = None
        self._advance(None)

    def _advance(self, sent: Any) -> None:
        try:
            self._step = self._steps.send(sent)
        except StopIteration as stop:
            self._step, self._value = None, stop.value

    async def finish(self, transaction: Transaction) -> Any:
        """Run them; what they return."""
        try:
            while self._step is not None:
                self._advance(await transaction.execute(self._step))
        finally:
            self._steps.close()
        return self._value


class Transaction:
    """
    One transaction; it begins with its first statement, in the same round trip. Statements that
    yield nothing of use go with the next one that does, or with the end.

    :ivar committing: whether the end was asked for: from then on nobody can say whether what was
        written is in the database, unless the answer comes.
    :ivar silent: whether the server did not answer in time.
    """

    def __init__(
        self, session: Any, begin: str, *, clock: IReactorTime, answer_secs: float
    ) -> None:
        """
        :param session: a L{ctsd.store.postgres_session.Session} that nobody else uses.
        :param answer_secs: how long to wait for the answer to a statement before the session is
            closed.
        """
        self._session = session
        self._cursor: Cursor = session.cursor()
        self._begin = begin
        self._clock = clock
        self._answer_secs = answer_secs
        self._told: dict[str, None] = {}
        self._unsent: list[tuple[str, Sequence[Any]]] = []
        self.committing = False
        self.silent = False

    async def execute(self, step: Step) -> Any:
        """What a step yields."""
        if isinstance(step, Tell):
            # Goes with the end: a round trip less.
            self._told[step.what] = None
            return None
        if isinstance(step, Many):
            if step.params:
                self._unsent.append(render(step))
                if sum(len(params) for _, params in self._unsent) > _MAX_UNSENT:
                    await self.flush()
            return None
        await self._send(*render(step))
        return answer(step, self._cursor)

    async def flush(self) -> None:
        """
        Send what was not sent yet.

        :raises psycopg2.Error: a statement failed.
        """
        if self._unsent:
            await self._send("", ())

    async def say(self, sql: str) -> None:
        """Run a statement of our own, without parameters."""
        await self._send(sql, ())

    async def _send(self, sql: str, params: Sequence[Any]) -> None:
        begin, self._begin = self._begin, ""
        unsent, self._unsent = self._unsent, []
        texts = [text for text, _ in unsent]
        given = [value for _, values in (*unsent, ("", params)) for value in values]
        # Closed, never cancelled: that would call PQcancel, which blocks.
        limit = self._clock.callLater(self._answer_secs, self._end)
        try:
            await self._cursor.execute(begin + "; ".join([*texts, sql] if sql else texts), given)
        finally:
            if limit.active():
                limit.cancel()

    def _end(self) -> None:
        self.silent = True
        self._session.close()

    async def commit(self) -> None:
        """End it, when it has begun."""
        if self._begin and not self._unsent:
            return
        self.committing = True
        try:
            await self._send(f"{notify(len(self._told))}COMMIT", list(self._told))
        except psycopg2.Error as error:
            # When the server says what is wrong, it has not committed.
            self.committing = is_lost(error)
            raise

    async def end(self) -> None:
        """End it, when it has begun and was only read in."""
        if not self._begin:
            await self.say("COMMIT")

    async def roll_back(self) -> None:
        """Undo all of it, when it has begun."""
        self._unsent.clear()
        if not self._begin:
            await self.say("ROLLBACK")

    async def roll_back_to(self, savepoint: str) -> None:
        """Undo what came after a savepoint."""
        self._unsent.clear()
        await self.say(f"ROLLBACK TO {savepoint}")


async def run_read(transaction: Transaction, make: MakeSteps[T]) -> T:
    """
    Run steps that only read.

    :raises psycopg2.Error: a statement failed.
    """
    result: T = await _Run(make).finish(transaction)
    await transaction.end()
    return result


async def run_group(transaction: Transaction, writes: Sequence[Write]) -> list[Result]:
    """
    Run writes in a transaction, which is over when this fires.

    :raises Exception: nothing was written, unless L{Transaction.committing}.
    """
    runs = [(write, _Run(write.make)) for write in writes]
    results: list[Result] = [(write, await run.finish(transaction), None) for write, run in runs]
    await transaction.commit()
    return results


async def run_one_by_one(transaction: Transaction, writes: Sequence[Write]) -> list[Result]:
    """Like L{run_group}, but each write can fail alone."""
    results: list[Result] = []
    for write in writes:
        await transaction.say("SAVEPOINT one")
        try:
            value = await _Run(write.make).finish(transaction)
            await transaction.flush()
            results.append((write, value, None))
        except psycopg2.Error as error:
            if is_lost(error) or again(error):
                raise
            await transaction.roll_back_to("one")
            results.append((write, None, as_store_error(error)))
        except Exception as error:
            await transaction.roll_back_to("one")
            results.append((write, None, error))
        await transaction.say("RELEASE one")
    await transaction.commit()
    return results


def run_now(cursor: Cursor, make: MakeSteps[T]) -> T:
    """
    Run steps at once, on psycopg2's own cursor, in whatever transaction there is.

    :raises psycopg2.Error: a statement failed.
    """
    steps = make()
    sent: Any = None
    while True:
        try:
            step = steps.send(sent)
        except StopIteration as stop:
            value: T = stop.value
            return value
        if isinstance(step, Tell):
            sent = None
            continue
        cursor.execute(*render(step))
        sent = answer(step, cursor)
