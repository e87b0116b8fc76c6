"""
Feeds that are files of ours: brought when they have changed, through the same guards as downloads.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ctsd.feeds.copies import BadState, Busy
from ctsd.feeds.descriptions import Description
from ctsd.feeds.download import Downloads
from ctsd.feeds.job import BuildFailed, Refused
from ctsd.feeds.standing import KeptFeed
from ctsd.interfaces.threads import InThread

#: A file that has changed is taken when it has kept still for so long.
STILL_SECS: Final = 2.0

#: One that could not be taken by a fault of ours, of the disk say, is tried again after so long.
RETRY_SECS: Final = 60.0


class OwnFiles:
    """Brings such files."""

    def __init__(
        self, *, downloads: Downloads, in_thread: InThread, now: Callable[[], float]
    ) -> None:
        """
        :param now: POSIX seconds.
        """
        self._downloads = downloads
        self._in_thread = in_thread
        self._now = now

    async def look(self, feed: KeptFeed) -> str | None:
        """
        Take a feed's file when it has changed, and kept still.

        :return: what is wrong; empty when nothing is; None when nothing has changed.
        """
        file = feed.description.provider.file
        if file is None:
            return None
        try:
            found = await self._in_thread(stat_of, file)
        except OSError as error:
            feed.seen = feed.brought = ""
            return f"{file} can't be read: {error.strerror}"
        look = f"{found.st_ino} {found.st_size} {found.st_mtime_ns}"
        is_still = look == feed.seen or self._now() - found.st_mtime >= STILL_SECS
        feed.seen = look
        if look == feed.brought or not is_still or self._waits(feed, look):
            return None
        try:
            await self._bring(feed, file)
        except Busy:
            return None
        except (BuildFailed, BadState) as error:
            return self._missed(feed, look, str(error))
        except OSError as error:
            return self._missed(feed, look, str(error.strerror))
        except Refused as error:
            # Nothing is to be had of it until it changes.
            feed.brought = look
            return f"{file} is not taken: {error}"
        feed.brought = look
        # What guards have said of it stands in the state, where accepting it ends that.
        return ""

    async def _bring(self, feed: KeptFeed, file: Path) -> None:
        opened = await self._in_thread(file.open, "rb")
        try:
            feed.state = await self._downloads.bring(feed.description, opened, name=file.name)
        finally:
            opened.close()

    def _waits(self, feed: KeptFeed, look: str) -> bool:
        """Whether it could not be taken a moment ago."""
        return look == feed.missed and 0 <= self._now() - feed.missed_at < RETRY_SECS

    def _missed(self, feed: KeptFeed, look: str, why: str) -> str:
        feed.missed, feed.missed_at = look, self._now()
        return f"{feed.description.provider.file} is not taken: {why}"


def why_unreadable(description: Description) -> str:
    """Why a file of ours can't be read; empty when it can, or there is none. Blocks."""
    file = description.provider.file
    if file is None:
        return ""
    try:
        stat_of(file)
        with file.open("rb"):
            return ""
    except OSError as error:
        return f"{file} can't be read: {error.strerror}"


def stat_of(file: Path) -> os.stat_result:
    """
    What there is of a file. A pipe or a device would never end. Blocks.

    :raises OSError: it is none, or can't be looked at.
    """
    found = file.stat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file")
    return found
