"""The schema of the SQLite database, kept in numbered files, and the way from one to the next."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator

from ctsd.errors import StoreError
from ctsd.store.schema_files import oldest, read_scripts, refuse_newer, refuse_older

#: RHEL 9 has it.
OLDEST_SQLITE = (3, 34, 0)


def check_sqlite(version: tuple[int, ...] = sqlite3.sqlite_version_info) -> None:
    """
    Make sure that this SQLite can do what we ask of it.

    :raises StoreError: it is older than L{OLDEST_SQLITE}.
    """
    if version < OLDEST_SQLITE:
        is_version, wanted = (".".join(map(str, each)) for each in (version, OLDEST_SQLITE))
        raise StoreError(f"SQLite {is_version} is too old: {wanted} or newer is needed")


# Read at once: root may, and the user whom it becomes perhaps not.
_SCRIPTS = read_scripts("sqlite")


def scripts() -> list[str]:
    """The schema's files in their order; the first makes version 1."""
    return list(_SCRIPTS)


def statements(script: str) -> Iterator[str]:
    """The statements of a script, one by one, so that all can be in one transaction."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def schema_version(connection: sqlite3.Connection) -> int:
    """
    Which version of the schema a database has; 0 for an empty one.

    :raises StoreError: it holds something else.
    :raises sqlite3.Error: it can't be read.
    """
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
    if not tables:
        return 0
    if "numbers" not in tables:
        raise StoreError("the file is a database of something else")
    row = connection.execute("SELECT value FROM numbers WHERE name = 'schema'").fetchone()
    return int(row[0]) if row else 0


def needed_version(connection: sqlite3.Connection) -> int:
    """
    The oldest version that a ctsd has to know to work with a database that is not empty.

    :raises sqlite3.Error: it can't be read.
    """
    row = connection.execute("SELECT value FROM numbers WHERE name = 'oldest'").fetchone()
    # Without that row it was made by a ctsd that looked at the version alone.
    return int(row[0]) if row else schema_version(connection)


def bring_up(connection: sqlite3.Connection, wanted: list[str]) -> int:
    """
    Bring a database to the newest schema, in one transaction, and give it its secret. A newer
    schema stays as it is when it says that we can work with it.

    :param wanted: see L{scripts}.
    :return: which version there was, 0 for an empty database.
    :raises StoreError: a newer ctsd has made it, and we can't work with it; or it holds something
        else.
    :raises sqlite3.Error: it can't be read or written.
    """
    return _in_transaction(connection, wanted, older=True)


def make_schema(connection: sqlite3.Connection, wanted: list[str]) -> int:
    """
    Do the same in an empty database, and make sure of any other that we can work with it.

    :raises StoreError: we can't, also because it has to be brought up first; and see L{bring_up}.
    :raises sqlite3.Error: it can't be read or written.
    """
    return _in_transaction(connection, wanted, older=False)


def _in_transaction(connection: sqlite3.Connection, wanted: list[str], *, older: bool) -> int:
    connection.execute("BEGIN IMMEDIATE")
    try:
        there = schema_version(connection)
        if there:
            refuse_newer(there, needed_version(connection), len(wanted))
            if not older:
                refuse_older(there, len(wanted))
        if there < len(wanted):
            _apply(connection, wanted, there)
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    return there


def _apply(connection: sqlite3.Connection, wanted: list[str], there: int) -> None:
    for script in wanted[there:]:
        for statement in statements(script):
            connection.execute(statement)
    connection.executemany(
        "INSERT INTO numbers (name, value) VALUES (?, ?)"
        " ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        [("schema", len(wanted)), ("oldest", oldest(wanted))],
    )
    connection.execute(
        "INSERT INTO secrets (name, value) VALUES ('scan ids', ?) ON CONFLICT DO NOTHING",
        (os.urandom(32),),
    )


def read_secret(connection: sqlite3.Connection) -> bytes:
    """The secret that L{make_schema} has given this database."""
    row = connection.execute("SELECT value FROM secrets WHERE name = 'scan ids'").fetchone()
    return bytes(row[0])
