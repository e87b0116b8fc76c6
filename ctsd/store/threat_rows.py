"""
The local database, read from a process of its own: for building an index.

Synchronous, on a connection that can't write; works beside a running daemon.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from ctsd.model import Threat
from ctsd.store.rows import THREAT_COLUMNS, threat_of
from ctsd.store.sqlite_files import reading
from ctsd.store.sqlite_runner import as_store_error
from ctsd.store.threat_steps import VISIBLE


@contextlib.contextmanager
def _at_one_moment(path: Path) -> Iterator[sqlite3.Connection]:
    try:
        with reading(path) as connection:
            connection.execute("BEGIN")
            yield connection
    except sqlite3.Error as error:
        raise as_store_error(error) from error


def read_threats(path: Path) -> Iterator[Threat]:
    """
    Every threat that is visible when the first one is read, by ascending id, as a stream.

    :param path: the database file.
    :raises StoreError: it can't be read.
    """
    with _at_one_moment(path) as connection:
        rows = connection.execute(
            f"SELECT {THREAT_COLUMNS} FROM threats t WHERE {VISIBLE} ORDER BY t.id"
        )
        for row in rows:
            yield threat_of(row)


def read_version(path: Path) -> int:
    """
    The newest change's number (L{ctsd.interfaces.store.IThreatStore.version}).

    Read it before the threats: what changes in between is told again, and does no harm.

    :param path: the database file.
    :raises StoreError: it can't be read.
    """
    with _at_one_moment(path) as connection:
        row = connection.execute("SELECT value FROM numbers WHERE name = 'version'").fetchone()
        return int(row[0])
