"""
The local database on PostgreSQL, read from a process of its own: for building an index.

Synchronous, in a transaction that can't write, a few rows at a time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from ctsd.model import Threat
from ctsd.store.postgres_runner import run_now
from ctsd.store.postgres_schema import connected
from ctsd.store.postgres_target import Target
from ctsd.store.rows import THREAT_COLUMNS, threat_of
from ctsd.store.steps import bound, number
from ctsd.store.threat_steps import VISIBLE

#: How many rows are in memory at a time.
_BATCH = 2000


@contextlib.contextmanager
def _reading(access: str) -> Iterator[Any]:
    with connected(Target.from_secret(access)) as connection:
        connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
        yield connection


def read_threats(access: str) -> Iterator[Threat]:
    """
    Every threat that is visible when the first one is read, by ascending id, as a stream.

    :param access: L{ctsd.store.postgres_target.Target.as_secret}.
    :raises StoreError: it can't be read.
    """
    with _reading(access) as connection, connection.cursor(name="threats") as cursor:
        cursor.itersize = _BATCH
        cursor.execute(f"SELECT {THREAT_COLUMNS} FROM threats t WHERE {VISIBLE} ORDER BY t.id")
        for row in cursor:
            yield threat_of(row)


def read_version(access: str) -> int:
    """
    The newest change's number; see L{ctsd.store.threat_rows.read_version}.

    :raises StoreError: it can't be read.
    """
    with _reading(access) as connection, connection.cursor() as cursor:
        return run_now(cursor, bound(number, "version"))
