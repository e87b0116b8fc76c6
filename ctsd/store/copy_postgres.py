"""A store on PostgreSQL, to be copied from and to: see L{ctsd.store.copying}."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from psycopg2.extras import execute_values

from ctsd.errors import StoreError
from ctsd.store.copying import SLICE_BYTES, SLICE_ROWS, Readable, Row, Table, layout
from ctsd.store.postgres_runner import render, run_now
from ctsd.store.postgres_schema import (
    UNLIMITED,
    bring_up,
    check_server,
    connected,
    errors_of,
    make_schema,
    schema_version,
    scripts,
)
from ctsd.store.postgres_steps import server_time
from ctsd.store.postgres_target import Target
from ctsd.store.steps import Query

#: How long to wait for those who write at the moment.
_LOCK_SECS = 10

#: What the schema itself puts into tables: all that an empty store holds.
_OWN_ROWS = {"numbers": "1 = 1", "secrets": "1 = 1", "imports": "id = 0"}


class PostgresTables:
    """
    L{ctsd.store.copying.Writable} in a database. Its errors name that database.

    :ivar version: see L{ctsd.store.copying.Readable}, as C{saved}.
    :ivar needed: the oldest version that a ctsd has to know to work with it.
    """

    def __init__(self, connection: Any, cursor: Any, target: Target) -> None:
        """
        :param cursor: of the connection, in a transaction.
        """
        self._connection = connection
        self._cursor = cursor
        self._target = target
        self.name = target.name
        self.version, self.needed = schema_version(cursor)
        self.saved = False

    def now(self) -> float:
        """See L{ctsd.store.copying.Readable.now}."""
        with errors_of(self._target):
            return run_now(self._cursor, server_time)

    def ask(self, query: Query) -> list[Row]:
        """See L{ctsd.store.copying.Readable.ask}."""
        with errors_of(self._target):
            self._cursor.execute(*render(query))
            found: list[Row] = self._cursor.fetchall()
            return found

    def rows(self, table: Table) -> Iterator[Row]:
        """See L{ctsd.store.copying.Readable.rows}."""
        count = 50
        with errors_of(self._target), self._connection.cursor(name="rows") as cursor:
            cursor.execute(f"SELECT {', '.join(table.columns)} FROM {table.name}")
            # As many as fit into memory, as far as the rows before can tell.
            while rows := cursor.fetchmany(count):
                yield from rows
                largest = max(sum(_size(value) for value in row) for row in rows)
                count = max(1, min(SLICE_ROWS, SLICE_BYTES // (largest + 1)))

    def make(self, version: int) -> None:
        """See L{ctsd.store.copying.Writable.make}."""
        with errors_of(self._target):
            if not self.version:
                bring_up(self._cursor, scripts()[:version], UNLIMITED)
                self.version = version
            if self.version != version:
                raise StoreError(
                    f"{self.name}: its schema is version {self.version}, and that of what is to"
                    f" be copied {version}"
                )
            _lock(self._cursor, layout(version), "ACCESS EXCLUSIVE")
            for table in layout(version):
                beside = f" WHERE NOT ({_OWN_ROWS[table.name]})" if table.name in _OWN_ROWS else ""
                self._cursor.execute(f"SELECT 1 FROM {table.name}{beside} LIMIT 1")
                if self._cursor.fetchone():
                    raise StoreError(
                        f"{self.name} is not empty: there is something in {table.name}"
                    )

    def clear(self, table: Table, where: str) -> None:
        """See L{ctsd.store.copying.Writable.clear}."""
        with errors_of(self._target):
            self._cursor.execute(f"DELETE FROM {table.name} WHERE {where}")

    def insert(self, table: Table, rows: Sequence[Row]) -> None:
        """See L{ctsd.store.copying.Writable.insert}."""
        insert = f"INSERT INTO {table.name} ({', '.join(table.columns)}) VALUES %s"
        with errors_of(self._target):
            try:
                execute_values(self._cursor, insert, rows, page_size=len(rows))
            except ValueError as error:
                # What comes from outside is bytes; a text is a name of ours.
                raise StoreError(
                    f"{self.name}: {table.name} has a text that PostgreSQL can't have"
                ) from error


def _size(value: object) -> int:
    return len(value) if isinstance(value, bytes | str) else 8


class PostgresPlace:
    """
    L{ctsd.store.copying.Place}: a database.

    :ivar target: where it is.
    """

    file: Path | None = None

    def __init__(self, target: Target) -> None:
        self.target = target
        self.name = target.name

    @contextlib.contextmanager
    def _connected(self) -> Iterator[tuple[Any, Any]]:
        with connected(self.target) as connection, connection.cursor() as cursor:
            check_server(connection.server_version)
            cursor.execute(UNLIMITED.local)
            yield connection, cursor

    def versions(self) -> tuple[int, int]:
        """See L{ctsd.store.copying.Place.versions}."""
        with self._connected() as (_, cursor):
            return schema_version(cursor)

    def make(self) -> int:
        """See L{ctsd.store.copying.Place.make}."""
        with self._connected() as (_, cursor):
            return make_schema(cursor, scripts(), UNLIMITED)

    def bring_up(self, check: Callable[[Readable], None]) -> None:
        """See L{ctsd.store.copying.Place.bring_up}."""
        with self._connected() as (connection, cursor):
            tables = PostgresTables(connection, cursor, self.target)
            bring_up(cursor, scripts(), UNLIMITED)
            # Who starts from now on waits for us; in an error all of this is undone.
            check(tables)

    @contextlib.contextmanager
    def original(self, *, alone: bool) -> Iterator[PostgresTables]:
        """See L{ctsd.store.copying.Place.original}."""
        with connected(self.target) as connection:
            connection.set_session(isolation_level="REPEATABLE READ", readonly=not alone)
            with connection.cursor() as cursor:
                cursor.execute(UNLIMITED.local)
                tables = PostgresTables(connection, cursor, self.target)
                if alone and 0 < tables.version <= len(scripts()):
                    # What it saw until now may be older than the lock.
                    connection.rollback()
                    cursor.execute(UNLIMITED.local)
                    _lock(cursor, layout(tables.version), "SHARE")
                yield tables

    @contextlib.contextmanager
    def copy(self, *, newest: bool) -> Iterator[PostgresTables]:
        """See L{ctsd.store.copying.Place.copy}: one transaction."""
        with self._connected() as (connection, cursor):
            yield PostgresTables(connection, cursor, self.target)
            if newest:
                bring_up(cursor, scripts(), UNLIMITED)


def _lock(cursor: Any, tables: Sequence[Table], mode: str) -> None:
    """Keep others from tables until the end of the transaction, in a lock mode of PostgreSQL's."""
    cursor.execute(f"SET LOCAL lock_timeout = '{_LOCK_SECS}s'")
    cursor.execute(f"LOCK TABLE {', '.join(table.name for table in tables)} IN {mode} MODE")
