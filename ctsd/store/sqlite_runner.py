"""Steps on SQLite: runs them on a connection, in the caller's thread."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

from ctsd.errors import StoreError
from ctsd.store.steps import Change, MakeSteps, Query, Step, Steps, Tell
from ctsd.store.writes import Result, Write

T = TypeVar("T")


class Connection(Protocol):
    """What we need of an C{sqlite3.Connection}, or of adbapi's wrapper of one."""

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""

    def execute(self, sql: str, params: Any = (), /) -> sqlite3.Cursor:
        """Run a statement."""

    def executemany(self, sql: str, params: Any, /) -> sqlite3.Cursor:
        """Run a statement once for each element."""


def as_store_error(error: sqlite3.Error) -> StoreError:
    """What the rest of ctsd learns of SQLite's own errors; its words name no values."""
    name = getattr(error, "sqlite_errorname", None) or type(error).__name__
    if is_full(error):
        reason = "the store's disk is full"
    elif name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        reason = "another process keeps the store locked"
    else:
        reason = f"the store failed: {error} ({name})"
    wrapped = StoreError(reason)
    wrapped.__cause__ = error
    return wrapped


def is_full(error: BaseException | None) -> bool:
    """Whether this is, or comes from, SQLite's way to say that the disk is full."""
    while error is not None and not isinstance(error, sqlite3.Error):
        error = error.__cause__
    return getattr(error, "sqlite_errorname", None) == "SQLITE_FULL"


def _execute(connection: Connection, step: Step) -> Any:
    if isinstance(step, Query):
        return connection.execute(step.sql, step.params).fetchall()
    if isinstance(step, Change):
        return connection.execute(step.sql, step.params).rowcount
    if isinstance(step, Tell):
        return None
    return connection.executemany(step.sql, step.params).rowcount


class _Run:
    """Steps that stand at their first statement, which needs no transaction yet."""

    def __init__(self, make: MakeSteps[Any]) -> None:
        self._steps: Steps[Any] = make()
        self._step: Step | None = None
        self._value: Any = None
        try:
            self._step = next(self._steps)
        except StopIteration as stop:
            self._value = stop.value

    def finish(self, connection: Connection) -> Any:
        """Run them, in whatever transaction there is; what they return."""
        if self._step is None:
            return self._value
        step = self._step
        try:
            while True:
                step = self._steps.send(_execute(connection, step))
        except StopIteration as stop:
            return stop.value
        finally:
            self._steps.close()


def run_read(connection: Connection, make: MakeSteps[T]) -> T:
    """
    Run steps that only read, all of them on one state of the database.

    :raises StoreError: a statement failed.
    """
    try:
        connection.execute("BEGIN")
        try:
            result: T = _Run(make).finish(connection)
            return result
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
    except sqlite3.Error as error:
        raise as_store_error(error) from error


def run_group(connection: Connection, writes: Sequence[Write]) -> list[Result]:
    """
    Run writes in one transaction, which is over when this returns.

    When one of them fails, they are run again, each so that it can fail alone.

    :raises StoreError: nothing was written.
    """
    try:
        try:
            return _all_at_once(connection, writes)
        except Exception as error:
            alone = [piece for write in writes for piece in write.pieces or (write,)]
            if len(alone) == 1 or _is_hopeless(error):
                raise
            return _one_by_one(connection, alone)
    except sqlite3.Error as error:
        raise as_store_error(error) from error


def _is_hopeless(error: BaseException) -> bool:
    # These concern the file, not the statement: the others would fail, too, and wait for it.
    name = getattr(error, "sqlite_errorname", None) or ""
    return name.startswith(("SQLITE_BUSY", "SQLITE_FULL", "SQLITE_IOERR", "SQLITE_CORRUPT"))


def _begin(connection: Connection, writes: Sequence[Write]) -> None:
    durable = any(write.durable for write in writes)
    connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
    connection.execute("BEGIN IMMEDIATE")


def _roll_back(connection: Connection) -> None:
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def _all_at_once(connection: Connection, writes: Sequence[Write]) -> list[Result]:
    runs = [(write, _Run(write.make)) for write in writes]
    _begin(connection, writes)
    try:
        results: list[Result] = [(write, run.finish(connection), None) for write, run in runs]
        connection.execute("COMMIT")
    except BaseException:
        _roll_back(connection)
        raise
    return results


def _one_by_one(connection: Connection, writes: Sequence[Write]) -> list[Result]:
    _begin(connection, writes)
    results: list[Result] = []
    try:
        for write in writes:
            connection.execute("SAVEPOINT one")
            try:
                results.append((write, _Run(write.make).finish(connection), None))
            except Exception as error:
                if not connection.in_transaction:
                    raise
                connection.execute("ROLLBACK TO one")
                if isinstance(error, sqlite3.Error):
                    error = as_store_error(error)
                results.append((write, None, error))
            connection.execute("RELEASE one")
        connection.execute("COMMIT")
    except BaseException:
        _roll_back(connection)
        raise
    return results
