"""
A whole store from one place to another, saved to a file, and brought up to the newest schema.

Synchronous, for a process beside the daemon.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from attrs import frozen

from ctsd.errors import StoreError
from ctsd.store.backup import back_up
from ctsd.store.copy_sqlite import SQLitePlace
from ctsd.store.copying import Copied, Place, Readable, Tell, copy_all, living
from ctsd.store.schema_files import oldest, refuse_newer
from ctsd.store.sqlite_schema import scripts


def place_of(*, url: str, password: str, directory: Path) -> Place:
    """
    Where a store is.

    :param url: C{store.url}, checked.
    :param directory: C{state_dir}, to which a file is relative.
    :raises StoreError: it is on PostgreSQL, whose packages are missing.
    """
    scheme, _, path = url.partition(":")
    if scheme == "sqlite":
        return SQLitePlace(directory / path)
    try:
        from ctsd.store.copy_postgres import PostgresPlace
        from ctsd.store.postgres_target import Target
    except ImportError as error:
        raise StoreError(
            f"PostgreSQL needs {error.name}, which is not installed: pip install 'ctsd[postgres]'"
        ) from error
    return PostgresPlace(Target.parse(url, password))


def move(source: Place, target: Place, *, tell: Tell) -> list[Copied]:
    """
    Copy a store that nobody uses into an empty place: all of it, or nothing.

    :return: what was copied, and proved to be there.
    :raises StoreError: that is not possible.
    :raises OSError: likewise.
    """
    with source.original(alone=True) as original:
        refuse_living(original)
        with target.copy(newest=True) as copy:
            return copy_all(original, copy, tell=tell)


def save(source: Place, target: Path, *, tell: Tell) -> int:
    """
    Copy a store to a new file while others use it, as it is at this moment.

    :return: the file's size in bytes.
    :raises StoreError: that is not possible; the file is not there.
    :raises OSError: likewise.
    """
    if source.file is not None:
        return back_up(source.file, target)
    with (
        source.original(alone=False) as original,
        SQLitePlace(target).copy(newest=False) as copy,
    ):
        copy_all(original, copy, tell=tell)
    return target.stat().st_size


def backup_name(version: int, now: float) -> str:
    """
    What the file is called that holds a store as it was before it was brought up.

    :param version: of its schema.
    :param now: POSIX seconds.
    """
    return f"store-version-{version}-{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%SZ}.sqlite"


def refuse_living(store: Readable) -> None:
    """
    Make sure that nobody uses a store.

    :raises StoreError: somebody does, or did so a moment ago.
    """
    using = living(store)
    if using:
        raise StoreError(
            f"{store.name} is used by {', '.join(using)}: stop it (one that has died counts as"
            " alive for some seconds)"
        )


@frozen(kw_only=True)
class Versions:
    """
    The version of a store's schema.

    :ivar before: what it was; C{now}: what it is.
    """

    before: int
    now: int


def upgrade(place: Place, *, save_first: Callable[[int], object]) -> Versions:
    """
    Bring a store to the newest schema. Nodes that it would confuse must have been stopped; others
    may run.

    :param save_first: makes a backup; called with the version that there is, before anything
        happens, and only when something has to. Its errors stop it.
    :raises StoreError: that is not possible; nothing has happened.
    """
    known = len(scripts())
    there, needed = place.versions()
    refuse_newer(there, needed, known)
    if not there:
        raise StoreError(f"{place.name}: there is no store yet: say ctsd store init")
    if there >= known:
        return Versions(before=there, now=there)
    check = refuse_living if oldest(scripts()) > there else _allow
    with place.original(alone=False) as original:
        check(original)
    save_first(there)
    # Somebody may have started since.
    place.bring_up(check)
    return Versions(before=there, now=known)


def _allow(store: Readable) -> None:
    """Nodes of the schema before may go on."""
