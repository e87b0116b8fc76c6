"""
All feeds that are on: kept current, indexed, searched, and how each of them stands.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterable, Sequence
from pathlib import Path
from typing import Final

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ctsd.errors import SearchLater
from ctsd.feeds.array_file import BadIndex
from ctsd.feeds.children import Children
from ctsd.feeds.copies import BadState, Copies
from ctsd.feeds.descriptions import Description
from ctsd.feeds.download import Downloads
from ctsd.feeds.feed_state import Copy, FeedState
from ctsd.feeds.indexing import Indexing
from ctsd.feeds.indicators import MAX_COUNTED, Indicators
from ctsd.feeds.job import lock_builds, look_of
from ctsd.feeds.key_store import COMBINED, key_label, source_label
from ctsd.feeds.list_links import link_lists
from ctsd.feeds.own_file import OwnFiles
from ctsd.feeds.screener import Screener
from ctsd.feeds.screening import Screening
from ctsd.feeds.some_feeds import Sharing
from ctsd.feeds.standing import KeptFeed, Overview, Stands, read_states, troubles_of
from ctsd.feeds.updates import Updates
from ctsd.interfaces.feeds import IFeeds
from ctsd.interfaces.threads import InThread
from ctsd.model import JSON, Artifact
from ctsd.records import Derived, FeedMatches, Indexed, LookupLimits

#: How often it is looked for new copies, at files of ours, at what other processes have built, and
#: at ages.
LOOK_SECS: Final = 2.0


@implementer(IFeeds)
class Feeds(Stands, Service):
    """
    The feeds that are on. Who searches gets what is in the index that was built last, without the
    feeds that are too old. Of all processes that share the directory, one builds at a time.
    """

    _log = Logger()

    def __init__(
        self,
        *,
        descriptions: Sequence[Description],
        directory: Path,
        list_links: Path,
        screener: Screener,
        downloads: Downloads,
        make_updates: Callable[[Callable[[Description, Copies, Copy], object]], Updates] | None,
        children: Children,
        clock: IReactorTime,
        in_thread: InThread,
        now: Callable[[], float],
        limits: LookupLimits = LookupLimits(),  # noqa: B008 - it is frozen
        max_counted: int = MAX_COUNTED,
        lists_trouble: Callable[[], str] = str,
    ) -> None:
        """
        :param descriptions: of the feeds and warninglists that are on.
        :param directory: of the index.
        :param list_links: where the downloaded warninglists are found; see L{link_lists}.
        :param screener: says what is no finding.
        :param make_updates: makes what keeps feeds current, see L{Updates}; None: what is on the
            disk is searched, and nothing new is brought.
        :param now: POSIX seconds.
        :param limits: see L{IFeeds}.
        :param max_counted: see L{Indicators}.
        :param lists_trouble: what is wrong with files of warninglists.
        """
        self.limits = limits
        self._lists_trouble = lists_trouble
        kept = {one.name: KeptFeed(one, downloads.copies(one.name)) for one in descriptions}
        self._feeds = {
            name: one for name, one in kept.items() if not one.description.is_warninglist
        }
        self._lists = {
            name: one
            for name, one in kept.items()
            if one.description.is_warninglist and one.description.provider.url
        }
        self._list_links = list_links
        self._linked: dict[str, Path] | None = None
        self._screener = screener
        self._directory = directory
        self._own_files = OwnFiles(downloads=downloads, in_thread=in_thread, now=now)
        self._updates = None if make_updates is None else make_updates(self._taken)
        self._clock = clock
        self._in_thread = in_thread
        self._now = now
        self._indexing = Indexing(
            directory=directory,
            label=source_label(),
            children=children,
            clock=clock,
            in_thread=in_thread,
            troubled=self._troubled,
        )
        self._indicators = Indicators(
            directory=directory,
            in_thread=in_thread,
            now=now,
            label=key_label(),
            is_shared_host=screener.is_shared_host,
            max_counted=max_counted,
        )
        self._opened = ""
        self._started = False
        self._loop = LoopingCall(self._look)
        self._loop.clock = clock
        self._looking: Deferred[None] | None = None
        self._is_looking = self._is_wanted = False
        self._stand()
        self._sharing = Sharing(self)

    # -- for searches: see IFeeds

    def find(
        self,
        *,
        artifact: Artifact,
        derived: Iterable[Derived] = (),
        limit: int,
        left_out: Callable[[str, str, str], object],
        hidden: Container[str] | None = None,
    ) -> tuple[FeedMatches, ...]:
        """
        See L{IFeeds}.

        :param hidden: the names of feeds that are left out, instead of those that are too old.
        """
        if not self.running:
            # Scans that began before the configuration was read again may still ask us.
            raise SearchLater(LOOK_SECS, "the feeds are being read again")
        if not self._indicators.feeds:
            return ()
        screening: Screening | None = None

        def wanted(feed: str, record: Indexed) -> bool:
            # Made for what is found alone: most searches find nothing.
            nonlocal screening
            screening = screening or self._screener.screening()
            if screening.wanted(feed, record):
                return True
            last = screening.suppressed.pop()
            left_out(feed, record.type, last.by)
            return False

        return self._indicators.find(
            artifact=artifact,
            derived=derived,
            limit=limit,
            wanted=wanted,
            hidden=self._overview.hidden if hidden is None else hidden,
        )

    def beside(self, *, asked: frozenset[str]) -> IFeeds:
        """See L{IFeeds}."""
        return self._sharing.beside(asked)

    def alone(self, *, feed: str, searcher: str) -> IFeeds:
        """See L{Sharing.alone}."""
        return self._sharing.alone(feed, searcher)

    @property
    def overview(self) -> Overview:
        """How all of them stand."""
        return self._overview

    def has_nothing(self, *, type: str, value: JSON) -> bool:
        """See L{IFeeds}."""
        if self._overview.away or not self.running:
            return False
        return self._indicators.has_nothing(type=type, value=value)

    def mark(self, *, feed: str, record: Indexed) -> str:
        """See L{IFeeds}."""
        return self._screener.screening().mark(feed, record)

    def trouble(self) -> str:
        """What is wrong with feeds and warninglists."""
        feeds = troubles_of((*self._overview.feeds, *self._overview.lists))
        return "; ".join(filter(None, (feeds, self._lists_trouble())))

    # -- running

    def startService(self) -> None:
        """Serve what is there, and begin to look."""
        super().startService()
        if self._updates is not None:
            self._updates.replace(
                [feed.description for feed in (*self._feeds.values(), *self._lists.values())]
            )
        self._loop.start(LOOK_SECS).addErrback(self._fault)

    def stopService(self) -> Deferred[None]:
        """Give up what runs; fires when nothing is mapped any more."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self._loop.running:
            self._loop.stop()
        if self._updates is not None and self._updates.running:
            await self._updates.stopService()
        if self._looking is not None:
            looking = self._looking
            looking.cancel()
            await looking
        await self._indicators.close()

    def _look(self) -> Deferred[None] | None:
        # One look at a time, however long a build takes.
        self._is_wanted = True
        if self._is_looking:
            return None
        self._looking = looking = Deferred.fromCoroutine(self._look_on())
        return looking.addErrback(self._fault)

    async def _look_on(self) -> None:
        self._is_looking = True
        try:
            while self._is_wanted and self.running:
                self._is_wanted = False
                await self._look_at_all()
        finally:
            self._is_looking = False

    def _fault(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self._log.failure("A fault while looking after the index of feeds", failure)

    def _taken(self, description: Description, copies: Copies, copy: Copy) -> None:
        """A new copy is there: look at once."""
        if self.running:
            self._look()

    async def _look_at_all(self) -> None:
        feeds = [*self._feeds.values(), *self._lists.values()]
        for feed, found in zip(feeds, await self._in_thread(read_states, feeds), strict=True):
            self._read(feed, found)
        await self._link()
        if not self._started:
            await self._start()
        await self._swap()
        if self._updates is not None:
            await self._bring()
        # What is indexed now, which may take long, is on its way.
        self._stand()
        await self._indexing.catch_up(
            self._feeds, loaded=lambda: self._indicators.feeds, swap=self._swap
        )
        self._stand()

    def _read(self, feed: KeptFeed, found: FeedState | BadState | None) -> None:
        """What stands in a feed's directory."""
        if isinstance(found, BadState):
            if feed.misread != str(found):
                self._log.error("Feed {name}: {why}", name=feed.description.name, why=str(found))
            feed.misread = str(found)
        elif found is not None:
            feed.state, feed.misread = found, ""

    async def _start(self) -> None:
        """Serve what earlier starts have left. Another process may be building just now."""
        await self._in_thread(self._directory.mkdir, mode=0o700, parents=True, exist_ok=True)
        turn = await self._in_thread(lock_builds, self._directory)
        if turn is not None:
            try:
                self._opened = await self._in_thread(look_of, self._directory / COMBINED)
                await self._indicators.start()
            finally:
                os.close(turn)
        self._started = True
        self._stand()
        if self._updates is not None and self.running:
            self._updates.startService()

    async def _swap(self) -> None:
        """Serve what has been built since, here or by another process."""
        look = await self._in_thread(look_of, self._directory / COMBINED)
        if not look or look == self._opened:
            return
        self._opened = look
        try:
            await self._indicators.swap()
        except (BadIndex, OSError) as error:
            self._log.error("The new index of feeds is left out: {error}", error=error)
        self._stand()

    async def _bring(self) -> None:
        """Take files of ours that have changed."""
        for feed in self._feeds.values():
            trouble = await self._own_files.look(feed)
            if trouble is not None:
                self._troubled(feed, trouble)

    async def _link(self) -> None:
        """Let the newest copies of warninglists be found."""
        copies = {
            name: feed.copies.path(feed.copy)
            for name, feed in self._lists.items()
            if feed.copy is not None
        }
        if copies != self._linked:
            try:
                await self._in_thread(link_lists, self._list_links, copies)
            except OSError as error:
                self._log.error("The warninglists can't be linked: {why}", why=error.strerror)
                return
            self._linked = copies

    def _troubled(self, feed: KeptFeed, trouble: str) -> None:
        """Note what is wrong with a feed, and say so once."""
        if trouble and trouble != feed.trouble:
            self._log.error("Feed {name}: {trouble}", name=feed.description.name, trouble=trouble)
        feed.trouble = trouble

    def _stand(self) -> None:
        """Find out how each feed stands now."""
        self._overview = Overview.of(
            feeds=self._feeds,
            lists=self._lists,
            loaded=self._indicators.feeds,
            now=self._now(),
            started=self._started,
        )
