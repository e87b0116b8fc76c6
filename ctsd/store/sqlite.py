"""The store on SQLite: one writer thread with group commits, reader threads apart from it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from twisted.enterprise.adbapi import ConnectionPool
from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

from ctsd.errors import StoreError
from ctsd.model import Scan
from ctsd.records import Finds
from ctsd.store.aging import Aging
from ctsd.store.places import make_place
from ctsd.store.queued import QueuedVerbs
from ctsd.store.sqlite_runner import as_store_error, is_full, run_group, run_read
from ctsd.store.sqlite_schema import check_sqlite, make_schema, read_secret, scripts
from ctsd.store.sqlite_steps import used_bytes, write_something
from ctsd.store.steps import MakeSteps
from ctsd.store.writes import Result, Write

T = TypeVar("T")


class SQLiteStore(QueuedVerbs):
    """
    L{ctsd.interfaces.store.IStore} in one file, which other processes (C{ctsd threats}) may use,
    too.

    Open it, then start it as a service; after C{stopService} has fired it can be thrown away.
    """

    _log = Logger()

    def __init__(
        self,
        *,
        reactor: Any,
        path: Path,
        max_bytes: int,
        retention_secs: float,
        wall_clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] | None = None,
        threat_secs: float = 7 * 86400.0,
        group_secs: float = 0.005,
        max_group: int = 256,
        max_queued: int = 10_000,
        busy_secs: float = 5.0,
        readers: int = 2,
        max_reads: int = 1000,
        probe_secs: float = 5.0,
    ) -> None:
        """
        :param path: the database file; it is made when it is not there.
        :param max_bytes: C{store.max_bytes}.
        :param retention_secs: how long finished scans are kept.
        :param wall_clock: store time, POSIX seconds.
        :param monotonic: the clock that nobody can set; the reactor's by default.
        :param threat_secs: how long a searcher's threat stays that comes without a date.
        :param group_secs: how long an answered scan waits to be written with others.
        :param max_group: how many writes one transaction may hold.
        :param max_queued: how many writes may wait.
        :param busy_secs: how long to wait for another process that writes.
        :param readers: how many threads read.
        :param max_reads: how many reads may wait or run.
        :param probe_secs: how often a full disk is tried again.
        """
        self._path = path
        self._wall_clock = wall_clock
        self.threat_secs = threat_secs
        self._busy_secs = busy_secs
        self._reader_count = readers
        self._max_reads = max_reads
        self._secret = b""
        self._inode: tuple[int, int] | None = None
        self._reads = 0
        self._idle: Deferred[None] | None = None
        self._writer: ConnectionPool | None = None
        self._readers: ConnectionPool | None = None
        self._reading: list[sqlite3.Connection] = []
        self.aging = Aging(
            write=self._write,
            used_bytes=lambda: self._read(used_bytes),
            monotonic=monotonic or reactor.seconds,
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

    def open(self) -> None:
        """
        Make the tables, if there are none. Blocks; for the start only.

        :raises StoreError: it can't be used, and why: also, because it has to be brought up first.
        """
        check_sqlite()
        make_place(self._path)
        try:
            connection = self._connect()
            try:
                mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
                if mode != "wal":
                    raise StoreError(f"{self._path}: write-ahead logging is not possible there")
                make_schema(connection, scripts())
                self._secret = read_secret(connection)
                self._inode = _inode_of(self._path)
            finally:
                connection.close()
        except sqlite3.Error as error:
            wrapped = as_store_error(error)
            raise StoreError(f"{self._path}: {wrapped.reason}") from error

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, timeout=self._busy_secs, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA synchronous = FULL")
        return connection

    def startService(self) -> None:
        """Start the threads."""
        super().startService()
        self._writer = self._pool(1, _open_writer)
        self._readers = self._pool(self._reader_count, self._open_reader)

    def _pool(self, size: int, opened: Callable[[sqlite3.Connection], None]) -> ConnectionPool:
        return ConnectionPool(
            "sqlite3",
            self._path,
            timeout=self._busy_secs,
            isolation_level=None,
            # The pool closes connections from the reactor's thread, after their threads ended.
            check_same_thread=False,
            cp_reactor=self._reactor,
            cp_min=size,
            cp_max=size,
            cp_openfun=opened,
        )

    def _open_reader(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA query_only = ON")
        connection.execute("PRAGMA temp_store = MEMORY")
        self._reading.append(connection)

    def stopService(self) -> Deferred[None]:
        """Write what waits, then close; fires when that is done."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        await self._end_queue()
        writer, self._writer = self._writer, None
        readers, self._readers = self._readers, None
        if writer is None or readers is None:
            return
        for connection in self._reading:
            connection.interrupt()
        if self._reads:
            self._idle = Deferred()
            await self._idle
        readers.close()
        try:
            # Here, so that closing the last connection has nothing to do in the reactor's thread.
            await writer.runWithConnection(_checkpoint)
        except Exception:
            self._log.failure("the store's log could not be written back")
        writer.close()

    def promise(self, *, scan: Scan, finds: Sequence[Finds] = ()) -> Deferred[Scan | None]:
        """See L{ctsd.interfaces.store.IScanStore.promise}."""
        return self._unless_gone() or super().promise(scan=scan, finds=finds)

    def due(self, *, now: float, holder: str, limit: int) -> Deferred[list[Scan]]:
        """See L{ctsd.interfaces.store.IScanStore.due}; asked often, so here a loss is noticed."""
        return self._unless_gone() or super().due(now=now, holder=holder, limit=limit)

    def _unless_gone(self) -> Deferred[Any] | None:
        """A failure when the file is no longer the one that was opened: nobody would find it."""
        if self._inode is None or _inode_of(self._path) == self._inode:
            return None
        return fail(StoreError(f"{self._path} was removed or replaced; restart ctsd"))

    def secret(self) -> bytes:
        """See L{ctsd.interfaces.store.IScanStore.secret}; known after L{open}."""
        return self._secret

    def _run(self, group: Sequence[Write]) -> Deferred[list[Result]]:
        if self._writer is None:
            return fail(StoreError("the store is not open"))
        running: Deferred[list[Result]] = self._writer.runWithConnection(run_group, group)
        return running.addErrback(_no_connection)

    def _is_full(self, error: BaseException) -> bool:
        return is_full(error)

    def _read(self, make: MakeSteps[T]) -> Deferred[T]:
        if self._readers is None:
            return fail(StoreError("the store is not open"))
        if self._reads >= self._max_reads:
            return fail(StoreError("the store is busy: too many reads are waiting", retry_secs=5))
        self._reads += 1
        done: Deferred[T] = Deferred()
        running: Deferred[T] = self._readers.runWithConnection(run_read, make)
        running.addErrback(_no_connection)
        running.addBoth(self._read_ended)
        running.addCallbacks(done.callback, done.errback)
        return done

    def _read_ended(self, result: T) -> T:
        self._reads -= 1
        if not self._reads and self._idle is not None:
            idle, self._idle = self._idle, None
            idle.callback(None)
        return result


def _inode_of(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_dev, found.st_ino)


def _open_writer(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute("PRAGMA cache_size = -8192")
    connection.execute("PRAGMA journal_size_limit = 67108864")


def _checkpoint(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _no_connection(failure: Failure) -> Failure:
    if isinstance(failure.value, sqlite3.Error):
        return Failure(as_store_error(failure.value))
    return failure
