"""
All feeds that are on: kept current, indexed, searched, and how each of them stands.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ctsd.feeds.children import Children
from ctsd.feeds.contents import is_quick, within
from ctsd.feeds.copies import BadState, Busy, Copies, Copy, FeedState
from ctsd.feeds.descriptions import Description
from ctsd.feeds.download import Downloads
from ctsd.feeds.index import BadIndex
from ctsd.feeds.indicators import Indicators
from ctsd.feeds.job import BuildFailed, InThread, Refused, lock_builds, look_of
from ctsd.feeds.key_store import COMBINED, key_label
from ctsd.feeds.reading import Reading
from ctsd.feeds.standing import (
    KeptFeed,
    Standing,
    day_of,
    described,
    read_states,
    standing_of,
    troubles_of,
)
from ctsd.feeds.updates import Updates
from ctsd.interfaces import IFeeds
from ctsd.model import Artifact
from ctsd.records import Derived, FeedMatches

#: How often it is looked for new copies, at files of ours, at what other processes have built, and
#: at ages.
LOOK_SECS: Final = 2.0

#: When a search that lacked feeds is made again: while one of them is on its way, and else.
SOON_SECS: Final = 5.0
LATER_SECS: Final = 60.0

#: How long after an index could not be built it is tried again.
RETRY_SECS: Final = 60.0

#: A file of ours that has changed is taken when it has kept still for so long.
STILL_SECS: Final = 2.0


@implementer(IFeeds)
class Feeds(Service):
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
        downloads: Downloads,
        make_updates: Callable[[Callable[[Description, Copies, Copy], object]], Updates] | None,
        children: Children,
        clock: IReactorTime,
        in_thread: InThread,
        now: Callable[[], float],
    ) -> None:
        """
        :param descriptions: of the feeds that are on.
        :param directory: of the index.
        :param make_updates: makes what keeps feeds current, see L{Updates}; None: what is on the
            disk is searched, and nothing changes there.
        :param now: POSIX seconds.
        """
        self._feeds = {one.name: KeptFeed(one, downloads.copies(one.name)) for one in descriptions}
        self._directory = directory
        self._downloads = downloads
        self._updates = None if make_updates is None else make_updates(self._taken)
        self._children = children
        self._clock = clock
        self._in_thread = in_thread
        self._now = now
        self._label = key_label()
        self._indicators = Indicators(
            directory=directory, in_thread=in_thread, now=now, label=self._label
        )
        self._opened = ""
        self._started = False
        self._loop = LoopingCall(self._look)
        self._loop.clock = clock
        self._looking: Deferred[None] | None = None
        self._standings: tuple[Standing, ...] = ()
        self._hidden: frozenset[str] = frozenset()
        self._stale: Mapping[str, str] = {}
        self._away: tuple[str, ...] = ()
        self._retry_secs = SOON_SECS
        self._stand()

    # -- for searches: see IFeeds

    def find(
        self, *, artifact: Artifact, derived: Iterable[Derived] = (), limit: int
    ) -> tuple[FeedMatches, ...]:
        """See L{IFeeds}."""
        if not self._indicators.feeds:
            return ()
        return self._indicators.find(
            artifact=artifact, derived=derived, limit=limit, hidden=self._hidden
        )

    def within(self, *, artifact: Artifact) -> Deferred[tuple[Derived, ...]]:
        """See L{IFeeds}."""
        if is_quick(artifact):
            return succeed(within(artifact).derived)
        return self._in_thread(lambda: within(artifact).derived)

    @property
    def stale(self) -> Mapping[str, str]:
        """See L{IFeeds}."""
        return self._stale

    @property
    def away(self) -> tuple[str, ...]:
        """See L{IFeeds}."""
        return self._away

    @property
    def retry_secs(self) -> float:
        """See L{IFeeds}."""
        return self._retry_secs

    def trouble(self) -> str:
        """See L{IFeeds}."""
        return troubles_of(self._standings)

    def loading(self) -> bool:
        """See L{IFeeds}."""
        return any(one.loading for one in self._standings)

    def describe(self) -> str:
        """See L{IFeeds}."""
        return described(self._standings)

    def standings(self) -> tuple[Standing, ...]:
        """How each feed stands, by name."""
        return self._standings

    # -- running

    def startService(self) -> None:
        """Serve what is there, and begin to look."""
        super().startService()
        if self._updates is not None:
            self._updates.replace([feed.description for feed in self._feeds.values()])
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

    def _look(self) -> Deferred[None]:
        self._looking = looking = Deferred.fromCoroutine(self._look_at_all())
        return looking.addErrback(self._fault)

    def _fault(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self._log.failure("A fault while looking after the index of feeds", failure)

    def _taken(self, description: Description, copies: Copies, copy: Copy) -> None:
        """A new copy is there: look at once."""
        if self._loop.running and self._looking is not None and self._looking.called:
            self._loop.reset()
            self._look()

    async def _look_at_all(self) -> None:
        feeds = list(self._feeds.values())
        for feed, found in zip(feeds, await self._in_thread(read_states, feeds), strict=True):
            self._read(feed, found)
        if not self._started:
            await self._start()
        await self._swap()
        if self._updates is not None:
            for feed in feeds:
                if feed.description.provider.file is not None:
                    await self._bring(feed, feed.description.provider.file)
            if any(map(self._is_behind, feeds)):
                await self._index()
        self._stand()

    def _read(self, feed: KeptFeed, found: FeedState | BadState | None) -> None:
        """What stands in a feed's directory."""
        if isinstance(found, BadState):
            self._troubled(feed, str(found))
        elif found is not None:
            feed.state = found

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

    async def _bring(self, feed: KeptFeed, file: Path) -> None:
        """Take a file of ours when it has changed, and kept still."""
        try:
            found = await self._in_thread(file.stat)
        except OSError as error:
            self._troubled(feed, f"{file} can't be read: {error.strerror}")
            return
        look = f"{found.st_ino} {found.st_size} {found.st_mtime_ns}"
        is_still = look == feed.seen or self._now() - found.st_mtime >= STILL_SECS
        feed.seen = look
        if look == feed.brought or not is_still:
            return
        try:
            with file.open("rb") as opened:
                state = await self._downloads.bring(feed.description, opened, name=file.name)
        except Busy:
            return
        except (Refused, BuildFailed, BadState) as error:
            self._troubled(feed, f"{file} is not taken: {error}")
            return
        except OSError as error:
            self._troubled(feed, f"{file} is not taken: {error.strerror}")
            return
        feed.brought, feed.state = look, state
        self._troubled(feed, state.error and f"{file}: {state.error}")

    # -- indexing

    def _is_behind(self, feed: KeptFeed) -> bool:
        """Whether the newest copy of a feed is not in the index, and can be tried."""
        if feed.copy is None or self._clock.seconds() < feed.not_before:
            return False
        about = self._indicators.feeds.get(feed.description.name)
        return about is None or about.source != feed.source(self._label)

    async def _index(self) -> None:
        """Index what is behind, unless another process is at it: then our turn comes."""
        turn = await self._in_thread(lock_builds, self._directory)
        if turn is None:
            return
        try:
            await self._swap()
            behind = [feed for feed in self._feeds.values() if self._is_behind(feed)]
            if behind:
                await self._build(behind)
                await self._swap()
        finally:
            os.close(turn)

    async def _build(self, behind: Collection[KeptFeed]) -> None:
        works = {
            feed.description.name: {
                "source": feed.source(self._label),
                "reading": Reading.of(feed.description, feed.copies.path(feed.copy)).as_json(),
            }
            for feed in behind
            if feed.copy is not None
        }
        started = self._clock.seconds()
        given = {
            "directory": str(self._directory),
            "names": sorted(self._feeds),
            "works": works,
        }
        try:
            built: dict[str, Any] = await self._children.run("ctsd.feeds.feed_work", given)
        except (Refused, BuildFailed) as error:
            built = {name: {"failed": str(error)} for name in works}
        for feed in behind:
            said = built.get(feed.description.name, {"failed": "it was left out"})
            if "failed" in said:
                feed.not_before = self._clock.seconds() + RETRY_SECS
                self._troubled(feed, f"its copy could not be indexed: {said['failed']}")
                continue
            self._troubled(feed, "")
            self._log.info(
                "Feed {name}: {records} records indexed, after {secs:.1f} s",
                name=feed.description.name,
                records=said["records"],
                secs=self._clock.seconds() - started,
            )

    def _troubled(self, feed: KeptFeed, trouble: str) -> None:
        """Note what is wrong with a feed, and say so once."""
        if trouble and trouble != feed.trouble:
            self._log.error("Feed {name}: {trouble}", name=feed.description.name, trouble=trouble)
        feed.trouble = trouble

    # -- how they stand

    def _stand(self) -> None:
        """Find out how each feed stands now."""
        loaded = self._indicators.feeds
        self._standings = tuple(
            standing_of(self._feeds[name], loaded.get(name), now=self._now(), started=self._started)
            for name in sorted(self._feeds)
        )
        self._hidden = frozenset(
            {one.name for one in self._standings if one.away} | (loaded.keys() - self._feeds)
        )
        self._stale = MappingProxyType(
            {one.name: day_of(one.dated) for one in self._standings if one.stale and not one.away}
        )
        away = [one for one in self._standings if one.away and one.required]
        self._away = tuple(one.title for one in away)
        is_coming = any(not one.trouble and (one.loading or not one.dated) for one in away)
        self._retry_secs = SOON_SECS if is_coming else LATER_SECS
