"""Connections to a database file from outside of the store, beside others that use it."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

#: How long to wait for another process that writes, or recovers or removes the log.
BUSY_SECS = 5.0


@contextlib.contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that can't write."""
    with contextlib.closing(
        sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro",
            uri=True,
            timeout=BUSY_SECS,
            isolation_level=None,
        )
    ) as connection:
        yield connection


@contextlib.contextmanager
def writing(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that can write; the file is made, if there is none."""
    with contextlib.closing(
        sqlite3.connect(path, timeout=BUSY_SECS, isolation_level=None)
    ) as connection:
        yield connection
