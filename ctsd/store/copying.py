"""
All that a store holds, copied into an empty one, whatever their engines, and proved to be there.

Tables are copied as they are. What is proved is what was read back from the copy: a count of rows
and a digest for each table, which have to be those of what was read from the original. Synchronous,
for a process beside the daemon.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from hashlib import blake2b
from pathlib import Path
from typing import Any, Protocol

import msgspec
from attrs import frozen

from ctsd.errors import StoreError
from ctsd.store.rows import name_digest
from ctsd.store.sqlite_schema import bring_up, scripts
from ctsd.store.steps import Query

#: A row, its values in the order of its table's columns: None, int, float, str, bytes.
Row = tuple[Any, ...]

#: A slice holds at most so many rows, and ends after so many bytes.
SLICE_ROWS = 1000
SLICE_BYTES = 4 * 2**20

#: Numbers that belong to the engine and to the schema, and not to what is in it.
_OWN_NUMBERS = frozenset({"schema", "oldest", "writer"})

_pack = msgspec.msgpack.Encoder().encode


@frozen(kw_only=True)
class Table:
    """
    A table of the schema.

    :ivar columns: their names, in order; C{floats} are the places of those that hold floats.
    """

    name: str
    columns: tuple[str, ...]
    floats: tuple[int, ...]


def layout(version: int) -> tuple[Table, ...]:
    """The tables that a version of the schema has: on every engine the same."""
    return _layout(tuple(scripts()[:version]))


@functools.lru_cache(maxsize=4)
def _layout(made_by: tuple[str, ...]) -> tuple[Table, ...]:
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        bring_up(connection, list(made_by))
        names = connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"
        ).fetchall()
        return tuple(_table(connection, name) for (name,) in names)


def _table(connection: sqlite3.Connection, name: str) -> Table:
    rows = connection.execute(f"PRAGMA table_info({name})").fetchall()
    return Table(
        name=name,
        columns=tuple(row[1] for row in rows),
        floats=tuple(place for place, row in enumerate(rows) if row[2] == "DOUBLE PRECISION"),
    )


class Readable(Protocol):
    """
    A store's tables, in one state that does not change while they are read.

    :ivar name: for people.
    :ivar version: of its schema; 0 when there is none.
    :ivar saved: whether it is a backup, with which no daemon works.
    """

    name: str
    version: int
    saved: bool

    def now(self) -> float:
        """POSIX seconds by the store's clock."""

    def ask(self, query: Query) -> list[Row]:
        """The rows of a query."""

    def rows(self, table: Table) -> Iterator[Row]:
        """All rows of a table, in any order, as a stream."""


class Writable(Readable, Protocol):
    """A store without anything in it, in a transaction that is open."""

    def make(self, version: int) -> None:
        """
        Make the tables, if there are none.

        :raises StoreError: it holds something, or its schema is another one.
        """

    def clear(self, table: Table, where: str) -> None:
        """Remove what the schema has put into a table, by an SQL condition."""

    def insert(self, table: Table, rows: Sequence[Row]) -> None:
        """Write rows."""


class Place(Protocol):
    """
    Where a store is, or may be. Everything may fail with L{StoreError} or C{OSError}.

    :ivar name: for people.
    """

    name: str

    @property
    def file(self) -> Path | None:
        """The file, if it is in one."""

    def versions(self) -> tuple[int, int]:
        """The version of the schema, and the oldest that a ctsd has to know; 0 without a schema."""

    def make(self) -> int:
        """
        Make the schema in an empty place; one that is there has to be one that we can work with.

        :return: the version that there was, 0 for none.
        """

    def bring_up(self, check: Callable[[Readable], None]) -> None:
        """
        Bring the schema to the newest version, in one transaction.

        :param check: called with what was there, in the transaction, before it is committed; its
            errors undo it.
        """

    def original(self, *, alone: bool) -> AbstractContextManager[Readable]:
        """
        What is there, as it is at this moment.

        :param alone: whether nobody may write meanwhile; fails when somebody goes on writing.
        """

    def copy(self, *, newest: bool) -> AbstractContextManager[Writable]:
        """
        An empty place to copy to. Afterwards all that was copied is there; after an error, or
        when the process has died, nothing.

        :param newest: whether the schema is brought up when everything is in.
        """


