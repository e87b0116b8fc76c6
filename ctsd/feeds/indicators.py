"""
The index of all feeds that is being served.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from publicsuffixlist import PublicSuffixList
from twisted.internet.defer import DeferredLock
from twisted.logger import Logger
from zope.interface import implementer

from ctsd.errors import SearchLater
from ctsd.feeds.array_file import BadIndex
from ctsd.feeds.feed_file import FeedAbout
from ctsd.feeds.key_index import KeyIndex
from ctsd.feeds.key_store import COMBINED, clear_directory
from ctsd.interfaces.feeds import IIndicators
from ctsd.interfaces.threads import InThread
from ctsd.model import JSON, Artifact
from ctsd.records import Derived, FeedMatches, Indexed

#: How often files are looked for anew that a merge has removed while they were being opened.
_LOOKS = 3

#: So many of a feed's records are looked at to count those that are not shown.
MAX_COUNTED = 200


class HasNothing(Protocol):
    """See L{IIndicators.has_nothing}."""

    def __call__(self, *, type: str, value: JSON) -> bool:
        """Whether nothing can be found."""


def _in_doubt(*, type: str, value: JSON) -> bool:
    """There is no index."""
    return False


@implementer(IIndicators)
class Indicators:
    """
    Serves the index that lies in a directory (L{ctsd.feeds.key_store} says how it gets there), and
    the next one after L{swap}. Opening an index reads all that is new of it, and unmapping one
    takes milliseconds, so both happen in a thread; the swap in between is one assignment in the
    reactor. For a searcher::

        indicators = Indicators(directory=..., in_thread=deferToThread, now=store.now)
        await indicators.start()
        ...
        within = contents.within(artifact)      # in a thread, unless contents.is_quick(artifact)
        derived = (*artifacts.derived(artifact), *within.derived)
        for found in indicators.find(artifact=artifact, derived=derived, limit=10, hidden=stale):
            for matched in found.matched:       # matched.record.hit goes out as it is
                ...                             # matched.how is for the property "Matched"

    A feed that is on but not in L{feeds} has never been loaded, or was written by another
    version's code: it is "later", not "nothing".
    """

    _log = Logger()

    def __init__(
        self,
        *,
        directory: Path,
        in_thread: InThread,
        now: Callable[[], float],
        label: str,
        registered: Callable[[str], str | None] | None = None,
        is_shared_host: Callable[[str], bool] = lambda host: False,
        retry_secs: float = 5.0,
        max_counted: int = MAX_COUNTED,
    ) -> None:
        """
        :param now: POSIX seconds.
        :param label: L{ctsd.feeds.key_store.key_label}; feeds with another one are left out.
        :param registered: as C{is_shared_host}, see L{KeyIndex.open}; None: by the Public Suffix
            List.
        :param retry_secs: when to ask again, while nothing is loaded.
        :param max_counted: C{scan_limit} of L{KeyIndex.open}.
        """
        self._directory = directory
        self._in_thread = in_thread
        self._now = now
        self._label = label
        self._registered = registered
        self._is_shared_host = is_shared_host
        self._retry_secs = retry_secs
        self._max_counted = max_counted
        self._index: KeyIndex | None = None
        #: See L{IIndicators}. Another one with each index: nearly all artifacts end with it.
        self.has_nothing: HasNothing = _in_doubt
        # One swap at a time: the next one takes files over from what this one has opened.
        self._lock = DeferredLock()

    async def start(self) -> None:
        """
        Serve what an earlier start has left, if it is whole. If it is not, it is removed: the next
        merge makes it anew from the feeds' files.
        """
        try:
            await self._in_thread(clear_directory, self._directory)
            await self.swap()
        except FileNotFoundError:
            pass
        except BadIndex as error:
            self._log.error("the feeds' index is left out: {error}", error=error)
            combined = self._directory / COMBINED
            await self._in_thread(combined.unlink, missing_ok=True)
        except OSError as error:
            self._log.error("the feeds' index can't be read: {why}", why=error.strerror)

    async def swap(self) -> None:
        """
        Serve what lies in the directory now.

        :raises BadIndex: that is damaged; the old one goes on.
        :raises OSError: that can't be read; the old one goes on.
        """
        await self._lock.acquire()
        try:
            old = self._index
            index = await self._in_thread(self._open, old)
            self._index, self.has_nothing = index, index.has_nothing
            if old is not None:
                await self._in_thread(old.close, keep=index)
        finally:
            self._lock.release()

    def _open(self, old: KeyIndex | None) -> KeyIndex:
        for look in range(_LOOKS):
            try:
                return KeyIndex.open(
                    self._directory,
                    now=self._now,
                    registered=self._registered or public_suffixes().privatesuffix,
                    is_shared_host=self._is_shared_host,
                    label=self._label,
                    scan_limit=self._max_counted,
                    old=old,
                )
            except FileNotFoundError:
                if look + 1 == _LOOKS or not (self._directory / COMBINED).exists():
                    raise
        raise AssertionError("not reached")

    @property
    def feeds(self) -> Mapping[str, FeedAbout]:
        """What the feeds that are served say of themselves, by name."""
        return MappingProxyType({}) if self._index is None else self._index.feeds

    def find(
        self,
        *,
        artifact: Artifact,
        derived: Iterable[Derived] = (),
        limit: int,
        wanted: Callable[[str, Indexed], bool] | None = None,
        hidden: Container[str] = (),
    ) -> tuple[FeedMatches, ...]:
        """See L{IIndicators}."""
        if self._index is None:
            raise SearchLater(self._retry_secs, "no feed is loaded yet")
        return self._index.find(
            artifact=artifact, derived=derived, limit=limit, wanted=wanted, hidden=hidden
        )

    async def close(self) -> None:
        """Serve nothing any more; ends when it is unmapped."""
        await self._lock.acquire()
        try:
            old, self._index, self.has_nothing = self._index, None, _in_doubt
            if old is not None:
                await self._in_thread(old.close)
        finally:
            self._lock.release()


@cache
def public_suffixes() -> PublicSuffixList:
    """The list of the package; it takes a moment to read, so it is read in a thread."""
    return PublicSuffixList()
