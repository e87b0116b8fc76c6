"""
A copy of the database in one file, the way back from it, and what a database file holds.

Synchronous, on connections of their own: for a process beside the daemon.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from attrs import frozen

from ctsd.errors import StoreError
from ctsd.store.places import refuse_network
from ctsd.store.sqlite_files import reading, writing
from ctsd.store.sqlite_runner import as_store_error, is_full
from ctsd.store.sqlite_schema import needed_version, schema_version, scripts
from ctsd.store.threat_steps import VISIBLE
from ctsd.store.whole_files import BESIDE, new_file, new_part, refuse_existing, remove
from ctsd.syncing import sync

#: A backup copies so many pages between two looks at whether it is to be interrupted.
_PAGES = 2048

_MAX_PROBLEMS = 10


@frozen(kw_only=True)
class Contents:
    """
    What a database file holds.

    :ivar problems: what SQLite's C{integrity_check} found; empty when it is whole.
    :ivar schema: its schema's version; C{needed} is what a ctsd has to know at least to work with
        it, C{known} the newest that this one knows.
    :ivar by_hand: threats that people entered; C{found}: those that searchers found.
    :ivar scans: how many there are in each state, by the state's name.
    """

    size_bytes: int
    problems: tuple[str, ...]
    schema: int
    needed: int
    known: int
    by_hand: int
    found: int
    scans: Mapping[str, int]


def back_up(source: Path, target: Path) -> int:
    """
    Copy a database while others read and write it, as it is at this moment, to a new file that
    is on the disk, whole and checked, before it gets its name.

    :param source: the database file.
    :param target: mode 0600.
    :return: its size in bytes.
    :raises StoreError: that is not possible; C{target} is not there.
    :raises OSError: likewise.
    """
    with new_file(target) as part:
        with errors_of(source):
            _copy_database(source, part)
            problems = _verified(part)
        if problems:
            raise StoreError(f"{source} is damaged: {problems[0]}")
    return target.stat().st_size


def restore(backup: BinaryIO, name: str, database: Path, *, set_aside: str) -> Path | None:
    """
    Put a backup in the place of the database, once it has turned out to be whole. Whoever calls
    this has seen to it that no daemon runs.

    At every moment there is a database in that place: the old one, or the new one.

    :param backup: a file that L{back_up} has made, open for reading.
    :param name: what it is called, for errors.
    :param set_aside: what is added to the old database's name.
    :return: where the old database is now; None when there was none.
    :raises StoreError: that is not possible; the old database is in its place.
    :raises OSError: likewise.
    """
    directory = database.parent
    refuse_network(directory)
    part = new_part(database)
    try:
        with part.open("wb") as copy:
            shutil.copyfileobj(backup, copy, 1024**2)
        with errors_of(Path(name)):
            contents = _contents(part)
        if contents.problems:
            raise StoreError(f"{name} is damaged: {contents.problems[0]}")
        if not contents.schema:
            raise StoreError(f"{name} is empty")
        if contents.needed > contents.known:
            raise StoreError(f"a newer ctsd has made {name}")
        sync(part)
        old = _step_aside(database, set_aside)
        part.replace(database)
    finally:
        remove(part)
    sync(directory)
    return old


def read_contents(path: Path) -> Contents:
    """
    Look through a whole database; works beside a running daemon.

    :raises StoreError: it can't be read at all, or is none of ours.
    :raises OSError: it can't be opened.
    """
    path.open("rb").close()
    with errors_of(path):
        return _contents(path)


def _contents(path: Path) -> Contents:
    with reading(path) as connection:
        # One transaction, so that the counts belong together.
        connection.execute("BEGIN")
        problems = _problems(connection, "integrity_check")
        schema = 0 if problems else schema_version(connection)
        needed = needed_version(connection) if schema else 0
        known = len(scripts())
        countable = schema > 0 and needed <= known
        by_hand, found = _count_threats(connection) if countable else (0, 0)
        return Contents(
            size_bytes=path.stat().st_size,
            problems=problems,
            schema=schema,
            needed=needed,
            known=known,
            by_hand=by_hand,
            found=found,
            scans=_count_scans(connection) if countable else {},
        )


@contextlib.contextmanager
def errors_of(path: Path) -> Iterator[None]:
    """SQLite's errors, and ours, as errors about a file."""
    try:
        yield
    except sqlite3.Error as error:
        if is_full(error):
            raise StoreError("the disk is full") from error
        raise StoreError(f"{path}: {as_store_error(error).reason}") from error
    except StoreError as error:
        raise StoreError(f"{path}: {error.reason}") from error


def _copy_database(source: Path, part: Path) -> None:
    source.open("rb").close()
    with reading(source) as database, writing(part) as copy:
        # A transaction that is open keeps the state of this moment, so that a daemon that goes on
        # writing does not make the copy begin again.
        database.execute("BEGIN")
        if not schema_version(database):
            raise StoreError("there is no database of ctsd's yet")
        # Nobody knows of the new file before it is whole.
        copy.execute("PRAGMA journal_mode = OFF")
        copy.execute("PRAGMA synchronous = OFF")
        database.backup(copy, pages=_PAGES, progress=lambda status, left, total: None)
    # The copy says of itself that it has a write-ahead log. As a file that is moved about it is
    # better without one.
    with writing(part) as alone:
        alone.execute("PRAGMA journal_mode = DELETE").fetchone()


def _verified(part: Path) -> tuple[str, ...]:
    with reading(part) as connection:
        return _problems(connection, "quick_check")


def _problems(connection: sqlite3.Connection, check: str) -> tuple[str, ...]:
    said = tuple(row[0] for row in connection.execute(f"PRAGMA {check}({_MAX_PROBLEMS})"))
    return () if said == ("ok",) else said


def _count_threats(connection: sqlite3.Connection) -> tuple[int, int]:
    row = connection.execute(
        f"SELECT COUNT(t.twin), COUNT(*) - COUNT(t.twin) FROM threats t WHERE {VISIBLE}"
    ).fetchone()
    return int(row[0]), int(row[1])


def _count_scans(connection: sqlite3.Connection) -> Mapping[str, int]:
    return dict(connection.execute("SELECT state, COUNT(*) FROM scans GROUP BY state"))


def _step_aside(database: Path, added: str) -> Path | None:
    """Give the database a second name, with everything that it needs in one file where it can."""
    if not database.exists():
        # What a database has left that somebody took away must not get into the new one.
        remove(database)
        return None
    aside = database.with_name(database.name + added)
    refuse_existing(aside)
    try:
        with reading(database) as connection:
            # What can't be read this way is better not opened to be written.
            schema_version(connection)
        with writing(database) as connection:
            # Brings the log home and removes it, unless another process has the file open.
            connection.execute("PRAGMA journal_mode = DELETE").fetchone()
    except (sqlite3.Error, StoreError) as error:
        if getattr(error, "sqlite_errorname", "").startswith("SQLITE_BUSY"):
            raise StoreError(f"another process uses {database}") from error
        # It is damaged: the reason for all this. What is left of its log goes with it.
    os.link(database, aside)
    for beside in BESIDE:
        with contextlib.suppress(FileNotFoundError):
            Path(f"{database}{beside}").rename(f"{aside}{beside}")
    return aside
