"""
Has the newest copies of feeds indexed, in a child process.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ctsd.feeds.children import Children
from ctsd.feeds.descriptions import Description
from ctsd.feeds.feed_file import FeedAbout
from ctsd.feeds.feed_state import Copy
from ctsd.feeds.job import BuildFailed, Refused, lock_builds
from ctsd.feeds.key_store import source_label
from ctsd.feeds.providers import Provider
from ctsd.feeds.reading import Reading, made_of
from ctsd.feeds.standing import KeptFeed
from ctsd.feeds.told import Told, read_told, write_told
from ctsd.interfaces.threads import InThread

#: How long after an index could not be built it is tried again.
RETRY_SECS: Final = 60.0


class Indexing:
    """
    Indexes what is behind, all of it in one child process. Of all processes that share the
    directory one does so at a time; the others find what it has built.
    """

    _log = Logger()

    def __init__(
        self,
        *,
        directory: Path,
        label: str,
        children: Children,
        clock: IReactorTime,
        in_thread: InThread,
        troubled: Callable[[KeptFeed, str], object],
    ) -> None:
        """
        :param directory: of the index.
        :param label: L{ctsd.feeds.key_store.source_label}.
        :param troubled: told what is wrong with a feed; empty when nothing is any more.
        """
        self._directory = directory
        self._label = label
        self._children = children
        self._clock = clock
        self._in_thread = in_thread
        self._troubled = troubled

    async def catch_up(
        self,
        feeds: Mapping[str, KeptFeed],
        *,
        loaded: Callable[[], Mapping[str, FeedAbout]],
        swap: Callable[[], Awaitable[None]],
    ) -> None:
        """
        Index what is behind, unless another process is at it: then our turn comes.

        :param feeds: all that are on, by name.
        :param loaded: what is searched now.
        :param swap: has what is in the directory searched.
        """
        if not self._behind(feeds, loaded()):
            return
        try:
            turn = await self._in_thread(_turn, self._directory)
        except OSError as error:
            for feed in self._behind(feeds, loaded()):
                self._failed(feed, f"{self._directory}: {error.strerror}")
            return
        if turn is None:
            return
        try:
            await swap()
            behind = self._behind(feeds, loaded())
            if behind:
                await self._build(behind, sorted(feeds))
                await swap()
        finally:
            os.close(turn)

    def _behind(
        self, feeds: Mapping[str, KeptFeed], loaded: Mapping[str, FeedAbout]
    ) -> list[KeptFeed]:
        """The feeds whose newest copy is not searched, and that can be tried."""
        now = self._clock.seconds()
        return [
            feed
            for name, feed in feeds.items()
            if feed.copy is not None
            and now >= feed.not_before
            and feed.source(self._label)
            not in (feed.unfit, loaded[name].source if name in loaded else "")
        ]

    async def _build(self, behind: Collection[KeptFeed], names: list[str]) -> None:
        works: dict[str, dict[str, Any]] = {
            feed.description.name: {
                "source": feed.source(self._label),
                "made": str(feed.copies.index(feed.copy)),
                "reading": Reading.of(feed.description, feed.copies.path(feed.copy)).as_json(),
                **_guards(feed.description.provider, feed.copy),
            }
            for feed in behind
            if feed.copy is not None
        }
        started = self._clock.seconds()
        given = {"directory": str(self._directory), "names": names, "works": works}
        try:
            await self._check_code()
            built: dict[str, Any] = await self._children.run("ctsd.feeds.feed_work", given)
        except (Refused, BuildFailed) as error:
            built = {name: {"failed": str(error)} for name in works}
        for feed in behind:
            said = built.get(feed.description.name, {"failed": "it was left out"})
            if "records" not in said:
                if "refused" in said:
                    feed.unfit = works[feed.description.name]["source"]
                trouble = self._failed(feed, said.get("refused") or said["failed"])
                await self._tell(feed, Told(trouble, works[feed.description.name]["source"]))
                continue
            self._troubled(feed, "")
            await self._tell(feed, Told())
            self._log.info(
                "Feed {name}: {records} records indexed, after {secs:.1f} s",
                name=feed.description.name,
                records=said["records"],
                secs=self._clock.seconds() - started,
            )

    def _failed(self, feed: KeptFeed, why: str) -> str:
        """
        Note that a feed could not be indexed, and leave it alone for a while.

        :return: what is told of it.
        """
        feed.not_before = self._clock.seconds() + RETRY_SECS
        trouble = f"its copy could not be indexed: {why}"
        self._troubled(feed, trouble)
        return trouble

    async def _check_code(self) -> None:
        """
        Children run the code that is there now. What another version writes is not searched by
        this one, and the index before would be gone.

        :raises BuildFailed: it is another one than ours.
        """
        try:
            label = await self._in_thread(source_label)
        except OSError:
            label = ""
        if label != self._label:
            raise BuildFailed("another version of ctsd was installed since this one was started")

    async def _tell(self, feed: KeptFeed, told: Told) -> None:
        """Keep what is wrong with a feed, for who looks from another process (L{trouble_of})."""
        try:
            await self._in_thread(write_told, self._directory / feed.description.name, told)
        except OSError as error:
            self._log.warn("What is told of feeds can't be kept: {why}", why=error.strerror)


def _turn(directory: Path) -> int | None:
    """Be the only one who builds; see L{lock_builds}. The directory may be gone."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return lock_builds(directory)


def trouble_of(directory: Path, description: Description, copy: Copy | None) -> str:
    """
    Why the newest copy of a feed is not searched, as a daemon has said last; empty when it is, or
    nobody has tried. Blocks.

    :param directory: of the index.
    """
    told = read_told(directory / description.name)
    if not told.trouble or copy is None:
        return ""
    source = made_of(description, sha256=copy.sha256, label=source_label())
    return told.trouble if told.source == source else ""


def _guards(provider: Provider, copy: Copy) -> dict[str, float]:
    """What has to be in an index: as much as a download has to have, or as an accepted copy had."""
    return {
        "least": min(provider.min_rows, copy.records),
        "most_refused": max(provider.max_refused_share, copy.refused / max(copy.rows, 1)),
    }
