"""
A feed whose C{feed.json} is broken, by a fault of the disk, say: what can be told of it by what is
beside that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from twisted.logger import Logger

from ctsd.feeds.copies import BadState, BrokenState, Copies, name_of
from ctsd.feeds.descriptions import Description
from ctsd.feeds.feed_state import Copy, FeedState
from ctsd.feeds.guards import check_counts, check_file, unpacked_limit
from ctsd.feeds.job import BuildFailed, Refused
from ctsd.feeds.visit import Examine
from ctsd.feeds.waits import Steps


async def mend(
    description: Description,
    copies: Copies,
    *,
    examine: Examine,
    steps: Steps,
    now: Callable[[], float],
    token: int,
) -> None:
    """
    Put a broken state right; nothing is done about one that can be read. Its directory is locked.

    Of the copies that are there the oldest one that may be taken is the good one: a copy that was
    refused is newer than that. It counts as old as its file, and its provider as asked when the
    broken state was written.

    :param now: POSIX seconds.
    :param token: of the lease under which this happens; 0: of none.
    :raises BadState: it can't be read, or put right.
    """
    try:
        await steps(copies.state)
        return
    except BrokenState as error:
        why = str(error)
    written, files = await steps(copies.left)
    copy = None
    for path in files:
        try:
            copy = await _taken(description, path, examine=examine, steps=steps, now=now())
            break
        except Refused:
            continue
        except BuildFailed as error:
            raise BadState(f"{why}; nobody could look at its copy: {error}") from error
    state = FeedState(copy=copy, tried=min(written, now()), token=token)
    aside = await steps(copies.begin_anew, state)
    Logger(__name__).error(
        "Feed {name}: {why}; it is kept as {aside}, and begun anew with {what}",
        name=description.name,
        why=why,
        aside=aside.name,
        what="no copy" if copy is None else f"the copy {copy.file}",
    )


async def _taken(
    description: Description, path: Path, *, examine: Examine, steps: Steps, now: float
) -> Copy:
    """
    What is known of a copy by looking at it.

    :raises Refused: it may not be taken.
    :raises BuildFailed: nobody could look.
    """
    provider = description.provider
    sha256, size, dated = await steps(_look, path)
    if name_of(sha256) != path.name:
        raise Refused("it is not what it was")
    await steps(check_file, path, provider)
    counts = await examine(description, path, max_unpacked_bytes=unpacked_limit(provider, size))
    check_counts(counts, provider, None)
    dated = min(dated, now)
    return Copy(
        file=path.name,
        size=size,
        sha256=sha256,
        fetched=dated,
        checked=dated,
        rows=counts.rows,
        refused=counts.refused,
        records=counts.records,
    )


def _look(path: Path) -> tuple[str, int, float]:
    """A file's SHA-256, its size and its date."""
    with path.open("rb") as opened:
        sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
    found = path.stat()
    return sha256, found.st_size, found.st_mtime
