"""A store's file, to be copied from and to: see L{ctsd.store.copying}."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ctsd.errors import StoreError
from ctsd.store.backup import errors_of
from ctsd.store.copying import Readable, Row, Table
from ctsd.store.places import make_place
from ctsd.store.sqlite_files import reading, writing
from ctsd.store.sqlite_schema import (
    bring_up,
    check_sqlite,
    make_schema,
    needed_version,
    schema_version,
    scripts,
)
from ctsd.store.steps import Query
from ctsd.store.whole_files import new_file


class SQLiteTables:
    """
    L{ctsd.store.copying.Writable} in a file. Its errors name that file.

    :ivar version: see L{ctsd.store.copying.Readable}, as C{saved}.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        """
        :param connection: in a transaction, or to an empty file.
        :raises sqlite3.Error: it can't be read.
        """
        self._connection = connection
        self._path = path
        self.name = str(path)
        self.version = schema_version(connection)
        # The first thing that a daemon does is to have a write-ahead log.
        self.saved = connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal"

    def now(self) -> float:
        """See L{ctsd.store.copying.Readable.now}."""
        return time.time()

    def ask(self, query: Query) -> list[Row]:
        """See L{ctsd.store.copying.Readable.ask}."""
        with errors_of(self._path):
            return self._connection.execute(query.sql, query.params).fetchall()

    def rows(self, table: Table) -> Iterator[Row]:
        """See L{ctsd.store.copying.Readable.rows}."""
        with errors_of(self._path):
            yield from self._connection.execute(
                f"SELECT {', '.join(table.columns)} FROM {table.name}"
            )

    def make(self, version: int) -> None:
        """See L{ctsd.store.copying.Writable.make}; the file is always a new one."""
        with errors_of(self._path):
            bring_up(self._connection, scripts()[:version])
            self._connection.execute("BEGIN")
        self.version = version

    def clear(self, table: Table, where: str) -> None:
        """See L{ctsd.store.copying.Writable.clear}."""
        with errors_of(self._path):
            self._connection.execute(f"DELETE FROM {table.name} WHERE {where}")

    def insert(self, table: Table, rows: Sequence[Row]) -> None:
        """See L{ctsd.store.copying.Writable.insert}."""
        marks = ", ".join("?" * len(table.columns))
        with errors_of(self._path):
            self._connection.executemany(
                f"INSERT INTO {table.name} ({', '.join(table.columns)}) VALUES ({marks})", rows
            )


class SQLitePlace:
    """L{ctsd.store.copying.Place}: a file."""

    def __init__(self, path: Path) -> None:
        self.file = path
        self.name = str(path)

    def versions(self) -> tuple[int, int]:
        """See L{ctsd.store.copying.Place.versions}."""
        if not self.file.exists():
            return 0, 0
        with errors_of(self.file), reading(self.file) as connection:
            there = schema_version(connection)
            return there, needed_version(connection) if there else 0

    def make(self) -> int:
        """See L{ctsd.store.copying.Place.make}."""
        check_sqlite()
        make_place(self.file)
        with errors_of(self.file), writing(self.file) as connection:
            return make_schema(connection, scripts())

    def bring_up(self, check: Callable[[Readable], None]) -> None:
        """See L{ctsd.store.copying.Place.bring_up}."""
        with errors_of(self.file), writing(self.file) as connection:
            check(SQLiteTables(connection, self.file))
            bring_up(connection, scripts())

    @contextlib.contextmanager
    def original(self, *, alone: bool) -> Iterator[SQLiteTables]:
        """See L{ctsd.store.copying.Place.original}."""
        path = self.file
        path.open("rb").close()
        # A file that we can't write to is somebody's backup.
        locked = alone and os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)
        with writing(path) if locked else reading(path) as connection:
            with errors_of(path):
                connection.execute("BEGIN IMMEDIATE" if locked else "BEGIN")
                tables = SQLiteTables(connection, path)
            yield tables

    @contextlib.contextmanager
    def copy(self, *, newest: bool) -> Iterator[SQLiteTables]:
        """See L{ctsd.store.copying.Place.copy}: a new file, which has its name when it is whole."""
        path = self.file
        with new_file(path) as part, writing(part) as connection:
            with errors_of(path):
                # Nobody knows of the file before it is whole, and then it is put on the disk.
                connection.execute("PRAGMA journal_mode = OFF")
                connection.execute("PRAGMA synchronous = OFF")
                tables = SQLiteTables(connection, path)
            yield tables
            with errors_of(path):
                connection.execute("COMMIT")
                if newest:
                    bring_up(connection, scripts())
                found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
                if found != "ok":
                    raise StoreError(f"what was written is damaged: {found}")
