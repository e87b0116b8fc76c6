"""
The index that is being served, and its file, which serves again at the next start.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ctsd.feeds.array_file import BadIndex, clear_scratch
from ctsd.feeds.index import About, Index
from ctsd.feeds.job import lock_builds, look_of
from ctsd.interfaces.threads import InThread
from ctsd.records import IndexLimits


class Kept:
    """
    One index file. Opening one reads all of it, and unmapping one takes milliseconds, so both
    happen in a thread; the swap in between is one assignment in the reactor.

    :ivar path: where the index is.
    :ivar index: what is served; None when there is none.
    :ivar seen: what was at C{path} when it was looked at last (L{look_of}). Another process may
        have put another index there since.
    """

    _log = Logger()

    def __init__(
        self,
        *,
        path: Path,
        in_thread: InThread,
        now: Callable[[], float],
        limits: IndexLimits = IndexLimits(),  # noqa: B008 - it is frozen
    ) -> None:
        self.path = path
        self.index: Index | None = None
        self.seen = ""
        self._in_thread = in_thread
        self._now = now
        self._limits = limits

    async def start(self) -> None:
        """
        Serve what an earlier start left, if it is whole; remove it if it is not, and what killed
        builds have left.
        """
        try:
            await self._in_thread(self._make_room)
            await self.swap()
        except FileNotFoundError:
            pass
        except BadIndex as error:
            self._log.error("the index {path} is left out: {error}", path=self.path, error=error)
            await self._in_thread(self.path.unlink, missing_ok=True)
        except OSError as error:
            self._log.error("the index {path} can't be read: {error}", path=self.path, error=error)

    async def swap(self) -> None:
        """
        Serve what is at C{path} now.

        :raises BadIndex: that is damaged; the old one goes on.
        :raises OSError: that can't be read; the old one goes on.
        """
        await self._serve(await self._in_thread(self._open))

    async def adopt(self, wanted: Callable[[About], bool]) -> bool:
        """
        Serve what another process has put at C{path}, if it is another one than was seen there
        and is wanted.

        :return: whether it is served now.
        """
        if await self._in_thread(look_of, self.path) == self.seen:
            return False
        try:
            index = await self._in_thread(self._open)
        except (BadIndex, OSError):
            return False
        if wanted(index.about):
            await self._serve(index)
            return True
        await self._in_thread(index.close)
        return False

    def _open(self) -> Index:
        self.seen = look_of(self.path)
        return Index.open(self.path, now=self._now, limits=self._limits)

    async def _serve(self, index: Index) -> None:
        self.index, old = index, self.index
        if old is not None:
            await self._in_thread(old.close)

    def close(self) -> Deferred[None] | None:
        """Serve nothing any more; fires when it is unmapped."""
        old, self.index = self.index, None
        return None if old is None else self._in_thread(old.close)

    def _make_room(self) -> None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        turn = lock_builds(self.path.parent)
        if turn is not None:
            clear_scratch(self.path)
            os.close(turn)