def living(store: Readable) -> list[str]:
    """
    Who uses a store: the processes that have been heard of lately, for people.

    :raises StoreError: that can't be asked.
    """
    if store.saved or not 0 < store.version <= len(scripts()):
        return []
    if not any(table.name == "nodes" for table in layout(store.version)):
        # Before there were nodes, one daemon had a database on PostgreSQL for itself.
        query = Query(
            "SELECT holder FROM leases WHERE name = ? AND expires > ?",
            (name_digest("daemon"), store.now()),
        )
    else:
        query = Query("SELECT name FROM nodes WHERE expires > ? ORDER BY name", (store.now(),))
    return [row[0] for row in store.ask(query)]


@frozen(kw_only=True)
class Copied:
    """
    What was copied of a table.

    :ivar digest: of all its rows, whatever their order; 32 hex digits.
    """

    table: str
    rows: int
    digest: str


#: Told after each slice: the table, how many of its rows were read so far, and why.
Tell = Callable[[str, int, str], None]


def copy_all(source: Readable, target: Writable, *, tell: Tell) -> list[Copied]:
    """
    Copy everything, and prove it.

    :param tell: see L{Tell}.
    :return: what was copied, table by table.
    :raises StoreError: that is not possible, or what was read back is something else. The target's
        transaction must not be committed then.
    """
    if not source.version:
        raise StoreError(f"{source.name}: there is no database of ctsd's yet")
    known = len(scripts())
    if source.version > known:
        raise StoreError(
            f"{source.name}: its schema is version {source.version}; this ctsd knows up to {known}"
        )
    target.make(source.version)
    tables = layout(source.version)
    copied = [_copy(source, target, table, tell) for table in tables]
    for table, one in zip(tables, copied, strict=True):
        if _read_back(target, table, tell) != one:
            raise StoreError(
                f"{target.name}: table {table.name} is not what it is in {source.name}"
            )
    return copied


def _copy(source: Readable, target: Writable, table: Table, tell: Tell) -> Copied:
    target.clear(table, _clearing(table))
    digest = _Digest(table)
    for rows in slices(_of_contents(table, source.rows(table))):
        rows = [digest.add(row) for row in rows]
        target.insert(table, rows)
        tell(table.name, digest.count, "copied")
    return digest.result()


def _read_back(target: Readable, table: Table, tell: Tell) -> Copied:
    digest = _Digest(table)
    for row in _of_contents(table, target.rows(table)):
        digest.add(row)
        if not digest.count % SLICE_ROWS:
            tell(table.name, digest.count, "read back")
    return digest.result()


def _clearing(table: Table) -> str:
    if table.name != "numbers":
        return "1 = 1"
    return "name NOT IN (" + ", ".join(f"'{name}'" for name in sorted(_OWN_NUMBERS)) + ")"


def _of_contents(table: Table, rows: Iterable[Row]) -> Iterable[Row]:
    if table.name != "numbers":
        return rows
    place = table.columns.index("name")
    return (row for row in rows if row[place] not in _OWN_NUMBERS)


def slices(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Rows in pieces that fit into memory and into a statement."""
    rows = iter(rows)
    while True:
        piece: list[Row] = []
        size = 0
        for row in itertools.islice(rows, SLICE_ROWS):
            piece.append(row)
            size += sum(len(value) for value in row if isinstance(value, bytes | str))
            if size >= SLICE_BYTES:
                break
        if not piece:
            return
        yield piece


class _Digest:
    """
    What a table's rows are, whatever their order: the sum of their digests.

    :ivar count: how many there were.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self._sum = 0
        self.count = 0

    def add(self, row: Row) -> Row:
        """Take a row into account; gives it as every engine reads it."""
        values = list(row)
        for place in self._table.floats:
            if values[place] is not None:
                # SQLite has no -0.0, and reads what was written as a whole number as a float.
                values[place] = float(values[place]) + 0.0
        self._sum += int.from_bytes(blake2b(_pack(values), digest_size=16).digest())
        self.count += 1
        return tuple(values)

    def result(self) -> Copied:
        """All of it."""
        digest = f"{self._sum % 2**128:032x}"
        return Copied(table=self._table.name, rows=self.count, digest=digest)
