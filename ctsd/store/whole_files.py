"""Files that have their name only once they are whole and on the disk."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex

from ctsd.errors import StoreError
from ctsd.syncing import sync

#: What SQLite may put beside a database: its write-ahead log, the log's index, a rollback journal.
BESIDE = ("-wal", "-shm", "-journal")

# How file systems say that they have no hard links.
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EACCES)


def refuse_existing(target: Path) -> None:
    """
    Make sure that nothing has this name.

    :raises StoreError: something has.
    """
    if os.path.lexists(target):
        raise StoreError(f"{target} is there already, and is not overwritten")


@contextlib.contextmanager
def new_file(target: Path) -> Iterator[Path]:
    """
    An empty file, mode 0600, to be filled; afterwards it is on the disk and has its name. When
    something goes wrong meanwhile, nothing is left of it.

    :raises StoreError: something has that name.
    :raises OSError: it can't be made or named.
    """
    refuse_existing(target)
    part = new_part(target)
    try:
        yield part
        sync(part)
        _name(part, target)
    finally:
        remove(part)
    sync(target.parent)


def new_part(target: Path) -> Path:
    """A new empty file beside where a whole one is to be, mode 0600."""
    part = target.parent / f".{target.name}.{token_hex(8)}.part"
    os.close(os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    return part


def _name(part: Path, target: Path) -> None:
    """Give a finished file its name, unless somebody else has it by now."""
    try:
        os.link(part, target)
    except FileExistsError:
        refuse_existing(target)
        raise
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        refuse_existing(target)
        part.rename(target)


def remove(path: Path) -> None:
    """Remove a database, and what SQLite has put beside it."""
    for beside in ("", *BESIDE):
        Path(f"{path}{beside}").unlink(missing_ok=True)
