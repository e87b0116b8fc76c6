"""The schema of the SQLite database, kept in numbered files, and the way from one to the next."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from importlib.resources import files

from ctsd.errors import StoreError

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


def _is_ours(name: str) -> bool:
    return name.startswith("sqlite_") and name.endswith(".sql")


def _read_scripts() -> tuple[str, ...]:
    there = [each for each in (files("ctsd.store") / "schema").iterdir() if _is_ours(each.name)]
    return tuple(each.read_text("utf-8") for each in sorted(there, key=lambda each: each.name))


# Read at once: root may, and the user whom it becomes perhaps not.
_SCRIPTS = _read_scripts()


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


def bring_up(connection: sqlite3.Connection, wanted: list[str]) -> None:
    """
    Bring a database to the newest schema, in one transaction, and give it its secret.

    :param wanted: see L{scripts}.
    :raises StoreError: a newer ctsd has made it, or it holds something else.
    :raises sqlite3.Error: it can't be read or written.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        there = schema_version(connection)
        if there > len(wanted):
            raise StoreError(
                f"a newer ctsd has made this store: its schema is version {there}, and this ctsd"
                f" knows up to {len(wanted)}"
            )
        for script in wanted[there:]:
            for statement in statements(script):
                connection.execute(statement)
        connection.execute("UPDATE numbers SET value = ? WHERE name = 'schema'", (len(wanted),))
        connection.execute(
            "INSERT INTO secrets (name, value) VALUES ('scan ids', ?) ON CONFLICT DO NOTHING",
            (os.urandom(32),),
        )
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def read_secret(connection: sqlite3.Connection) -> bytes:
    """The secret that L{bring_up} has given this database."""
    row = connection.execute("SELECT value FROM secrets WHERE name = 'scan ids'").fetchone()
    return bytes(row[0])
