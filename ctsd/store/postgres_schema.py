"""The schema of the PostgreSQL database, kept in numbered files; connections that may block."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg2
import psycopg2.extensions

from ctsd.errors import StoreError
from ctsd.store.postgres_errors import as_store_error, is_lost
from ctsd.store.postgres_runner import Limits
from ctsd.store.postgres_target import Target, is_local
from ctsd.store.schema_files import oldest, read_scripts, refuse_newer, refuse_older

#: Debian 11 and RHEL 9 have it.
OLDEST_POSTGRES = (13, 0)

#: How long connecting to one host may take, where that blocks.
CONNECT_SECS = 5

#: For what may take its time, and is not to be ended by the server.
UNLIMITED = Limits(statement_secs=0, idle_secs=0)

#: Held while the schema is made or brought up; any number that others are not likely to use.
_LOCK = 0x63747364

#: PostgreSQL's bytea as bytes; psycopg2 makes a memoryview of it.
_BYTES = psycopg2.extensions.new_type(
    (17,),
    "CTSD_BYTES",
    lambda value, cursor: None if value is None else bytes(psycopg2.BINARY(value, cursor)),
)


def use_bytes(connection: Any) -> None:
    """Make a connection of psycopg2 give C{bytes} for C{bytea}."""
    psycopg2.extensions.register_type(_BYTES, connection)


def explain(error: psycopg2.Error) -> StoreError:
    """
    What went wrong where nothing was asked for that could hold a value: libpq's own words about
    connecting, or PostgreSQL's about the schema.
    """
    wrapped = as_store_error(error)
    if error.pgcode is None and is_lost(error):
        words = str(error).strip().splitlines() or ["no connection"]
        wrapped = StoreError(words[0].strip(), retry_secs=10)
        wrapped.__cause__ = error
    return wrapped


@contextlib.contextmanager
def errors_of(target: Target) -> Iterator[None]:
    """PostgreSQL's errors as errors about a database."""
    try:
        yield
    except psycopg2.Error as error:
        wrapped = explain(error)
        raise StoreError(f"{target.name}: {wrapped.reason}") from wrapped.__cause__


@contextlib.contextmanager
def connected(target: Target) -> Iterator[Any]:
    """
    A connection of psycopg2, in a transaction that is committed at the end; all of it blocks.

    :raises StoreError: it can't be had, or a statement failed.
    """
    with errors_of(target):
        parameters = target.looked_up(look_up(target, CONNECT_SECS))
        connection = psycopg2.connect(**parameters, connect_timeout=CONNECT_SECS)
        try:
            use_bytes(connection)
            with connection:
                yield connection
        finally:
            connection.close()


def look_up(target: Target, secs: float) -> dict[str, list[str]]:
    """
    The addresses of a target's hosts, by their names. libpq would look them up by itself, and wait
    for a silent resolver for as long as that likes.

    :param secs: how long all of them may take.
    :return: without those that are not known, or were not told in time.
    :raises StoreError: there is no host left.
    """
    names = {host for host, _ in target.hosts if not is_local(host)}
    found: dict[str, list[str] | OSError] = {}

    def ask(name: str) -> None:
        try:
            answers = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
            found[name] = list(dict.fromkeys(str(answer[4][0]) for answer in answers))
        except OSError as error:
            found[name] = error

    asking = [threading.Thread(target=ask, args=(name,), daemon=True) for name in names]
    for thread in asking:
        thread.start()
    ends = time.monotonic() + secs
    for thread in asking:
        thread.join(max(0.0, ends - time.monotonic()))
    told = found.copy()
    known = {name: each for name, each in told.items() if isinstance(each, list)}
    if names and not known and len(names) == len({host for host, _ in target.hosts}):
        name = min(names)
        why = told.get(name)
        said = f": {why.strerror}" if isinstance(why, OSError) else f" within {secs:g} s"
        raise StoreError(f"{target.name}: the name {name} could not be looked up{said}")
    return known


def scripts() -> list[str]:
    """The schema's files in their order; the first makes version 1."""
    return list(read_scripts("postgres"))


def check_server(version: int) -> None:
    """
    Make sure that this PostgreSQL can do what we ask of it.

    :param version: as psycopg2 has it, 150004 for 15.4.
    :raises StoreError: it is older than L{OLDEST_POSTGRES}.
    """
    is_version = divmod(version, 10000)
    if is_version < OLDEST_POSTGRES:
        is_, wanted = is_version[0], OLDEST_POSTGRES[0]
        raise StoreError(f"PostgreSQL {is_} is too old: {wanted} or newer is needed")


def schema_version(cursor: Any) -> tuple[int, int]:
    """
    Which version of the schema there is (0 for none), and which one a ctsd has to know at least
    to work with it.
    """
    cursor.execute("SELECT to_regclass('numbers') IS NOT NULL")
    if not cursor.fetchone()[0]:
        return 0, 0
    cursor.execute("SELECT name, value FROM numbers WHERE name IN ('schema', 'oldest')")
    found = dict(cursor.fetchall())
    return int(found.get("schema", 0)), int(found.get("oldest", 1))


def bring_up(cursor: Any, wanted: list[str], limits: Limits) -> int:
    """
    Bring a database to the newest schema, and give it its secret; others who do so at the same
    time wait. A newer schema stays as it is when it says that we can work with it.

    :param cursor: in a transaction that has just begun.
    :param wanted: see L{scripts}.
    :return: which version there was, 0 for an empty database.
    :raises StoreError: a newer ctsd has made it, and we can't work with it.
    :raises psycopg2.Error: it can't be read or written, or it holds something else.
    """
    return _make(cursor, wanted, limits, older=True)


def make_schema(cursor: Any, wanted: list[str], limits: Limits) -> int:
    """
    Do the same in an empty database, and make sure of any other that we can work with it.

    :raises StoreError: we can't, also because it has to be brought up first.
    :raises psycopg2.Error: see L{bring_up}.
    """
    return _make(cursor, wanted, limits, older=False)


def _make(cursor: Any, wanted: list[str], limits: Limits, *, older: bool) -> int:
    cursor.execute(limits.local + "SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
    there, needed = schema_version(cursor)
    if there:
        refuse_newer(there, needed, len(wanted))
        if not older:
            refuse_older(there, len(wanted))
    if there < len(wanted):
        _apply(cursor, wanted, there)
    # Also tells whether we may write, while somebody still looks.
    cursor.execute("SELECT value FROM numbers WHERE name = 'writer' FOR UPDATE")
    return there


def _apply(cursor: Any, wanted: list[str], there: int) -> None:
    for script in wanted[there:]:
        cursor.execute(script)
    for name, value in (("schema", len(wanted)), ("oldest", oldest(wanted))):
        cursor.execute("UPDATE numbers SET value = %s WHERE name = %s", (value, name))
    cursor.execute(
        "INSERT INTO secrets (name, value) VALUES ('scan ids', %s) ON CONFLICT DO NOTHING",
        (os.urandom(32),),
    )


def lax_settings(cursor: Any) -> list[str]:
    """The server's settings by which something that was committed could be lost."""
    cursor.execute(
        "SELECT name FROM pg_settings"
        " WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit') AND setting = 'off'"
        " ORDER BY name"
    )
    return [f"{name} = off" for (name,) in cursor.fetchall()]


def read_secret(cursor: Any) -> bytes:
    """The secret that L{make_schema} has given this database."""
    cursor.execute("SELECT value FROM secrets WHERE name = 'scan ids'")
    return bytes(cursor.fetchone()[0])
