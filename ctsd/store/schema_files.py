"""
The numbered files of the schema, one row of them for each engine: which ctsd works with which.

C{<engine>_<number>.sql} makes version C{<number>} out of the one before. It says in a line
C{-- compatible: yes} that a ctsd which knows only the version before may go on working with the
new one; without that line it may not. The database remembers both numbers: its version, and the
oldest one that a ctsd has to know.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.resources import files

from ctsd.errors import StoreError

_COMPATIBLE = re.compile(r"^-- compatible: yes$", re.MULTILINE)


def read_scripts(engine: str) -> tuple[str, ...]:
    """
    The texts of an engine's files in their order; the first makes version 1.

    :param engine: C{sqlite} or C{postgres}.
    """
    there = [
        each
        for each in (files("ctsd.store") / "schema").iterdir()
        if each.name.startswith(f"{engine}_") and each.name.endswith(".sql")
    ]
    return tuple(each.read_text("utf-8") for each in sorted(there, key=lambda each: each.name))


def oldest(scripts: Sequence[str]) -> int:
    """The oldest version that a ctsd has to know to work with what all of these have made."""
    return max(
        (number for number, each in enumerate(scripts, 1) if not _COMPATIBLE.search(each)),
        default=len(scripts),
    )


def refuse_newer(there: int, needed: int, known: int) -> None:
    """
    Make sure that a database is not too new for us.

    :param there: its version.
    :param needed: see L{oldest}; as the database says.
    :param known: the newest version that we know.
    :raises StoreError: it is.
    """
    if needed > known:
        raise StoreError(
            f"a newer ctsd has made this store: its schema is version {there}, which needs a ctsd"
            f" that knows version {needed}; this one knows up to {known}"
        )


def refuse_older(there: int, known: int) -> None:
    """
    Make sure that a database need not be brought up first.

    :raises StoreError: it has to, and how.
    """
    if there < known:
        raise StoreError(
            f"the store's schema is version {there}, and this ctsd needs version {known}:"
            " say ctsd store upgrade, which makes a backup first"
        )
